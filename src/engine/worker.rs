//! The engine's thread: it loads, uses and drops the model, and turns requests into steps and steps into tokens.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tokio::sync::oneshot;

use super::handle::Shared;
use super::scheduler::{self, Room, Work};
use super::sequence::Sequence;
use super::status::Health;
use super::step::{Held, ModelRunner, Outcome, Outputs, Slot, Step};
use crate::error::{Error, Overload, Unavailable};

/// Loads the model and serves the queue until every handle is gone.
pub(super) fn main(
    load: impl FnOnce() -> Result<Box<dyn ModelRunner>, String>,
    loaded: oneshot::Sender<Result<(), String>>,
    shared: &Shared,
) {
    let _dead = MarkDead(shared);
    let outcome = catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|panic| Err(panic_text(panic.as_ref())));
    let (runner, outcome) = match outcome {
        Ok(runner) => (Some(runner), Ok(())),
        Err(reason) => (None, Err(reason)),
    };
    if runner.is_some() {
        shared.status.finish_loading();
    }
    let _ = loaded.send(outcome);
    if let Some(runner) = runner {
        Worker::new(runner, shared).serve();
    }
}

/// Tells everybody when the thread ends, however it ends.
struct MarkDead<'a>(&'a Shared);

impl Drop for MarkDead<'_> {
    fn drop(&mut self) {
        self.0.status.set_health(Health::Unavailable(Unavailable::Unhealthy));
        self.0.queue.abandon();
    }
}

struct Worker<'a> {
    runner: Box<dyn ModelRunner>,
    shared: &'a Shared,
    /// In order of admission.
    running: Vec<Running>,
    free_slots: Vec<Slot>,
    /// Slots whose memory the runner may still hold.
    released: Vec<Slot>,
}

struct Running {
    sequence: Sequence,
    slot: Slot,
    since: Instant,
}

impl<'a> Worker<'a> {
    fn new(runner: Box<dyn ModelRunner>, shared: &'a Shared) -> Worker<'a> {
        let free_slots = all_slots(shared.limits.max_batch_size);
        Worker { runner, shared, running: Vec::new(), free_slots, released: Vec::new() }
    }

    fn serve(&mut self) {
        loop {
            if self.running.is_empty() && self.shared.queue.is_empty() {
                self.rest();
                self.shared.status.set_idle();
                if !self.shared.queue.wait() {
                    return;
                }
            }
            self.shared.status.beat();
            self.end_cancelled();
            self.end_late();
            self.admit();
            self.step();
        }
    }

    fn end_cancelled(&mut self) {
        self.end_where(|running| running.sequence.is_cancelled());
    }

    /// A sequence that decodes has met its deadline with a token; one with a long prompt may meet it here.
    fn end_late(&mut self) {
        let now = Instant::now();
        self.end_where(|running| {
            let is_late = running.sequence.is_late(now);
            if is_late {
                running.sequence.end_late();
            }
            is_late
        });
    }

    /// Starts whoever comes next, as long as there is room.
    fn admit(&mut self) {
        loop {
            let admitted = self.shared.queue.take(self.room());
            if admitted.is_empty() {
                break;
            }
            for sequence in admitted {
                self.start(sequence);
            }
        }
        let is_full = self.free_slots.is_empty() || !self.shared.queue.is_empty();
        let num_slots = if is_full { self.running.len() } else { self.shared.limits.max_batch_size };
        self.shared.status.set_slots(num_slots);
    }

    fn start(&mut self, sequence: Sequence) {
        let now = Instant::now();
        if sequence.is_late(now) {
            return sequence.fail(self.shared.overloaded(Overload::DeadlinePassed));
        }
        let slot = self.free_slots.pop().expect("Invariant: no more are admitted than there are free slots");
        self.running.push(Running { sequence, slot, since: now });
        self.publish_running(); // before its client can ask
        if let Some(started) = self.running.last_mut() {
            started.sequence.start(now);
        }
    }

    fn room(&self) -> Room {
        let num_kv_tokens = self.shared.limits.max_kv_tokens.saturating_sub(self.num_reserved_tokens());
        Room { num_slots: self.free_slots.len(), num_kv_tokens }
    }

    /// Tokens that the running sequences may grow to.
    fn num_reserved_tokens(&self) -> usize {
        self.running.iter().map(|running| running.sequence.num_promised()).sum()
    }

    fn publish_running(&self) {
        self.shared.status.set_running(self.running.len(), self.num_reserved_tokens());
    }

    /// One forward pass over the sequences that the scheduler chose.
    fn step(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let chunk = self.shared.limits.prefill_chunk;
        let work: Vec<Work> = self.running.iter().map(|running| running.sequence.work(chunk)).collect();
        let shares = scheduler::share(&work, chunk);
        let chosen = self.running.iter().zip(&shares).filter(|(_, share)| **share > 0);
        let rows = chosen.map(|(running, share)| running.sequence.row(running.slot, *share)).collect();
        let step = Step { released: std::mem::take(&mut self.released), rows };
        match run_caught(self.runner.as_mut(), &step) {
            Ok(outputs) => self.deliver(&shares, outputs),
            Err(message) => self.fail_step(&shares, &message),
        }
    }

    fn deliver(&mut self, shares: &[usize], outputs: Outputs) {
        let (mut outcomes, mut scores) = (outputs.rows.into_iter(), outputs.scores.into_iter());
        let mut ended = vec![false; self.running.len()];
        for (index, (running, &share)) in self.running.iter_mut().zip(shares).enumerate().filter(|(_, (_, s))| **s > 0)
        {
            running.sequence.advance(share, scores.next().unwrap_or_default());
            ended[index] = match outcomes.next() {
                Some(Outcome::Prefilled) => running.sequence.accept_prefill(),
                Some(Outcome::Sampled(sampled)) => running.sequence.accept(sampled),
                Some(Outcome::Failed(message)) => {
                    running.sequence.fail(Error::Generation { message, deterministic: true });
                    true
                }
                None => {
                    let message = "the model returned no result for this sequence".to_owned();
                    running.sequence.fail(Error::Generation { message, deterministic: false });
                    true
                }
            };
        }
        let mut ended = ended.into_iter();
        self.end_where(|_| ended.next().unwrap_or(false));
    }

    /// A failure inside the model ends the sequences of that step; what their slots hold is unknown.
    fn fail_step(&mut self, shares: &[usize], message: &str) {
        tracing::error!(reason = message, "a step failed");
        for (running, _) in self.running.iter().zip(shares).filter(|(_, share)| **share > 0) {
            running.sequence.fail(Error::Generation { message: message.to_owned(), deterministic: false });
        }
        let mut shares = shares.iter();
        self.end_where(|_| shares.next().is_some_and(|share| *share > 0));
    }

    fn end_where(&mut self, mut has_ended: impl FnMut(&Running) -> bool) {
        let (free_slots, released, status) = (&mut self.free_slots, &mut self.released, &self.shared.status);
        self.running.retain(|running| {
            let ended = has_ended(running);
            if ended {
                free_slots.push(running.slot);
                released.push(running.slot);
                status.record_sequence(running.since.elapsed());
            }
            !ended
        });
        self.publish_running();
    }

    /// Nobody is there: whatever is still held is held for nobody.
    fn rest(&mut self) {
        self.free_memory();
        let held = self.runner.held();
        let lost_slots = self.shared.limits.max_batch_size - self.free_slots.len();
        if held != Held::default() || lost_slots > 0 {
            self.free_leak(held, lost_slots);
        }
        self.shared.status.record_check();
    }

    fn free_leak(&mut self, held: Held, lost_slots: usize) {
        self.shared.status.record_leak();
        let Held { sequences, kv_tokens, pictures } = held;
        tracing::error!(
            sequences,
            kv_tokens,
            pictures,
            lost_slots,
            "the engine is idle and yet memory is held; it is freed"
        );
        let num_slots = self.shared.limits.max_batch_size;
        self.free_slots = all_slots(num_slots);
        self.released = all_slots(num_slots);
        self.free_memory();
    }

    /// Lets the runner free the slots of ended sequences when no step will come to do so.
    fn free_memory(&mut self) {
        if self.released.is_empty() {
            return;
        }
        let step = Step { released: std::mem::take(&mut self.released), rows: Vec::new() };
        if let Err(message) = run_caught(self.runner.as_mut(), &step) {
            tracing::error!(reason = message, "freeing memory failed");
        }
    }
}

/// The first one last: slots are taken from the end.
fn all_slots(num_slots: usize) -> Vec<Slot> {
    (0..num_slots).rev().map(Slot).collect()
}

/// Runs a step; a panic of the model (a libtorch failure is one) becomes its text.
fn run_caught(runner: &mut dyn ModelRunner, step: &Step) -> Result<Outputs, String> {
    // Unwind safety: after a panic only slots that begin anew are used again (`Row::start` is 0).
    catch_unwind(AssertUnwindSafe(|| runner.run(step))).map_err(|panic| panic_text(panic.as_ref()))
}

/// The first line of a panic's message: libtorch's own carry a C++ backtrace behind it.
fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("the model panicked");
    text.lines().next().unwrap_or(text).to_owned()
}

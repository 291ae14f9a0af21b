//! The engine's thread: it loads, uses and drops the model, and turns requests into steps and steps into tokens.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use tokio::sync::oneshot;

use super::handle::{EngineLimits, Health, Status};
use super::scheduler;
use super::sequence::Sequence;
use super::step::{ModelRunner, Outcome, Outputs, Slot, Step};
use crate::error::{Error, Unavailable};

/// Loads the model and serves `submissions` until every handle is gone.
pub(super) fn main(
    load: impl FnOnce() -> Result<Box<dyn ModelRunner>, String>,
    loaded: oneshot::Sender<Result<(), String>>,
    submissions: Receiver<Sequence>,
    limits: &EngineLimits,
    status: &Status,
) {
    let _dead = MarkDead(status);
    let outcome = catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|panic| Err(panic_text(panic.as_ref())));
    let (runner, outcome) = match outcome {
        Ok(runner) => (Some(runner), Ok(())),
        Err(reason) => (None, Err(reason)),
    };
    if runner.is_some() {
        status.finish_loading();
    }
    let _ = loaded.send(outcome);
    if let Some(runner) = runner {
        Worker::new(runner, limits, status).serve(&submissions);
    }
}

/// Tells everybody when the thread ends, however it ends.
struct MarkDead<'a>(&'a Status);

impl Drop for MarkDead<'_> {
    fn drop(&mut self) {
        self.0.set_health(Health::Unavailable(Unavailable::Unhealthy));
    }
}

struct Worker<'a> {
    runner: Box<dyn ModelRunner>,
    limits: &'a EngineLimits,
    status: &'a Status,
    /// In order of arrival.
    waiting: VecDeque<Sequence>,
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
    fn new(runner: Box<dyn ModelRunner>, limits: &'a EngineLimits, status: &'a Status) -> Worker<'a> {
        let free_slots = (0..limits.max_batch_size).rev().map(Slot).collect();
        Worker {
            runner,
            limits,
            status,
            waiting: VecDeque::new(),
            running: Vec::new(),
            free_slots,
            released: Vec::new(),
        }
    }

    fn serve(&mut self, submissions: &Receiver<Sequence>) {
        loop {
            if self.is_idle() {
                self.free_memory();
                let Ok(sequence) = submissions.recv() else { return };
                self.waiting.push_back(sequence);
            }
            self.waiting.extend(submissions.try_iter());
            self.drop_cancelled();
            self.admit();
            self.step();
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    fn drop_cancelled(&mut self) {
        self.waiting.retain(|sequence| !sequence.is_cancelled());
        self.end_where(|running| running.sequence.is_cancelled());
    }

    fn admit(&mut self) {
        while let Some(&slot) = self.free_slots.last() {
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            self.free_slots.pop();
            sequence.leave_queue();
            self.running.push(Running { sequence, slot, since: Instant::now() });
        }
        self.status.num_running.store(self.running.len(), Ordering::Relaxed);
    }

    /// One forward pass over the sequences that the scheduler chose.
    fn step(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let to_prefill: Vec<usize> = self.running.iter().map(|running| running.sequence.num_to_prefill()).collect();
        let shares = scheduler::share(&to_prefill, self.limits.prefill_chunk);
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
        let (free_slots, released, status) = (&mut self.free_slots, &mut self.released, self.status);
        self.running.retain(|running| {
            let ended = has_ended(running);
            if ended {
                free_slots.push(running.slot);
                released.push(running.slot);
                status.record_sequence(running.since.elapsed());
            }
            !ended
        });
        self.status.num_running.store(self.running.len(), Ordering::Relaxed);
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

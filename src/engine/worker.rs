//! A thread of the engine: it loads, uses and drops a replica of the model, and turns requests into steps and steps into
//! tokens.

use std::time::Instant;

use super::failure::{caught, is_device_lost, is_out_of_memory};
use super::handle::Loader;
use super::scheduler::{self, Room, Work};
use super::sequence::Sequence;
use super::shared::Shared;
use super::status::{Health, Status};
use super::step::{Held, ModelRunner, Outcome, Outputs, Row, Seen, Slot, Step};
use crate::error::{Error, Overload, Unavailable};

/// Loads the replica with this index, tells what became of it, and serves the queue until every handle is gone.
pub(super) fn main(replica: usize, load: Loader, tell: impl FnOnce(Result<(), String>), shared: &Shared) {
    let _dead = MarkDead { replica, shared };
    match caught(load).unwrap_or_else(Err) {
        Ok(runner) => {
            shared.replicas[replica].finish_loading();
            tell(Ok(()));
            let mut worker = Worker::new(replica, runner, shared);
            // A panic that gets here is a bug of the worker's own.
            if let Err(reason) = caught(|| worker.serve()).unwrap_or_else(Err) {
                shared.die(reason);
            }
        }
        Err(reason) => tell(Err(reason)),
    }
}

/// Tells everybody when the thread ends, however it ends.
struct MarkDead<'a> {
    replica: usize,
    shared: &'a Shared,
}

impl Drop for MarkDead<'_> {
    fn drop(&mut self) {
        let status = &self.shared.replicas[self.replica];
        status.set_health(Health::Unavailable(Unavailable::Unhealthy));
        status.set_running(0, 0);
        self.shared.queue.leave(self.replica);
    }
}

struct Worker<'a> {
    replica: usize,
    runner: Box<dyn ModelRunner>,
    shared: &'a Shared,
    status: &'a Status,
    /// Sequences that may run at once: as many as there are slots, until the memory turns out to be too small for that.
    max_running: usize,
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
    fn new(replica: usize, runner: Box<dyn ModelRunner>, shared: &'a Shared) -> Worker<'a> {
        let max_running = shared.replica_limits.max_batch_size;
        Worker {
            replica,
            runner,
            shared,
            status: &shared.replicas[replica],
            max_running,
            running: Vec::new(),
            free_slots: all_slots(max_running),
            released: Vec::new(),
        }
    }

    /// Until every handle is gone. The error is why nothing that comes later can be served.
    fn serve(&mut self) -> Result<(), String> {
        loop {
            if self.running.is_empty() && !self.shared.queue.has_one(self.replica, self.room()) {
                self.rest();
                self.status.set_idle();
                if !self.shared.queue.wait(self.replica, self.room()) {
                    return Ok(());
                }
            }
            self.status.beat();
            self.end_cancelled();
            self.end_late();
            self.admit();
            self.step()?;
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
        while let Some(sequence) = self.shared.queue.take(self.replica, self.room()) {
            self.start(sequence);
        }
        let is_full = self.room().num_slots == 0 || !self.shared.queue.is_empty();
        let num_slots = if is_full { self.running.len() } else { self.max_running };
        self.status.set_slots(num_slots);
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
        let num_kv_tokens = self.shared.replica_limits.max_kv_tokens.saturating_sub(self.num_reserved_tokens());
        Room { num_slots: self.max_running.saturating_sub(self.running.len()), num_kv_tokens }
    }

    /// Tokens that the running sequences may grow to.
    fn num_reserved_tokens(&self) -> usize {
        self.running.iter().map(|running| running.sequence.num_promised()).sum()
    }

    fn publish_running(&self) {
        self.status.set_running(self.running.len(), self.num_reserved_tokens());
    }

    /// One forward pass over the sequences that the scheduler chose. The error is why there can be no other.
    fn step(&mut self) -> Result<(), String> {
        if self.running.is_empty() {
            return Ok(());
        }
        let chunk = self.shared.replica_limits.prefill_chunk;
        let work: Vec<Work> = self.running.iter().map(|running| running.sequence.work(chunk)).collect();
        let shares = scheduler::share(&work, chunk);
        let chosen = self.running.iter().zip(&shares).filter(|(_, share)| **share > 0);
        let rows = chosen.map(|(running, share)| running.sequence.row(running.slot, *share)).collect();
        let step = Step { released: std::mem::take(&mut self.released), rows };
        match caught(|| self.runner.run(&step)) {
            Ok(outputs) => {
                if let Some(seen) = outputs.seen {
                    self.tell_seen(&step, seen);
                }
                self.deliver(&shares, outputs);
            }
            Err(message) => {
                self.fail_step(&shares, &message);
                if is_device_lost(&message) {
                    return Err(message);
                }
            }
        }
        Ok(())
    }

    /// Tells the sequences whose pictures were seen in `step`.
    fn tell_seen(&self, step: &Step, seen: Seen) {
        self.status.record_seen(&seen);
        let begins = |row: &Row| row.pictures.iter().any(|part| part.first_embedding == 0);
        for row in step.rows.iter().filter(|row| begins(row)) {
            if let Some(running) = self.running.iter().find(|running| running.slot == row.slot) {
                running.sequence.saw(seen);
            }
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
        if is_out_of_memory(message) {
            self.run_fewer();
        }
        for (running, _) in self.running.iter().zip(shares).filter(|(_, share)| **share > 0) {
            running.sequence.fail(Error::Generation { message: message.to_owned(), deterministic: false });
        }
        let mut shares = shares.iter();
        self.end_where(|_| shares.next().is_some_and(|share| *share > 0));
    }

    /// The memory did not suffice for as many as run: from now on one less does.
    fn run_fewer(&mut self) {
        self.max_running = self.running.len().saturating_sub(1).max(1);
        self.status.set_slots(self.max_running);
        tracing::warn!(
            max_running = self.max_running,
            "the device ran out of memory: fewer sequences run at once until the server is started anew; a smaller \
             --memory, --max-batch-size or --max-model-len keeps it from happening"
        );
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
        self.publish_running();
    }

    /// Nobody is there: whatever is still held is held for nobody.
    fn rest(&mut self) {
        self.free_memory();
        let held = self.runner.held();
        let lost_slots = self.shared.replica_limits.max_batch_size - self.free_slots.len();
        if held != Held::default() || lost_slots > 0 {
            self.free_leak(held, lost_slots);
        }
        self.status.record_check();
    }

    fn free_leak(&mut self, held: Held, lost_slots: usize) {
        self.status.record_leak();
        let Held { sequences, kv_tokens, pictures } = held;
        tracing::error!(
            sequences,
            kv_tokens,
            pictures,
            lost_slots,
            "the engine is idle and yet memory is held; it is freed"
        );
        let num_slots = self.shared.replica_limits.max_batch_size;
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
        if let Err(message) = caught(|| self.runner.run(&step)) {
            tracing::error!(reason = message, "freeing memory failed");
        }
    }
}

/// The first one last: slots are taken from the end.
fn all_slots(num_slots: usize) -> Vec<Slot> {
    (0..num_slots).rev().map(Slot).collect()
}

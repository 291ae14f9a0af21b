//! What one answer costs, kept while it comes, and told to the metrics and to its request's ledger when it is over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Finish, Usage};
use crate::engine::Seen;
use crate::error::Error;
use crate::telemetry::{AnswerEnd, Metrics, Stage};

/// What the answers to one request cost together, for whoever reports of it when it is over. All copies are the same ledger.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Costs>>);

/// Tokens are summed; times are those of the slowest answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Costs {
    pub prompt_tokens: usize,
    pub generated_tokens: usize,
    /// `None` where no answer left the queue.
    pub queue_time: Option<Duration>,
    /// To fetch and prepare all pictures; `None` where there were none.
    pub media_time: Option<Duration>,
    /// From the request's arrival; `None` where there was no token.
    pub first_token: Option<Duration>,
    /// Why the answer ended, or the last of several.
    pub finish: Option<Finish>,
    /// Why an answer did not end well.
    pub failure: Option<Error>,
    /// When each answer did what.
    pub stages: Vec<Stage>,
}

impl Ledger {
    /// What is written so far.
    pub fn costs(&self) -> Costs {
        self.write(|costs| costs.clone())
    }

    /// Pictures were fetched and prepared, from `began` until now.
    pub(super) fn add_media(&self, began: Instant) {
        let ended = Instant::now();
        self.write(|costs| {
            costs.media_time = costs.media_time.max(Some(ended - began));
            costs.stages.push(Stage { name: "media", began, ended });
        });
    }

    /// No code panics while it holds the lock.
    fn write<T>(&self, change: impl FnOnce(&mut Costs) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The clock and the counter of one answer. What it holds is told when it is dropped, so that an answer whose client left is
/// counted as well.
pub(super) struct Account {
    metrics: Metrics,
    ledger: Ledger,
    /// When the request came.
    arrived: Instant,
    /// When the answer was queued.
    submitted: Instant,
    started: Option<Instant>,
    /// When its pictures were seen: a part of the prefill.
    seen: Vec<Stage>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    max_new_tokens: usize,
    usage: Usage,
    finish: Option<Finish>,
    failure: Option<Error>,
}

impl Account {
    /// Of an answer that is queued now.
    pub(super) fn new(
        (metrics, ledger): (Metrics, Ledger),
        arrived: Instant,
        prompt_tokens: usize,
        max_new_tokens: usize,
    ) -> Account {
        Account {
            metrics,
            ledger,
            arrived,
            submitted: Instant::now(),
            started: None,
            seen: Vec::new(),
            first_token: None,
            last_token: None,
            max_new_tokens,
            usage: Usage { prompt_tokens, ..Usage::default() },
            finish: None,
            failure: None,
        }
    }

    /// It left the queue.
    pub(super) fn start(&mut self) {
        self.started = Some(Instant::now());
        self.usage.queue_time = self.submitted.elapsed();
    }

    /// Its pictures, or some of them, went through the vision tower.
    pub(super) fn add_seen(&mut self, seen: &Seen) {
        self.metrics.count_media("see", seen.ended.saturating_duration_since(seen.began));
        self.seen.push(Stage { name: "see", began: seen.began, ended: seen.ended });
    }

    pub(super) fn has_started(&self) -> bool {
        self.started.is_some()
    }

    /// It got on, without a token.
    pub(super) fn tick(&mut self) {
        self.usage.inference_time = self.started.map(|at| at.elapsed()).unwrap_or_default();
    }

    pub(super) fn add_token(&mut self) {
        self.tick();
        self.usage.generated_tokens += 1;
        let now = Instant::now();
        self.first_token = self.first_token.or(Some(now));
        self.last_token = Some(now);
    }

    pub(super) fn finish(&mut self, finish: Finish) {
        self.finish = Some(finish);
    }

    pub(super) fn fail(&mut self, error: &Error) {
        self.failure = Some(error.clone());
    }

    pub(super) fn finished(&self) -> Option<Finish> {
        self.finish
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// What it did when, as far as it came.
    fn stages(&self) -> impl Iterator<Item = Stage> {
        let stage = |name, began: Option<Instant>, ended: Option<Instant>| {
            began.map(|began| Stage { name, began, ended: ended.unwrap_or_else(Instant::now) })
        };
        let queue = stage("queue", Some(self.submitted), self.started);
        let prefill = stage("prefill", self.started, self.first_token);
        let decode = stage("decode", self.first_token, self.last_token);
        [queue, prefill, decode].into_iter().flatten().chain(self.seen.iter().cloned())
    }

    /// Between two tokens, on the mean.
    fn per_token(&self) -> Option<Duration> {
        let gaps = u32::try_from(self.usage.generated_tokens).ok()?.checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some(self.last_token?.saturating_duration_since(self.first_token?) / gaps)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let first_token = self.first_token.map(|at| at.saturating_duration_since(self.arrived));
        let failure = self.failure.take();
        self.ledger.write(|costs| {
            costs.prompt_tokens += self.usage.prompt_tokens;
            costs.generated_tokens += self.usage.generated_tokens;
            costs.queue_time = costs.queue_time.max(self.started.map(|_| self.usage.queue_time));
            costs.first_token = costs.first_token.max(first_token);
            costs.finish = self.finish.or(costs.finish);
            costs.stages.extend(self.stages());
            costs.failure = failure.or(costs.failure.take());
        });
        if self.started.is_some() {
            self.metrics.count_answer(&AnswerEnd {
                prompt_tokens: self.usage.prompt_tokens,
                generated_tokens: self.usage.generated_tokens,
                max_new_tokens: self.max_new_tokens,
                queue_time: self.usage.queue_time,
                inference_time: self.usage.inference_time,
                first_token,
                per_token: self.per_token(),
            });
        }
    }
}

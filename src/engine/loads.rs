//! What becomes of the loads of several replicas: one outcome of all.

use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

/// Told by each thread that loads. Where one dies without a word, the receiver learns that with the last of them.
pub(super) struct Loads(Mutex<Inner>);

struct Inner {
    num_missing: usize,
    outcome: Option<oneshot::Sender<Result<(), String>>>,
}

impl Loads {
    /// Of so many replicas, to be told to `outcome`.
    pub fn new(num_replicas: usize, outcome: oneshot::Sender<Result<(), String>>) -> Loads {
        Loads(Mutex::new(Inner { num_missing: num_replicas, outcome: Some(outcome) }))
    }

    /// One has ended. The first failure is the outcome of all, else the last success.
    pub fn tell(&self, outcome: Result<(), String>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.num_missing -= 1;
        if (inner.num_missing == 0 || outcome.is_err())
            && let Some(sender) = inner.outcome.take()
        {
            let _ = sender.send(outcome);
        }
    }
}

//! What the engine's threads and everybody else have in common: the queue, and how each replica of the model is.

use std::time::Duration;

use tokio::sync::watch;

use super::handle::EngineLimits;
use super::queue::Queue;
use super::status::{Health, Load, Status};
use crate::error::{Error, Overload, Unavailable};

/// One queue before one or several replicas of the model, each with a thread and a device of its own.
pub(super) struct Shared {
    pub queue: Queue,
    /// One for each replica.
    pub replicas: Vec<Status>,
    /// What bounds each replica.
    pub replica_limits: EngineLimits,
    /// What all replicas together can do.
    pub limits: EngineLimits,
    /// Why a replica that served stopped, once one has.
    death: watch::Sender<Option<String>>,
}

impl Shared {
    pub fn new(num_replicas: usize, replica_limits: EngineLimits) -> Shared {
        let num_slots = replica_limits.max_batch_size;
        let limits = EngineLimits {
            max_batch_size: num_slots * num_replicas,
            max_kv_tokens: replica_limits.max_kv_tokens.saturating_mul(num_replicas),
            ..replica_limits.clone()
        };
        Shared {
            queue: Queue::new(limits.max_queue, num_replicas),
            replicas: (0..num_replicas).map(|_| Status::loading(num_slots)).collect(),
            replica_limits,
            limits,
            death: watch::Sender::new(None),
        }
    }

    /// A replica stops for this reason, and nobody told it to.
    pub fn die(&self, reason: String) {
        self.death.send_replace(Some(reason));
    }

    /// Waits until a replica stops that nobody told to, which may never be; the reason.
    pub async fn died(&self) -> String {
        let mut death = self.death.subscribe();
        let died = death.wait_for(Option::is_some).await;
        died.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    /// Ready once all replicas are; where one has failed the process should be started anew, although the others serve on.
    pub fn health(&self) -> Health {
        let all = || self.replicas.iter().map(Status::health);
        let unhealthy = Health::Unavailable(Unavailable::Unhealthy);
        if all().any(|health| health == unhealthy) {
            return unhealthy;
        }
        all().find(|health| *health != Health::Ready).unwrap_or(Health::Ready)
    }

    /// Why nobody is taken at the moment. A replica that serves is enough, once all have been ready.
    pub fn check_open(&self) -> Result<(), Error> {
        let serves = |status: &Status| status.health() == Health::Ready;
        match self.health() {
            Health::Ready => Ok(()),
            Health::Unavailable(Unavailable::Unhealthy) if self.replicas.iter().any(serves) => Ok(()),
            Health::Unavailable(why) => Err(Error::Unavailable(why)),
        }
    }

    pub fn load(&self) -> Load {
        let times = self.replicas.iter().map(Status::mean_slot_time).filter(|time| !time.is_zero());
        let (num_times, time) = times.fold((0, Duration::ZERO), |(n, sum), time| (n + 1, sum + time));
        Load {
            num_waiting: self.queue.len(),
            num_running: self.sum(Status::num_running),
            num_slots: self.sum(Status::num_slots),
            mean_slot_time: time / num_times.max(1),
        }
    }

    /// A number of all replicas together.
    pub fn sum(&self, of: impl Fn(&Status) -> usize) -> usize {
        self.replicas.iter().map(of).sum()
    }

    pub fn overloaded(&self, why: Overload) -> Error {
        Error::Overloaded { why, retry_after: self.load().retry_after() }
    }
}

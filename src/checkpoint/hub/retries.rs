//! Which failures are worth another try, and when.

use std::time::Duration;

/// Why a request to the hub failed.
#[derive(Debug, PartialEq)]
pub(super) enum Problem {
    /// Trying again may help: no connection, a connection that broke, a server in trouble.
    Passing(String),
    /// Trying again will not.
    Lasting(String),
}

impl Problem {
    pub(super) fn into_message(self) -> String {
        match self {
            Problem::Passing(message) | Problem::Lasting(message) => message,
        }
    }
}

/// How often and how long to wait before another try.
pub(super) struct Retries {
    failures: u32,
}

impl Retries {
    pub(super) fn new() -> Retries {
        Retries { failures: 0 }
    }

    /// Waits twice as long each time; false where it has been enough.
    pub(super) async fn wait(&mut self, problem: &str) -> bool {
        const MAX_FAILURES: u32 = 6;
        const FIRST_WAIT: Duration = Duration::from_millis(250);
        self.failures += 1;
        if self.failures == MAX_FAILURES {
            return false;
        }
        let wait = FIRST_WAIT * 2_u32.pow(self.failures - 1);
        tracing::warn!("{problem}; trying again in {} s", wait.as_secs_f32());
        tokio::time::sleep(wait).await;
        true
    }
}

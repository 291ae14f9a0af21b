//! When a stream's status line is sent: no protocol decides that for itself.

use std::time::Duration;

use tokio::time::timeout;

use crate::error::Error;
use crate::generation::Generation;

/// Waits until `generation` has left the queue, at most for `status_hold`: the status line is sent after that. Platforms count
/// requests without one to see that they must scale up, and proxies give up on those that stay silent.
///
/// What fails before has a status of its own; what fails after it, be it before the first token, is told inside the stream.
pub(super) async fn hold(generation: &mut Generation, status_hold: Duration) -> Result<(), Error> {
    timeout(status_hold, generation.admitted()).await.unwrap_or(Ok(()))
}

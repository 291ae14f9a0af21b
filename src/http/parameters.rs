//! What the parameters of all protocols have in common: a seed that nobody named, a time limit, how many answers may be asked for.

use std::time::Duration;

/// A year: adding centuries to the present moment would overflow the clock.
const MAX_TIME_S: f64 = 365.0 * 24.0 * 3600.0;

/// A new one each time: of 53 bits, which survive a JSON reader that knows only doubles.
pub(super) fn random_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 & ((1 << 53) - 1)
}

/// The time that `max_time` allows, from `seconds` above 0; `None` where it is so long that it limits nothing.
pub(super) fn max_time(seconds: f64) -> Option<Duration> {
    (seconds < MAX_TIME_S).then(|| Duration::from_secs_f64(seconds))
}

/// What a client reads that asks for more answers at once than the server's `limit`; `None` where it does not.
pub(super) fn too_many_answers(count: usize, limit: usize) -> Option<String> {
    (count > limit).then(|| {
        format!(
            "the request asks for {count} answers, more than the {limit} of this server \
             (--max-client-batch-size, SARDINE_MAX_CLIENT_BATCH_SIZE)"
        )
    })
}

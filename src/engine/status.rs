//! What the engine's thread publishes about itself, and what a newcomer has to expect of it.

use std::ops::Add;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::step::Seen;
use crate::error::Unavailable;

/// Whether the engine serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Ready,
    Unavailable(Unavailable),
}

/// Written by the engine's thread (but for the beginning of a shutdown), read by all.
pub(super) struct Status {
    health: AtomicU8,
    num_running: AtomicUsize,
    num_slots: AtomicUsize,
    num_reserved_tokens: AtomicUsize,
    /// Moving average of how long a sequence holds its slot; 0 before the first has ended.
    mean_slot_ms: AtomicU64,
    num_pictures_computed: AtomicU64,
    num_pictures_reused: AtomicU64,
    picture_cache_bytes: AtomicU64,
    num_checks: AtomicU64,
    num_leaks: AtomicU64,
    was_ready: AtomicBool,
    /// What the beats are counted from.
    epoch: Instant,
    /// When the thread last showed that it gets on, in milliseconds after `epoch`; [`IDLE`] while it has nothing to do.
    beat_ms: AtomicU64,
}

/// What became of the pictures of all steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PictureCounts {
    /// Pictures that the vision tower computed.
    pub computed: u64,
    /// Pictures that were the same as one that it had.
    pub reused: u64,
    /// Bytes of what is kept for pictures that come again.
    pub kept_bytes: u64,
}

impl Add for PictureCounts {
    type Output = PictureCounts;

    fn add(self, other: PictureCounts) -> PictureCounts {
        PictureCounts {
            computed: self.computed + other.computed,
            reused: self.reused + other.reused,
            kept_bytes: self.kept_bytes + other.kept_bytes,
        }
    }
}

/// The thread waits for work (or loads the model, which has no steps).
const IDLE: u64 = u64::MAX;

impl Status {
    /// Of an engine that loads and will have `num_slots`.
    pub fn loading(num_slots: usize) -> Status {
        Status {
            health: AtomicU8::new(encode(Health::Unavailable(Unavailable::Loading))),
            num_running: AtomicUsize::new(0),
            num_slots: AtomicUsize::new(num_slots),
            num_reserved_tokens: AtomicUsize::new(0),
            mean_slot_ms: AtomicU64::new(0),
            num_pictures_computed: AtomicU64::new(0),
            num_pictures_reused: AtomicU64::new(0),
            picture_cache_bytes: AtomicU64::new(0),
            num_checks: AtomicU64::new(0),
            num_leaks: AtomicU64::new(0),
            was_ready: AtomicBool::new(false),
            epoch: Instant::now(),
            beat_ms: AtomicU64::new(IDLE),
        }
    }

    pub fn health(&self) -> Health {
        decode(self.health.load(Ordering::Acquire))
    }

    pub fn set_health(&self, health: Health) {
        self.health.store(encode(health), Ordering::Release);
    }

    /// Ready, unless the process began to shut down meanwhile.
    pub fn finish_loading(&self) {
        let (loading, ready) = (encode(Health::Unavailable(Unavailable::Loading)), encode(Health::Ready));
        if self.health.compare_exchange(loading, ready, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.was_ready.store(true, Ordering::Release);
        }
    }

    /// It has been ready, whatever it is now.
    pub fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Acquire)
    }

    /// The thread begins another turn of its work.
    pub fn beat(&self) {
        self.beat_ms.store(self.epoch.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// The thread has nothing to do.
    pub fn set_idle(&self) {
        self.beat_ms.store(IDLE, Ordering::Relaxed);
    }

    /// How long the thread has been at the same turn; `None` while it has nothing to do.
    pub fn busy_for(&self) -> Option<Duration> {
        let beat_ms = self.beat_ms.load(Ordering::Relaxed);
        (beat_ms != IDLE).then(|| self.epoch.elapsed().saturating_sub(Duration::from_millis(beat_ms)))
    }

    /// Sequences that run, and the tokens whose keys and values are reserved for them.
    pub fn set_running(&self, num_running: usize, num_reserved_tokens: usize) {
        self.num_running.store(num_running, Ordering::Relaxed);
        self.num_reserved_tokens.store(num_reserved_tokens, Ordering::Relaxed);
    }

    /// Sequences that can run at once, as long as they are what they are: where keys and values are short, fewer than there
    /// are slots.
    pub fn set_slots(&self, num_slots: usize) {
        self.num_slots.store(num_slots, Ordering::Relaxed);
    }

    pub fn num_slots(&self) -> usize {
        self.num_slots.load(Ordering::Relaxed)
    }

    pub fn num_running(&self) -> usize {
        self.num_running.load(Ordering::Relaxed)
    }

    pub fn num_reserved_tokens(&self) -> usize {
        self.num_reserved_tokens.load(Ordering::Relaxed)
    }

    /// Counts a sequence that held its slot for `held`.
    pub fn record_sequence(&self, held: Duration) {
        let (mean, held) = (self.mean_slot_ms.load(Ordering::Relaxed), held.as_millis() as u64);
        let mean = if mean == 0 { held } else { (7 * mean + held) / 8 };
        self.mean_slot_ms.store(mean, Ordering::Relaxed);
    }

    pub fn mean_slot_time(&self) -> Duration {
        Duration::from_millis(self.mean_slot_ms.load(Ordering::Relaxed))
    }

    /// Counts the pictures of a step.
    pub fn record_seen(&self, seen: &Seen) {
        self.num_pictures_computed.fetch_add(seen.num_computed as u64, Ordering::Relaxed);
        self.num_pictures_reused.fetch_add(seen.num_reused as u64, Ordering::Relaxed);
        self.picture_cache_bytes.store(seen.kept_bytes, Ordering::Relaxed);
    }

    pub fn pictures(&self) -> PictureCounts {
        PictureCounts {
            computed: self.num_pictures_computed.load(Ordering::Relaxed),
            reused: self.num_pictures_reused.load(Ordering::Relaxed),
            kept_bytes: self.picture_cache_bytes.load(Ordering::Relaxed),
        }
    }

    pub fn record_leak(&self) {
        self.num_leaks.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a look at the idle engine, after the leak that it may have found: whoever sees the one sees the other.
    pub fn record_check(&self) {
        self.num_checks.fetch_add(1, Ordering::Release);
    }

    pub fn num_checks(&self) -> u64 {
        self.num_checks.load(Ordering::Acquire)
    }

    pub fn num_leaks(&self) -> u64 {
        self.num_leaks.load(Ordering::Relaxed)
    }
}

/// How busy the engine is when somebody comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Requests that came before and wait.
    pub num_waiting: usize,
    pub num_running: usize,
    /// Sequences that can run at once.
    pub num_slots: usize,
    /// How long a sequence holds its slot, as measured; zero before anything was.
    pub mean_slot_time: Duration,
}

impl Load {
    /// How long a newcomer will likely wait. Those before it take the free slots; then somebody has to end for each of them
    /// and for the newcomer, and with all slots taken `num_slots` end in a sequence's time.
    pub fn expected_wait(&self) -> Duration {
        let num_free = self.num_slots.saturating_sub(self.num_running);
        let num_ends = (self.num_waiting + 1).saturating_sub(num_free);
        self.mean_slot_time.saturating_mul(num_ends as u32) / self.num_slots.max(1) as u32
    }

    /// When somebody who is refused should come again: when it would have had its turn, and not before a second. No later
    /// than in a minute: OpenAI's clients take more for a mistake and come back at once.
    pub fn retry_after(&self) -> Duration {
        self.expected_wait().clamp(Duration::from_secs(1), Duration::from_secs(60))
    }
}

fn encode(health: Health) -> u8 {
    match health {
        Health::Ready => 0,
        Health::Unavailable(Unavailable::Loading) => 1,
        Health::Unavailable(Unavailable::ShuttingDown) => 2,
        Health::Unavailable(Unavailable::Unhealthy) => 3,
    }
}

fn decode(health: u8) -> Health {
    match health {
        0 => Health::Ready,
        1 => Health::Unavailable(Unavailable::Loading),
        2 => Health::Unavailable(Unavailable::ShuttingDown),
        _ => Health::Unavailable(Unavailable::Unhealthy),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Load, Status};

    const BUSY: Load = Load { num_waiting: 0, num_running: 4, num_slots: 4, mean_slot_time: Duration::from_secs(20) };

    #[test]
    fn with_all_slots_taken_one_is_free_after_a_share_of_a_sequences_time() {
        assert_eq!(BUSY.expected_wait(), Duration::from_secs(5));
    }

    #[test]
    fn everyone_who_waits_before_adds_as_much() {
        assert_eq!(Load { num_waiting: 3, ..BUSY }.expected_wait(), Duration::from_secs(20));
    }

    #[test]
    fn where_slots_are_free_only_those_wait_who_get_none_of_them() {
        let two_free = Load { num_running: 2, ..BUSY };
        assert_eq!(Load { num_waiting: 1, ..two_free }.expected_wait(), Duration::ZERO);
        assert_eq!(Load { num_waiting: 2, ..two_free }.expected_wait(), Duration::from_secs(5));
    }

    #[test]
    fn before_anything_was_measured_nobody_is_expected_to_wait() {
        let unknown = Load { num_waiting: 100, num_running: 0, num_slots: 0, mean_slot_time: Duration::ZERO };
        assert_eq!((unknown.expected_wait(), unknown.retry_after()), (Duration::ZERO, Duration::from_secs(1)));
    }

    #[test]
    fn who_is_refused_comes_again_within_a_minute() {
        assert_eq!(BUSY.retry_after(), Duration::from_secs(5));
        assert_eq!(Load { num_waiting: 1000, ..BUSY }.retry_after(), Duration::from_secs(60));
    }

    #[test]
    fn the_time_in_a_slot_is_a_moving_average() {
        let status = Status::loading(4);
        status.record_sequence(Duration::from_secs(8));
        assert_eq!(status.mean_slot_time(), Duration::from_secs(8));
        status.record_sequence(Duration::from_secs(16));
        assert_eq!(status.mean_slot_time(), Duration::from_secs(9));
    }
}

//! How far the process is on its way to serving: written by whoever works at it, read by the probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No bytes were reported yet.
const NONE: u64 = u64::MAX;

/// A piece of work that the process does before it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The checkpoint comes from the hub.
    Downloading,
    /// Its files are read and the weights put where they are used.
    Loading,
    /// The model runs for the first time.
    WarmingUp,
}

/// The board on which the start is written; all copies are the same board. It takes no lock.
#[derive(Debug, Clone)]
pub struct Startup(Arc<Board>);

#[derive(Debug)]
struct Board {
    began: Instant,
    phase: AtomicU8,
    /// When the phase began, in milliseconds after `began`.
    phase_began_ms: AtomicU64,
    /// Bytes that were there when the phase counted for the first time; [`NONE`] before.
    first: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
}

/// What the board says at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    pub phase: Phase,
    /// Since the process began.
    pub elapsed: Duration,
    /// Of the phase: (done, all). `None` where it does not count bytes, or not yet.
    pub bytes: Option<(u64, u64)>,
    /// Until the phase ends, if it goes on as it has gone so far; `None` where nothing can be said.
    pub left: Option<Duration>,
}

impl Default for Startup {
    fn default() -> Startup {
        Startup::new()
    }
}

impl Startup {
    /// The board of a process that begins now, by reading what it needs.
    pub fn new() -> Startup {
        Startup(Arc::new(Board {
            began: Instant::now(),
            phase: AtomicU8::new(encode(Phase::Loading)),
            phase_began_ms: AtomicU64::new(0),
            first: AtomicU64::new(NONE),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
        }))
    }

    /// Another phase begins.
    pub fn enter(&self, phase: Phase) {
        let board = &self.0;
        board.phase_began_ms.store(board.began.elapsed().as_millis() as u64, Ordering::Relaxed);
        board.first.store(NONE, Ordering::Relaxed);
        board.phase.store(encode(phase), Ordering::Release);
    }

    /// `done` bytes of the phase's `total` are finished.
    pub fn count(&self, done: u64, total: u64) {
        let board = &self.0;
        board.done.store(done, Ordering::Relaxed);
        board.total.store(total, Ordering::Relaxed);
        let _ = board.first.compare_exchange(NONE, done, Ordering::Release, Ordering::Relaxed);
    }

    /// How far it is.
    pub fn standing(&self) -> Standing {
        let board = &self.0;
        let phase = decode(board.phase.load(Ordering::Acquire));
        let first = board.first.load(Ordering::Acquire);
        let (done, total) = (board.done.load(Ordering::Relaxed), board.total.load(Ordering::Relaxed));
        let elapsed = board.began.elapsed();
        let in_phase = elapsed.saturating_sub(Duration::from_millis(board.phase_began_ms.load(Ordering::Relaxed)));
        let bytes = (first != NONE && total > 0).then_some((done.min(total), total));
        let left = bytes.and_then(|(done, total)| left(in_phase, done.saturating_sub(first), total - done));
        Standing { phase, elapsed, bytes, left }
    }
}

/// The time that `to_do` bytes take where `done` of them took `elapsed`.
fn left(elapsed: Duration, done: u64, to_do: u64) -> Option<Duration> {
    if to_do == 0 {
        return Some(Duration::ZERO);
    }
    (done > 0).then(|| elapsed.mul_f64(to_do as f64 / done as f64))
}

fn encode(phase: Phase) -> u8 {
    match phase {
        Phase::Downloading => 0,
        Phase::Loading => 1,
        Phase::WarmingUp => 2,
    }
}

fn decode(code: u8) -> Phase {
    match code {
        0 => Phase::Downloading,
        1 => Phase::Loading,
        _ => Phase::WarmingUp,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Phase, Startup, left};

    #[test]
    fn a_phase_has_its_own_bytes() {
        let startup = Startup::new();
        assert_eq!((startup.standing().phase, startup.standing().bytes), (Phase::Loading, None));
        startup.enter(Phase::Downloading);
        startup.count(100, 400);
        let standing = startup.standing();
        assert_eq!((standing.phase, standing.bytes, standing.left), (Phase::Downloading, Some((100, 400)), None));
        startup.count(400, 400);
        assert_eq!(startup.standing().left, Some(Duration::ZERO));
        startup.enter(Phase::WarmingUp);
        assert_eq!((startup.standing().phase, startup.standing().bytes), (Phase::WarmingUp, None));
    }

    #[test]
    fn what_was_there_before_says_nothing_about_the_speed() {
        assert_eq!(left(Duration::from_secs(10), 50, 100), Some(Duration::from_secs(20)));
        assert_eq!(left(Duration::from_secs(10), 0, 100), None);
        let startup = Startup::new();
        startup.count(300, 400);
        assert_eq!(startup.standing().left, None, "a resumed download has not moved yet");
    }
}

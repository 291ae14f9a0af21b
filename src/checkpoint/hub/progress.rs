//! How far a checkpoint's download is, over all its files.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::progress::Progress;
use crate::startup::{Phase, Startup};

/// The download of a checkpoint.
pub(super) struct Whole {
    progress: Progress,
    num_bytes: u64,
    done: AtomicU64,
}

impl Whole {
    pub(super) fn new(id: &str, num_bytes: u64, startup: &Startup) -> Whole {
        let progress = Progress::new(format!("downloading {id}"), startup, Phase::Downloading);
        Whole { progress, num_bytes, done: AtomicU64::new(0) }
    }

    /// A file's part in it.
    pub(super) fn share(&self) -> Share<'_> {
        Share { whole: self, length: 0 }
    }
}

/// One file of a download.
pub(super) struct Share<'a> {
    whole: &'a Whole,
    length: u64,
}

impl Share<'_> {
    /// `length` bytes of the file are there now; fewer than before, where it began anew.
    pub(super) fn set(&mut self, length: u64) {
        // Wrapping addition subtracts where the file has become shorter.
        let change = length.wrapping_sub(self.length);
        let done = self.whole.done.fetch_add(change, Ordering::Relaxed).wrapping_add(change);
        self.length = length;
        self.whole.progress.set(done, self.whole.num_bytes);
    }
}

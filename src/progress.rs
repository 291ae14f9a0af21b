//! Shows how far a long piece of work is: a bar on a terminal, log lines otherwise, and the probes either way.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use crate::startup::{Phase, Startup};

/// Less than this many bytes are done before anybody reads about it.
const WORTH_A_LINE: u64 = 256 << 20;

/// Progress of one piece of work, counted in bytes.
pub struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    /// Tenths that were logged.
    logged: AtomicU64,
    /// Where else it is told.
    startup: Startup,
}

impl Progress {
    /// Begins to show the work `what` ("loading weights"), a phase of the start that `startup` tells of as well.
    pub fn new(what: impl Into<String>, startup: &Startup, phase: Phase) -> Progress {
        let what = what.into();
        startup.enter(phase);
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
                .expect("the template is one of ours");
            ProgressBar::new(0).with_style(style).with_message(what.clone())
        });
        Progress { what, bar, logged: AtomicU64::new(0), startup: startup.clone() }
    }

    /// `done` bytes of `total` are finished.
    pub fn set(&self, done: u64, total: u64) {
        self.startup.count(done, total);
        match &self.bar {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(done);
            }
            None => self.log(done, total),
        }
    }

    /// One line for every tenth of what takes long enough for anybody to wait.
    fn log(&self, done: u64, total: u64) {
        if total < WORTH_A_LINE {
            return;
        }
        let tenths = (10 * done).checked_div(total).unwrap_or(10);
        if self.logged.fetch_max(tenths, Ordering::Relaxed) < tenths {
            tracing::info!("{}: {} % of {:.1} MB", self.what, 10 * tenths, total as f64 / 1e6);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

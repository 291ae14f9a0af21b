//! How far the downloads are: bars on a terminal, now and then a line in a log.

use std::cell::Cell;
use std::io::IsTerminal;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Shows all downloads of a checkpoint.
pub(super) struct Progress {
    /// `None` where standard error is not a terminal.
    bars: Option<MultiProgress>,
}

/// Shows one file's download.
pub(super) struct Tracker {
    file: String,
    size: Option<u64>,
    bar: Option<ProgressBar>,
    /// Tenths that the log has been told of.
    logged: Cell<u64>,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress { bars: std::io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// Begins with `length` bytes, which are there already.
    pub(super) fn track(&self, file: &str, size: Option<u64>, length: u64) -> Tracker {
        let bar = self.bars.as_ref().map(|bars| bars.add(bar(file, size, length)));
        let tracker = Tracker { file: file.to_owned(), size, bar, logged: Cell::new(0) };
        if tracker.bar.is_none() {
            let from = if length > 0 { format!(", going on from byte {length}") } else { String::new() };
            tracing::info!("downloading {file}{from}");
        }
        tracker.logged.set(tracker.tenths(length));
        tracker
    }
}

impl Tracker {
    /// `length` bytes are there now.
    pub(super) fn set(&self, length: u64) {
        if let Some(bar) = &self.bar {
            return bar.set_position(length);
        }
        let tenths = self.tenths(length);
        if tenths > self.logged.replace(tenths) && tenths < 10 {
            tracing::info!("downloading {}: {} %", self.file, tenths * 10);
        }
    }

    pub(super) fn finish(&self) {
        match &self.bar {
            Some(bar) => bar.finish(),
            None => tracing::info!("downloaded {}", self.file),
        }
    }

    fn tenths(&self, length: u64) -> u64 {
        self.size.and_then(|size| (length * 10).checked_div(size)).unwrap_or(0)
    }
}

fn bar(file: &str, size: Option<u64>, length: u64) -> ProgressBar {
    let bar = match size {
        Some(size) => ProgressBar::new(size),
        None => ProgressBar::no_length(),
    };
    let template = "{msg:45} {bar:30} {bytes:>11} / {total_bytes:11} {bytes_per_sec:>12} {eta:>5}";
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    bar.with_style(style).with_message(file.to_owned()).with_position(length)
}

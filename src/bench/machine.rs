//! The machine that is measured on: its limits, time and again, and the memory that the measured needed.

use super::report::Limits;
use crate::model::{MachineLimits, PerToken, measure_machine};

pub(super) struct Machine {
    per_token: PerToken,
    /// The limits when they were last measured.
    last: Option<MachineLimits>,
    /// The most memory that this process held, as far as it is known, but for what measuring the limits took.
    pub(super) peak_memory: Option<u64>,
}

impl Machine {
    pub(super) fn new(per_token: PerToken) -> Machine {
        Machine { per_token, last: None, peak_memory: None }
    }

    /// The limits now, or between now and the time before, if there was one: those of what ran meanwhile.
    pub(super) async fn limits(&mut self) -> Result<Limits, String> {
        self.note_peak_memory();
        let now = tokio::task::spawn_blocking(measure_machine).await.map_err(|error| error.to_string())?;
        forget_peak_memory();
        let before = self.last.replace(now).unwrap_or(now);
        let mean = |of: fn(&MachineLimits) -> f64| (of(&before) + of(&now)) / 2.0;
        Ok(Limits {
            machine: MachineLimits {
                read_bandwidth: mean(|limits| limits.read_bandwidth),
                gemm_flops: mean(|limits| limits.gemm_flops),
            },
            bytes_per_token: self.per_token.bytes as f64,
            flops_per_token: self.per_token.flops as f64,
        })
    }

    pub(super) fn note_peak_memory(&mut self) {
        self.peak_memory = self.peak_memory.max(peak_memory());
    }
}

/// The most memory that this process held since [`forget_peak_memory`].
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// Where the system does not let us, the peak has half a gigabyte of our own measuring in it.
fn forget_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

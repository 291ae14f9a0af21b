//! What was measured, as a table for people and as JSON for programs.

use std::fmt::{self, Write};

use serde::Serialize;

use super::Shown;
use super::measure::Decoded;
use crate::model::MachineLimits;

/// What the machine allows this model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Limits {
    pub(super) machine: MachineLimits,
    /// Bytes that are read for a token: the layers' weights and the head's.
    pub(super) bytes_per_token: f64,
    /// Operations for a token of a prompt.
    pub(super) flops_per_token: f64,
}

/// The time to the first new token after a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct FirstToken {
    pub(super) prompt_tokens: usize,
    pub(super) seconds: f64,
}

/// The time to the first token of an answer about pictures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Looked {
    pub(super) shown: Shown,
    pub(super) seconds: f64,
    /// `None` where the server does not tell.
    pub(super) shares: Option<Shares>,
    /// The same for the same pictures, once more.
    pub(super) again_s: f64,
}

/// Where the time to a first token goes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Shares {
    /// Pictures decoded, resized and cut into patches, several at a time.
    pub(super) media_s: f64,
    pub(super) vision_s: f64,
    /// All else: the prompt written and read, and the first token.
    pub(super) language_s: f64,
}

/// A measurement, and what the machine could do meanwhile where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Beside<M> {
    #[serde(flatten)]
    pub(super) measured: M,
    pub(super) limits: Option<Limits>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    pub(super) start_to_first_token_s: Option<f64>,
    pub(super) warm_first_token_s: f64,
    pub(super) decode: Vec<Beside<Decoded>>,
    pub(super) prefill: Vec<Beside<FirstToken>>,
    /// Eight answers undisturbed, and while a long prompt arrives.
    pub(super) disturbed: Option<(Decoded, Decoded)>,
    pub(super) shown: Vec<Looked>,
    pub(super) peak_memory_bytes: Option<u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = String::new();
        self.write(&mut table)?;
        f.write_str(&table)
    }
}

impl Report {
    fn write(&self, out: &mut String) -> fmt::Result {
        if let Some(seconds) = self.start_to_first_token_s {
            writeln!(out, "start to first token  {seconds:.2} s")?;
        }
        writeln!(out, "first token of 8      {:.3} s", self.warm_first_token_s)?;
        writeln!(out, "\n  at once   tokens/s   ms/token   longest gap ms   memory reads GB/s   weights read at")?;
        for Beside { measured, limits } in &self.decode {
            let Decoded { sequences, tokens_per_s, ms_per_token, longest_gap_ms } = measured;
            let share = of_limit(*limits, |limits| {
                let read = tokens_per_s / *sequences as f64 * limits.bytes_per_token;
                (read, limits.machine.read_bandwidth)
            });
            writeln!(out, "{sequences:>9} {tokens_per_s:>10.1} {ms_per_token:>10.2} {longest_gap_ms:>16.1} {share}")?;
        }
        writeln!(out, "\n   prompt   tokens/s    seconds                     products GFLOP/s       computes at")?;
        for Beside { measured: FirstToken { prompt_tokens, seconds }, limits } in &self.prefill {
            let rate = *prompt_tokens as f64 / seconds;
            let share = of_limit(*limits, |limits| (rate * limits.flops_per_token, limits.machine.gemm_flops));
            writeln!(out, "{prompt_tokens:>9} {rate:>10.1} {seconds:>10.2} {:>16} {share}", "")?;
        }
        if let Some((calm, disturbed)) = self.disturbed {
            let (calm, disturbed) = (calm.longest_gap_ms, disturbed.longest_gap_ms);
            writeln!(
                out,
                "\nlongest gap of 8 answers: {calm:.0} ms alone, {disturbed:.0} ms while a long prompt arrives"
            )?;
        }
        if !self.shown.is_empty() {
            writeln!(out, "\n      shown   first token s   decode and cut   vision tower   the rest   seen again s")?;
        }
        for Looked { shown, seconds, shares, again_s } in &self.shown {
            let shown = match shown {
                Shown::Pictures(number) => format!("{number} picture{}", if *number == 1 { "" } else { "s" }),
                Shown::Clip(frames) => format!("{frames} frames"),
            };
            let shares = shares.map_or(format!("{:>16} {:>14} {:>10}", "-", "-", "-"), |shares| {
                let percent = |part: f64| format!("{:.1} %", part / seconds * 100.0);
                let Shares { media_s, vision_s, language_s } = shares;
                format!("{:>16} {:>14} {:>10}", percent(media_s), percent(vision_s), percent(language_s))
            });
            writeln!(out, "{shown:>11} {seconds:>15.2} {shares} {again_s:>14.2}")?;
        }
        if let Some(bytes) = self.peak_memory_bytes {
            writeln!(out, "peak memory {:.2} GB", bytes as f64 / 1e9)?;
        }
        Ok(())
    }
}

/// What the machine could do, in thousands of millions, and the share of it that was reached.
fn of_limit(limits: Option<Limits>, reached_of: impl Fn(Limits) -> (f64, f64)) -> String {
    let Some((reached, limit)) = limits.map(reached_of) else { return format!("{:>19} {:>17}", "-", "-") };
    format!("{:>19.1} {:>15.0} %", limit / 1e9, reached / limit * 100.0)
}

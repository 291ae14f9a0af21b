//! `sardine bench`: how fast answers come, beside what the machine can do at most.
//!
//! `target` is who is measured (the engine in this process, or any server that speaks OpenAI's API), `measure` how, `report`
//! how it is told.

mod measure;
mod report;
mod target;

use std::time::Instant;

use crate::generation::Service;
use crate::model::{PerToken, measure_machine};
pub use report::Report;
use report::{FirstToken, Limits};
use target::{Target, Work};

/// What is measured.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Answers that are written at the same time, one measurement each.
    pub sequences: Vec<usize>,
    /// Tokens of each.
    pub tokens: usize,
    /// Prompts of so many tokens, whose first new token is waited for.
    pub prefill: Vec<usize>,
    /// A prompt of so many tokens arrives while eight answers are written.
    pub intruder: Option<usize>,
    /// Side of a square picture, in pixels.
    pub picture: Option<u32>,
}

/// Measures the engine of this process. `started` is when it began to start.
pub async fn in_process(
    service: Service,
    workload: &Workload,
    per_token: PerToken,
    started: Instant,
) -> Result<Report, String> {
    let target = Target::InProcess(service);
    let first = measure::first_token(&target, measure::prompt(8, 1)).await?;
    let start_to_first_token = started.elapsed().as_secs_f64();
    let mut report = measure(&target, workload).await?;
    report.start_to_first_token_s = Some(start_to_first_token);
    report.warm_first_token_s = first;
    report.peak_memory_bytes = peak_memory();
    let machine = tokio::task::spawn_blocking(measure_machine).await.map_err(|error| error.to_string())?;
    let (bytes_per_token, flops_per_token) = (per_token.bytes as f64, per_token.flops as f64);
    report.limits = Some(Limits { machine, bytes_per_token, flops_per_token });
    Ok(report)
}

/// Measures the server at `url`.
pub async fn over_http(url: &str, workload: &Workload) -> Result<Report, String> {
    let target = Target::http(url)?;
    let first = measure::first_token(&target, measure::prompt(8, 1)).await?;
    let mut report = measure(&target, workload).await?;
    report.warm_first_token_s = first;
    Ok(report)
}

async fn measure(target: &Target, workload: &Workload) -> Result<Report, String> {
    let mut report = Report::default();
    for sequences in &workload.sequences {
        report.decode.push(measure::decode(target, *sequences, workload.tokens).await?);
    }
    for (seed, len) in workload.prefill.iter().enumerate() {
        let seconds = measure::first_token(target, measure::prompt(*len, 1000 + seed)).await?;
        report.prefill.push(FirstToken { prompt_tokens: *len, seconds });
    }
    if let Some(intruder) = workload.intruder {
        let calm = measure::decode(target, 8, workload.tokens).await?;
        let disturbed = measure::disturbed(target, 8, workload.tokens, intruder).await?;
        report.disturbed = Some((calm, disturbed));
    }
    if let Some(side) = workload.picture {
        report.picture_s = Some(measure::first_token(target, Work::Picture(picture(side))).await?);
    }
    Ok(report)
}

/// A picture of `side` x `side` pixels, as BMP: the one format that needs no encoder.
fn picture(side: u32) -> Vec<u8> {
    let row = (side * 3).next_multiple_of(4);
    let pixels = row * side;
    let mut file = Vec::with_capacity(54 + pixels as usize);
    file.extend(b"BM");
    [54 + pixels, 0, 54, 40, side, side].iter().for_each(|field| file.extend(field.to_le_bytes()));
    [1u16, 24].iter().for_each(|field| file.extend(field.to_le_bytes()));
    [0, pixels, 2835, 2835, 0, 0].iter().for_each(|field: &u32| file.extend(field.to_le_bytes()));
    file.extend((0..pixels).map(|at| (at / 97 % 251) as u8));
    file
}

/// The most memory that this process ever held.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::picture;

    #[test]
    fn the_picture_is_a_picture() {
        let file = picture(33);
        let len = u32::from_le_bytes(file[2..6].try_into().unwrap()) as usize;
        assert_eq!((&file[..2], len), (&b"BM"[..], file.len()));
    }
}

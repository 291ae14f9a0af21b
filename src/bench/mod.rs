//! `sardine bench`: how fast answers come, beside what the machine can do at most.
//!
//! `target` is who is measured (the engine in this process, or any server that speaks OpenAI's API), `measure` how, `report`
//! how it is told.

mod machine;
mod measure;
mod report;
mod target;

use std::time::Instant;

use serde::Serialize;

use crate::generation::Service;
use crate::model::PerToken;
use machine::Machine;
pub use report::Report;
use report::{Beside, FirstToken, Limits};
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
    /// What is asked about, one measurement each.
    pub shown: Vec<Shown>,
    /// Side of each square picture or frame, in pixels.
    pub side: u32,
}

/// What a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    Pictures(usize),
    /// Of so many frames.
    Clip(usize),
}

/// Measures the engine of this process. `started` is when it began to start.
pub async fn in_process(
    service: Service,
    workload: &Workload,
    per_token: PerToken,
    started: Instant,
) -> Result<Report, String> {
    let target = Target::InProcess(service);
    let first = measure::first_token(&target, measure::prompt(8)).await?;
    let start_to_first_token = started.elapsed().as_secs_f64();
    let mut machine = Machine::new(per_token);
    machine.limits().await?; // those before the first measurement
    let mut report = measure(&target, workload, Some(&mut machine)).await?;
    report.start_to_first_token_s = Some(start_to_first_token);
    report.warm_first_token_s = first;
    report.peak_memory_bytes = machine.peak_memory;
    Ok(report)
}

/// Measures the server at `url`.
pub async fn over_http(url: &str, workload: &Workload) -> Result<Report, String> {
    let target = Target::http(url).await?;
    let first = measure::first_token(&target, measure::prompt(8)).await?;
    let mut report = measure(&target, workload, None).await?;
    report.warm_first_token_s = first;
    Ok(report)
}

/// The `machine` is measured as well where it is this one: what it can do changes from minute to minute on a shared host.
async fn measure(target: &Target, workload: &Workload, mut machine: Option<&mut Machine>) -> Result<Report, String> {
    let mut report = Report::default();
    for sequences in &workload.sequences {
        let decoded = measure::decode(target, *sequences, workload.tokens).await?;
        report.decode.push(Beside { limits: limits(&mut machine).await?, measured: decoded });
    }
    for len in &workload.prefill {
        let seconds = measure::first_token(target, measure::prompt(*len)).await?;
        let measured = FirstToken { prompt_tokens: *len, seconds };
        report.prefill.push(Beside { limits: limits(&mut machine).await?, measured });
    }
    if let Some(intruder) = workload.intruder {
        let calm = measure::decode(target, 8, workload.tokens).await?;
        let disturbed = measure::disturbed(target, 8, workload.tokens, intruder).await?;
        report.disturbed = Some((calm, disturbed));
    }
    for shown in &workload.shown {
        let work = Work::Shown { shown: *shown, files: files(*shown, workload.side) };
        report.shown.push(measure::looked(target, *shown, work).await?);
    }
    if let Some(machine) = machine {
        machine.note_peak_memory();
    }
    Ok(report)
}

async fn limits(machine: &mut Option<&mut Machine>) -> Result<Option<Limits>, String> {
    match machine {
        Some(machine) => Ok(Some(machine.limits().await?)),
        None => Ok(None),
    }
}

/// Pictures or frames that nobody has seen before.
fn files(shown: Shown, side: u32) -> Vec<Vec<u8>> {
    let (Shown::Pictures(number) | Shown::Clip(number)) = shown;
    measure::new_numbers().take(number).map(|seed| picture(side, seed as u32)).collect()
}

/// A picture of `side` x `side` pixels, as BMP: the one format that needs no encoder.
fn picture(side: u32, seed: u32) -> Vec<u8> {
    let row = (side * 3).next_multiple_of(4);
    let pixels = row * side;
    let mut file = Vec::with_capacity(54 + pixels as usize);
    file.extend(b"BM");
    [54 + pixels, 0, 54, 40, side, side].iter().for_each(|field| file.extend(field.to_le_bytes()));
    [1u16, 24].iter().for_each(|field| file.extend(field.to_le_bytes()));
    [0, pixels, 2835, 2835, 0, 0].iter().for_each(|field: &u32| file.extend(field.to_le_bytes()));
    file.extend((0..pixels).map(|at| (at.wrapping_add(seed) / 97 % 251) as u8));
    file
}

#[cfg(test)]
mod tests {
    use super::picture;

    #[test]
    fn the_picture_is_a_picture() {
        let file = picture(33, 1);
        let len = u32::from_le_bytes(file[2..6].try_into().unwrap()) as usize;
        assert_eq!((&file[..2], len), (&b"BM"[..], file.len()));
        assert_ne!(file, picture(33, 2));
    }
}

//! What a token is reported with: log-probabilities of the raw logits, and whether there was anything to choose.

use tch::{Device, Kind, Tensor};

use super::Choice;
use super::processors;
use crate::engine::{Outcome, Sample, Sampled};

/// Why a row fails whose logits are no scores.
pub const NOT_FINITE: &str = "the model's logits are not finite numbers";

/// The outcome of every row. Reads the device once, all rows and all numbers together. `raw`: `[rows, vocab]`.
pub(super) fn outcomes(raw: &Tensor, choice: &Choice, requests: &[&Sample]) -> Vec<Outcome> {
    let logprobs = valid_where_asked(raw, requests).log_softmax(-1, Kind::Float); // [rows, vocab]
    let num_top = requests.iter().map(|request| request.settings.top_logprobs).max().unwrap_or(0);
    let mut columns = columns(&logprobs, &choice.ids, num_top);
    columns.push(choice.best.unsqueeze(-1));
    let rows = read(&columns);
    rows.iter().zip(requests).map(|(row, request)| outcome(row, request.settings.top_logprobs)).collect()
}

/// How likely `targets[row]` is after each row of `logits`, `[rows, vocab]` of any floating kind, and the `num_top` most
/// likely tokens: what a chosen token is reported with. Not a number where the logits are not.
pub fn score(logits: &Tensor, targets: &[u32], num_top: usize) -> Vec<Sampled> {
    let logprobs = logits.log_softmax(-1, Kind::Float); // [rows, vocab]
    let targets: Vec<i64> = targets.iter().map(|id| i64::from(*id)).collect();
    let targets = Tensor::from_slice(&targets).to_device_(logits.device(), Kind::Int64, true, false);
    read(&columns(&logprobs, &targets, num_top)).iter().map(|row| sampled(row, num_top)).collect()
}

/// Each row's id, its log-probability, the ids of the `num_top` most likely tokens and their log-probabilities:
/// `[rows, 1 or num_top]` each.
fn columns(logprobs: &Tensor, ids: &Tensor, num_top: usize) -> Vec<Tensor> {
    let ids = ids.unsqueeze(-1);
    let chosen = logprobs.gather(-1, &ids, false);
    let num_top = (num_top as i64).min(logprobs.size()[1]);
    if num_top == 0 {
        return vec![ids, chosen];
    }
    let (best, top) = logprobs.topk(num_top, -1, true, true);
    vec![ids, chosen, top, best]
}

/// Brings columns side by side, one list for each row: the one time that the device is waited for.
fn read(columns: &[Tensor]) -> Vec<Vec<f64>> {
    // Doubles hold ids and scores exactly.
    let columns: Vec<Tensor> = columns.iter().map(|column| column.to_kind(Kind::Double)).collect();
    let packed = Tensor::cat(&columns, -1).to_device(Device::Cpu).contiguous(); // [rows, width]
    let mut numbers = vec![0.0; packed.numel()];
    packed.copy_data(&mut numbers, packed.numel());
    numbers.chunks_exact(packed.size()[1] as usize).map(<[f64]>::to_vec).collect()
}

/// `row`: the [`columns`], and the best score.
fn outcome(row: &[f64], wanted: usize) -> Outcome {
    let (best, row) = row.split_last().expect("Invariant: a row has its id");
    let sampled = sampled(row, wanted);
    if *best == f64::NEG_INFINITY {
        return Outcome::Failed("the request's settings forbid every token".to_owned());
    }
    if !best.is_finite() || !sampled.logprob.is_finite() && sampled.logprob != f32::NEG_INFINITY {
        return Outcome::Failed(NOT_FINITE.to_owned());
    }
    Outcome::Sampled(sampled)
}

/// `row`: the [`columns`].
fn sampled(row: &[f64], wanted: usize) -> Sampled {
    let (ids, logprobs) = row[2..].split_at((row.len() - 2) / 2);
    let top = ids.iter().zip(logprobs).take(wanted).map(|(id, logprob)| (*id as u32, *logprob as f32)).collect();
    Sampled { id: row[0] as u32, logprob: row[1] as f32, top }
}

/// Rows that may hold invalid values report the log-probabilities of what replaces them.
fn valid_where_asked(raw: &Tensor, requests: &[&Sample]) -> Tensor {
    if !requests.iter().any(|request| request.settings.remove_invalid_values) {
        return raw.shallow_clone();
    }
    let valid = raw.copy();
    for (row, request) in requests.iter().enumerate() {
        if request.settings.remove_invalid_values {
            let mut row = valid.get(row as i64);
            let replaced = processors::without_invalid(&row);
            row.copy_(&replaced);
        }
    }
    valid
}

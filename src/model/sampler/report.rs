//! What a choice is reported with: log-probabilities of the raw logits, and whether there was anything to choose.

use tch::{Device, Kind, Tensor};

use super::Choice;
use super::processors;
use crate::engine::{Outcome, Sample, Sampled};

/// The outcome of every row. Reads the device once, all rows and all numbers together. `raw`: `[rows, vocab]`.
pub(super) fn outcomes(raw: &Tensor, choice: &Choice, requests: &[&Sample]) -> Vec<Outcome> {
    let logprobs = valid_where_asked(raw, requests).log_softmax(-1, Kind::Float); // [rows, vocab]
    let ids = choice.ids.unsqueeze(-1);
    let chosen = logprobs.gather(-1, &ids, false);
    let mut columns = vec![ids, chosen, choice.best.unsqueeze(-1)];
    let num_top = requests.iter().map(|request| request.settings.top_logprobs).max().unwrap_or(0);
    let num_top = num_top.min(logprobs.size()[1] as usize);
    if num_top > 0 {
        let (best, ids) = logprobs.topk(num_top as i64, -1, true, true);
        columns.extend([ids, best]);
    }
    // Doubles hold ids and scores exactly.
    let columns: Vec<Tensor> = columns.iter().map(|column| column.to_kind(Kind::Double)).collect();
    let packed = Tensor::cat(&columns, -1).to_device(Device::Cpu).contiguous(); // [rows, 3 + 2 * num_top]
    let mut numbers = vec![0.0; packed.numel()];
    packed.copy_data(&mut numbers, packed.numel());
    let rows = numbers.chunks_exact(3 + 2 * num_top);
    rows.zip(requests).map(|(row, request)| outcome(row, num_top, request.settings.top_logprobs)).collect()
}

/// `row`: id, logprob, best score, ids of the top tokens, their logprobs.
fn outcome(row: &[f64], num_top: usize, wanted: usize) -> Outcome {
    let (id, logprob, best) = (row[0], row[1], row[2]);
    if best == f64::NEG_INFINITY {
        return Outcome::Failed("the request's settings forbid every token".to_owned());
    }
    if !best.is_finite() || !logprob.is_finite() && logprob != f64::NEG_INFINITY {
        return Outcome::Failed("the model's logits are not finite numbers".to_owned());
    }
    let (ids, logprobs) = row[3..].split_at(num_top);
    let top = ids.iter().zip(logprobs).take(wanted).map(|(id, logprob)| (*id as u32, *logprob as f32)).collect();
    Outcome::Sampled(Sampled { id: id as u32, logprob: logprob as f32, top })
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

//! A stand-in for the sampler: the most likely token, whatever the settings.

use tch::{Kind, Tensor};

use crate::engine::{Outcome, Sample, Sampled};

/// Chooses a token after each row of `logits` [rows, vocabulary].
pub(super) fn sample(logits: &Tensor, requests: &[&Sample]) -> Vec<Outcome> {
    let logits = logits.to_kind(Kind::Float);
    let best = logits.argmax(-1, true); // [rows, 1]
    let logprob = logits.gather(1, &best, false) - logits.logsumexp(-1, true);
    let finite = logits.isfinite().all_dim(-1, true);
    let columns = [best, logprob, finite].map(|column| column.to_kind(Kind::Double));
    let host: Vec<f64> =
        Vec::try_from(Tensor::cat(&columns, 1).flatten(0, -1)).expect("a tensor of doubles is a Vec of f64");
    assert_eq!(host.len(), 3 * requests.len());
    let outcome = |row: &[f64]| match row {
        [id, logprob, 1.0] => Outcome::Sampled(Sampled { id: *id as u32, logprob: *logprob as f32, top: Vec::new() }),
        _ => Outcome::Failed("the model's logits are not finite numbers".to_owned()),
    };
    host.chunks(3).map(outcome).collect()
}

//! The sampler's scores are Transformers', and its draws follow them.

mod draws;
mod processed;

use std::sync::Arc;

use sardine::engine::{Outcome, Sample, Sampled, Sampling};
use tch::Tensor;

/// A request at the beginning of its answer.
pub fn first(settings: Sampling) -> Sample {
    Sample { settings: Arc::new(settings), num_generated: 0, num_prompt: 1, history: Vec::new() }
}

/// Chooses for the rows of `logits`, `[rows, vocab]`, all at once.
pub fn sample(logits: &[&[f32]], requests: &[Sample]) -> Vec<Outcome> {
    let requests: Vec<&Sample> = requests.iter().collect();
    sardine::model::sampler::sample(&tensor(logits), &requests)
}

pub fn tensor(logits: &[&[f32]]) -> Tensor {
    Tensor::from_slice(&logits.concat()).view([logits.len() as i64, -1])
}

pub fn sampled(outcome: &Outcome) -> &Sampled {
    match outcome {
        Outcome::Sampled(sampled) => sampled,
        other => panic!("not sampled: {other:?}"),
    }
}

//! Choices: the best token, draws that follow the probabilities, and rows that have nothing to choose from.

use std::sync::Arc;

use sardine::engine::{Outcome, Sample, Sampling};
use tch::Kind;

use super::{first, sample, sampled, tensor};

fn sampling() -> Sampling {
    Sampling { do_sample: true, ..Sampling::greedy() }
}

fn id(outcome: &Outcome) -> u32 {
    sampled(outcome).id
}

/// Logits of a few likely tokens and many unlikely ones.
fn logits() -> Vec<f32> {
    (0..40).map(|id| ((id * 7919) % 41) as f32 / 8.0 - 2.0).collect()
}

#[test]
fn greedy_takes_the_best_and_reports_log_probabilities() {
    let request = first(Sampling { top_logprobs: 2, ..Sampling::greedy() });
    let outcomes = sample(&[&[0.0, 2.0, 1.0]], &[request]);
    let chosen = sampled(&outcomes[0]);
    let normaliser = (1.0f32 + 2.0f32.exp() + 1.0f32.exp()).ln();
    assert_eq!(chosen.id, 1);
    assert!((chosen.logprob - (2.0 - normaliser)).abs() < 1e-6);
    assert_eq!(chosen.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2]);
    assert!((chosen.top[1].1 - (1.0 - normaliser)).abs() < 1e-6);
}

#[test]
fn log_probabilities_are_of_the_raw_logits() {
    let raw = sample(&[&[0.0, 2.0, 1.0]], &[first(Sampling::greedy())]);
    let settings = Sampling { suppress_tokens: vec![2], temperature: 0.1, ..sampling() };
    let shaped = sample(&[&[0.0, 2.0, 1.0]], &[first(settings)]);
    assert_eq!(sampled(&raw[0]), sampled(&shaped[0]));
}

#[test]
fn half_precision_logits_are_read_too() {
    let logits = tensor(&[&[0.0, 2.0, 1.0]]).to_kind(Kind::BFloat16);
    let request = first(Sampling::greedy());
    assert_eq!(id(&sardine::model::sampler::sample(&logits, &[&request])[0]), 1);
}

#[test]
fn draws_follow_the_probabilities() {
    let (logits, num_draws) = (logits(), 20_000);
    let weights: Vec<f64> = logits.iter().map(|logit| f64::from(*logit).exp()).collect();
    let total: f64 = weights.iter().sum();
    let along = |draw| Sample { num_generated: draw, ..first(Sampling { seed: 11, ..sampling() }) };
    let across = |draw| first(Sampling { seed: draw as u64, ..sampling() });
    for request in [&along as &dyn Fn(usize) -> Sample, &across] {
        let mut counts = [0.0; 40];
        for start in (0..num_draws).step_by(1000) {
            let requests: Vec<Sample> = (start..start + 1000).map(request).collect();
            let rows = vec![logits.as_slice(); 1000];
            sample(&rows, &requests).iter().for_each(|outcome| counts[id(outcome) as usize] += 1.0);
        }
        let expected = weights.iter().map(|weight| weight / total * num_draws as f64);
        let chi_square: f64 =
            counts.iter().zip(expected).map(|(count, expected)| (count - expected).powi(2) / expected).sum();
        // 39 degrees of freedom: 72.1 is passed once in a thousand times, 15.7 is undercut as rarely.
        assert!((15.7..72.1).contains(&chi_square), "{chi_square}");
    }
}

#[test]
fn a_draw_is_the_same_alone_and_in_a_batch_of_others() {
    let logits = logits();
    let kinds = [
        sampling(),
        Sampling { temperature: 0.7, top_k: 20, top_p: 0.9, ..sampling() },
        Sampling { repetition_penalty: 1.3, ..sampling() },
        Sampling::greedy(),
    ];
    let requests: Vec<Sample> = (0..64)
        .map(|index| Sample {
            settings: Arc::new(Sampling { seed: index as u64 / 3, ..kinds[index % 4].clone() }),
            num_generated: index,
            num_prompt: 2,
            history: vec![1, 5, 9],
        })
        .collect();
    let together = sample(&vec![logits.as_slice(); 64], &requests);
    for (request, together) in requests.iter().zip(&together) {
        let alone = sample(&[&logits], std::slice::from_ref(request));
        assert_eq!(id(&alone[0]), id(together));
    }
}

#[test]
fn a_narrowed_vocabulary_draws_the_same_tokens_as_the_whole() {
    let mut logits = logits();
    let requests: Vec<Sample> = (0..200).map(|seed| first(Sampling { seed, top_k: 10, ..sampling() })).collect();
    let whole = sample(&vec![logits.as_slice(); 200], &requests);
    logits.extend([-1000.0; 600]);
    let narrowed = sample(&vec![logits.as_slice(); 200], &requests);
    assert_eq!(whole.iter().map(id).collect::<Vec<_>>(), narrowed.iter().map(id).collect::<Vec<_>>());
}

#[test]
fn a_removed_token_is_never_drawn() {
    let requests: Vec<Sample> = (0..1000).map(|seed| first(Sampling { seed, top_k: 2, ..sampling() })).collect();
    let row: &[f32] = &[1.0, 1.1, 0.9, 1.2];
    let outcomes = sample(&vec![row; 1000], &requests);
    assert!(outcomes.iter().all(|outcome| [1, 3].contains(&id(outcome))));
    assert!(outcomes.iter().any(|outcome| id(outcome) == 1));
}

#[test]
fn logits_that_are_no_numbers_fail_their_row_alone() {
    let (good, bad): (&[f32], &[f32]) = (&[0.0, 2.0, 1.0], &[0.0, f32::NAN, 1.0]);
    for settings in [Sampling::greedy(), sampling(), Sampling { top_k: 1, ..sampling() }] {
        let requests = [first(settings.clone()), first(settings.clone()), first(settings)];
        let outcomes = sample(&[good, bad, good], &requests);
        assert_eq!(outcomes[1], Outcome::Failed("the model's logits are not finite numbers".to_owned()));
        assert!(id(&outcomes[0]) < 3 && id(&outcomes[2]) < 3);
    }
    let infinite = sample(&[&[0.0, f32::INFINITY]], &[first(Sampling::greedy())]);
    assert!(matches!(infinite[0], Outcome::Failed(_)));
}

#[test]
fn invalid_values_can_be_removed() {
    let settings = Sampling { remove_invalid_values: true, ..Sampling::greedy() };
    let outcomes = sample(&[&[-1.0, f32::NAN, -2.0]], &[first(settings)]);
    assert_eq!(id(&outcomes[0]), 1);
    assert!(sampled(&outcomes[0]).logprob.is_finite());
}

#[test]
fn a_request_that_forbids_every_token_is_told_so() {
    let settings = Sampling { suppress_tokens: vec![0, 1], ..Sampling::greedy() };
    for settings in [settings.clone(), Sampling { do_sample: true, ..settings }] {
        let outcomes = sample(&[&[1.0, 2.0]], &[first(settings)]);
        assert_eq!(outcomes[0], Outcome::Failed("the request's settings forbid every token".to_owned()));
    }
}

#[test]
fn extreme_settings_do_not_panic() {
    let extreme = Sampling {
        seed: u64::MAX,
        sequence_bias: vec![(vec![], 1.0), (vec![99], 1.0), (vec![1, 99], 1.0)],
        repetition_penalty: 1e-3,
        no_repeat_ngram_size: usize::MAX,
        bad_words: vec![vec![], vec![77]],
        eos: vec![1, 500],
        exponential_decay_length_penalty: Some((0, 1e300)),
        suppress_tokens: vec![u32::MAX],
        temperature: 1e3,
        top_h: Some(1.0),
        top_k: usize::MAX,
        top_p: 0.0,
        top_logprobs: 1000,
        ..sampling()
    };
    let request = Sample { settings: Arc::new(extreme), num_generated: 3, num_prompt: 0, history: vec![0, 99, 1] };
    let outcomes = sample(&[&[1.0, 2.0, 3.0]], &[request]);
    assert_eq!(sampled(&outcomes[0]).top.len(), 3);
    assert!(sardine::model::sampler::sample(&tensor(&[&[0.0]]).narrow(0, 0, 0), &[]).is_empty());
}

//! Every processor and warper, alone and in order, against the scores that Transformers' own classes give.

use std::sync::Arc;

use sardine::engine::{Sample, Sampling};
use sardine::model::sampler::processed_scores;
use serde::Deserialize;

use super::tensor;

#[derive(Deserialize)]
struct Fixtures {
    eos: Vec<u32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    settings: Settings,
    prompt: Vec<u32>,
    generated: Vec<u32>,
    logits: Vec<f32>,
    /// `None` is -inf.
    scores: Vec<Option<f32>>,
}

/// Settings in Transformers' names.
#[derive(Deserialize, Default, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    do_sample: bool,
    sequence_bias: Vec<(Vec<u32>, f32)>,
    repetition_penalty: Option<f32>,
    no_repeat_ngram_size: usize,
    bad_words_ids: Vec<Vec<u32>>,
    min_length: usize,
    min_new_tokens: usize,
    max_length: usize,
    forced_bos_token_id: Option<u32>,
    forced_eos_token_id: Option<OneOrMany>,
    remove_invalid_values: bool,
    exponential_decay_length_penalty: Option<(usize, f64)>,
    suppress_tokens: Vec<u32>,
    begin_suppress_tokens: Vec<u32>,
    temperature: Option<f32>,
    top_h: Option<f32>,
    top_k: usize,
    top_p: Option<f32>,
    min_p: f32,
    typical_p: Option<f32>,
    epsilon_cutoff: f32,
    eta_cutoff: f32,
    renormalize_logits: bool,
}

#[derive(Deserialize, Clone, PartialEq)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl Case {
    fn request(&self, eos: &[u32]) -> Sample {
        let s = &self.settings;
        let forced_eos = s.forced_eos_token_id.clone().map(|ids| match ids {
            OneOrMany::One(id) => (s.max_length - 1, vec![id]),
            OneOrMany::Many(ids) => (s.max_length - 1, ids),
        });
        let settings = Sampling {
            do_sample: s.do_sample,
            sequence_bias: s.sequence_bias.clone(),
            repetition_penalty: s.repetition_penalty.unwrap_or(1.0),
            no_repeat_ngram_size: s.no_repeat_ngram_size,
            bad_words: s.bad_words_ids.clone(),
            min_length: s.min_length,
            min_new_tokens: s.min_new_tokens,
            eos: eos.to_vec(),
            forced_bos: s.forced_bos_token_id,
            forced_eos,
            remove_invalid_values: s.remove_invalid_values,
            exponential_decay_length_penalty: s.exponential_decay_length_penalty,
            suppress_tokens: s.suppress_tokens.clone(),
            begin_suppress_tokens: s.begin_suppress_tokens.clone(),
            temperature: s.temperature.unwrap_or(1.0),
            top_h: s.top_h,
            top_k: s.top_k,
            top_p: s.top_p.unwrap_or(1.0),
            min_p: s.min_p,
            typical_p: s.typical_p.unwrap_or(1.0),
            epsilon_cutoff: s.epsilon_cutoff,
            eta_cutoff: s.eta_cutoff,
            renormalize_logits: s.renormalize_logits,
            ..Sampling::greedy()
        };
        let history = [self.prompt.as_slice(), &self.generated].concat();
        let history = if settings.reads_history() { history } else { Vec::new() };
        Sample {
            settings: Arc::new(settings),
            num_generated: self.generated.len(),
            num_prompt: self.prompt.len(),
            history,
        }
    }

    /// Whether only the warpers look at it: they do not know which token is which.
    fn is_warped_only(&self) -> bool {
        let s = &self.settings;
        let unwarped = s.sequence_bias.is_empty()
            && s.repetition_penalty.is_none()
            && s.no_repeat_ngram_size == 0
            && s.bad_words_ids.is_empty()
            && s.suppress_tokens.is_empty();
        unwarped && s.do_sample
    }
}

fn fixtures() -> Fixtures {
    serde_json::from_str(include_str!("fixtures/processed.json")).unwrap()
}

fn rows(logits: &[&[f32]], requests: &[&Sample]) -> Vec<Vec<f32>> {
    Vec::try_from(processed_scores(&tensor(logits), requests)).unwrap()
}

fn assert_scores(name: &str, found: &[f32], expected: &[Option<f32>]) {
    for (id, (found, expected)) in found.iter().zip(expected).enumerate() {
        let same = match expected {
            None => *found == f32::NEG_INFINITY,
            Some(expected) => (found - expected).abs() <= 1e-6 * expected.abs().max(1.0),
        };
        assert!(same, "{name}: token {id} has {found}, expected {expected:?}");
    }
}

#[test]
fn the_scores_are_those_of_transformers() {
    let Fixtures { eos, cases } = fixtures();
    assert!(cases.len() > 40);
    for case in cases {
        let found = rows(&[&case.logits], &[&case.request(&eos)]);
        assert_scores(&case.name, &found[0], &case.scores);
    }
}

#[test]
fn requests_of_every_kind_share_a_batch_without_touching_each_other() {
    let Fixtures { eos, cases } = fixtures();
    let requests: Vec<Sample> = cases.iter().map(|case| case.request(&eos)).collect();
    let logits: Vec<&[f32]> = cases.iter().map(|case| case.logits.as_slice()).collect();
    let found = rows(&logits, &requests.iter().collect::<Vec<_>>());
    for (case, found) in cases.iter().zip(found) {
        assert_scores(&case.name, &found, &case.scores);
    }
}

#[test]
fn looking_at_the_best_candidates_only_changes_no_score() {
    let Fixtures { eos, cases } = fixtures();
    let narrowed = |case: &&Case| {
        let s = &case.settings;
        let by_mass = s.top_k == 0 && s.top_h.is_none() && s.top_p.is_some();
        case.is_warped_only() && ((1..40).contains(&s.top_k) || by_mass)
    };
    let mut num_cases = 0;
    for case in cases.iter().filter(narrowed) {
        // Each token among many that are out of the question.
        let mut logits = vec![-1000.0; case.logits.len() * 120];
        case.logits.iter().enumerate().for_each(|(id, logit)| logits[id * 120 + 5] = *logit);
        let found = rows(&[&logits], &[&case.request(&eos)]).remove(0);
        let (kept, others): (Vec<_>, Vec<_>) = found.into_iter().enumerate().partition(|(id, _)| id % 120 == 5);
        let kept: Vec<f32> = kept.into_iter().map(|(_, score)| score).collect();
        assert_scores(&case.name, &kept, &case.scores);
        assert!(others.iter().all(|(_, score)| *score == f32::NEG_INFINITY), "{}", case.name);
        num_cases += 1;
    }
    assert!(num_cases >= 8, "only {num_cases} cases");
}

#[test]
fn top_p_keeps_the_best_tokens_of_a_vocabulary_up_to_their_mass() {
    // A peak that the best thousand tokens hold, and a plain that they do not.
    for steepness in [4.0, 0.5] {
        let logits: Vec<f32> =
            (0..6000).map(|id| (((id * 2741) % 6007) as f32 / 6007.0).powi(3) * 8.0 * steepness).collect();
        let settings = Sampling { do_sample: true, temperature: 0.8, top_p: 0.9, ..Sampling::greedy() };
        let request = Sample { settings: Arc::new(settings), num_generated: 0, num_prompt: 1, history: Vec::new() };
        let found = rows(&[&logits], &[&request]).remove(0);

        let weight = |logit: f32| f64::from(logit / 0.8).exp();
        let total: f64 = logits.iter().map(|logit| weight(*logit)).sum();
        let mut sorted = logits.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let mut mass = 0.0;
        let kept = sorted.iter().take_while(|logit| {
            let is_kept = mass < 0.9;
            mass += weight(**logit) / total;
            is_kept
        });
        let num_kept = kept.count();
        let found = found.iter().filter(|score| score.is_finite()).count();
        assert!(found.abs_diff(num_kept) <= 1, "{found} tokens are kept, expected {num_kept}");
    }
}

#[test]
fn openais_penalties_count_the_generated_tokens_only() {
    let settings = Sampling { frequency_penalty: 0.5, presence_penalty: 0.25, ..Sampling::greedy() };
    let history = vec![0, 0, 1, 2, 2, 2, 9];
    let request = Sample { settings: Arc::new(settings), num_generated: 5, num_prompt: 2, history };
    assert_eq!(rows(&[&[1.0, 1.0, 1.0, 1.0]], &[&request]), [[1.0, 0.25, -0.75, 1.0]]);
}

//! How likely a prompt's own tokens are: against Transformers, against the runner's own logits, whole and in pieces.

use std::sync::Arc;

use sardine::engine::{ModelRunner, Outcome, Outputs, Prompt, Row, Sample, Sampled, Sampling, Score, Slot, Step};
use sardine::model::{Dtype, QwenRunner};
use tch::{Kind, Tensor};

use crate::driving::{Sequence, watch};
use crate::fixtures::{CASES_WITH_LAYERS, Case, folder, load, read_tensors};

const TOP: usize = 3;
/// Of a log-probability. A hidden state differs by up to 1e-3 from Transformers'.
const TOLERANCE: f64 = 1e-3;

#[test]
fn a_prompt_is_as_likely_as_in_transformers() {
    let mut runner = load(Dtype::Float32);
    for name in CASES_WITH_LAYERS {
        let case = Case::read(name);
        let last_layer = runner.config().text.layer_types.len() - 1;
        let theirs = head(case.golden(&format!("fp32.layer.{last_layer}"))).log_softmax(-1, Kind::Float);
        assert_scores(&scored(&mut runner, &case.prompt, usize::MAX), &case.prompt, &theirs, name);
    }
}

#[test]
fn a_prompt_in_pieces_is_as_likely_as_whole_and_as_token_by_token() {
    let mut runner = load(Dtype::Float32);
    for name in ["text", "one_token", "tokens_65", "long", "one_image"] {
        let case = Case::read(name);
        let plain = token_by_token(&mut runner, &case.prompt);
        for chunk in [usize::MAX, 100, 64, 7] {
            let scores = scored(&mut runner, &case.prompt, chunk);
            assert_scores(&scores, &case.prompt, &plain, &format!("{name} in pieces of {chunk}"));
        }
    }
}

/// Whose tokens are scored goes through the whole last layer, who only goes on does with its last tokens.
#[test]
fn what_is_scored_does_not_change_what_is_chosen() {
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        let mut runner = load(dtype);
        for cases in [&["text"][..], &["tokens_65"], &["one_image"], &["long"], &["tokens_65", "long", "text"]] {
            let cases: Vec<Case> = cases.iter().map(|name| Case::read(name)).collect();
            let rows = cases.iter().enumerate();
            let mut rows: Vec<Row> =
                rows.map(|(slot, case)| Sequence::new(&case.prompt, slot, 1).next_row(usize::MAX)).collect();
            let unscored = run(&mut runner, &rows);
            for (row, case) in rows.iter_mut().zip(&cases) {
                row.score = Some(Score { targets: case.prompt.ids[1..].to_vec(), top: 0 });
            }
            assert_eq!(run(&mut runner, &rows).rows, unscored.rows, "{dtype:?}");
        }
    }
}

fn run(runner: &mut QwenRunner, rows: &[Row]) -> Outputs {
    runner.run(&Step { released: Vec::new(), rows: rows.to_vec() })
}

#[test]
fn tokens_to_score_that_are_none_fail_their_row() {
    let mut runner = load(Dtype::Float32);
    let case = Case::read("text");
    for targets in [vec![320], vec![1; case.prompt.len() + 1]] {
        let mut row = Sequence::new(&case.prompt, 0, 1).next_row(usize::MAX);
        row.score = Some(Score { targets, top: 0 });
        let outputs = runner.run(&Step { released: Vec::new(), rows: vec![row] });
        assert!(matches!(&outputs.rows[0], Outcome::Failed(message) if message.contains("to score")), "{outputs:?}");
    }
}

/// The prompt's tokens from the second on, as the runner scores them, prefilled `chunk` at a time.
fn scored(runner: &mut QwenRunner, prompt: &Prompt, chunk: usize) -> Vec<Sampled> {
    let mut sequence = Sequence::new(prompt, 0, 1);
    let (mut scores, mut end) = (Vec::new(), 0);
    while !sequence.is_done() {
        let mut row = sequence.next_row(chunk);
        end += row.ids.len();
        let targets = prompt.ids[row.start + 1..prompt.len().min(end + 1)].to_vec();
        row.score = Some(Score { targets, top: TOP });
        let mut outputs = runner.run(&Step { released: Vec::new(), rows: vec![row.clone()] });
        scores.append(&mut outputs.scores[0]);
        sequence.accept(&row, &outputs.rows[0]);
    }
    scores
}

/// Log-probabilities [tokens, vocabulary] after each of the prompt's tokens, one step for each.
fn token_by_token(runner: &mut QwenRunner, prompt: &Prompt) -> Tensor {
    let seen = watch(runner);
    let mut sequence = Sequence::new(prompt, 1, 1);
    let logits = (0..prompt.len()).map(|_| {
        let mut row = sequence.next_row(1);
        let is_last = row.sample.is_some();
        row.sample = Some(Sample {
            settings: Arc::new(Sampling::greedy()),
            num_generated: 0,
            num_prompt: prompt.len(),
            history: Vec::new(),
        });
        let outputs = runner.run(&Step { released: Vec::new(), rows: vec![row.clone()] });
        sequence.accept(&row, if is_last { &outputs.rows[0] } else { &Outcome::Prefilled });
        seen.lock().unwrap()["logits"].copy()
    });
    let logits = Tensor::cat(&logits.collect::<Vec<_>>(), 0);
    runner.run(&Step { released: vec![Slot(1)], rows: Vec::new() });
    logits.log_softmax(-1, Kind::Float)
}

/// `logprobs` [tokens, vocabulary] are those after each token of the prompt.
fn assert_scores(scores: &[Sampled], prompt: &Prompt, logprobs: &Tensor, what: &str) {
    assert_eq!(scores.len(), prompt.len() - 1, "{what}");
    for (index, (score, id)) in scores.iter().zip(&prompt.ids[1..]).enumerate() {
        let row = logprobs.get(index as i64);
        let near = |logprob: f32, id: u32| (f64::from(logprob) - row.double_value(&[i64::from(id)])).abs() < TOLERANCE;
        assert!(score.id == *id && near(score.logprob, *id), "{what}: token {}: {score:?}", index + 1);
        assert_eq!(score.top.len(), TOP, "{what}");
        let best: Vec<f64> = Vec::try_from(row.topk(TOP as i64, -1, true, true).0.to_kind(Kind::Double)).unwrap();
        for ((id, logprob), best) in score.top.iter().zip(best) {
            let is_best = (f64::from(*logprob) - best).abs() < TOLERANCE;
            assert!(is_best && near(*logprob, *id), "{what}: token {}: {score:?}", index + 1);
        }
    }
}

/// The final norm and the tied head, written out plainly: [tokens, hidden] -> [tokens, vocabulary].
fn head(hidden: &Tensor) -> Tensor {
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let weight = |name: &str| {
        let found = shards.iter().find_map(|shard| read_tensors(&folder().join("checkpoint").join(shard)).remove(name));
        found.unwrap_or_else(|| panic!("no {name}")).to_kind(Kind::Float)
    };
    let rms = (hidden.square().mean_dim(-1, true, Kind::Float) + 1e-6).sqrt();
    let normed = hidden / rms * (weight("model.language_model.norm.weight") + 1.0);
    normed.matmul(&weight("model.language_model.embed_tokens.weight").tr())
}

//! Runs prompts through the engine's seam, as the engine would: prefill in pieces, then token by token.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use sardine::engine::{ModelRunner, Outcome, Outputs, PictureRows, Prompt, Row, Sample, Sampling, Slot, Step};
use sardine::model::QwenRunner;
use tch::Tensor;

/// A prompt on its way through a slot.
pub struct Sequence<'a> {
    prompt: &'a Prompt,
    slot: Slot,
    max_new: usize,
    /// Tokens that the slot holds.
    held: usize,
    pub generated: Vec<u32>,
}

impl<'a> Sequence<'a> {
    pub fn new(prompt: &'a Prompt, slot: usize, max_new: usize) -> Sequence<'a> {
        Sequence { prompt, slot: Slot(slot), max_new, held: 0, generated: Vec::new() }
    }

    pub fn is_done(&self) -> bool {
        self.generated.len() == self.max_new
    }

    /// The next row: at most `chunk` tokens of the prompt, or the newest token.
    pub fn next_row(&self, chunk: usize) -> Row {
        if self.held < self.prompt.len() {
            return self.prompt_row(self.held..self.prompt.len().min(self.held + chunk));
        }
        let position = self.held as i64 + self.prompt.rope_delta;
        let newest = *self.generated.last().expect("the prompt's last row samples");
        self.row(vec![newest], vec![[position; 3]], Vec::new(), true)
    }

    fn prompt_row(&self, tokens: Range<usize>) -> Row {
        let pictures = self.prompt.pictures.iter().filter_map(|placed| {
            let first = tokens.start.max(placed.placeholders.start);
            let end = tokens.end.min(placed.placeholders.end);
            (first < end).then(|| PictureRows {
                picture: placed.picture.clone(),
                rows: first - tokens.start..end - tokens.start,
                first_embedding: first - placed.placeholders.start,
            })
        });
        let is_last = tokens.end == self.prompt.len();
        let (ids, positions) = (&self.prompt.ids[tokens.clone()], &self.prompt.positions[tokens.clone()]);
        self.row(ids.to_vec(), positions.to_vec(), pictures.collect(), is_last)
    }

    fn row(&self, ids: Vec<u32>, positions: Vec<[i64; 3]>, pictures: Vec<PictureRows>, sampled: bool) -> Row {
        let sample = sampled.then(|| Sample {
            settings: Arc::new(Sampling::greedy()),
            num_generated: self.generated.len(),
            num_prompt: self.prompt.len(),
            history: Vec::new(),
        });
        let max_len = self.prompt.len() + self.max_new;
        Row { slot: self.slot, start: self.held, max_len, ids, positions, pictures, sample, score: None }
    }

    /// Takes what became of `row`.
    pub fn accept(&mut self, row: &Row, outcome: &Outcome) {
        self.held += row.ids.len();
        match outcome {
            Outcome::Prefilled => assert!(self.held < self.prompt.len()),
            Outcome::Sampled(sampled) => self.generated.push(sampled.id),
            Outcome::Failed(message) => panic!("{message}"),
        }
    }
}

/// Runs one step over the next rows of `sequences` (with their chunk sizes), and hands each its outcome.
pub fn step(runner: &mut QwenRunner, sequences: &mut [(&mut Sequence, usize)]) -> Outputs {
    let rows: Vec<Row> = sequences.iter().map(|(sequence, chunk)| sequence.next_row(*chunk)).collect();
    let outputs = runner.run(&Step { released: Vec::new(), rows: rows.clone() });
    assert_eq!(outputs.rows.len(), rows.len());
    for (((sequence, _), row), outcome) in sequences.iter_mut().zip(&rows).zip(&outputs.rows) {
        sequence.accept(row, outcome);
    }
    outputs
}

/// The greedy continuation of `prompt`, prefilled `chunk` tokens at a time in `slot`.
pub fn generate(runner: &mut QwenRunner, prompt: &Prompt, slot: usize, chunk: usize, max_new: usize) -> Vec<u32> {
    let mut sequence = Sequence::new(prompt, slot, max_new);
    while !sequence.is_done() {
        step(runner, &mut [(&mut sequence, chunk)]);
    }
    sequence.generated
}

/// What the runner computed on its way, by name: the latest of each layer, all pictures as `vision.0`, `vision.1` ...
pub type Seen = Arc<Mutex<HashMap<String, Tensor>>>;

/// Watches a runner's intermediate results.
pub fn watch(runner: &mut QwenRunner) -> Seen {
    let seen = Seen::default();
    let mut num_pictures = 0;
    let store = seen.clone();
    runner.observe(Box::new(move |name, tensor| {
        let mut name = name.to_owned();
        if name == "vision" {
            name = format!("vision.{num_pictures}");
            num_pictures += 1;
        }
        store.lock().unwrap().insert(name, tensor.copy());
    }));
    seen
}

//! One forward pass as plain data, and the trait of whoever can run it: the seam between the engine and the model.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::prompt::Picture;
use super::sampling::Sampling;

/// A place in the model's memory for one sequence: its recurrent states and its keys and values.
/// Slots are numbered from 0 to the engine's `max_batch_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub usize);

/// One forward pass over the next tokens of some sequences: one token of each that decodes, a chunk of a prompt for one
/// that prefills. With `rows` empty it only frees memory.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Slots whose sequence has ended since the last step: their memory may be freed, before the rows are looked at (a row may
    /// begin a sequence in one of them).
    pub released: Vec<Slot>,
    pub rows: Vec<Row>,
}

/// The tokens that one sequence contributes to a step. Invariant: no two rows of a step share a slot.
#[derive(Debug, Clone)]
pub struct Row {
    pub slot: Slot,
    /// Tokens that the slot holds already. 0 begins a sequence: whatever the slot held is gone.
    pub start: usize,
    /// Tokens that the sequence may grow to: what its keys and values may be sized for.
    pub max_len: usize,
    pub ids: Vec<u32>,
    /// (t, h, w) of each id.
    pub positions: Vec<[i64; 3]>,
    pub pictures: Vec<PictureRows>,
    /// Choose a token after the last id. `None` within a prompt.
    pub sample: Option<Sample>,
    /// Say how likely the prompt's own tokens are. `None` where nobody asked.
    pub score: Option<Score>,
}

/// The part of a picture that lies in one row: a chunk may end within a picture.
#[derive(Debug, Clone)]
pub struct PictureRows {
    pub picture: Arc<Picture>,
    /// Which of [`Row::ids`] its embeddings replace.
    pub rows: Range<usize>,
    /// The picture's embedding that replaces the first of them.
    pub first_embedding: usize,
}

/// What is needed to choose the token after a row.
#[derive(Debug, Clone)]
pub struct Sample {
    pub settings: Arc<Sampling>,
    /// New tokens so far: 0 for the first. With the seed it determines the random number.
    pub num_generated: usize,
    /// Tokens of the prompt.
    pub num_prompt: usize,
    /// Prompt and generated ids, where `settings.reads_history()`; else empty.
    pub history: Vec<u32>,
}

/// The tokens of a prompt whose log-probabilities are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Score {
    /// `targets[i]` follows the row's `ids[i]`: the last of a chunk is the first id of the next, and nothing follows the
    /// prompt's last id.
    pub targets: Vec<u32>,
    /// So many most likely alternatives are reported with each.
    pub top: usize,
}

/// What became of each row, in their order.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    pub rows: Vec<Outcome>,
    /// One for each of the targets of each row; empty for a row that scores nothing. May be left empty where none does.
    pub scores: Vec<Vec<Sampled>>,
    /// How the pictures that begin in the step's rows were seen; `None` where none does.
    pub seen: Option<Seen>,
}

/// What became of the pictures of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub began: Instant,
    /// On a GPU, when its work was queued and not when it was done.
    pub ended: Instant,
    /// Pictures that the vision tower computed, and those that were the same as one that it had.
    pub num_computed: usize,
    pub num_reused: usize,
    /// Bytes of what is kept for pictures that come again.
    pub kept_bytes: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The row's tokens are in the slot; no token was asked for.
    Prefilled,
    Sampled(Sampled),
    /// This sequence cannot go on (its logits are not numbers, say); the others can.
    Failed(String),
}

/// A chosen token, or one of the prompt's. Log-probabilities are of the raw logits (before any processor), natural logarithm.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    pub id: u32,
    pub logprob: f32,
    /// The most likely tokens, best first, as many as [`Sampling::top_logprobs`] or [`Score::top`].
    pub top: Vec<(u32, f32)>,
}

/// The model behind the seam. Lives and dies on the engine's thread; may panic (a libtorch failure does), which fails the
/// step's sequences only.
pub trait ModelRunner {
    fn run(&mut self, step: &Step) -> Outputs;

    /// What is held for sequences, asked when there should be none.
    fn held(&self) -> Held {
        Held::default()
    }
}

/// What a runner holds for sequences that have begun and were not released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    pub sequences: usize,
    /// Tokens whose keys and values there is memory for.
    pub kv_tokens: usize,
    /// Embeddings of pictures that were not consumed.
    pub pictures: usize,
}

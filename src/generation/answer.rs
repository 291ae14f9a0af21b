//! An answer on its way and whole: deltas, tokens, why it ended and what it cost.

use std::time::Duration;

/// A generated token with its own text.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub id: u32,
    /// The token decoded on its own.
    pub text: String,
    pub logprob: f32,
    pub special: bool,
    /// The most likely alternatives: (id, text, logprob).
    pub top: Vec<(u32, String, f32)>,
}

/// A piece of the answer. `text` is what became readable: empty while a character is incomplete.
#[derive(Debug, Clone, PartialEq)]
pub struct Delta {
    pub text: String,
    pub tokens: Vec<Token>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// A token in [`Stop::eos`].
    Eos,
    StopString,
    /// The longest answer, or the end of the context.
    Length,
    /// `max_time` has passed; the text so far stands.
    Time,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub text: String,
    pub tokens: Vec<Token>,
    pub finish: Finish,
    pub usage: Usage,
}

/// What an answer cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub generated_tokens: usize,
    pub queue_time: Duration,
    /// From leaving the queue to the last token.
    pub inference_time: Duration,
}

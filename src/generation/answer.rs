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

/// A token of the prompt with its own text, where the request asked for it.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptToken {
    pub id: u32,
    /// The token decoded on its own.
    pub text: String,
    /// `None` for the first: nothing comes before it.
    pub logprob: Option<f32>,
    pub special: bool,
    /// The most likely alternatives: (id, text, logprob). Empty for the first.
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
    /// The prompt's tokens, where [`ChatRequest::prompt_logprobs`](super::ChatRequest) asked for them; else empty.
    pub prompt: Vec<PromptToken>,
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

//! A request in the one form that all protocols translate theirs into.

use std::time::{Duration, Instant};

pub use crate::chat::{Conversation, Ending};
use crate::engine::Sampling;
use crate::media::Medium;

/// A request. Defaults are resolved: no field means "default".
#[derive(Debug, Clone)]
pub struct ChatRequest {
    pub input: Input,
    /// In the order of the placeholders in `input`.
    pub media: Vec<Medium>,
    pub sampling: Sampling,
    pub length: Length,
    pub stop: Stop,
    /// Special tokens (`<|im_end|>` ...) are left out of the answer's text.
    pub skip_special_tokens: bool,
    /// Asks for the prompt's own tokens with their log-probabilities and so many alternatives to each.
    pub prompt_logprobs: Option<usize>,
    /// When the client stops waiting. What cannot begin before is refused, what has begun ends as [`Finish::Time`](super::Finish).
    pub deadline: Option<Instant>,
}

#[derive(Debug, Clone)]
pub enum Input {
    /// Rendered by the checkpoint's chat template.
    Conversation(Conversation),
    /// Tokenised as it is, special tokens included.
    Raw(String),
    /// Token ids, as they are.
    Tokens(Vec<u32>),
}

/// How long the answer may and must be. Lengths are in tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Length {
    pub max: MaxLength,
    pub max_time: Option<Duration>,
    /// The prompt is cut to its last tokens, as many as this.
    pub truncate: Option<usize>,
}

/// The longest answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxLength {
    /// So many new tokens; refused where the context has no room for them. 0 where the prompt itself is what is asked for
    /// ([`ChatRequest::prompt_logprobs`]).
    New(usize),
    /// So many new tokens, or as many as the context has room for: a default.
    NewAtMost(usize),
    /// Prompt and new tokens together (`max_length`).
    Total(usize),
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stop {
    /// Token ids that end the answer.
    pub eos: Vec<u32>,
    /// Texts that end the answer as soon as the newest token completes one.
    pub strings: Vec<String>,
    /// Whether the text that ended the answer stays in it (Transformers and TGI: yes; OpenAI: no).
    pub keep_string: bool,
}

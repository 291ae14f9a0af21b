//! The request path: a conversation in, a stream of deltas out. Every protocol calls this and nothing else.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::engine::Sampling;
use crate::media::Source;

/// A request in the one form that all protocols translate theirs into. Defaults are resolved: no field means "default".
#[derive(Debug, Clone)]
pub struct ChatRequest {
    pub input: Input,
    /// In the order of the placeholders in `input`.
    pub media: Vec<Source>,
    pub sampling: Sampling,
    pub length: Length,
    pub stop: Stop,
    /// Special tokens (`<|im_end|>` ...) are left out of the answer's text.
    pub skip_special_tokens: bool,
}

#[derive(Debug, Clone)]
pub enum Input {
    /// Rendered by the checkpoint's chat template.
    Conversation(Conversation),
    /// Tokenised as it is, special tokens included.
    Raw(String),
}

/// A conversation as the chat template wants it.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// Messages as the client sent them (role, content, tool_calls ...), except that picture parts are `{"type": "image"}`.
    pub messages: Vec<Value>,
    pub tools: Vec<Value>,
    /// Other variables for the template: `enable_thinking`, `add_vision_id` ...
    pub template_variables: Map<String, Value>,
    /// What follows the last message.
    pub ending: Ending,
}

/// What follows the last message of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// The start of the assistant's turn.
    #[default]
    GenerationPrompt,
    /// Nothing: the last message, the assistant's, is left open and is continued.
    Continue,
    /// Nothing: the last message is closed.
    Nothing,
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
    /// So many new tokens; refused where the context has no room for them.
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

/// Everything a request needs, shared by all handlers.
#[derive(Clone)]
pub struct Service {
    inner: Arc<()>,
}

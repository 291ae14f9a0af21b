//! What a reply is made of: records, their details, and the events of a stream. The names are TGI's.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct Record {
    pub(in crate::http) generated_text: GeneratedText,
    /// Where `details` was true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(in crate::http) details: Option<Details>,
    /// In visual question answering: the text, trimmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(in crate::http) answer: Option<String>,
    /// In visual question answering: how sure the model was, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(in crate::http) score: Option<f32>,
}

/// The answer's text; with `return_full_text` what was asked and the answer at its end, in the form in which it was asked.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum GeneratedText {
    Text(String),
    #[schema(value_type = Vec<Object>)]
    Conversation(Vec<Value>),
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct Details {
    #[serde(flatten)]
    pub(super) sequence: Sequence,
    /// The other answers, where `best_of` was above 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) best_of_sequences: Option<Vec<BestOfSequence>>,
}

/// An answer that was not the best.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct BestOfSequence {
    pub(super) generated_text: GeneratedText,
    #[serde(flatten)]
    pub(super) sequence: Sequence,
}

/// How an answer came about.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct Sequence {
    pub(super) finish_reason: FinishReason,
    pub(super) generated_tokens: usize,
    /// Null where nothing was drawn.
    pub(super) seed: Option<u64>,
    /// The prompt's tokens, where `decoder_input_details` was true.
    pub(super) prefill: Vec<PrefillToken>,
    pub(super) tokens: Vec<Token>,
    /// The likeliest tokens at each place, where `top_n_tokens` asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) top_tokens: Option<Vec<Vec<TopToken>>>,
}

/// Why an answer ended; a time limit is a length to those who know three reasons only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum FinishReason {
    Length,
    EosToken,
    StopSequence,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct PrefillToken {
    pub(super) id: u32,
    pub(super) text: String,
    /// Null at the first token, which follows nothing.
    pub(super) logprob: Option<f32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct Token {
    pub(super) id: u32,
    pub(super) text: String,
    pub(super) logprob: f32,
    /// Not part of the text, as the end of a turn.
    pub(super) special: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct TopToken {
    pub(super) id: u32,
    pub(super) text: String,
    /// Null where the token was ruled out.
    #[schema(value_type = Option<f32>)]
    pub(super) logprob: f32,
}

/// An event of a stream: a token of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct StreamEvent {
    /// From 1.
    pub(super) index: usize,
    /// Its text is what became readable with it.
    pub(super) token: Token,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) top_tokens: Option<Vec<TopToken>>,
    /// The whole text, in the last event.
    pub(super) generated_text: Option<GeneratedText>,
    /// In the last event, where `details` was true.
    pub(super) details: Option<StreamDetails>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct StreamDetails {
    pub(super) finish_reason: FinishReason,
    pub(super) generated_tokens: usize,
    pub(super) input_length: usize,
    pub(super) seed: Option<u64>,
}

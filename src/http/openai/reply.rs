//! What the routes of OpenAI's API answer: whole answers, chunks of streams, and the list of models.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::Value;
use utoipa::ToSchema;

use crate::generation;

/// What an answer cost, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::http) struct Usage {
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
    pub(super) total_tokens: usize,
}

impl Usage {
    /// What answers cost of which every `n` answer one prompt: the prompt is counted once.
    pub(super) fn of(answers: &[generation::Usage], n: usize) -> Usage {
        let prompt_tokens = answers.iter().step_by(n).map(|usage| usage.prompt_tokens).sum();
        let completion_tokens = answers.iter().map(|usage| usage.generated_tokens).sum();
        Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct ChatCompletion {
    pub(super) id: String,
    /// "chat.completion".
    pub(super) object: &'static str,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) choices: Vec<ChatChoice>,
    pub(super) usage: Usage,
    /// One entry a token of the prompt, where they were asked for; the first is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Option<Object>>>)]
    pub(super) prompt_logprobs: Option<Value>,
    /// Where ids were asked for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "numbers")]
    #[schema(value_type = Option<Vec<u32>>)]
    pub(super) prompt_token_ids: Option<Arc<[u32]>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct ChatChoice {
    pub(super) index: usize,
    pub(super) message: Message,
    pub(super) logprobs: Option<ChatLogprobs>,
    /// Where ids were asked for: the one that ended the answer included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_ids: Option<Vec<u32>>,
    /// "stop", "length" or "tool_calls".
    pub(super) finish_reason: &'static str,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct Message {
    /// "assistant".
    pub(super) role: &'static str,
    /// Null where the answer is calls only.
    pub(super) content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<String>,
    /// The same, under the name that others read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<ToolCall>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct ToolCall {
    pub(super) id: String,
    /// "function".
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) function: Function,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct Function {
    pub(super) name: String,
    /// A JSON object, as text.
    pub(super) arguments: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct ChatLogprobs {
    pub(super) content: Vec<TokenLogprob>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct TokenLogprob {
    pub(super) token: String,
    pub(super) logprob: f32,
    /// The token's bytes: a token may be a part of a character.
    pub(super) bytes: Vec<u8>,
    pub(super) top_logprobs: Vec<TopLogprob>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct TopLogprob {
    pub(super) token: String,
    pub(super) logprob: f32,
    pub(super) bytes: Vec<u8>,
}

/// A piece of a streamed chat completion.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct ChatChunk {
    pub(super) id: String,
    /// "chat.completion.chunk".
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) model: String,
    /// Empty in the chunk that tells the usage.
    pub(super) choices: Vec<ChatChunkChoice>,
    /// Where ids were asked for: in the first chunk of each choice.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "numbers")]
    #[schema(value_type = Option<Vec<u32>>)]
    pub(super) prompt_token_ids: Option<Arc<[u32]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Usage>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct ChatChunkChoice {
    pub(super) index: usize,
    pub(super) delta: Delta,
    pub(super) logprobs: Option<ChatLogprobs>,
    /// Where ids were asked for: of the tokens since the chunk before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_ids: Option<Vec<u32>>,
    pub(super) finish_reason: Option<&'static str>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<ToolCallChunk>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct ToolCallChunk {
    pub(super) index: usize,
    /// In the first chunk of a call, as are `type` and the function's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    pub(super) function: FunctionChunk,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct FunctionChunk {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) arguments: String,
}

/// A whole completion, and a piece of a streamed one.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct Completion {
    pub(super) id: String,
    /// "text_completion".
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) model: String,
    /// Those of the first prompt, then those of the second ...; empty in the chunk that tells the usage.
    pub(super) choices: Vec<CompletionChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Usage>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct CompletionChoice {
    pub(super) index: usize,
    pub(super) text: String,
    pub(super) logprobs: Option<CompletionLogprobs>,
    /// Where ids were asked for: in the first chunk of a stream.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "numbers")]
    #[schema(value_type = Option<Vec<u32>>)]
    pub(super) prompt_token_ids: Option<Arc<[u32]>>,
    /// Where ids were asked for: the one that ended the answer included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_ids: Option<Vec<u32>>,
    /// "stop" or "length"; null before the end of a stream.
    pub(super) finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Option<Object>>>)]
    pub(super) prompt_logprobs: Option<Value>,
}

/// Lists of one length: an entry a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct CompletionLogprobs {
    pub(super) tokens: Vec<String>,
    /// Null at the first token of an echoed prompt.
    pub(super) token_logprobs: Vec<Option<f32>>,
    /// The alternatives' texts and log-probabilities.
    #[schema(value_type = Vec<Option<Object>>)]
    pub(super) top_logprobs: Vec<Option<Value>>,
    /// Where each token's text begins, in characters.
    pub(super) text_offset: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct Models {
    /// "list".
    pub(super) object: &'static str,
    pub(super) data: Vec<Model>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct Model {
    pub(super) id: String,
    /// "model".
    pub(super) object: &'static str,
    pub(super) created: u64,
    /// "sardine".
    pub(super) owned_by: &'static str,
    /// Tokens of the longest sequence, prompt included.
    pub(super) max_model_len: usize,
}

/// (serde's own for [`Arc`] is a feature for all crates.)
fn numbers<S: Serializer>(numbers: &Option<Arc<[u32]>>, serializer: S) -> Result<S::Ok, S::Error> {
    numbers.as_deref().serialize(serializer)
}

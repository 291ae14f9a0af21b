//! What a client may send to the routes of OpenAI's API: the fields that vLLM knows there, with their types.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Fields of both routes that say how to continue a prompt. A field that is absent or null takes its default: the checkpoint's
/// generation_config.json, else vLLM's.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
pub(in crate::http) struct GenerationFields {
    /// Any name is accepted: there is one model.
    pub(super) model: Option<String>,
    /// Answers to the same prompt. They differ in their seed: the request's, and the numbers after it.
    #[schema(minimum = 1)]
    pub(super) n: Option<u32>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    /// Tokens of the answer. Absent: what the context has room for (chat), 16 (completions).
    #[schema(format = Int64, maximum = 4_294_967_295_u32)]
    pub(super) max_tokens: Option<u32>,
    /// Tokens of the answer before anything may end it.
    #[schema(format = Int64, maximum = 4_294_967_295_u32)]
    pub(super) min_tokens: Option<u32>,
    /// Seconds. The answer ends with the first token after them, as if it had reached its length.
    #[schema(exclusive_minimum = 0.0)]
    pub(super) max_time: Option<f64>,
    /// 0: the most likely token each time.
    #[schema(minimum = 0.0, maximum = 2.0)]
    pub(super) temperature: Option<f32>,
    /// In (0, 1].
    #[schema(exclusive_minimum = 0.0, maximum = 1.0)]
    pub(super) top_p: Option<f32>,
    /// -1 or 0: off.
    #[schema(minimum = -1)]
    pub(super) top_k: Option<i64>,
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub(super) min_p: Option<f32>,
    /// Same seed, input and build give the same text, whatever shares the batch.
    pub(super) seed: Option<i64>,
    #[schema(minimum = -2.0, maximum = 2.0)]
    pub(super) frequency_penalty: Option<f32>,
    #[schema(minimum = -2.0, maximum = 2.0)]
    pub(super) presence_penalty: Option<f32>,
    /// Transformers': above 1 makes repetition less likely.
    #[schema(exclusive_minimum = 0.0)]
    pub(super) repetition_penalty: Option<f32>,
    /// What is added to the score of a token, by its id: from -100 to 100.
    #[schema(value_type = Option<std::collections::BTreeMap<String, f32>>)]
    pub(super) logit_bias: Option<Map<String, Value>>,
    /// Texts that never appear in the answer.
    pub(super) bad_words: Option<Vec<String>>,
    /// One text or several that end the answer.
    pub(super) stop: Option<OneOrMany>,
    /// Tokens that end the answer, beside the checkpoint's own.
    pub(super) stop_token_ids: Option<Vec<u32>>,
    /// Whether the text that ended the answer stays in it.
    pub(super) include_stop_str_in_output: Option<bool>,
    /// Goes on after the checkpoint's own end.
    pub(super) ignore_eos: Option<bool>,
    /// Leaves `<|im_end|>` and its like out of the text. Default: true.
    pub(super) skip_special_tokens: Option<bool>,
    /// The tokenizer adds none of its own, whatever this says.
    pub(super) add_special_tokens: Option<bool>,
    /// Special tokens stand beside each other as they are, whatever this says.
    pub(super) spaces_between_special_tokens: Option<bool>,
    /// The reply has `prompt_token_ids`, and every choice its `token_ids`: of a stream, the first chunk and each chunk its own.
    pub(super) return_token_ids: Option<bool>,
    /// Tokens are called `token_id:17` in log-probabilities, for those that are no text by themselves.
    pub(super) return_tokens_as_token_ids: Option<bool>,
    /// The reply's id ends with it.
    #[schema(max_length = 256)]
    pub(super) request_id: Option<String>,
    /// The prompt is cut to its last tokens, as many as this.
    #[schema(format = Int64, minimum = 1, maximum = 4_294_967_295_u32)]
    pub(super) truncate_prompt_tokens: Option<u32>,
    /// The prompt's tokens with their log-probabilities and so many alternatives to each, in the reply's `prompt_logprobs`.
    #[schema(maximum = 20)]
    pub(super) prompt_logprobs: Option<u32>,
    /// Refused where it asks for anything but text, until answers can be guided.
    #[schema(value_type = Option<Object>)]
    pub(super) response_format: Option<Value>,
    /// Refused.
    pub(super) use_beam_search: Option<bool>,
}

/// Fields of `/v1/chat/completions` only.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
pub(in crate::http) struct ChatFields {
    /// Objects with `role` (system, developer, user, assistant, tool) and `content`: a text or a list of parts (text, image_url,
    /// video_url).
    #[schema(value_type = Vec<Object>, min_items = 1, required = true)]
    pub(super) messages: Option<Vec<Value>>,
    /// As `max_tokens`, whose newer name it is.
    pub(super) max_completion_tokens: Option<u32>,
    /// The answer's tokens with their log-probabilities.
    pub(super) logprobs: Option<bool>,
    /// So many alternatives to each token; needs `logprobs`.
    #[schema(maximum = 20)]
    pub(super) top_logprobs: Option<u32>,
    /// Functions that the model may call.
    #[schema(value_type = Option<Vec<Object>>)]
    pub(super) tools: Option<Vec<Value>>,
    /// "auto" or "none". "required" and a named function are refused, until answers can be guided.
    #[schema(value_type = Option<Object>)]
    pub(super) tool_choice: Option<Value>,
    /// False: only the first call of an answer is passed on.
    pub(super) parallel_tool_calls: Option<bool>,
    /// Variables for the chat template.
    #[schema(value_type = Option<Object>)]
    pub(super) chat_template_kwargs: Option<Map<String, Value>>,
    /// How pictures and videos are read: `min_pixels`, `max_pixels`, and for videos `fps`, `num_frames`, `video_start`,
    /// `video_end`, `total_pixels`. A part's own come first.
    #[schema(value_type = Option<Object>)]
    pub(super) mm_processor_kwargs: Option<Map<String, Value>>,
    /// The template's variable of this name: whether the model thinks before it answers.
    pub(super) enable_thinking: Option<bool>,
    /// "none" turns thinking off, any other turns it on; the template sees the word.
    pub(super) reasoning_effort: Option<ReasoningEffort>,
    /// False: reasoning is left out of the reply.
    pub(super) include_reasoning: Option<bool>,
    /// False: the prompt ends after the last message.
    pub(super) add_generation_prompt: Option<bool>,
    /// The last message, the assistant's, is continued.
    pub(super) continue_final_message: Option<bool>,
    /// The content begins with that of the last message, where that is the assistant's.
    pub(super) echo: Option<bool>,
    /// Refused: tools have taken their place.
    #[schema(value_type = Option<Vec<Object>>)]
    pub(super) functions: Option<Value>,
}

/// Fields of `/v1/completions` only.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
pub(in crate::http) struct CompletionFields {
    /// A text, a list of texts, token ids, or a list of lists of token ids. Special tokens in a text are that.
    #[schema(required = true)]
    pub(super) prompt: Option<Prompts>,
    /// The text begins with the prompt.
    pub(super) echo: Option<bool>,
    /// The tokens with their log-probabilities and so many alternatives to each.
    #[schema(maximum = 20)]
    pub(super) logprobs: Option<u32>,
    /// Refused where it differs from `n`.
    pub(super) best_of: Option<u32>,
    /// Refused: the model was not made to fill in.
    pub(super) suffix: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
pub(in crate::http) struct StreamOptions {
    /// The last chunk tells what the answer cost.
    pub(super) include_usage: Option<bool>,
    /// Every chunk tells what the answer cost so far.
    pub(super) continuous_usage_stats: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum ReasoningEffort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
}

/// One text or a list of texts.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(in crate::http) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// The prompts of a completion.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text, a list of texts, token ids, or a list of lists of token ids")]
pub(in crate::http) enum Prompts {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

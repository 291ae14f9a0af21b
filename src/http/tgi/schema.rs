//! TGI's bodies as the document describes them.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::hf::parameters::TgiParameters;
use crate::http::schema::Message;

/// A prompt to continue.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what is read by hand")]
pub(in crate::http) struct GenerateRequest {
    /// The prompt as it is, without a chat template; special tokens in it are that. A picture stands in it as `![](address)`,
    /// where the address is an http(s) or a `data:` URL.
    #[schema(min_length = 1)]
    inputs: String,
    parameters: Option<TgiParameters>,
    /// True on /generate_stream, false on /generate.
    stream: Option<bool>,
    /// Without effect: this tokenizer puts no tokens of its own around a text.
    add_special_tokens: Option<bool>,
}

/// A text. The other fields of a request to generate may be there; they change no token.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what is read by hand")]
pub(in crate::http) struct TokenizeRequest {
    inputs: String,
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
    stream: Option<bool>,
    add_special_tokens: Option<bool>,
}

/// A conversation. The other fields of a chat request may be there; they are not looked at.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read by hand")]
pub(in crate::http) struct ChatTokenizeRequest {
    #[schema(min_items = 1)]
    messages: Vec<Message>,
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<Value>>,
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<Value>,
    enable_thinking: Option<bool>,
    add_vision_id: Option<bool>,
    add_generation_prompt: Option<bool>,
    continue_final_message: Option<bool>,
}

/// A token and its place in the text, in characters. Tokens that are parts of one character all have that character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::http) struct SimpleToken {
    pub(super) id: u32,
    pub(super) text: String,
    pub(super) start: usize,
    pub(super) stop: usize,
}

/// What the chat template makes of a conversation. A picture is one placeholder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::http) struct ChatTokenizeResponse {
    pub(super) tokenize_response: Vec<SimpleToken>,
    pub(super) templated_text: String,
}

//! A conversation as a client sends it, before the chat template turns it into text.

use serde_json::{Map, Value};

/// A conversation as the chat template wants it.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// Messages as the client sent them (role, content, tool_calls ...), except that picture parts are `{"type":
    /// "image"}`.
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

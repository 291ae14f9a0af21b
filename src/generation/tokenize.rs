//! Tokens without an answer: what a text or a conversation costs, before it is sent.

use super::{Conversation, Service, blocking};
use crate::chat::Span;
use crate::error::Error;

impl Service {
    /// The tokens of a raw text.
    pub async fn tokenize(&self, text: String) -> Result<Vec<Span>, Error> {
        let chat = self.chat.clone();
        blocking(move || chat.tokenize(&text)).await
    }

    /// The text that the chat template makes of a conversation, and its tokens. A picture is one placeholder.
    pub async fn tokenize_conversation(&self, conversation: Conversation) -> Result<(String, Vec<Span>), Error> {
        let chat = self.chat.clone();
        blocking(move || chat.tokenize_conversation(&conversation)).await
    }
}

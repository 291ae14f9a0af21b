//! Conversation <-> prompt <-> tokens <-> text: everything that knows Qwen3.5's text conventions.

use std::sync::Arc;

use crate::engine::{Picture, Prompt};
use crate::error::Error;
use crate::generation::Conversation;

pub struct Chat;
pub struct Decoder;
pub struct GenerationDefaults;

impl Chat {
    pub fn prompt(&self, _: &Conversation, _: &[Arc<Picture>], _truncate: Option<usize>) -> Result<Prompt, Error> {
        todo!()
    }
    pub fn raw_prompt(&self, _: &str, _: &[Arc<Picture>], _truncate: Option<usize>) -> Result<Prompt, Error> {
        todo!()
    }
    pub fn decoder(&self, _skip_special_tokens: bool) -> Decoder {
        todo!()
    }
    pub fn token_text(&self, _: u32) -> String {
        todo!()
    }
    pub fn is_special(&self, _: u32) -> bool {
        todo!()
    }
    pub fn defaults(&self) -> &GenerationDefaults {
        todo!()
    }
}

impl Decoder {
    pub fn push(&mut self, _: u32) -> String {
        todo!()
    }
    pub fn finish(&mut self) -> String {
        todo!()
    }
}

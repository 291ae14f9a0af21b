//! The pieces that one chunk of text yields: neighbours of one kind are one piece.

use super::{Piece, ToolCallDelta};

#[derive(Default)]
pub struct Pieces(Vec<Piece>);

impl Pieces {
    pub fn reasoning(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Reasoning(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.0.push(Piece::Reasoning(text.to_owned())),
        }
    }

    pub fn content(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Content(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.0.push(Piece::Content(text.to_owned())),
        }
    }

    pub fn call(&mut self, index: usize, name: &str) {
        self.0.push(Piece::ToolCall(ToolCallDelta { index, name: Some(name.to_owned()), arguments: String::new() }));
    }

    pub fn arguments(&mut self, index: usize, json: &str) {
        match self.0.last_mut() {
            Some(Piece::ToolCall(last)) if last.index == index => last.arguments.push_str(json),
            _ if json.is_empty() => {}
            _ => self.0.push(Piece::ToolCall(ToolCallDelta { index, name: None, arguments: json.to_owned() })),
        }
    }

    pub fn into_vec(self) -> Vec<Piece> {
        self.0
    }
}

//! The tokens of a text and where each stands in it: for clients that count tokens or show them.

use super::tokenizer::{Piece, Tokenizer};
use crate::error::Error;

/// A token and its place in the text, in characters. Tokens that are parts of one character all have that character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub id: u32,
    pub text: String,
    pub start: usize,
    pub stop: usize,
}

/// Spans of pieces that follow one another.
pub(super) struct Spans<'a> {
    tokenizer: &'a Tokenizer,
    spans: Vec<Span>,
    /// Characters so far.
    at: usize,
}

impl<'a> Spans<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Spans<'a> {
        Spans { tokenizer, spans: Vec::new(), at: 0 }
    }

    pub(super) fn push(&mut self, piece: Piece) -> Result<(), Error> {
        match piece {
            Piece::Special(id) => self.push_special(id),
            Piece::Text(text) => self.push_text(text)?,
        }
        Ok(())
    }

    fn push_special(&mut self, id: u32) {
        let text = String::from_utf8_lossy(self.tokenizer.vocabulary().bytes(id)).into_owned();
        let stop = self.at + text.chars().count();
        self.spans.push(Span { id, text, start: self.at, stop });
        self.at = stop;
    }

    fn push_text(&mut self, text: &str) -> Result<(), Error> {
        let places = self.tokenizer.places(text);
        let places = places.map_err(|error| Error::invalid(format!("the text cannot be tokenised: {error}")))?;
        let characters: Vec<char> = text.chars().collect();
        for (id, place) in places {
            let (start, stop) = (self.at + place.start, self.at + place.end);
            self.spans.push(Span { id, text: characters[place].iter().collect(), start, stop });
        }
        self.at += characters.len();
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<Span> {
        self.spans
    }
}

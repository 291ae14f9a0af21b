//! Text to token ids and back, with the checkpoint's own byte-level tokenizer.

use std::collections::HashSet;
use std::ops::Range;

use serde_json::Value;
use tokenizers::{AddedToken, DecoderWrapper, Tokenizer as Encoder};

use super::vocabulary::Vocabulary;
use crate::checkpoint::Checkpoint;

/// The checkpoint's tokenizer. Special tokens are found by [`Tokenizer::split`] alone: in [`Tokenizer::encode_plain`]
/// their text is text.
pub struct Tokenizer {
    encoder: Encoder,
    vocabulary: Vocabulary,
    special: SpecialTokens,
}

/// A piece of a prompt's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Special(u32),
    Text(&'a str),
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and the added tokens that only `tokenizer_config.json` knows: in Qwen3.5 the last seven.
    /// Errors where the two disagree about an id, or where the tokenizer is not byte-level.
    pub fn load(checkpoint: &Checkpoint) -> Result<Tokenizer, String> {
        let complain = |error: String| format!("{}: tokenizer.json: {error}", checkpoint.name());
        let bytes = checkpoint.map("tokenizer.json")?;
        let mut encoder = Encoder::from_bytes(&*bytes).map_err(|error| complain(error.to_string()))?;
        if !matches!(encoder.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Err(complain("its decoder is not ByteLevel, the only kind that this server reads".to_owned()));
        }
        let config = checkpoint.json("tokenizer_config.json")?.unwrap_or_default();
        add_configured_tokens(&mut encoder, &config)
            .map_err(|error| format!("{}: tokenizer_config.json: {error}", checkpoint.name()))?;
        encoder.with_truncation(None).map_err(|error| complain(error.to_string()))?;
        encoder.with_padding(None);
        encoder.set_encode_special_tokens(true);
        let special = SpecialTokens::of(&encoder).map_err(complain)?;
        let vocabulary = Vocabulary::of(&encoder);
        Ok(Tokenizer { encoder, vocabulary, special })
    }

    /// Token ids of `text`, in which special tokens are tokens: Transformers' `tokenizer(text)`.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        let mut ids = Vec::new();
        for piece in self.split(text) {
            match piece {
                Piece::Special(id) => ids.push(id),
                Piece::Text(text) => ids.extend(self.encode_plain(text)?),
            }
        }
        Ok(ids)
    }

    /// Token ids of `text`, in which special tokens are text. Added tokens that are not special (`<think>`) are tokens.
    pub(super) fn encode_plain(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding = self.encoder.encode_fast(text, false).map_err(|error| error.to_string())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// As [`Tokenizer::encode_plain`], with each token's place in `text`, in characters.
    pub(super) fn places(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>, String> {
        let encoding = self.encoder.encode_char_offsets(text, false).map_err(|error| error.to_string())?;
        let places = encoding.get_offsets().iter().map(|(start, stop)| *start..*stop);
        Ok(encoding.get_ids().iter().copied().zip(places).collect())
    }

    /// Cuts `text` at its special tokens, as Transformers does before it tokenises the rest.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Piece<'a>> {
        let (mut pieces, mut start, mut at) = (Vec::new(), 0, 0);
        while at < text.len() {
            match self.special.at_start_of(&text[at..]) {
                Some((token, id)) => {
                    if start < at {
                        pieces.push(Piece::Text(&text[start..at]));
                    }
                    pieces.push(Piece::Special(id));
                    at += token.len();
                    start = at;
                }
                None => at += text[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        if start < text.len() {
            pieces.push(Piece::Text(&text[start..]));
        }
        pieces
    }

    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.encoder.token_to_id(token)
    }

    /// Whether `skip_special_tokens` leaves it out.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.ids.contains(&id)
    }

    pub(super) fn special(&self) -> &SpecialTokens {
        &self.special
    }

    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

/// The texts of the special tokens, longest first.
pub(super) struct SpecialTokens {
    by_length: Vec<(String, u32)>,
    ids: HashSet<u32>,
}

impl SpecialTokens {
    fn of(encoder: &Encoder) -> Result<SpecialTokens, String> {
        let mut by_length = Vec::new();
        for (id, token) in encoder.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.special) {
            if token.lstrip || token.rstrip || token.single_word || token.content.chars().count() < 2 {
                return Err(format!(
                    "the special token {:?} strips spaces, matches whole words or is a single character, \
                     which is not supported",
                    token.content
                ));
            }
            by_length.push((token.content, id));
        }
        by_length.sort_by_key(|(token, _)| std::cmp::Reverse(token.len()));
        let ids = by_length.iter().map(|(_, id)| *id).collect();
        Ok(SpecialTokens { by_length, ids })
    }

    /// The longest special token that `text` begins with.
    pub(super) fn at_start_of(&self, text: &str) -> Option<(&str, u32)> {
        let found = self.by_length.iter().find(|(token, _)| text.starts_with(token.as_str()));
        found.map(|(token, id)| (token.as_str(), *id))
    }

    /// Whether some special token begins with `text`.
    pub(super) fn any_begins_with(&self, text: &str) -> bool {
        self.by_length.iter().any(|(token, _)| token.starts_with(text))
    }
}

/// Adds the tokens of `added_tokens_decoder` that the encoder does not have.
fn add_configured_tokens(encoder: &mut Encoder, config: &Value) -> Result<(), String> {
    let Some(configured) = config.get("added_tokens_decoder").and_then(Value::as_object) else { return Ok(()) };
    let mut tokens = Vec::new();
    for (id, token) in configured {
        let id: u32 = id.parse().map_err(|_| format!("added_tokens_decoder: {id:?} is not a token id"))?;
        let token: AddedToken =
            serde_json::from_value(token.clone()).map_err(|error| format!("added_tokens_decoder: {id}: {error}"))?;
        tokens.push((id, token));
    }
    // New tokens get the next free ids, so the order decides.
    tokens.sort_by_key(|(id, _)| *id);
    for (id, token) in tokens {
        let content = token.content.clone();
        if encoder.token_to_id(&content).is_none() {
            encoder.add_tokens([token]).map_err(|error| format!("added_tokens_decoder: {content:?}: {error}"))?;
        }
        match encoder.token_to_id(&content) {
            Some(found) if found == id => {}
            found => {
                let found = found.map_or("none".to_owned(), |found| found.to_string());
                return Err(format!("{content:?} should have the id {id}, and by tokenizer.json it has {found}"));
            }
        }
    }
    Ok(())
}

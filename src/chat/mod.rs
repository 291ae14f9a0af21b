//! Conversation <-> prompt <-> tokens <-> text: everything that knows Qwen3.5's text conventions.
//!
//! A conversation passes through `messages` (as the template wants them), `client_text` (what is sent stays text),
//! `template` (with `jinja`, `python` and `continuation`: as Transformers renders it) and `prompt` (ids,
//! placeholders, positions). Tokens become text again in `decoder`.

mod client_text;
mod continuation;
mod conversation;
mod decoder;
mod defaults;
mod jinja;
mod messages;
pub mod output;
mod prompt;
mod python;
mod raw;
mod spans;
mod template;
mod tokenizer;
mod videos;
mod vocabulary;

use std::sync::Arc;

use client_text::Marker;
use prompt::{Assembly, Placeholders};
use spans::Spans;
use template::Variables;
use tokenizer::Piece;

use crate::checkpoint::Checkpoint;
use crate::engine::{Clip, Prompt, Visuals};
use crate::error::Error;

pub use client_text::SpecialText;
pub use conversation::{Conversation, Ending};
pub use decoder::Decoder;
pub use defaults::GenerationDefaults;
pub use raw::{PICTURE_PLACE, VIDEO_PLACE, is_templated};
pub use spans::Span;
pub use template::ChatTemplate;
pub use tokenizer::Tokenizer;
pub use videos::VideoPlaces;
pub use vocabulary::Vocabulary;

/// A conversation ready for the engine.
pub struct ChatPrompt {
    pub prompt: Prompt,
    /// The prompt ends inside an open `<think>` block: the answer begins as reasoning.
    pub opens_thinking: bool,
}

/// A checkpoint's text side: its template, its tokenizer and its generation settings.
pub struct Chat {
    template: ChatTemplate,
    tokenizer: Arc<Tokenizer>,
    placeholders: Placeholders,
    defaults: GenerationDefaults,
    special_text: SpecialText,
    video_places: VideoPlaces,
}

impl Chat {
    /// Reads the checkpoint's template, tokenizer and generation settings.
    pub fn load(checkpoint: &Checkpoint, special_text: SpecialText) -> Result<Chat, String> {
        let template = ChatTemplate::load(checkpoint)?;
        let tokenizer = Tokenizer::load(checkpoint)?;
        let eos_token = template.token_variable("eos_token").and_then(|token| tokenizer.id_of(token));
        let defaults = GenerationDefaults::load(checkpoint, eos_token)?;
        let placeholders = placeholders(checkpoint, &tokenizer)?;
        let video_places = VideoPlaces::default();
        Ok(Chat { template, tokenizer: Arc::new(tokenizer), placeholders, defaults, special_text, video_places })
    }

    /// The same, with the frames of videos where `video_places` says.
    pub fn with_video_places(self, video_places: VideoPlaces) -> Chat {
        Chat { video_places, ..self }
    }

    /// The prompt of a conversation, cut to its last `truncate` tokens; pictures and videos in the order of their parts. What
    /// special tokens' texts in the client's strings mean is for [`SpecialText`] to say.
    pub fn prompt(
        &self,
        conversation: &Conversation,
        visuals: &Visuals,
        truncate: Option<usize>,
    ) -> Result<ChatPrompt, Error> {
        let (text, marker) = self.render_marked(conversation)?;
        let pieces = self.tokenizer.split(&text);
        let with_frames = self.with_frames(&pieces, &visuals.clips)?;
        let pieces = with_frames.as_deref().map_or(pieces, |text| self.tokenizer.split(text));
        let mut assembly = Assembly::new(&self.tokenizer, self.placeholders, visuals);
        for piece in pieces {
            match (piece, marker) {
                (Piece::Text(text), Some(marker)) => assembly.push(Piece::Text(&marker.unmark(text)))?,
                _ => assembly.push(piece)?,
            }
        }
        let prompt = assembly.finish(truncate)?;
        Ok(ChatPrompt { prompt, opens_thinking: opens_thinking(with_frames.as_deref().unwrap_or(&text)) })
    }

    /// The prompt of a text as it is, special tokens included, cut to its last `truncate` tokens.
    pub fn raw_prompt(&self, text: &str, visuals: &Visuals, truncate: Option<usize>) -> Result<Prompt, Error> {
        let pieces = self.tokenizer.split(text);
        let with_frames = self.with_frames(&pieces, &visuals.clips)?;
        let pieces = with_frames.as_deref().map_or(pieces, |text| self.tokenizer.split(text));
        let mut assembly = Assembly::new(&self.tokenizer, self.placeholders, visuals);
        for piece in pieces {
            assembly.push(piece)?;
        }
        assembly.finish(truncate)
    }

    /// The text of `pieces` with the times and places of the frames of `clips` in the places of videos, to be tokenised as a
    /// whole. `None` where there are neither.
    fn with_frames(&self, pieces: &[Piece], clips: &[Clip]) -> Result<Option<String>, Error> {
        let is_place = |piece: &Piece| matches!(piece, Piece::Special(id) if Some(*id) == self.placeholders.video);
        if clips.is_empty() && !pieces.iter().any(is_place) {
            return Ok(None);
        }
        videos::expand(pieces, &self.tokenizer, self.placeholders, clips, self.video_places).map(Some)
    }

    /// The prompt of token ids as they are, cut to the last `truncate`. Errors at an id without a token, and at a
    /// picture's placeholder: nothing says which picture it stands for.
    pub fn token_prompt(&self, ids: &[u32], truncate: Option<usize>) -> Result<Prompt, Error> {
        let num_tokens = self.tokenizer.vocabulary().len() as u32;
        if let Some(id) = ids.iter().find(|id| **id >= num_tokens) {
            return Err(Error::invalid(format!(
                "the prompt has token id {id}; there are ids from 0 to {}",
                num_tokens - 1
            )));
        }
        let nothing = Visuals::default();
        let mut assembly = Assembly::new(&self.tokenizer, self.placeholders, &nothing);
        for id in ids {
            assembly.push(Piece::Special(*id))?;
        }
        assembly.finish(truncate)
    }

    /// The text that the template makes of a conversation, before pictures are placed: for people to read, since a
    /// client's `<|im_end|>` looks like the template's.
    pub fn render(&self, conversation: &Conversation) -> Result<String, Error> {
        let (text, marker) = self.render_marked(conversation)?;
        Ok(marker.map_or_else(|| text.clone(), |marker| marker.unmark(&text)))
    }

    /// The tokens of a text, special tokens included. Pictures in it are text.
    pub fn tokenize(&self, text: &str) -> Result<Vec<Span>, Error> {
        let mut spans = Spans::new(&self.tokenizer);
        self.tokenizer.split(text).into_iter().try_for_each(|piece| spans.push(piece))?;
        Ok(spans.finish())
    }

    /// What [`Chat::render`] gives, and its tokens: those of the prompt, but for pictures, which are a placeholder each.
    pub fn tokenize_conversation(&self, conversation: &Conversation) -> Result<(String, Vec<Span>), Error> {
        let (text, marker) = self.render_marked(conversation)?;
        let mut spans = Spans::new(&self.tokenizer);
        for piece in self.tokenizer.split(&text) {
            match (piece, marker) {
                (Piece::Text(text), Some(marker)) => spans.push(Piece::Text(&marker.unmark(text)))?,
                _ => spans.push(piece)?,
            }
        }
        Ok((marker.map_or_else(|| text.clone(), |marker| marker.unmark(&text)), spans.finish()))
    }

    fn render_marked(&self, conversation: &Conversation) -> Result<(String, Option<Marker>), Error> {
        let mut variables = Variables {
            messages: messages::prepare(&conversation.messages)?,
            tools: conversation.tools.clone(),
            others: conversation.template_variables.clone(),
            ending: conversation.ending,
        };
        let marker = match self.special_text {
            SpecialText::BecomesToken => None,
            SpecialText::StaysText => Some(Marker::for_request(&variables)?),
        };
        if let Some(marker) = marker {
            marker.mark(&mut variables, self.tokenizer.special());
        }
        let text = self.template.render(variables).map_err(|error| match (error, marker) {
            (Error::Invalid { message, param }, Some(marker)) => {
                Error::Invalid { message: marker.unmark(&message), param }
            }
            (error, _) => error,
        })?;
        Ok((text, marker))
    }

    /// Token ids of a text, special tokens included.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.tokenizer.encode(text).map_err(|error| Error::invalid(format!("the text cannot be tokenised: {error}")))
    }

    /// A decoder for one answer, which leaves special tokens out where asked to.
    pub fn decoder(&self, skip_special_tokens: bool) -> Decoder {
        Decoder::new(self.tokenizer.clone(), skip_special_tokens)
    }

    /// A token decoded on its own, U+FFFD where it is part of a character. Empty for an id without a token.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.tokenizer.vocabulary().bytes(id)).into_owned()
    }

    /// Whether a decoder that skips special tokens leaves it out.
    pub fn is_special(&self, id: u32) -> bool {
        self.tokenizer.is_special(id)
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub fn defaults(&self) -> &GenerationDefaults {
        &self.defaults
    }
}

/// Whether the last turn of a rendered conversation leaves its `<think>` block open. A client's own tags do not matter:
/// they stand before the last turn, or in an assistant's turn that is to be continued.
fn opens_thinking(text: &str) -> bool {
    let turn = text.rfind("<|im_start|>").map_or(text, |at| &text[at..]);
    turn.rfind("<think>").is_some_and(|opened| !turn[opened..].contains("</think>"))
}

/// The placeholders that config.json names; they must be special tokens, or prompts would not be cut at them.
fn placeholders(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<Placeholders, String> {
    let config = checkpoint.json("config.json")?.unwrap_or_default();
    let read = |key: &str| -> Result<Option<u32>, String> {
        let Some(id) = config.get(key).filter(|id| !id.is_null()) else { return Ok(None) };
        let special = id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| tokenizer.is_special(*id));
        special.map(Some).ok_or_else(|| {
            format!("{}: config.json: {key} is {id}, which is no special token of the tokenizer", checkpoint.name())
        })
    };
    Ok(Placeholders { image: read("image_token_id")?, video: read("video_token_id")? })
}

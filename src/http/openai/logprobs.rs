//! Tokens with their log-probabilities in OpenAI's two forms.

use serde_json::{Map, Value, json};

use super::reply::{ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob};
use super::request::GenerationFields;
use crate::generation::{PromptToken, Service, Token};

/// What tokens are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// The text that a token stands for by itself.
    Texts,
    /// "token_id:17", vLLM's form for those whose text is a part of a character, or that share it with others.
    Ids,
}

impl Names {
    /// Those that `fields` ask for.
    pub(super) fn read(fields: &GenerationFields) -> Names {
        if fields.return_tokens_as_token_ids == Some(true) { Names::Ids } else { Names::Texts }
    }

    fn of(self, id: u32, text: &str) -> String {
        match self {
            Names::Texts => text.to_owned(),
            Names::Ids => format!("token_id:{id}"),
        }
    }
}

/// A chat's: one entry a token.
pub(super) fn of_chat(tokens: &[Token], names: Names, service: &Service) -> ChatLogprobs {
    let bytes = |id: u32| service.token_bytes(id).to_vec();
    let alternative = |(id, text, logprob): &(u32, String, f32)| TopLogprob {
        token: names.of(*id, text),
        logprob: *logprob,
        bytes: bytes(*id),
    };
    let entry = |token: &Token| TokenLogprob {
        token: names.of(token.id, &token.text),
        logprob: token.logprob,
        bytes: bytes(token.id),
        top_logprobs: token.top.iter().map(alternative).collect(),
    };
    ChatLogprobs { content: tokens.iter().map(entry).collect() }
}

/// vLLM's form of a prompt's: an entry a token, the first null, the others by token id with rank and text. `None` where nobody
/// asked.
pub(super) fn of_prompt(tokens: &[PromptToken]) -> Option<Value> {
    let entry = |token: &PromptToken| {
        let Some(logprob) = token.logprob else { return Value::Null };
        let mut entries = Map::new();
        for (rank, (id, text, logprob)) in token.top.iter().enumerate() {
            let alternative = json!({ "logprob": logprob, "rank": rank + 1, "decoded_token": text });
            entries.insert(id.to_string(), alternative);
        }
        // Where the token is none of the likeliest its rank is not known.
        let own = || json!({ "logprob": logprob, "rank": null, "decoded_token": token.text });
        entries.entry(token.id.to_string()).or_insert_with(own);
        Value::Object(entries)
    };
    (!tokens.is_empty()).then(|| tokens.iter().map(entry).collect())
}

/// A token of a completion, or of the prompt before it.
pub(super) struct Listed<'a> {
    pub(super) id: u32,
    pub(super) text: &'a str,
    pub(super) logprob: Option<f32>,
    pub(super) top: &'a [(u32, String, f32)],
}

impl CompletionLogprobs {
    /// Appends a token whose text begins at `offset`, in characters; where it ends.
    pub(super) fn push(&mut self, token: Listed, names: Names, offset: usize) -> usize {
        self.tokens.push(names.of(token.id, token.text));
        self.token_logprobs.push(token.logprob);
        self.top_logprobs.push(token.logprob.map(|_| {
            // Two tokens may decode to the same text (parts of characters): the likelier stays.
            let mut alternatives = Map::new();
            for (id, text, logprob) in token.top {
                alternatives.entry(names.of(*id, text)).or_insert(json!(logprob));
            }
            Value::Object(alternatives)
        }));
        self.text_offset.push(offset);
        offset + token.text.chars().count()
    }

    pub(super) fn append(&mut self, mut more: CompletionLogprobs) {
        self.tokens.append(&mut more.tokens);
        self.token_logprobs.append(&mut more.token_logprobs);
        self.top_logprobs.append(&mut more.top_logprobs);
        self.text_offset.append(&mut more.text_offset);
    }
}

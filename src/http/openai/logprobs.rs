//! Tokens with their log-probabilities in OpenAI's two forms.

use serde_json::{Map, Value, json};

use super::reply::{ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob};
use crate::generation::{PromptToken, Service, Token};

/// A chat's: one entry a token.
pub(super) fn of_chat(tokens: &[Token], service: &Service) -> ChatLogprobs {
    let entry = |token: &Token| TokenLogprob {
        token: token.text.clone(),
        logprob: token.logprob,
        bytes: service.token_bytes(token.id).to_vec(),
        top_logprobs: token.top.iter().map(|(id, text, logprob)| alternative(*id, text, *logprob, service)).collect(),
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

fn alternative(id: u32, text: &str, logprob: f32, service: &Service) -> TopLogprob {
    TopLogprob { token: text.to_owned(), logprob, bytes: service.token_bytes(id).to_vec() }
}

impl CompletionLogprobs {
    /// Appends a token; `offset` is where its text begins, in characters.
    pub(super) fn push(&mut self, text: &str, logprob: Option<f32>, top: &[(u32, String, f32)], offset: usize) {
        self.tokens.push(text.to_owned());
        self.token_logprobs.push(logprob);
        self.top_logprobs.push(logprob.map(|_| {
            // Two tokens may decode to the same text (parts of characters): the likelier stays.
            let mut alternatives = Map::new();
            for (_, text, logprob) in top {
                alternatives.entry(text.as_str()).or_insert(json!(logprob));
            }
            Value::Object(alternatives)
        }));
        self.text_offset.push(offset);
    }

    pub(super) fn append(&mut self, mut more: CompletionLogprobs) {
        self.tokens.append(&mut more.tokens);
        self.token_logprobs.append(&mut more.token_logprobs);
        self.top_logprobs.append(&mut more.top_logprobs);
        self.text_offset.append(&mut more.text_offset);
    }
}

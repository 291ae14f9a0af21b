//! One completion, piece by piece: its text, the prompt before it where that is echoed, and the tokens' probabilities.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::logprobs::{Listed, Names};
use super::reply::CompletionLogprobs;
use super::stream::{Answer, finish_reason};
use crate::error::Error;
use crate::generation::{Delta, Finish, Generation, PromptToken, Token, Usage};

/// What the reply to a completion shows.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// The prompt's text, where it is echoed.
    pub(super) echo: Option<String>,
    pub(super) logprobs: bool,
    pub(super) names: Names,
    /// Parts have the ids of their tokens, and the first those of the prompt.
    pub(super) token_ids: bool,
    /// Tokens that end the answer: no part of it.
    pub(super) eos: Vec<u32>,
    /// An answer that was cut off after this moment is a timeout.
    pub(super) deadline: Option<Instant>,
}

/// A part of a completion.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Part {
    pub(super) text: String,
    pub(super) logprobs: Option<CompletionLogprobs>,
    /// Where they are asked for: in the first part.
    pub(super) prompt_token_ids: Option<Arc<[u32]>>,
    pub(super) token_ids: Option<Vec<u32>>,
    /// In the last part.
    pub(super) finish_reason: Option<&'static str>,
}

/// A completion on its way.
pub(super) struct CompletionAnswer {
    generation: Generation,
    shown: Shown,
    /// Characters of the tokens so far.
    offset: usize,
    ready: VecDeque<Part>,
    has_begun: bool,
    is_over: bool,
}

impl CompletionAnswer {
    pub(super) fn new(generation: Generation, shown: Shown) -> CompletionAnswer {
        CompletionAnswer { generation, shown, offset: 0, ready: VecDeque::new(), has_begun: false, is_over: false }
    }

    /// All of it.
    pub(super) async fn collect(&mut self) -> Result<Part, Error> {
        let mut whole = Part {
            logprobs: self.shown.logprobs.then(CompletionLogprobs::default),
            token_ids: self.shown.token_ids.then(Vec::new),
            ..Part::default()
        };
        while let Some(part) = self.next().await {
            let part = part?;
            whole.text.push_str(&part.text);
            if let (Some(all), Some(some)) = (&mut whole.logprobs, part.logprobs) {
                all.append(some);
            }
            whole.prompt_token_ids = whole.prompt_token_ids.or(part.prompt_token_ids);
            if let (Some(all), Some(some)) = (&mut whole.token_ids, part.token_ids) {
                all.extend(some);
            }
            whole.finish_reason = part.finish_reason.or(whole.finish_reason);
        }
        Ok(whole)
    }

    /// The prompt's tokens, where they were asked for: complete once there is a part.
    pub(super) fn prompt_tokens(&self) -> &[PromptToken] {
        self.generation.prompt_tokens()
    }

    /// The prompt with its tokens' probabilities.
    fn echoed(&mut self, text: String) -> Part {
        let mut logprobs = CompletionLogprobs::default();
        for PromptToken { id, text, logprob, top, .. } in self.generation.prompt_tokens() {
            let token = Listed { id: *id, text, logprob: *logprob, top };
            self.offset = logprobs.push(token, self.shown.names, self.offset);
        }
        Part { text, logprobs: Some(logprobs), ..Part::default() }
    }

    fn part(&mut self, delta: Delta) -> Part {
        let token_ids = self.shown.token_ids.then(|| delta.tokens.iter().map(|token| token.id).collect::<Vec<u32>>());
        let tokens: Vec<Token> = delta.tokens.into_iter().filter(|token| !self.shown.eos.contains(&token.id)).collect();
        let logprobs = (self.shown.logprobs && !tokens.is_empty()).then(|| self.logprobs(&tokens));
        let token_ids = token_ids.filter(|ids| !ids.is_empty());
        Part { text: delta.text, logprobs, token_ids, ..Part::default() }
    }

    fn logprobs(&mut self, tokens: &[Token]) -> CompletionLogprobs {
        let mut logprobs = CompletionLogprobs::default();
        for Token { id, text, logprob, top, .. } in tokens {
            let token = Listed { id: *id, text, logprob: Some(*logprob), top };
            self.offset = logprobs.push(token, self.shown.names, self.offset);
        }
        logprobs
    }

    fn last(&self) -> Result<Part, Error> {
        let finish = self.generation.finish().unwrap_or(Finish::Length);
        let finish_reason = finish_reason(finish, self.shown.deadline)?;
        Ok(Part { finish_reason: Some(finish_reason), ..Part::default() })
    }
}

impl Answer for CompletionAnswer {
    type Part = Part;

    async fn next(&mut self) -> Option<Result<Part, Error>> {
        let mut next = self.next_part().await;
        if let Some(Ok(part)) = &mut next
            && self.shown.token_ids
            && !self.has_begun
        {
            part.prompt_token_ids = Some(self.generation.prompt_ids());
        }
        self.has_begun = true;
        next
    }

    fn usage(&self) -> Usage {
        self.generation.usage()
    }
}

impl CompletionAnswer {
    async fn next_part(&mut self) -> Option<Result<Part, Error>> {
        if !self.shown.logprobs
            && let Some(text) = self.shown.echo.take()
        {
            return Some(Ok(Part { text, ..Part::default() }));
        }
        loop {
            if let Some(part) = self.ready.pop_front() {
                return Some(Ok(part));
            }
            if self.is_over {
                return None;
            }
            let next = self.generation.next().await;
            // The prompt's probabilities are known from here on, also where nothing follows it.
            if let Some(text) = self.shown.echo.take() {
                let echoed = self.echoed(text);
                self.ready.push_back(echoed);
            }
            match next {
                Some(Ok(delta)) => {
                    let part = self.part(delta);
                    if part != Part::default() {
                        self.ready.push_back(part);
                    }
                }
                Some(Err(error)) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
                None => {
                    self.is_over = true;
                    match self.last() {
                        Ok(part) => self.ready.push_back(part),
                        Err(error) => return Some(Err(error)),
                    }
                }
            }
        }
    }
}

//! One answer of a chat, piece by piece: the text cut into reasoning, content and calls, each token with its probability.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::logprobs::{self, Names};
use super::reply::{ChatChoice, ChatLogprobs, Delta, Function, FunctionChunk, Message, ToolCall, ToolCallChunk};
use super::stream::{Answer, finish_reason};
use crate::chat::output::{OutputParser, Piece, ToolCallDelta};
use crate::error::Error;
use crate::generation::{Finish, Generation, PromptToken, Service, Token, Usage};

/// What the reply to a chat shows.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// The tools that the model may call: only then is a call looked for.
    pub(super) tools: Vec<serde_json::Value>,
    pub(super) reasoning: bool,
    pub(super) logprobs: bool,
    pub(super) names: Names,
    /// Parts have the ids of their tokens.
    pub(super) token_ids: bool,
    /// What the content begins with.
    pub(super) echo: Option<String>,
    /// False: calls after the first are left out.
    pub(super) parallel_calls: bool,
    /// Tokens that end the answer: no part of it.
    pub(super) eos: Vec<u32>,
    /// An answer that was cut off after this moment is a timeout.
    pub(super) deadline: Option<Instant>,
}

/// A part of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Part {
    pub(super) delta: Delta,
    pub(super) logprobs: Option<ChatLogprobs>,
    /// Where they are asked for.
    pub(super) token_ids: Option<Vec<u32>>,
    /// In the last part.
    pub(super) finish_reason: Option<&'static str>,
}

/// What is said about tokens beside their text.
#[derive(Debug, Default, PartialEq)]
struct About {
    logprobs: Option<ChatLogprobs>,
    token_ids: Option<Vec<u32>>,
}

/// An answer on its way.
pub(super) struct ChatAnswer {
    generation: Generation,
    service: Service,
    parser: OutputParser,
    shown: Shown,
    ready: VecDeque<Part>,
    is_over: bool,
}

impl ChatAnswer {
    pub(super) fn new(generation: Generation, service: Service, mut shown: Shown) -> ChatAnswer {
        let parser = OutputParser::new(generation.opens_thinking(), &shown.tools);
        let echo = shown.echo.take().map(|text| Delta { content: Some(text), ..Delta::default() });
        let ready = echo.map(|delta| Part { delta, ..Part::default() }).into_iter().collect();
        ChatAnswer { generation, service, parser, shown, ready, is_over: false }
    }

    /// The ids of the prompt's tokens, where the reply shows ids.
    pub(super) fn prompt_token_ids(&self) -> Option<Arc<[u32]>> {
        self.shown.token_ids.then(|| self.generation.prompt_ids())
    }

    /// The prompt's tokens, where they were asked for: complete once there is a part.
    pub(super) fn prompt_tokens(&self) -> &[PromptToken] {
        self.generation.prompt_tokens()
    }

    /// The next part; `None` after the last. An error ends the answer.
    async fn next_part(&mut self) -> Option<Result<Part, Error>> {
        while self.ready.is_empty() && !self.is_over {
            match self.generation.next().await {
                Some(Ok(delta)) => {
                    let about = self.about(delta.tokens);
                    let pieces = self.parser.push(&delta.text);
                    self.take(pieces, about);
                }
                Some(Err(error)) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
                None => {
                    self.is_over = true;
                    if let Err(error) = self.end() {
                        return Some(Err(error));
                    }
                }
            }
        }
        self.ready.pop_front().map(Ok)
    }

    /// What is said about tokens beside their text.
    fn about(&self, tokens: Vec<Token>) -> About {
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        let tokens: Vec<_> = tokens.into_iter().filter(|token| !self.shown.eos.contains(&token.id)).collect();
        let logprobs = (self.shown.logprobs && !tokens.is_empty())
            .then(|| logprobs::of_chat(&tokens, self.shown.names, &self.service));
        About { logprobs, token_ids: (self.shown.token_ids && !ids.is_empty()).then_some(ids) }
    }

    /// All of it.
    pub(super) async fn collect(&mut self, index: usize) -> Result<ChatChoice, Error> {
        let mut message = Message { role: "assistant", ..Message::default() };
        let mut logprobs = self.shown.logprobs.then(|| ChatLogprobs { content: Vec::new() });
        let mut token_ids = self.shown.token_ids.then(Vec::new);
        let mut finish_reason = "length";
        while let Some(part) = self.next_part().await {
            let part = part?;
            append(&mut message, part.delta);
            if let (Some(all), Some(some)) = (&mut logprobs, part.logprobs) {
                all.content.extend(some.content);
            }
            if let (Some(all), Some(some)) = (&mut token_ids, part.token_ids) {
                all.extend(some);
            }
            finish_reason = part.finish_reason.unwrap_or(finish_reason);
        }
        if message.content.is_none() && message.tool_calls.is_empty() {
            message.content = Some(String::new());
        }
        Ok(ChatChoice { index, message, logprobs, token_ids, finish_reason })
    }

    /// One part for each piece; what is said about the tokens goes with the first.
    fn take(&mut self, pieces: Vec<Piece>, mut about: About) {
        for piece in pieces {
            if let Some(delta) = self.delta(piece) {
                let About { logprobs, token_ids } = std::mem::take(&mut about);
                self.ready.push_back(Part { delta, logprobs, token_ids, finish_reason: None });
            }
        }
        if about != About::default() {
            let About { logprobs, token_ids } = about;
            self.ready.push_back(Part { logprobs, token_ids, ..Part::default() });
        }
    }

    /// What the client is shown of a piece.
    fn delta(&self, piece: Piece) -> Option<Delta> {
        match piece {
            Piece::Content(text) => Some(Delta { content: Some(text), ..Delta::default() }),
            Piece::Reasoning(_) if !self.shown.reasoning => None,
            Piece::Reasoning(text) => {
                Some(Delta { reasoning_content: Some(text.clone()), reasoning: Some(text), ..Delta::default() })
            }
            Piece::ToolCall(call) if call.index > 0 && !self.shown.parallel_calls => None,
            Piece::ToolCall(call) => Some(Delta { tool_calls: vec![chunk(call)], ..Delta::default() }),
        }
    }

    fn end(&mut self) -> Result<(), Error> {
        let finish = self.generation.finish().unwrap_or(Finish::Length);
        let mut finish_reason = finish_reason(finish, self.shown.deadline)?;
        let is_complete = finish_reason == "stop";
        let rest = self.parser.finish(is_complete);
        self.take(rest, About::default());
        if is_complete && self.parser.num_tool_calls() > 0 {
            finish_reason = "tool_calls";
        }
        self.ready.push_back(Part { finish_reason: Some(finish_reason), ..Part::default() });
        Ok(())
    }
}

impl Answer for ChatAnswer {
    type Part = Part;

    async fn next(&mut self) -> Option<Result<Part, Error>> {
        self.next_part().await
    }

    fn usage(&self) -> Usage {
        self.generation.usage()
    }
}

fn chunk(call: ToolCallDelta) -> ToolCallChunk {
    let begins = call.name.is_some();
    ToolCallChunk {
        index: call.index,
        id: begins.then(|| format!("call_{}", uuid::Uuid::new_v4().simple())),
        kind: begins.then_some("function"),
        function: FunctionChunk { name: call.name, arguments: call.arguments },
    }
}

fn append(message: &mut Message, delta: Delta) {
    let add = |text: &mut Option<String>, more: Option<String>| match (text, more) {
        (Some(text), Some(more)) => text.push_str(&more),
        (text, Some(more)) => *text = Some(more),
        (_, None) => {}
    };
    add(&mut message.content, delta.content);
    add(&mut message.reasoning_content, delta.reasoning_content);
    add(&mut message.reasoning, delta.reasoning);
    for chunk in delta.tool_calls {
        if let (Some(id), Some(name)) = (chunk.id, chunk.function.name) {
            let function = Function { name, arguments: String::new() };
            message.tool_calls.push(ToolCall { id, kind: "function", function });
        }
        if let Some(call) = message.tool_calls.last_mut() {
            call.function.arguments.push_str(&chunk.function.arguments);
        }
    }
}

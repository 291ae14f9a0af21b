//! An answer token by token, in TGI's events.

use std::collections::VecDeque;
use std::time::Duration;

use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use futures_util::stream::unfold;
use tokio::time::timeout;

use super::details::{finish_reason, token, top_tokens};
use super::error::ErrorBody;
use super::question::{Question, ReplyPlan};
use super::record::{GeneratedText, StreamDetails, StreamEvent};
use crate::error::Error;
use crate::generation::{Delta, Finish, Generation, Service, Token};
use crate::http::sse;
use crate::http::status_hold::hold;

/// How long an event is held to see whether the answer ends with it: the engine says so at once or not at all.
const WAIT_FOR_END: Duration = Duration::from_millis(1);

/// Asks `question` and answers with a stream, whose status is sent once the request has left the queue, or after `status_hold`.
pub(in crate::http) async fn respond(
    mut response: HttpResponseBuilder,
    service: &Service,
    question: Question,
    status_hold: Duration,
) -> Result<HttpResponse, Error> {
    let mut generation = service.start(question.request).await?;
    hold(&mut generation, status_hold).await?;
    response.insert_header(("x-prompt-tokens", generation.usage().prompt_tokens.to_string()));
    let events = Events::new(generation, question.reply);
    let stream = unfold(events, async |mut events| events.next().await.map(|event| (event, events)));
    Ok(sse::respond(response, stream))
}

/// The events of one answer.
struct Events {
    /// `None` once it has ended.
    generation: Option<Generation>,
    plan: ReplyPlan,
    /// The text so far.
    text: String,
    num_tokens: usize,
    /// Events that are not sent yet.
    ready: VecDeque<StreamEvent>,
    /// What ended the answer too early, to be told after all else.
    failure: Option<Error>,
}

impl Events {
    fn new(generation: Generation, plan: ReplyPlan) -> Events {
        let generation = Some(generation);
        Events { generation, plan, text: String::new(), num_tokens: 0, ready: VecDeque::new(), failure: None }
    }

    async fn next(&mut self) -> Option<Bytes> {
        while self.ready.len() <= 1 {
            let Some(generation) = &mut self.generation else { break };
            let next = if self.ready.is_empty() {
                Ok(generation.next().await)
            } else {
                timeout(WAIT_FOR_END, generation.next()).await
            };
            match next {
                Ok(Some(Ok(delta))) => self.take(delta),
                Ok(Some(Err(error))) => self.fail(error),
                Ok(None) => self.end(),
                Err(_not_yet) => break,
            }
        }
        match self.ready.pop_front() {
            Some(event) => Some(sse::event(&event)),
            None => self.failure.take().map(|error| sse::event(&ErrorBody::of(&error))),
        }
    }

    fn take(&mut self, delta: Delta) {
        self.text.push_str(&delta.text);
        let Some((last, before)) = delta.tokens.split_last() else { return self.append(&delta.text) };
        before.iter().for_each(|token| self.push(token, ""));
        self.push(last, &delta.text);
    }

    /// The event of a token; `text` is what became readable with it.
    fn push(&mut self, sampled: &Token, text: &str) {
        self.num_tokens += 1;
        self.ready.push_back(StreamEvent {
            index: self.num_tokens,
            token: token(sampled, text),
            top_tokens: (!sampled.top.is_empty()).then(|| top_tokens(sampled)),
            generated_text: None,
            details: None,
        });
    }

    /// Text that no token brought: what was held back as the possible beginning of a stop string, or half a character.
    fn append(&mut self, tail: &str) {
        self.last_event().token.text.push_str(tail);
    }

    /// The event that tells what is known at the end: the newest, or one without a token where that was sent already.
    fn last_event(&mut self) -> &mut StreamEvent {
        if self.ready.is_empty() {
            let nothing = Token { id: 0, text: String::new(), logprob: 0.0, special: true, top: Vec::new() };
            self.push(&nothing, "");
        }
        let last = self.ready.len() - 1;
        &mut self.ready[last]
    }

    fn end(&mut self) {
        let Some(generation) = self.generation.take() else { return };
        let text = match self.plan.given.take() {
            Some(given) => given.with_answer(&self.text),
            None => GeneratedText::Text(self.text.clone()),
        };
        let (usage, seed) = (generation.usage(), self.plan.seed);
        let details = self.plan.reply.details.then(|| StreamDetails {
            finish_reason: finish_reason(generation.finish().unwrap_or(Finish::Length)),
            generated_tokens: usage.generated_tokens,
            input_length: usage.prompt_tokens,
            seed,
        });
        let last = self.last_event();
        last.generated_text = Some(text);
        last.details = details;
    }

    fn fail(&mut self, error: Error) {
        self.generation = None;
        self.failure = Some(error);
    }
}

//! Answers as they are written: chunks of all choices in one stream of events, which `[DONE]` ends.

use std::time::Instant;

use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use futures_util::stream::{StreamExt, iter, select_all, unfold};
use serde::Serialize;

use super::error;
use super::reply::Usage;
use super::request::GenerationFields;
use crate::error::Error;
use crate::generation::{self, Finish};
use crate::http::json::refuse;
use crate::http::sse;

/// What the client wants to read in the stream beside the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamPlan {
    /// A chunk at the end tells what the answers cost.
    include_usage: bool,
    /// Every chunk tells what its answer cost so far.
    continuous_usage: bool,
}

impl StreamPlan {
    /// `None`: the client wants no stream.
    pub(super) fn read(fields: &GenerationFields) -> Result<Option<StreamPlan>, Error> {
        let options = fields.stream_options.clone();
        match (fields.stream.unwrap_or(false), options) {
            (true, _) if fields.prompt_logprobs.is_some() => {
                Err(refuse("prompt_logprobs", "is not part of a stream: set `stream` to false"))
            }
            (true, options) => {
                let options = options.unwrap_or_default();
                let include_usage = options.include_usage.unwrap_or(false);
                let continuous_usage = include_usage && options.continuous_usage_stats.unwrap_or(false);
                Ok(Some(StreamPlan { include_usage, continuous_usage }))
            }
            (false, Some(_)) => Err(refuse("stream_options", "is for streams: set `stream` to true as well")),
            (false, None) => Ok(None),
        }
    }
}

/// An answer that comes in parts.
pub(super) trait Answer: 'static {
    type Part;
    async fn next(&mut self) -> Option<Result<Self::Part, Error>>;
    fn usage(&self) -> generation::Usage;
}

/// OpenAI's word for why an answer without calls ended. An answer that was cut off at the client's own `deadline` is none.
pub(super) fn finish_reason(finish: Finish, deadline: Option<Instant>) -> Result<&'static str, Error> {
    match finish {
        Finish::Time if deadline.is_some_and(|deadline| deadline <= Instant::now()) => Err(Error::missed_deadline()),
        Finish::Length | Finish::Time => Ok("length"),
        Finish::Eos | Finish::StopString => Ok("stop"),
    }
}

/// What a route makes of the parts of its answers.
pub(super) trait Chunks: 'static {
    type Answer: Answer;
    type Chunk: Serialize;
    fn plan(&self) -> StreamPlan;
    /// So many choices, one after the other, answer the same prompt.
    fn answers_to_a_prompt(&self) -> usize;
    /// The chunk that opens a choice, where there is one.
    fn first(&self, index: usize) -> Option<Self::Chunk>;
    fn next(&self, index: usize, part: <Self::Answer as Answer>::Part, usage: Option<Usage>) -> Self::Chunk;
    /// The chunk that tells the cost of all choices.
    fn usage(&self, usage: Usage) -> Self::Chunk;
}

/// What the choices of a stream say to the stream.
enum Said<P> {
    Part(usize, P, generation::Usage),
    Failed(Error),
    /// A choice is complete.
    Ended(usize, generation::Usage),
}

/// Streams `answers`, one choice each.
pub(super) fn respond<C: Chunks>(
    mut response: HttpResponseBuilder,
    chunks: C,
    answers: Vec<C::Answer>,
) -> HttpResponse {
    let begun: Vec<generation::Usage> = answers.iter().map(Answer::usage).collect();
    let prompt_tokens = Usage::of(&begun, chunks.answers_to_a_prompt()).prompt_tokens;
    response.insert_header(("x-prompt-tokens", prompt_tokens.to_string()));
    let costs = vec![generation::Usage::default(); answers.len()];
    let openings = (0..answers.len()).filter_map(|index| chunks.first(index));
    let openings: Vec<Bytes> = openings.map(|chunk| sse::event(&chunk)).collect();
    let said = select_all(answers.into_iter().enumerate().map(|(index, answer)| Box::pin(choice(index, answer))));
    let state = State { said, chunks, costs, is_over: false };
    let events = unfold(state, async |mut state| state.next().await.map(|event| (event, state)));
    sse::respond(response, iter(openings).chain(events))
}

/// One answer as a stream of what it says, its end included.
fn choice<A: Answer>(index: usize, answer: A) -> impl futures_util::Stream<Item = Said<A::Part>> {
    unfold((index, Some(answer)), async |(index, answer)| {
        let mut answer = answer?;
        Some(match answer.next().await {
            Some(Ok(part)) => (Said::Part(index, part, answer.usage()), (index, Some(answer))),
            Some(Err(error)) => (Said::Failed(error), (index, None)),
            None => (Said::Ended(index, answer.usage()), (index, None)),
        })
    })
}

struct State<C: Chunks, S> {
    said: S,
    chunks: C,
    /// What each choice has cost, once it is complete.
    costs: Vec<generation::Usage>,
    is_over: bool,
}

impl<C, S> State<C, S>
where
    C: Chunks,
    S: futures_util::Stream<Item = Said<<C::Answer as Answer>::Part>> + Unpin,
{
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.is_over {
                return None;
            }
            match self.said.next().await {
                Some(Said::Part(index, part, usage)) => {
                    let usage = self.chunks.plan().continuous_usage.then(|| Usage::of(&[usage], 1));
                    return Some(sse::event(&self.chunks.next(index, part, usage)));
                }
                Some(Said::Failed(error)) => {
                    // Nothing follows an error, not even [DONE]: the answer is not whole.
                    self.is_over = true;
                    return Some(sse::event(&error::body(&error)));
                }
                Some(Said::Ended(index, usage)) => self.costs[index] = usage,
                None => {
                    self.is_over = true;
                    return Some(self.end());
                }
            }
        }
    }

    fn end(&self) -> Bytes {
        let done = Bytes::from_static(b"data: [DONE]\n\n");
        if !self.chunks.plan().include_usage {
            return done;
        }
        let usage = sse::event(&self.chunks.usage(Usage::of(&self.costs, self.chunks.answers_to_a_prompt())));
        [usage, done].concat().into()
    }
}

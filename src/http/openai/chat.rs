//! /v1/chat/completions: from a body to answers, whole or streamed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::{HttpResponse, HttpResponseBuilder};
use futures_util::future::try_join_all;

use super::body::{self, Fields};
use super::chat_answer::{ChatAnswer, Part, Shown};
use super::conversation::{begun_answer, conversation};
use super::head::Head;
use super::logprobs::of_prompt;
use super::reply::{ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, Delta, Usage};
use super::request::{ChatFields, GenerationFields};
use super::resolve::{self, MAX_TOP_LOGPROBS, Resolved, in_range};
use super::stream::{self, Answer, StreamPlan};
use super::{Sent, Understood};
use crate::error::Error;
use crate::generation::{ChatRequest, Input, MaxLength, Service};
use crate::http::json::refuse;
use crate::http::status_hold::hold;
use crate::http::{HttpSettings, reply};

/// A request as it was understood.
pub(super) struct Asked {
    request: ChatRequest,
    n: usize,
    shown: Shown,
    head: Head,
    /// `None`: whole.
    stream: Option<StreamPlan>,
}

/// Reads a body; beside it, the fields that nobody reads.
pub(super) fn read(sent: Sent, service: &Service, settings: &HttpSettings) -> Result<Understood<Asked>, Error> {
    let Fields { route: mut chat, mut both, ignored } =
        body::read::<ChatFields, GenerationFields>(sent.content_type.as_deref(), sent.body)?;
    let max_tokens = match (chat.max_completion_tokens, both.max_tokens) {
        (Some(new), Some(old)) if new != old => {
            return Err(refuse("max_completion_tokens", "and its older name `max_tokens` differ: send one of them"));
        }
        (new, old) => new.or(old),
    };
    if max_tokens == Some(0) {
        return Err(refuse("max_tokens", "must be above 0"));
    }
    let everything = MaxLength::NewAtMost(usize::MAX);
    let Resolved { mut sampling, length, stop, skip_special_tokens, prompt_logprobs, names, token_ids, n } =
        resolve::resolve(&both, max_tokens, everything, service)?;
    resolve::check_answers(n, settings.max_client_batch_size)?;
    sampling.top_logprobs = top_logprobs(&chat)?;
    let (conversation, media) = conversation(&mut chat)?;
    let shown = Shown {
        tools: conversation.tools.clone(),
        reasoning: chat.include_reasoning.unwrap_or(true),
        logprobs: chat.logprobs.unwrap_or(false),
        names,
        token_ids,
        echo: if chat.echo == Some(true) { begun_answer(&conversation) } else { None },
        parallel_calls: chat.parallel_tool_calls.unwrap_or(true),
        eos: stop.eos.clone(),
        deadline: sent.deadline,
    };
    let request = ChatRequest {
        input: Input::Conversation(conversation),
        media,
        sampling,
        length,
        stop,
        skip_special_tokens,
        prompt_logprobs,
        deadline: sent.deadline,
    };
    let head = Head::new("chatcmpl", &mut both, &settings.model.name)?;
    Ok((Asked { request, n, shown, head, stream: StreamPlan::read(&both)? }, ignored))
}

fn top_logprobs(chat: &ChatFields) -> Result<usize, Error> {
    let top = in_range("top_logprobs", chat.top_logprobs, |n| n <= MAX_TOP_LOGPROBS, "from 0 to 20")?.unwrap_or(0);
    if top > 0 && chat.logprobs != Some(true) {
        return Err(refuse("top_logprobs", "needs `logprobs` to be true"));
    }
    Ok(top as usize)
}

/// Asks, and answers whole or with a stream.
pub(super) async fn respond(
    mut response: HttpResponseBuilder,
    service: Service,
    asked: Asked,
    status_hold: Duration,
) -> Result<HttpResponse, Error> {
    let received = Instant::now();
    let Asked { request, n, shown, head, stream } = asked;
    let mut generations = service.start_several(request, n).await?;
    if let Some(plan) = stream {
        hold(&mut generations[0], status_hold).await?;
        let answers = generations.into_iter().map(|g| ChatAnswer::new(g, service.clone(), shown.clone()));
        let answers: Vec<ChatAnswer> = answers.collect();
        let prompt_token_ids = answers[0].prompt_token_ids();
        return Ok(stream::respond(response, ChatChunks { head, plan, n, prompt_token_ids }, answers));
    }
    let collected = generations.into_iter().enumerate().map(async |(index, generation)| {
        let mut answer = ChatAnswer::new(generation.whole(), service.clone(), shown.clone());
        let choice = answer.collect(index).await?;
        let prompt = (of_prompt(answer.prompt_tokens()), answer.prompt_token_ids());
        Ok::<_, Error>((choice, (answer.usage(), prompt)))
    });
    let answered = try_join_all(collected).await?;
    let (choices, costs): (Vec<ChatChoice>, Vec<_>) = answered.into_iter().unzip();
    let (usages, mut prompts): (Vec<_>, Vec<_>) = costs.into_iter().unzip();
    reply::usage_headers(&mut response, &usages, received.elapsed());
    let (prompt_logprobs, prompt_token_ids) = prompts.swap_remove(0);
    let Head { id, created, model } = head;
    Ok(response.json(ChatCompletion {
        id,
        object: "chat.completion",
        created,
        model,
        usage: Usage::of(&usages, n),
        choices,
        prompt_logprobs,
        prompt_token_ids,
    }))
}

/// Makes chunks of the parts of answers.
struct ChatChunks {
    head: Head,
    plan: StreamPlan,
    n: usize,
    prompt_token_ids: Option<Arc<[u32]>>,
}

impl stream::Chunks for ChatChunks {
    type Answer = ChatAnswer;
    type Chunk = ChatChunk;

    fn plan(&self) -> StreamPlan {
        self.plan
    }

    fn answers_to_a_prompt(&self) -> usize {
        self.n
    }

    fn first(&self, index: usize) -> Option<ChatChunk> {
        let delta = Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() };
        let opening = ChatChunkChoice { index, delta, logprobs: None, token_ids: None, finish_reason: None };
        let prompt_token_ids = self.prompt_token_ids.clone();
        Some(ChatChunk { prompt_token_ids, ..self.chunk(vec![opening], None) })
    }

    fn next(&self, index: usize, part: Part, usage: Option<Usage>) -> ChatChunk {
        let Part { delta, logprobs, token_ids, finish_reason } = part;
        self.chunk(vec![ChatChunkChoice { index, delta, logprobs, token_ids, finish_reason }], usage)
    }

    fn usage(&self, usage: Usage) -> ChatChunk {
        self.chunk(Vec::new(), Some(usage))
    }
}

impl ChatChunks {
    fn chunk(&self, choices: Vec<ChatChunkChoice>, usage: Option<Usage>) -> ChatChunk {
        let Head { id, created, model } = self.head.clone();
        ChatChunk { id, object: "chat.completion.chunk", created, model, choices, prompt_token_ids: None, usage }
    }
}

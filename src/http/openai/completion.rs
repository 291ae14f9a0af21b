//! /v1/completions: prompts continued as they are, without a chat template.

use std::time::{Duration, Instant};

use actix_web::{HttpResponse, HttpResponseBuilder};
use futures_util::future::try_join_all;

use super::body::{self, Fields};
use super::completion_answer::{CompletionAnswer, Part, Shown};
use super::head::Head;
use super::logprobs::of_prompt;
use super::reply::{Completion, CompletionChoice, Usage};
use super::request::{CompletionFields, GenerationFields, Prompts};
use super::resolve::{self, MAX_TOP_LOGPROBS, Resolved, in_range};
use super::stream::{self, Answer, StreamPlan};
use super::{Sent, Understood};
use crate::error::Error;
use crate::generation::{ChatRequest, Generation, Input, MaxLength, Service};
use crate::http::json::refuse;
use crate::http::status_hold::hold;
use crate::http::{HttpSettings, reply};

/// OpenAI's and vLLM's.
const DEFAULT_MAX_TOKENS: usize = 16;

/// A request as it was understood.
pub(super) struct Asked {
    /// One for each prompt, with what its replies show.
    requests: Vec<(ChatRequest, Shown)>,
    n: usize,
    head: Head,
    /// The reply has `prompt_logprobs`.
    wants_prompt: bool,
    /// `None`: whole.
    stream: Option<StreamPlan>,
}

/// Reads a body; beside it, the fields that nobody reads.
pub(super) fn read(sent: Sent, service: &Service, settings: &HttpSettings) -> Result<Understood<Asked>, Error> {
    let Fields { route: completion, mut both, ignored } =
        body::read::<CompletionFields, GenerationFields>(sent.content_type.as_deref(), sent.body)?;
    let max_tokens = both.max_tokens;
    if max_tokens == Some(0) && completion.echo != Some(true) {
        return Err(refuse("max_tokens", "may be 0 only together with `echo`"));
    }
    let mut resolved = resolve::resolve(&both, max_tokens, MaxLength::NewAtMost(DEFAULT_MAX_TOKENS), service)?;
    refuse_unsupported(&completion, resolved.n)?;
    let logprobs = in_range("logprobs", completion.logprobs, |n| n <= MAX_TOP_LOGPROBS, "from 0 to 20")?;
    resolved.sampling.top_logprobs = logprobs.unwrap_or(0) as usize;
    let prompts = prompts(completion.prompt)?;
    resolve::check_answers(prompts.len().saturating_mul(resolved.n), settings.max_client_batch_size)?;
    let n = resolved.n;
    if completion.echo == Some(true) {
        // An echoed prompt has its probabilities like the rest.
        resolved.prompt_logprobs = resolved.prompt_logprobs.or(logprobs.map(|n| n as usize));
    }
    if max_tokens == Some(0) {
        // Only the prompt is wanted: nothing is chosen, and it is read for its probabilities or for nothing.
        resolved.prompt_logprobs = resolved.prompt_logprobs.or(Some(0));
    }
    let requests = prompts.into_iter().map(|input| {
        let echo = match completion.echo {
            Some(true) => Some(service.text_of(&input)?),
            _ => None,
        };
        let shown = Shown {
            echo,
            logprobs: logprobs.is_some(),
            names: resolved.names,
            token_ids: resolved.token_ids,
            eos: resolved.stop.eos.clone(),
            deadline: sent.deadline,
        };
        Ok((request(input, &resolved, sent.deadline), shown))
    });
    let requests = requests.collect::<Result<_, Error>>()?;
    let head = Head::new("cmpl", &mut both, &settings.model.name)?;
    let wants_prompt = both.prompt_logprobs.is_some();
    Ok((Asked { requests, n, head, wants_prompt, stream: StreamPlan::read(&both)? }, ignored))
}

fn refuse_unsupported(completion: &CompletionFields, n: usize) -> Result<(), Error> {
    if completion.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(refuse("suffix", "is not supported: the model was not made to fill in"));
    }
    match completion.best_of {
        Some(best_of) if best_of as usize != n => {
            Err(refuse("best_of", "must equal `n`: this server does not choose among answers here"))
        }
        _ => Ok(()),
    }
}

fn request(input: Input, resolved: &Resolved, deadline: Option<Instant>) -> ChatRequest {
    let Resolved { sampling, length, stop, skip_special_tokens, prompt_logprobs, .. } = resolved.clone();
    let media = Vec::new();
    ChatRequest { input, media, sampling, length, stop, skip_special_tokens, prompt_logprobs, deadline }
}

fn prompts(prompt: Option<Prompts>) -> Result<Vec<Input>, Error> {
    let inputs: Vec<Input> = match prompt {
        None => return Err(refuse("prompt", "is missing: send a text, token ids, or a list of either")),
        Some(Prompts::Text(text)) => vec![Input::Raw(text)],
        Some(Prompts::Tokens(ids)) => vec![Input::Tokens(ids)],
        Some(Prompts::Texts(texts)) => texts.into_iter().map(Input::Raw).collect(),
        Some(Prompts::TokenLists(lists)) => lists.into_iter().map(Input::Tokens).collect(),
    };
    let is_empty = |input: &Input| match input {
        Input::Raw(text) => text.is_empty(),
        Input::Tokens(ids) => ids.is_empty(),
        Input::Conversation(_) => false,
    };
    if inputs.is_empty() || inputs.iter().any(is_empty) {
        return Err(refuse("prompt", "is empty"));
    }
    Ok(inputs)
}

/// Asks, and answers whole or with a stream.
pub(super) async fn respond(
    mut response: HttpResponseBuilder,
    service: Service,
    asked: Asked,
    status_hold: Duration,
) -> Result<HttpResponse, Error> {
    let received = Instant::now();
    let Asked { requests, n, head, wants_prompt, stream } = asked;
    let started = requests.into_iter().map(async |(request, shown)| {
        let generations = service.start_several(request, n).await?;
        Ok::<_, Error>(generations.into_iter().map(move |generation| (generation, shown.clone())))
    });
    let mut started: Vec<(Generation, Shown)> = try_join_all(started).await?.into_iter().flatten().collect();
    if let Some(plan) = stream {
        hold(&mut started[0].0, status_hold).await?;
        let answers = started.into_iter().map(|(generation, shown)| CompletionAnswer::new(generation, shown));
        return Ok(stream::respond(response, CompletionChunks { head, plan, n }, answers.collect()));
    }
    let collected = started.into_iter().enumerate().map(async |(index, (generation, shown))| {
        let mut answer = CompletionAnswer::new(generation.whole(), shown);
        let part = answer.collect().await?;
        let mut choice = choice(index, part);
        choice.prompt_logprobs = if wants_prompt { of_prompt(answer.prompt_tokens()) } else { None };
        Ok::<_, Error>((choice, answer.usage()))
    });
    let (choices, usages): (Vec<_>, Vec<_>) = try_join_all(collected).await?.into_iter().unzip();
    reply::usage_headers(&mut response, &usages, received.elapsed());
    Ok(response.json(completion(head, choices, Some(Usage::of(&usages, n)))))
}

fn choice(index: usize, part: Part) -> CompletionChoice {
    let Part { text, logprobs, prompt_token_ids, token_ids, finish_reason } = part;
    CompletionChoice { index, text, logprobs, finish_reason, prompt_logprobs: None, prompt_token_ids, token_ids }
}

fn completion(head: Head, choices: Vec<CompletionChoice>, usage: Option<Usage>) -> Completion {
    let Head { id, created, model } = head;
    Completion { id, object: "text_completion", created, model, choices, usage }
}

/// Makes chunks of the parts of completions.
struct CompletionChunks {
    head: Head,
    plan: StreamPlan,
    n: usize,
}

impl stream::Chunks for CompletionChunks {
    type Answer = CompletionAnswer;
    type Chunk = Completion;

    fn plan(&self) -> StreamPlan {
        self.plan
    }

    fn answers_to_a_prompt(&self) -> usize {
        self.n
    }

    fn first(&self, _index: usize) -> Option<Completion> {
        None
    }

    fn next(&self, index: usize, part: Part, usage: Option<Usage>) -> Completion {
        completion(self.head.clone(), vec![choice(index, part)], usage)
    }

    fn usage(&self, usage: Usage) -> Completion {
        completion(self.head.clone(), Vec::new(), Some(usage))
    }
}

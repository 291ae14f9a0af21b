//! OpenAI's API, with the fields that vLLM added to it: chat completions, completions and the list of models.
//!
//! A chat's body passes through `body` (JSON into fields), `request` (the fields), `conversation` (messages, tools, template)
//! and `resolve` (every default), and comes back through `chat_answer` (parts of an answer, the same whole and streamed) as
//! one `reply` or as a stream of them. Completions take the same way with `completion` in the place of `chat`.

mod body;
mod chat;
mod chat_answer;
mod completion;
mod completion_answer;
mod conversation;
mod error;
mod head;
mod logprobs;
pub(super) mod models;
mod reply;
mod request;
mod resolve;
mod schema;
mod stream;

use std::time::{Duration, Instant};

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use bytes::Bytes;

use super::receiving::{header, understand};
use super::{HttpSettings, body as http_body, deadline, reply as reply_to};
use crate::error::Error;
use crate::generation::Service;
use error::Failures;
pub(super) use error::respond as respond_error;
pub(super) use models::{get_model, list_models};
use reply::{ChatChunk, ChatCompletion, Completion};
use schema::{ChatCompletionRequest, CompletionRequest};

/// Names the fields that were sent and that nobody reads, so that a slip of the finger does not go unseen.
const IGNORED_FIELDS: &str = "x-ignored-fields";

/// Answers a conversation.
///
/// A stream is of chunks, and ends with `[DONE]`.
// Dropped when its client leaves, which cancels what it asked for.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "OpenAI",
    request_body(content = ChatCompletionRequest, example = json!({
        "messages": [{"role": "user", "content": "What is 12 + 30?"}],
        "max_tokens": 20,
    })),
    responses(
        (status = 200, description = "The answers.", content(
            (ChatCompletion = "application/json"), (ChatChunk = "text/event-stream"),
        )),
        Failures,
    ),
)]
pub(super) async fn chat_completions(
    request: HttpRequest,
    payload: web::Payload,
    service: web::Data<Service>,
    settings: web::Data<HttpSettings>,
) -> HttpResponse {
    answer(&request, payload, &service, settings, chat::read, chat::respond).await
}

/// Continues prompts as they stand, without a chat template.
///
/// A stream is of the same objects, and ends with `[DONE]`.
#[utoipa::path(
    post, path = "/v1/completions", tag = "OpenAI",
    request_body(content = CompletionRequest, example = json!({
        "prompt": "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n",
        "max_tokens": 20,
    })),
    responses(
        (status = 200, description = "The continuations.", content(
            (Completion = "application/json"), (Completion = "text/event-stream"),
        )),
        Failures,
    ),
)]
pub(super) async fn completions(
    request: HttpRequest,
    payload: web::Payload,
    service: web::Data<Service>,
    settings: web::Data<HttpSettings>,
) -> HttpResponse {
    answer(&request, payload, &service, settings, completion::read, completion::respond).await
}

/// Receives a request, reads it off the threads that serve HTTP, and responds.
async fn answer<A: Send + 'static>(
    request: &HttpRequest,
    payload: web::Payload,
    service: &Service,
    settings: web::Data<HttpSettings>,
    read: fn(Sent, &Service, &HttpSettings) -> Result<Understood<A>, Error>,
    respond: impl AsyncFnOnce(HttpResponseBuilder, Service, A, Duration) -> Result<HttpResponse, Error>,
) -> HttpResponse {
    let service = &reply_to::accounted(service, request);
    let outcome = async {
        let sent = receive(request, payload, service, &settings).await?;
        let (asked, ignored) = understand({
            let (service, settings) = (service.clone(), settings.clone());
            move || read(sent, &service, &settings)
        })
        .await?;
        respond(response(&ignored), service.clone(), asked, settings.status_hold).await
    };
    outcome.await.unwrap_or_else(|error| error::respond(&error))
}

/// What a request asks, and the fields in it that nobody reads.
type Understood<A> = (A, Vec<String>);

/// A request as it came in.
struct Sent {
    content_type: Option<String>,
    body: Bytes,
    deadline: Option<Instant>,
}

/// What can be refused without reading the body is, and then the body is read. `Accept` is not looked at: OpenAI's client
/// says application/json also where it wants a stream.
async fn receive(
    request: &HttpRequest,
    payload: web::Payload,
    service: &Service,
    settings: &HttpSettings,
) -> Result<Sent, Error> {
    service.check_ready()?;
    let deadline = deadline::read(request.headers())?;
    let content_type = header(request, CONTENT_TYPE);
    let body = http_body::read(request, payload, settings.max_body_bytes).await?;
    Ok(Sent { content_type, body, deadline })
}

/// The response to a request that was understood.
fn response(ignored: &[String]) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    if !ignored.is_empty() {
        // Names come from the client: what a header cannot hold is replaced.
        let is_plain = |c: char| c.is_ascii_graphic() && c != ',';
        let plain = |name: &String| -> String { name.chars().map(|c| if is_plain(c) { c } else { '?' }).collect() };
        let names: Vec<String> = ignored.iter().take(50).map(plain).collect();
        response.insert_header((IGNORED_FIELDS, names.join(", ")));
    }
    response
}

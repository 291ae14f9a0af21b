//! The tokens of a text, or of a conversation as the chat template writes it.

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::{Map, Value};

use super::error;
use super::error::Failures;
use super::schema::{ChatTokenizeRequest, ChatTokenizeResponse, SimpleToken, TokenizeRequest};
use super::wire::Sent;
use crate::chat::Span;
use crate::error::Error;
use crate::generation::{Conversation, Service};
use crate::http::hf::parameters;
use crate::http::json::{kind, refuse};
use crate::http::messages::take_media;
use crate::http::receiving::{admit, header, understand};
use crate::http::{HttpSettings, body};

/// The tokens of a text.
///
/// Special tokens in it are that, and pictures in it are text.
#[utoipa::path(
    post, path = "/tokenize", tag = "Text Generation Inference",
    request_body(content = TokenizeRequest, example = json!({"inputs": "What is 12 + 30?"})),
    responses(
        (status = 200, description = "The tokens.", body = Vec<SimpleToken>),
        Failures,
    ),
)]
pub(in crate::http) async fn tokenize(
    request: HttpRequest,
    payload: web::Payload,
    service: web::Data<Service>,
    settings: web::Data<HttpSettings>,
) -> HttpResponse {
    let tokenized = async {
        let text = receive(&request, payload, &service, &settings, Sent::text).await?;
        Ok(service.tokenize(text).await?.into_iter().map(simple).collect::<Vec<SimpleToken>>())
    };
    answer(tokenized.await)
}

/// The text that the chat template makes of a conversation, and its tokens.
#[utoipa::path(
    post, path = "/chat_tokenize", tag = "Text Generation Inference",
    request_body(content = ChatTokenizeRequest, example = json!({
        "messages": [{"role": "user", "content": "What is 12 + 30?"}],
    })),
    responses(
        (status = 200, description = "The text and its tokens.", body = ChatTokenizeResponse),
        Failures,
    ),
)]
pub(in crate::http) async fn chat_tokenize(
    request: HttpRequest,
    payload: web::Payload,
    service: web::Data<Service>,
    settings: web::Data<HttpSettings>,
) -> HttpResponse {
    let tokenized = async {
        let conversation = receive(&request, payload, &service, &settings, |sent| conversation(sent.object()?)).await?;
        let (text, tokens) = service.tokenize_conversation(conversation).await?;
        Ok(ChatTokenizeResponse { tokenize_response: tokens.into_iter().map(simple).collect(), templated_text: text })
    };
    answer(tokenized.await)
}

async fn receive<T: Send + 'static>(
    request: &HttpRequest,
    payload: web::Payload,
    service: &Service,
    settings: &HttpSettings,
    read: fn(Sent) -> Result<T, Error>,
) -> Result<T, Error> {
    if !admit(request, service)?.accepted.json {
        return Err(Error::NotAcceptable("this route answers application/json".to_owned()));
    }
    let content_type = header(request, CONTENT_TYPE);
    let body = body::read(request, payload, settings.max_body_bytes).await?;
    understand(move || read(Sent { content_type, body })).await
}

/// The conversation of a chat request. Its other fields shape the answer, of which there is none: they are not looked at.
fn conversation(mut body: Map<String, Value>) -> Result<Conversation, Error> {
    let messages = match body.shift_remove("messages") {
        Some(Value::Array(messages)) => messages,
        Some(other) => return Err(refuse("messages", &format!("must be a list of messages, not {}", kind(&other)))),
        None => return Err(refuse("messages", "is missing: send the conversation in it")),
    };
    // The size of a picture or a video is not known before it is fetched, so it counts as the one placeholder that the template writes.
    let (messages, _media) = take_media(messages, Vec::new(), "messages")?;
    let template = parameters::template(body)?;
    Ok(Conversation {
        messages,
        tools: template.tools,
        template_variables: template.variables,
        ending: template.ending.unwrap_or_default(),
    })
}

fn simple(Span { id, text, start, stop }: Span) -> SimpleToken {
    SimpleToken { id, text, start, stop }
}

fn answer(outcome: Result<impl Serialize, Error>) -> HttpResponse {
    match outcome {
        Ok(body) => HttpResponse::Ok().json(body),
        Err(error) => error::respond(&error),
    }
}

//! Continues a text: whole, or token by token.

use std::time::Instant;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use serde_json::Map;

use super::error::Failures;
use super::schema::GenerateRequest;
use super::wire::{Call, Sent};
use super::{error, headers};
use crate::error::Error;
use crate::generation::{Input, Service};
use crate::http::hf::parameters::{self, Delivery, Reading, TGI};
use crate::http::hf::question::{Given, Question};
use crate::http::hf::record::{Record, StreamEvent};
use crate::http::hf::{details, events, text};
use crate::http::json::refuse;
use crate::http::receiving::{admit, header, understand};
use crate::http::{HttpSettings, body, reply};

/// Continues a prompt, whole.
#[utoipa::path(
    post, path = "/generate", tag = "Text Generation Inference",
    request_body(content = GenerateRequest, example = json!({
        "inputs": "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n",
        "parameters": {"max_new_tokens": 20, "details": true},
    })),
    responses(
        (status = 200, description = "The answer.", body = Record),
        Failures,
    ),
)]
pub(in crate::http) async fn generate(
    request: HttpRequest,
    payload: web::Payload,
    service: web::Data<Service>,
    settings: web::Data<HttpSettings>,
) -> HttpResponse {
    let service = reply::accounted(&service, &request);
    let outcome = whole(&request, payload, &service, &settings).await;
    outcome.unwrap_or_else(|error| error::respond(&error))
}

/// Continues a prompt, token by token.
///
/// The last event has the whole text; what fails after the status was sent is an event with `error` and `error_type`.
#[utoipa::path(
    post, path = "/generate_stream", tag = "Text Generation Inference",
    request_body(content = GenerateRequest, example = json!({
        "inputs": "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n",
        "parameters": {"max_new_tokens": 20, "details": true},
    })),
    responses(
        (status = 200, description = "The tokens of the answer.", body = StreamEvent, content_type = "text/event-stream"),
        Failures,
    ),
)]
pub(in crate::http) async fn generate_stream(
    request: HttpRequest,
    payload: web::Payload,
    service: web::Data<Service>,
    settings: web::Data<HttpSettings>,
) -> HttpResponse {
    let service = reply::accounted(&service, &request);
    let outcome = streamed(&request, payload, &service, &settings).await;
    outcome.unwrap_or_else(|error| error::respond(&error))
}

async fn whole(
    request: &HttpRequest,
    payload: web::Payload,
    service: &Service,
    settings: &web::Data<HttpSettings>,
) -> Result<HttpResponse, Error> {
    let received = Instant::now();
    let admitted = admit(request, service)?;
    if !admitted.accepted.json {
        return Err(Error::NotAcceptable(
            "this route answers application/json; a stream comes from /generate_stream".to_owned(),
        ));
    }
    let (mut response, question) = receive(request, payload, service, settings, Delivery::Whole).await?;
    let (plan, answers) = question.until(admitted.deadline).ask(service).await?;
    let usages: Vec<_> = answers.iter().map(|answer| answer.usage).collect();
    headers::after(&mut response, &usages, received.elapsed());
    Ok(response.json(details::records(&plan, &answers).into_iter().next()))
}

async fn streamed(
    request: &HttpRequest,
    payload: web::Payload,
    service: &Service,
    settings: &web::Data<HttpSettings>,
) -> Result<HttpResponse, Error> {
    // Clients that ask for JSON on every route take the stream as well.
    let admitted = admit(request, service)?;
    let (response, question) = receive(request, payload, service, settings, Delivery::Streamed).await?;
    events::respond(response, service, question.until(admitted.deadline), settings.status_hold).await
}

/// Reads a request, and begins the response with what is known of it.
async fn receive(
    request: &HttpRequest,
    payload: web::Payload,
    service: &Service,
    settings: &web::Data<HttpSettings>,
    delivery: Delivery,
) -> Result<(HttpResponseBuilder, Question), Error> {
    let content_type = header(request, CONTENT_TYPE);
    let body = body::read(request, payload, settings.max_body_bytes).await?;
    let mut response = HttpResponse::Ok();
    let (service, shared) = (service.clone(), settings.clone());
    let (inputs, question, warnings) = understand(move || {
        let call = Sent { content_type, body }.call()?;
        let inputs = call.inputs.clone();
        let (question, warnings) = question(call, &service, &shared, delivery)?;
        Ok((inputs, question, warnings))
    })
    .await?;
    headers::before(&mut response, settings.model.device_type(), &inputs);
    if !warnings.is_empty() {
        response.insert_header(("x-warning", warnings.join("; ")));
    }
    Ok((response, question))
}

/// The question that a call asks, and what in it has no effect.
fn question(
    call: Call,
    service: &Service,
    settings: &HttpSettings,
    delivery: Delivery,
) -> Result<(Question, Vec<String>), Error> {
    let Call { inputs, parameters, stream } = call;
    if stream.is_some_and(|stream| stream != (delivery == Delivery::Streamed)) {
        return Err(refuse("stream", "is for POST /; here the route says it: /generate or /generate_stream"));
    }
    let reading = Reading { dialect: &TGI, defaults: service.defaults(), vocab_size: service.vocab_size(), delivery };
    let given = parameters::merge(Map::new(), parameters)?;
    let mut parameters = parameters::resolve(given, reading)?;
    if parameters.template.raw_prompt == Some(false) {
        return Err(refuse("raw_prompt", "is always true on this route"));
    }
    parameters.template.check_idle()?;
    if parameters.reply.num_sequences > 1 {
        return Err(refuse("num_return_sequences", "is 1 on this route, which answers with one record"));
    }
    if parameters.reply.best_of > 1 && delivery == Delivery::Streamed {
        return Err(refuse("best_of", "cannot be streamed: which answer is best is known at the end"));
    }
    if parameters.reply.best_of > settings.max_client_batch_size {
        let limit = settings.max_client_batch_size;
        return Err(refuse("best_of", &format!("is above the {limit} answers that one request may ask for")));
    }
    let warnings = std::mem::take(&mut parameters.warnings);
    let given = parameters.reply.return_full_text.then(|| Given::Text(inputs.clone()));
    let (prompt, media) = text::raw(&inputs, Vec::new(), "inputs")?;
    Ok((Question::new((Input::Raw(prompt), media), parameters, given), warnings))
}

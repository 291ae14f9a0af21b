//! The Hugging Face Inference Toolkit's contract: `inputs` and `parameters` in, a list of `generated_text` out.
//!
//! A body passes through `wire` (its fields), `inputs` (which records it holds), `hf::parameters` (every default resolved)
//! and `question` (pictures taken out, ready for the model), and comes back through `output` or `hf::events`.

mod batch;
mod error;
mod form;
mod inputs;
mod output;
mod query;
mod question;
mod schema;
mod wire;

use std::time::Instant;

use actix_web::http::header::{CONTENT_TYPE, USER_AGENT};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::try_join_all;

use super::hf::details::records;
use super::hf::events;
use super::hf::record::StreamEvent;
use super::receiving::{admit, header};
use super::{HttpSettings, body, reply};
use crate::error::Error;
use crate::generation::Service;
use batch::{Batch, Sent, Wanted};
use error::Failures;
use output::{Answered, Reply};
use question::Asking;
use schema::{PictureFile, PictureForm, PredictRequest, VideoFile};

/// Answers what `inputs` asks.
///
/// With `stream` the answer comes token by token, in TGI's events. Parameters of a request whose body is a picture or a video stand in the
/// query string.
// Dropped when its client leaves, which cancels what it asked for.
#[utoipa::path(
    post, path = "/", operation_id = "predict", tag = "Inference Toolkit",
    request_body(description = "A question, or a picture or a video to be described.", content(
        (PredictRequest = "application/json", example = json!({
            "inputs": [{"role": "user", "content": "What is 12 + 30?"}],
            "parameters": {"max_new_tokens": 20, "do_sample": false},
        })),
        (PictureFile = "image/png"), (PictureFile = "image/jpeg"), (PictureFile = "image/webp"), (PictureFile = "image/gif"),
        (PictureFile = "image/bmp"), (PictureFile = "image/tiff"), (PictureForm = "multipart/form-data"),
        (VideoFile = "video/mp4"), (VideoFile = "video/webm"), (VideoFile = "video/quicktime"),
    )),
    responses(
        (status = 200, description = "The answers.", content(
            (Reply = "application/json"), (StreamEvent = "text/event-stream"),
        )),
        Failures,
    ),
)]
pub(super) async fn predict(
    request: HttpRequest,
    payload: web::Payload,
    service: web::Data<Service>,
    settings: web::Data<HttpSettings>,
) -> HttpResponse {
    let service = reply::accounted(&service, &request);
    let outcome = respond(&request, payload, &service, &settings).await;
    outcome.unwrap_or_else(|error| error::respond(&error, settings.strict_toolkit_status))
}

async fn respond(
    request: &HttpRequest,
    payload: web::Payload,
    service: &Service,
    settings: &web::Data<HttpSettings>,
) -> Result<HttpResponse, Error> {
    let received = Instant::now();
    let admitted = admit(request, service)?;
    let sent = Sent {
        content_type: header(request, CONTENT_TYPE),
        user_agent: header(request, USER_AGENT),
        query: request.query_string().to_owned(),
        body: body::read(request, payload, settings.max_body_bytes).await?,
        admitted,
    };
    let Batch { wanted, warnings } = batch::read(sent, service, settings).await?;
    let mut response = HttpResponse::Ok();
    if !warnings.is_empty() {
        response.insert_header(("x-warning", warnings.join("; ")));
    }
    match wanted {
        Wanted::Streamed(question) => events::respond(response, service, *question, settings.status_hold).await,
        Wanted::Whole { asked, form } => {
            let answered = ask_all(service, asked).await?;
            let usages: Vec<_> = answered.iter().flat_map(|one| &one.usages).copied().collect();
            reply::usage_headers(&mut response, &usages, received.elapsed());
            Ok(response.json(Reply::new(form, answered)))
        }
    }
}

/// Asks all questions at once. The first error is everybody's: dropping the others cancels them.
async fn ask_all(service: &Service, asked: Vec<Asking>) -> Result<Vec<Answered>, Error> {
    let are_several = asked.len() > 1;
    let asked = asked.into_iter().enumerate().map(async |(index, Asking { question, instance })| {
        let (plan, answers) = question
            .ask(service)
            .await
            .map_err(|error| if are_several { error::in_record(error, index) } else { error })?;
        Ok(Answered {
            instance,
            records: records(&plan, &answers),
            usages: answers.iter().map(|answer| answer.usage).collect(),
        })
    });
    try_join_all(asked).await
}

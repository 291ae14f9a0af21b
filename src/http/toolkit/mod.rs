//! The Hugging Face Inference Toolkit's contract: `inputs` and `parameters` in, a list of `generated_text` out.
//!
//! A body passes through `wire` (its fields), `inputs` (which records it holds), `parameters` (every default resolved),
//! `question` (with `text`: pictures taken out, ready for the model) and comes back through `output`.

mod batch;
mod error;
mod inputs;
mod output;
mod parameters;
mod query;
mod question;
mod stream;
mod text;
mod wire;

use std::time::Instant;

use actix_web::http::header::{ACCEPT, CONTENT_TYPE, HeaderName, USER_AGENT};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::try_join_all;

use super::negotiation::Accepted;
use super::{HttpSettings, auth, body, reply};
use crate::error::Error;
use crate::generation::{Answer, Generation, Service};
use batch::{Batch, Sent, Wanted};
use question::{Question, ReplyPlan};

/// POST on every route of the toolkit's. Dropped when its client leaves, which cancels what it asked for.
pub(super) async fn predict(
    request: HttpRequest,
    payload: web::Payload,
    service: web::Data<Service>,
    settings: web::Data<HttpSettings>,
) -> HttpResponse {
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
    let accepted = admit(request, service, settings)?;
    let sent = Sent {
        content_type: header(request, CONTENT_TYPE),
        user_agent: header(request, USER_AGENT),
        query: request.query_string().to_owned(),
        body: body::read(request, payload, settings.max_body_bytes).await?,
        accepted,
    };
    let Batch { wanted, warnings } = batch::read(sent, service, settings).await?;
    let mut response = HttpResponse::Ok();
    if !warnings.is_empty() {
        response.insert_header(("x-warning", warnings.join("; ")));
    }
    match wanted {
        Wanted::Streamed(question) => stream::respond(response, service, *question, settings.status_hold).await,
        Wanted::Whole { questions, form } => {
            let answered = ask_all(service, questions).await?;
            let usages: Vec<_> = answered.iter().flat_map(|(_, answers)| answers).map(|answer| answer.usage).collect();
            reply::usage_headers(&mut response, &usages, received.elapsed());
            Ok(response.json(output::body(form, &answered)))
        }
    }
}

/// What can be refused without reading the body.
fn admit(request: &HttpRequest, service: &Service, settings: &HttpSettings) -> Result<Accepted, Error> {
    auth::check(request, settings.api_key.as_deref())?;
    service.check_ready()?;
    Accepted::read(header(request, ACCEPT).as_deref())
}

fn header(request: &HttpRequest, name: HeaderName) -> Option<String> {
    request.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// Asks all questions at once. The first error is everybody's: dropping the others cancels them.
async fn ask_all(service: &Service, questions: Vec<Question>) -> Result<Vec<(ReplyPlan, Vec<Answer>)>, Error> {
    let are_several = questions.len() > 1;
    let asked = questions.into_iter().enumerate().map(async |(index, question)| {
        let asked = ask(service, question).await;
        asked.map_err(|error| if are_several { error::in_record(error, index) } else { error })
    });
    try_join_all(asked).await
}

async fn ask(service: &Service, question: Question) -> Result<(ReplyPlan, Vec<Answer>), Error> {
    let generations = service.start_several(question.request, question.reply.num_answers()).await?;
    let answers = try_join_all(generations.into_iter().map(Generation::collect)).await?;
    Ok((question.reply, answers))
}

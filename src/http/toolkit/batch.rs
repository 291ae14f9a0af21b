//! A whole request: the questions it asks and the form in which it wants them answered.

use std::sync::Arc;

use actix_web::web;
use bytes::Bytes;

use super::inputs::Record;
use super::question::{self, Asking, UsualPrompts};
use super::wire::{self, Call, Form};
use super::{error, query};
use crate::error::Error;
use crate::generation::Service;
use crate::http::HttpSettings;
use crate::http::hf::parameters::{self, Delivery, Reading, TRANSFORMERS};
use crate::http::hf::question::Question;
use crate::http::json::refuse;
use crate::http::negotiation::{self, Accepted, Body};
use crate::http::parameters::too_many_answers;
use crate::http::receiving::{Admitted, understand};

/// huggingface.js wants one record, not a list, about a picture that is the whole body.
const JAVASCRIPT_CLIENT: &str = "@huggingface/inference";

/// A request as it came in.
pub(super) struct Sent {
    pub(super) content_type: Option<String>,
    pub(super) user_agent: Option<String>,
    pub(super) query: String,
    pub(super) body: Bytes,
    pub(super) admitted: Admitted,
}

/// A request as it was understood.
pub(super) struct Batch {
    pub(super) wanted: Wanted,
    /// What was understood and has no effect.
    pub(super) warnings: Vec<String>,
}

/// How the answers are wanted.
pub(super) enum Wanted {
    /// Whole, all of them in one reply.
    Whole { asked: Vec<Asking>, form: Form },
    /// Token by token, which one answer to one question can be.
    Streamed(Box<Question>),
}

/// Reads a request.
pub(super) async fn read(sent: Sent, service: &Service, settings: &web::Data<HttpSettings>) -> Result<Batch, Error> {
    let (service, settings) = (service.clone(), Arc::clone(settings));
    understand(move || batch(sent, &service, &settings)).await
}

fn batch(sent: Sent, service: &Service, settings: &HttpSettings) -> Result<Batch, Error> {
    let body = negotiation::classify(sent.content_type.as_deref(), sent.body)?;
    let is_file = matches!(body, Body::Picture(_) | Body::Video(_));
    let Call { records, mut form, stream } = wire::read(body, query::parameters(&sent.query)?)?;
    if is_file && sent.user_agent.is_some_and(|agent| agent.starts_with(JAVASCRIPT_CLIENT)) {
        form = Form::Record;
    }
    let delivery = delivery(stream, sent.admitted.accepted)?;
    let deadline = sent.admitted.deadline;
    let mut warnings = Vec::new();
    let are_several = records.len() > 1;
    let reading =
        Reading { dialect: &TRANSFORMERS, defaults: service.defaults(), vocab_size: service.vocab_size(), delivery };
    let asked = records.into_iter().enumerate().map(|(index, record)| {
        let asking = asking(record, reading, settings, &mut warnings);
        let asking =
            asking.map(|Asking { question, instance }| Asking { question: question.until(deadline), instance });
        asking.map_err(|error| if are_several { error::in_record(error, index) } else { error })
    });
    let asked = asked.collect::<Result<Vec<Asking>, Error>>()?;
    check_size(&asked, settings.max_client_batch_size)?;
    let wanted = match delivery {
        Delivery::Whole => Wanted::Whole { asked, form },
        Delivery::Streamed => streamed(asked, form)?,
    };
    Ok(Batch { wanted, warnings })
}

fn asking(
    mut record: Record,
    reading: Reading,
    settings: &HttpSettings,
    warnings: &mut Vec<String>,
) -> Result<Asking, Error> {
    let given = std::mem::take(&mut record.parameters);
    let mut parameters = parameters::resolve(given, reading)?;
    for warning in std::mem::take(&mut parameters.warnings) {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    let usual = UsualPrompts { picture: &settings.default_image_prompt, video: &settings.default_video_prompt };
    question::asking(record, parameters, usual)
}

/// Streams where the body says so; where it does not, for a client that takes nothing else.
fn delivery(stream: Option<bool>, accepted: Accepted) -> Result<Delivery, Error> {
    match stream {
        Some(true) => Ok(Delivery::Streamed),
        None if !accepted.json => Ok(Delivery::Streamed),
        None => Ok(Delivery::Whole),
        Some(false) if accepted.json => Ok(Delivery::Whole),
        Some(false) => {
            let message = "`stream` is false, and the header `Accept` takes only text/event-stream";
            Err(Error::NotAcceptable(message.to_owned()))
        }
    }
}

fn streamed(mut asked: Vec<Asking>, form: Form) -> Result<Wanted, Error> {
    match asked.pop() {
        Some(only) if asked.is_empty() && only.question.reply.num_answers() == 1 && form != Form::Predictions => {
            Ok(Wanted::Streamed(Box::new(only.question)))
        }
        _ => Err(refuse("stream", "is for one answer to one question: send the others as requests of their own")),
    }
}

fn check_size(asked: &[Asking], limit: usize) -> Result<(), Error> {
    // Counts come from the client: their sum must not wrap.
    let counts = asked.iter().map(|asking| asking.question.reply.num_answers());
    let size = counts.fold(0, usize::saturating_add);
    too_many_answers(size, limit).map_or(Ok(()), |message| Err(Error::invalid(message)))
}

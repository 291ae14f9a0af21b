//! A whole request: the questions it asks and the form in which it wants them answered.

use std::sync::Arc;

use actix_web::web;
use bytes::Bytes;

use super::inputs::{Record, refuse};
use super::question::{self, Question};
use super::wire::{self, Call, Form};
use super::{error, parameters, query};
use crate::error::Error;
use crate::generation::Service;
use crate::http::HttpSettings;
use crate::http::negotiation::{self, Accepted, Body};

/// huggingface.js wants one record, not a list, about a picture that is the whole body.
const JAVASCRIPT_CLIENT: &str = "@huggingface/inference";

/// A request as it came in.
pub(super) struct Sent {
    pub(super) content_type: Option<String>,
    pub(super) user_agent: Option<String>,
    pub(super) query: String,
    pub(super) body: Bytes,
    pub(super) accepted: Accepted,
}

/// A request as it was understood.
pub(super) struct Batch {
    pub(super) questions: Vec<Question>,
    pub(super) form: Form,
    /// The answer is wanted token by token; there is one question then.
    pub(super) is_streamed: bool,
    /// What was understood and has no effect.
    pub(super) warnings: Vec<String>,
}

/// Reads a request, off the threads that serve HTTP: a body of megabytes takes its time.
pub(super) async fn read(sent: Sent, service: &Service, settings: &web::Data<HttpSettings>) -> Result<Batch, Error> {
    let (service, settings) = (service.clone(), Arc::clone(settings));
    tokio::task::spawn_blocking(move || understand(sent, &service, &settings)).await.unwrap_or_else(|panic| {
        let message = format!("reading the request failed: {panic}");
        Err(Error::Generation { message, deterministic: true })
    })
}

fn understand(sent: Sent, service: &Service, settings: &HttpSettings) -> Result<Batch, Error> {
    let body = negotiation::classify(sent.content_type.as_deref(), sent.body)?;
    let is_picture = matches!(body, Body::Picture(_));
    let Call { records, mut form, stream } = wire::read(body, query::parameters(&sent.query)?)?;
    if is_picture && sent.user_agent.is_some_and(|agent| agent.starts_with(JAVASCRIPT_CLIENT)) {
        form = Form::Record;
    }
    let are_several = records.len() > 1;
    let is_streamed = is_streamed(stream, sent.accepted)?;
    let mut batch = Batch { questions: Vec::with_capacity(records.len()), form, is_streamed, warnings: Vec::new() };
    for (index, record) in records.into_iter().enumerate() {
        let asked = batch.add(record, service, settings);
        asked.map_err(|error| if are_several { error::in_record(error, index) } else { error })?;
    }
    batch.check_size(settings.max_client_batch_size)?;
    Ok(batch)
}

/// Streams where the body says so; where it does not, for a client that takes nothing else.
fn is_streamed(stream: Option<bool>, accepted: Accepted) -> Result<bool, Error> {
    match stream {
        Some(true) => Ok(true),
        None => Ok(!accepted.json),
        Some(false) if accepted.json => Ok(false),
        Some(false) => {
            let message = "`stream` is false, and the header `Accept` takes only text/event-stream";
            Err(Error::NotAcceptable(message.to_owned()))
        }
    }
}

impl Batch {
    fn add(&mut self, mut record: Record, service: &Service, settings: &HttpSettings) -> Result<(), Error> {
        let given = std::mem::take(&mut record.parameters);
        let mut parameters = parameters::resolve(given, service.defaults(), service.vocab_size())?;
        for warning in std::mem::take(&mut parameters.warnings) {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        self.questions.push(question::question(record, parameters, &settings.default_image_prompt)?);
        Ok(())
    }

    fn check_size(&self, limit: usize) -> Result<(), Error> {
        let size: usize = self.questions.iter().map(|question| question.reply.num_answers()).sum();
        if self.is_streamed && (size > 1 || self.form == Form::Predictions) {
            return Err(refuse(
                "stream",
                "is for one answer to one question: send the others as requests of their own",
            ));
        }
        if size <= limit {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the request asks for {size} answers, more than the {limit} of this server \
             (--max-client-batch-size, SARDINE_MAX_CLIENT_BATCH_SIZE)"
        )))
    }
}

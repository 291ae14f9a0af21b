//! A request from its head to the last byte of its answer: at its end one line in the log and one entry in the metrics.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::{Method, StatusCode};
use bytes::Bytes;

use super::auth::Permit;
use super::error::{self, ErrorType};
use super::routes::Purpose;
use crate::generation::{Costs, Finish, Ledger};
use crate::telemetry::{Metrics, RequestEnd, RequestKind, RequestTrace, trace_request};

/// nginx's status of a request whose client left before there was one.
const CLIENT_LEFT: u16 = 499;

/// The word for an answer whose client left before its end.
const CANCELLED: &str = "cancelled";

/// What is known of a request that is being answered. Tells all of it when it is dropped, which is when the last byte of the
/// answer was handed over, or when the client has left.
pub(super) struct Exchange {
    pub(super) began: Instant,
    pub(super) request_id: String,
    /// The trace that the client made it a part of.
    pub(super) traceparent: Option<String>,
    pub(super) method: Method,
    /// The pattern of the route.
    pub(super) route: String,
    pub(super) purpose: Purpose,
    pub(super) ledger: Ledger,
    pub(super) metrics: Metrics,
    pub(super) outcome: Outcome,
    /// One of the places of the client's API key.
    pub(super) permit: Option<Permit>,
}

/// What the client has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Nothing,
    /// A status, and not all of its body yet.
    Begun(StatusCode, Option<ErrorType>),
    Whole(StatusCode, Option<ErrorType>),
}

impl Exchange {
    fn tell(&self) {
        let took = self.began.elapsed();
        let costs = self.ledger.costs();
        let (status, error_type) = self.end(&costs);
        self.metrics.count_request(&RequestEnd {
            route: &self.route,
            status,
            error_type,
            took,
            kind: if self.purpose == Purpose::Generation { RequestKind::Generation } else { RequestKind::Other },
        });
        self.log(status, error_type, took, &costs);
        if !self.is_routine() {
            trace_request(&RequestTrace {
                method: self.method.as_str(),
                route: &self.route,
                request_id: &self.request_id,
                traceparent: self.traceparent.as_deref(),
                status,
                error_type,
                prompt_tokens: costs.prompt_tokens,
                generated_tokens: costs.generated_tokens,
                began: self.began,
                stages: &costs.stages,
            });
        }
    }

    /// Probes and scrapes, which come every second.
    fn is_routine(&self) -> bool {
        matches!(self.purpose, Purpose::Probe | Purpose::Metrics)
    }

    /// Its status and the word for what went wrong, empty where nothing did. A stream may fail after its status was sent.
    fn end(&self, costs: &Costs) -> (u16, &'static str) {
        let in_stream = costs.failure.as_ref().map(error::error_type);
        match self.outcome {
            Outcome::Nothing => (CLIENT_LEFT, CANCELLED),
            Outcome::Begun(status, error) => {
                (status.as_u16(), error.map(|ErrorType(word)| word).or(in_stream).unwrap_or(CANCELLED))
            }
            Outcome::Whole(status, error) => {
                (status.as_u16(), error.map(|ErrorType(word)| word).or(in_stream).unwrap_or_default())
            }
        }
    }

    /// One line, of what it cost and never of what it said. What comes every second is for debugging only.
    fn log(&self, status: u16, error_type: &str, took: Duration, costs: &Costs) {
        let Exchange { method, route, request_id, .. } = self;
        let error_type = Some(error_type).filter(|word| !word.is_empty());
        let (queue_ms, media_ms) = (costs.queue_time.map(ms), costs.media_time.map(ms));
        let (first_token_ms, ms) = (costs.first_token.map(ms), ms(took));
        let has_answer = costs.queue_time.is_some();
        let prompt_tokens = has_answer.then_some(costs.prompt_tokens);
        let generated_tokens = has_answer.then_some(costs.generated_tokens);
        let finish = costs.finish.map(finish_word);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    %method, route, status, error_type, ms, queue_ms, media_ms, first_token_ms, prompt_tokens,
                    generated_tokens, finish, request_id, "request"
                )
            };
        }
        if self.is_routine() {
            line!(debug);
        } else {
            line!(info);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.tell();
    }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

/// TGI's words, and one that it lacks.
fn finish_word(finish: Finish) -> &'static str {
    match finish {
        Finish::Eos => "eos_token",
        Finish::StopString => "stop_sequence",
        Finish::Length => "length",
        Finish::Time => "time",
    }
}

/// A body that ends its exchange when it is dropped.
pub(super) struct Body {
    // Dropped before the exchange, and with it the answers that write into its ledger.
    body: BoxBody,
    exchange: Exchange,
}

impl Body {
    /// The `body` of the answer with `status`.
    pub(super) fn new(body: BoxBody, mut exchange: Exchange, status: StatusCode, error: Option<ErrorType>) -> Body {
        let is_empty = matches!(body.size(), BodySize::None | BodySize::Sized(0));
        // actix-web writes no body to HEAD, and asks for none.
        exchange.outcome = if is_empty || exchange.method == Method::HEAD {
            Outcome::Whole(status, error)
        } else {
            Outcome::Begun(status, error)
        };
        Body { body, exchange }
    }
}

impl MessageBody for Body {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_next(context);
        if let (Poll::Ready(None), Outcome::Begun(status, error)) = (&polled, this.exchange.outcome) {
            this.exchange.outcome = Outcome::Whole(status, error);
        }
        polled
    }
}

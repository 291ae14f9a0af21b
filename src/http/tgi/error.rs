//! `Error` with TGI's statuses.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use crate::error::Error;
use crate::http::error::{status, with_headers};
use crate::http::hf::error::ErrorBody;

/// The response to a request that failed.
pub(super) fn respond(error: &Error) -> HttpResponse {
    let status = match error {
        Error::Invalid { .. } | Error::MediaFetch(_) | Error::TooLong { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Error::Generation { .. } => StatusCode::FAILED_DEPENDENCY,
        other => status(other),
    };
    with_headers(status, error).json(ErrorBody::of(error))
}

/// What TGI's routes answer to a request that failed.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "describes what `respond` answers")]
pub(in crate::http) enum Failures {
    /// The server has an API key, and the request another or none.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// `Accept` rules out what the route answers.
    #[response(status = 406)]
    NotAcceptable(ErrorBody),
    /// The body is larger than the server reads.
    #[response(status = 413)]
    PayloadTooLarge(ErrorBody),
    /// The body is of a type that is not read here.
    #[response(status = 415)]
    UnsupportedMediaType(ErrorBody),
    /// The request cannot be served as it stands.
    #[response(status = 422)]
    Invalid(ErrorBody),
    /// Generation failed.
    #[response(status = 424)]
    Generation(ErrorBody),
    /// The queue is full; `Retry-After` says when to come back.
    #[response(status = 429)]
    Overloaded(ErrorBody),
    /// Nobody is served at the moment.
    #[response(status = 503)]
    Unavailable(ErrorBody),
    /// The request's deadline passed.
    #[response(status = 504)]
    Timeout(ErrorBody),
}

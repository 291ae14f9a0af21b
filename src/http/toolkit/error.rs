//! `Error` in the toolkit's JSON.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;

use crate::error::Error;
use crate::http::error::{status, with_headers};
use crate::http::hf::error::{ErrorBody, message};

/// The response to a request that failed. `is_strict`: with the toolkit's one status, 400, and its one field. What the
/// toolkit has no case for (no service, no place, no key) keeps its status even then: platforms act on it.
pub(super) fn respond(error: &Error, is_strict: bool) -> HttpResponse {
    let keeps_status = matches!(error, Error::Unavailable(_) | Error::Overloaded { .. } | Error::Unauthorized(_));
    if is_strict && !keeps_status {
        return with_headers(StatusCode::BAD_REQUEST, error).json(json!({ "error": message(error) }));
    }
    with_headers(status(error), error).json(ErrorBody::of(error))
}

/// `error`, said about record `index` of a request that has several.
pub(super) fn in_record(error: Error, index: usize) -> Error {
    let prefixed = |message: &str| format!("record {index}: {message}");
    match error {
        Error::Invalid { message, param } => Error::Invalid { message: prefixed(&message), param },
        Error::MediaFetch(message) => Error::MediaFetch(prefixed(&message)),
        Error::Timeout(message) => Error::Timeout(prefixed(&message)),
        Error::TooLong { .. } => Error::invalid(prefixed(&error.to_string())),
        Error::Generation { message, deterministic } => {
            Error::Generation { message: prefixed(&message), deterministic }
        }
        // Not about a record: the others would meet the same.
        other => other,
    }
}

/// What the routes of the toolkit answer to a request that failed.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "describes what `respond` answers")]
pub(in crate::http) enum Failures {
    /// The request cannot be served as it stands.
    #[response(status = 400)]
    Invalid(ErrorBody),
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
    /// The queue is full; `Retry-After` says when to come back.
    #[response(status = 429)]
    Overloaded(ErrorBody),
    /// Generation failed.
    #[response(status = 500)]
    Generation(ErrorBody),
    /// Nobody is served at the moment.
    #[response(status = 503)]
    Unavailable(ErrorBody),
    /// The request's deadline passed.
    #[response(status = 504)]
    Timeout(ErrorBody),
}

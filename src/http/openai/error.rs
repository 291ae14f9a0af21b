//! `Error` in OpenAI's JSON.

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;
use crate::http::error::{error_type, status, with_headers};

/// The body of a request that failed, and the event of a stream that did.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct ErrorBody {
    pub(super) error: ErrorObject,
    /// The word of Hugging Face's clients for the same.
    pub(super) error_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct ErrorObject {
    pub(super) message: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// The field to blame.
    pub(super) param: Option<String>,
    pub(super) code: Option<&'static str>,
}

/// The response to a request that failed.
pub(in crate::http) fn respond(error: &Error) -> HttpResponse {
    with_headers(status(error), error).json(body(error))
}

pub(super) fn body(error: &Error) -> ErrorBody {
    let param = match error {
        Error::Invalid { param, .. } => param.clone().filter(|param| !param.is_empty()),
        _ => None,
    };
    let error_object = ErrorObject { message: error.to_string(), kind: kind(error), param, code: code(error) };
    ErrorBody { error: error_object, error_type: error_type(error) }
}

/// OpenAI's `type`.
fn kind(error: &Error) -> &'static str {
    match error {
        Error::Unauthorized(_) => "authentication_error",
        Error::Overloaded { .. } => "rate_limit_error",
        Error::Unavailable(_) | Error::Timeout(_) | Error::Generation { .. } => "server_error",
        _ => "invalid_request_error",
    }
}

/// OpenAI's `code`, by which clients tell errors of one type apart.
fn code(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::Invalid { param: Some(_), .. } => "invalid_value",
        Error::MediaFetch(_) => "invalid_image_url",
        Error::TooLong { .. } => "context_length_exceeded",
        Error::Unauthorized(_) => "invalid_api_key",
        Error::NotFound(_) => "not_found",
        Error::Overloaded { .. } => "overloaded",
        Error::Unavailable(_) => "unavailable",
        Error::Timeout(_) => "timeout",
        _ => return None,
    })
}

/// What the routes of OpenAI's API answer to a request that failed.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "describes what `respond` answers")]
pub(in crate::http) enum Failures {
    /// The request cannot be served as it stands.
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// The server has an API key, and the request another or none.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
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

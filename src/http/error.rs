//! What every protocol says about an `Error`: its status, its type and the headers beside it.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;

use crate::error::{Error, Unavailable};

/// How long a client should wait while the server starts or is replaced, in seconds.
const UNAVAILABLE_RETRY_S: u64 = 5;

/// The status of `error`, where the protocol does not demand another.
pub(super) fn status(error: &Error) -> StatusCode {
    match error {
        Error::Invalid { .. } | Error::MediaFetch(_) | Error::TooLong { .. } => StatusCode::BAD_REQUEST,
        Error::PayloadTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Error::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
        Error::Unauthorized(_) => StatusCode::UNAUTHORIZED,
        // Never 503 here: huggingface.js repeats a 503 at once and forever.
        Error::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
        Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        Error::Generation { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The word by which clients tell errors apart: huggingface_hub makes its exceptions from it.
pub(super) fn error_type(error: &Error) -> &'static str {
    match error {
        Error::Invalid { .. } | Error::TooLong { .. } | Error::UnsupportedMediaType(_) | Error::NotAcceptable(_) => {
            "validation"
        }
        Error::MediaFetch(_) => "image_fetch",
        Error::PayloadTooLarge { .. } => "payload_too_large",
        Error::NotFound(_) => "not_found",
        Error::MethodNotAllowed { .. } => "method_not_allowed",
        Error::Unauthorized(_) => "unauthorized",
        Error::Overloaded { .. } => "overloaded",
        Error::Unavailable(Unavailable::Loading) => "loading",
        Error::Unavailable(Unavailable::ShuttingDown) => "shutting_down",
        Error::Unavailable(Unavailable::Unhealthy) => "unhealthy",
        Error::Timeout(_) => "timeout",
        Error::Generation { .. } => "generation",
    }
}

/// An error in the Hugging Face form, `{"error", "error_type"}`: for whatever belongs to no protocol.
pub(super) fn respond(error: &Error) -> HttpResponse {
    let body = json!({ "error": error.to_string(), "error_type": error_type(error) });
    with_headers(status(error), error).json(body)
}

/// The word for what went wrong, left in a failed request's response for whoever reports of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ErrorType(pub(super) &'static str);

/// A response of `status` with the headers that tell a client what to do about `error`.
pub(super) fn with_headers(status: StatusCode, error: &Error) -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    response.extensions_mut().insert(ErrorType(error_type(error)));
    match error {
        Error::Overloaded { retry_after, .. } => {
            response.insert_header((RETRY_AFTER, retry_after.as_secs().max(1).to_string()));
        }
        Error::Unavailable(_) => {
            response.insert_header((RETRY_AFTER, UNAVAILABLE_RETRY_S.to_string()));
        }
        Error::MethodNotAllowed { allowed, .. } => {
            response.insert_header((ALLOW, allowed.as_str()));
        }
        Error::Unauthorized(_) => {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        Error::Generation { deterministic: true, .. } => {
            // OpenAI's client repeats a 500 by itself; this one would fail again.
            response.insert_header(("x-should-retry", "false"));
        }
        _ => {}
    }
    response
}

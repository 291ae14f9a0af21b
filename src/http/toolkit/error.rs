//! `Error` in the toolkit's JSON.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;

use crate::error::Error;
use crate::http::error::{status, with_headers};
use crate::http::hf::error::{body, message};

/// The response to a request that failed. `is_strict`: with the toolkit's one status, 400, and its one field. What the
/// toolkit has no case for (no service, no place, no key) keeps its status even then: platforms act on it.
pub(super) fn respond(error: &Error, is_strict: bool) -> HttpResponse {
    let keeps_status = matches!(error, Error::Unavailable(_) | Error::Overloaded { .. } | Error::Unauthorized(_));
    if is_strict && !keeps_status {
        return with_headers(StatusCode::BAD_REQUEST, error).json(json!({ "error": message(error) }));
    }
    with_headers(status(error), error).json(body(error))
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

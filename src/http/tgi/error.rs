//! `Error` with TGI's statuses.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use crate::error::Error;
use crate::http::error::{status, with_headers};
use crate::http::hf::error::body;

/// The response to a request that failed.
pub(super) fn respond(error: &Error) -> HttpResponse {
    let status = match error {
        Error::Invalid { .. } | Error::MediaFetch(_) | Error::TooLong { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Error::Generation { .. } => StatusCode::FAILED_DEPENDENCY,
        other => status(other),
    };
    with_headers(status, error).json(body(error))
}

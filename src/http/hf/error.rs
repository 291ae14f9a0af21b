//! `Error` in the JSON of both contracts, from which huggingface_hub makes its exceptions.

use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;
use crate::http::error::error_type;

/// The body of a request that failed, and the last event of a stream that did.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Failure)]
pub(in crate::http) struct ErrorBody {
    pub(in crate::http) error: String,
    /// A word for programs, such as validation, overloaded or generation.
    pub(in crate::http) error_type: &'static str,
}

impl ErrorBody {
    pub(in crate::http) fn of(error: &Error) -> ErrorBody {
        ErrorBody { error: message(error), error_type: error_type(error) }
    }
}

/// The error's text, led by the field to blame where the text does not name it.
pub(in crate::http) fn message(error: &Error) -> String {
    match error {
        Error::Invalid { message, param: Some(param) } if !param.is_empty() && !message.contains(param.as_str()) => {
            format!("`{param}`: {message}")
        }
        other => other.to_string(),
    }
}

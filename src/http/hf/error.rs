//! `Error` in the JSON of both contracts: `{"error", "error_type"}`, from which huggingface_hub makes its exceptions.

use serde_json::{Value, json};

use crate::error::Error;
use crate::http::error::error_type;

/// The body of a response, or the last event of a stream, that tells of `error`.
pub(in crate::http) fn body(error: &Error) -> Value {
    json!({ "error": message(error), "error_type": error_type(error) })
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

//! What every reader of a request's JSON needs: errors that name the field, and values short enough to repeat.

use serde_json::{Map, Value};

use crate::error::Error;

/// The JSON of a body. A byte order mark is no part of it.
pub(in crate::http) fn parse(text: &[u8]) -> Result<Value, Error> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    serde_json::from_slice(text).map_err(|error| Error::invalid(format!("the body is not valid JSON: {error}")))
}

/// Takes the one of `keys` that is there. Errors where two are: which one is meant cannot be known.
pub(in crate::http) fn take_one_of<'k>(
    object: &mut Map<String, Value>,
    keys: &[&'k str],
    path: &str,
) -> Result<Option<(&'k str, Value)>, Error> {
    let mut found: Option<(&str, Value)> = None;
    for key in keys {
        let Some(value) = object.shift_remove(*key).filter(|value| !value.is_null()) else { continue };
        if let Some((first, _)) = found {
            return Err(refuse(&join(path, key), &format!("and `{first}` say the same thing: send one of them")));
        }
        found = Some((key, value));
    }
    Ok(found)
}

/// The path of `key` in what stands at `path`.
pub(in crate::http) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// An error about the value at `path`.
pub(in crate::http) fn refuse(path: &str, what: &str) -> Error {
    let subject = if path.is_empty() { "the body".to_owned() } else { format!("`{path}`") };
    Error::invalid_param(path, format!("{subject} {what}"))
}

/// A JSON value's type, for messages.
pub(in crate::http) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A JSON value for messages, which do not repeat megabytes.
pub(in crate::http) fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

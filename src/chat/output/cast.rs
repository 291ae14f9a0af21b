//! A value's text as JSON of a given type, where it can be read as one.

use serde_json::{Number, Value};

/// Floats are exact integers up to here.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A text as a JSON string.
pub fn string(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text as it stands inside a JSON string, between the quotes. Each character is escaped for itself, so a text can be
/// passed on in parts.
pub fn inside_string(text: &str) -> String {
    let quoted = string(text);
    quoted[1..quoted.len() - 1].to_owned()
}

/// An integer, also if written as 5.0, which is one to JSON schema.
pub fn integer(text: &str) -> Option<String> {
    let text = text.trim();
    if let Ok(integer) = text.parse::<i128>() {
        return Some(integer.to_string());
    }
    let float = text.parse::<f64>().ok().filter(|float| float.fract() == 0.0 && float.abs() <= MAX_EXACT)?;
    Some((float as i64).to_string())
}

pub fn number(text: &str) -> Option<String> {
    let text = text.trim();
    if let Ok(integer) = text.parse::<i128>() {
        return Some(integer.to_string());
    }
    let float = text.parse::<f64>().ok()?; // reads "nan" and "inf" too, which are no JSON numbers
    Number::from_f64(float).map(|number| number.to_string())
}

/// A boolean, also as Python writes it: so the template shows the model its earlier calls.
pub fn boolean(text: &str) -> Option<String> {
    match text.trim() {
        "true" | "True" | "TRUE" => Some("true".to_owned()),
        "false" | "False" | "FALSE" => Some("false".to_owned()),
        _ => None,
    }
}

/// Null, also as Python writes it: so the template shows the model its earlier calls.
pub fn null(text: &str) -> Option<String> {
    matches!(text.trim(), "null" | "None" | "NULL" | "Null").then(|| "null".to_owned())
}

/// The longest of the texts above.
pub const MAX_NULL_BYTES: usize = 4;

/// A JSON array as it was written: what it means stays the model's, to the last digit.
pub fn array(text: &str) -> Option<String> {
    let text = text.trim();
    serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_array()).then(|| text.to_owned())
}

/// A JSON object as it was written.
pub fn object(text: &str) -> Option<String> {
    let text = text.trim();
    serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object()).then(|| text.to_owned())
}

/// A schema's literal value, where the text is that value.
pub fn literal(text: &str, value: &Value) -> Option<String> {
    let is_same = match value {
        Value::String(string) => text == string,
        Value::Null => null(text).is_some(),
        Value::Bool(true) => boolean(text).as_deref() == Some("true"),
        Value::Bool(false) => boolean(text).as_deref() == Some("false"),
        _ => serde_json::from_str::<Value>(text.trim()).is_ok_and(|read| read == *value),
    };
    is_same.then(|| value.to_string())
}

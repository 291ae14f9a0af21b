//! Parameters in the query string: the toolkit's way to send some beside a picture.

use actix_web::web::Query;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::http::json::refuse;

/// Every pair of a query string. A value that reads as a number, true, false or null is that; any other is a text.
pub(super) fn parameters(query: &str) -> Result<Map<String, Value>, Error> {
    let pairs = Query::<Vec<(String, String)>>::from_query(query)
        .map_err(|error| Error::invalid(format!("the query string cannot be read: {error}")))?;
    let mut parameters = Map::new();
    for (name, text) in pairs.into_inner() {
        if parameters.contains_key(&name) {
            return Err(refuse(&name, "stands twice in the query string"));
        }
        let scalar = serde_json::from_str(&text).ok().filter(|value: &Value| !value.is_string());
        parameters.insert(name, scalar.unwrap_or(Value::String(text)));
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::parameters;

    #[test]
    fn values_get_the_type_they_read_as() {
        let query = "max_new_tokens=5&temperature=0.5&do_sample=true&stop=a%20b&seed=";
        let expected = json!({"max_new_tokens": 5, "temperature": 0.5, "do_sample": true, "stop": "a b", "seed": ""});
        assert_eq!(Value::Object(parameters(query).unwrap()), expected);
        assert!(parameters("a=1&a=2").is_err());
    }
}

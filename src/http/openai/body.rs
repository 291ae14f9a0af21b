//! A request's body: JSON into the fields of a route, with the place of whatever is wrong and the names of what nobody reads.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;
use crate::http::json::{kind, parse, refuse};
use crate::http::negotiation::{self, Body};

/// What vLLM knows and this server cannot do. An answer that silently lacked it would be wrong, so it is no field that nobody
/// reads: (name, why).
const UNSUPPORTED: [(&str, &str); 9] = [
    ("structured_outputs", NOT_GUIDED),
    ("guided_json", NOT_GUIDED),
    ("guided_regex", NOT_GUIDED),
    ("guided_choice", NOT_GUIDED),
    ("guided_grammar", NOT_GUIDED),
    ("allowed_token_ids", "is not supported by this server: raise the tokens with `logit_bias`"),
    ("logits_processors", "is not supported by this server"),
    ("prompt_embeds", "is not supported by this server: send the prompt as text or token ids"),
    ("chat_template", "is not supported by this server, which uses the checkpoint's own"),
];

const NOT_GUIDED: &str =
    "is not supported by this server, which cannot guide answers yet: ask for the form in the prompt";

/// The fields of a request: those of one route only, and those of both.
#[derive(Debug)]
pub(super) struct Fields<R, B> {
    pub(super) route: R,
    pub(super) both: B,
    /// Fields that were sent and that nobody reads.
    pub(super) ignored: Vec<String>,
}

/// Reads a body as the fields `R` of a route and the fields `B` of both. (Two structs rather than one flattened into the
/// other: through serde's `flatten` an error loses its place.)
pub(super) fn read<R, B>(content_type: Option<&str>, body: Bytes) -> Result<Fields<R, B>, Error>
where
    R: DeserializeOwned,
    B: DeserializeOwned,
{
    let body = match negotiation::classify(content_type, body)? {
        Body::Json(body) => body,
        Body::Picture(_) | Body::Video(_) | Body::Form { .. } => {
            let message = "this route takes application/json; send a picture or a video in a message, as an `image_url` or \
                           `video_url` part";
            return Err(Error::UnsupportedMediaType(message.to_owned()));
        }
    };
    let value = parse(&body)?;
    if !value.is_object() {
        return Err(Error::invalid(format!("the body must be a JSON object, not {}", kind(&value))));
    }
    if let Some((name, why)) = UNSUPPORTED.iter().find(|(name, _)| !value[name].is_null()) {
        return Err(refuse(name, why));
    }
    let (route, ignored_by_route) = fields(&value)?;
    let (both, ignored_by_both) = fields(&value)?;
    let all = ignored_by_route.union(&ignored_by_both);
    let ignored =
        all.filter(|path| covers(&ignored_by_route, path) && covers(&ignored_by_both, path)).cloned().collect();
    Ok(Fields { route, both, ignored })
}

/// The fields that `T` has, and the names of the others.
fn fields<T: DeserializeOwned>(body: &Value) -> Result<(T, BTreeSet<String>), Error> {
    let mut ignored = BTreeSet::new();
    // serde_ignored shows an optional field as a step of its own, "?".
    let mut ignore = |path: serde_ignored::Path| _ = ignored.insert(path.to_string().replace(".?", ""));
    let fields = serde_path_to_error::deserialize(serde_ignored::Deserializer::new(body, &mut ignore));
    let fields = fields.map_err(|error| {
        let path = error.path().to_string();
        refuse(if path == "." { "" } else { &path }, &format!("is wrong: {}", in_words(error.inner().to_string())))
    })?;
    Ok((fields, ignored))
}

/// serde's message about a value, which names types as Rust does.
fn in_words(message: String) -> String {
    const WORDS: [(&str, &str); 6] = [
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected i64", "expected a whole number"),
        ("expected f32", "expected a number"),
        ("expected f64", "expected a number"),
        ("expected a sequence", "expected a list"),
        ("expected struct StreamOptions", "expected an object"),
    ];
    let named = WORDS.iter().find(|(named, _)| message.ends_with(named));
    named.map_or(message.clone(), |(named, words)| message.replace(named, words))
}

/// Whether `ignored` names `path`, or something that it is in.
fn covers(ignored: &BTreeSet<String>, path: &str) -> bool {
    let enclosing = path.match_indices('.').map(|(at, _)| &path[..at]);
    enclosing.chain([path]).any(|path| ignored.contains(path))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::{Fields, read};
    use crate::error::Error;
    use crate::http::openai::request::{ChatFields, GenerationFields};

    fn chat(body: Value) -> Result<Fields<ChatFields, GenerationFields>, Error> {
        read(Some("application/json"), Bytes::from(body.to_string()))
    }

    #[test]
    fn what_nobody_reads_is_listed() {
        let body = json!({"messages": [], "temperature": 1, "user": "me", "stream_options": {"x": 1}, "top_k": null});
        let read = chat(body).unwrap();
        assert_eq!(read.ignored, ["stream_options.x", "user"]);
        assert_eq!(read.both.temperature, Some(1.0));
        assert_eq!(read.route.messages, Some(vec![]));
    }

    #[test]
    fn what_would_change_the_answer_and_cannot_be_done_is_refused_unless_it_is_null() {
        let asks = |field: &str, value: Value| chat(json!({"messages": [], field: value}));
        for field in ["structured_outputs", "guided_json", "allowed_token_ids", "chat_template"] {
            let Err(Error::Invalid { param, .. }) = asks(field, json!({})) else { panic!("{field} was accepted") };
            assert_eq!(param.as_deref(), Some(field));
            assert!(asks(field, Value::Null).is_ok());
        }
    }

    #[test]
    fn an_error_speaks_of_json_and_not_of_rust() {
        for (field, value, words) in [
            ("max_tokens", json!(-1), "integer `-1`, expected a whole number from 0 to 4294967295"),
            ("temperature", json!("hot"), "string \"hot\", expected a number"),
            ("messages", json!("hi"), "string \"hi\", expected a list"),
            ("stream_options", json!(1), "integer `1`, expected an object"),
            ("stream", json!("yes"), "string \"yes\", expected a boolean"),
        ] {
            let message = chat(json!({field: value})).unwrap_err().to_string();
            assert!(message.ends_with(words), "{message}");
        }
    }

    #[test]
    fn an_error_names_its_place() {
        for (body, place) in [
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"stop": [1]}), "stop"),
            (json!({"stream_options": {"include_usage": 3}}), "stream_options.include_usage"),
            (json!({"messages": "hi"}), "messages"),
            (json!({"reasoning_effort": "huge"}), "reasoning_effort"),
        ] {
            let Err(Error::Invalid { param, message }) = chat(body.clone()) else { panic!("{body} was accepted") };
            assert_eq!(param.as_deref(), Some(place), "{message}");
        }
        assert!(read::<ChatFields, GenerationFields>(None, Bytes::from_static(b"[1]")).is_err());
    }
}

//! The forms that `inputs` may have, each turned into records: what is to be answered once.

use serde_json::{Map, Value};

use crate::error::Error;
use crate::http::json::{join, kind, refuse, take_one_of};
use crate::http::messages::picture;
use crate::http::video::video;
use crate::media::{Medium, VideoOptions};

/// Names of a text in an object.
const TEXT_KEYS: [&str; 4] = ["text", "prompt", "question", "query"];
const CONVERSATION_KEYS: [&str; 2] = ["messages", "msgs"];
const PICTURE_KEYS: [&str; 6] = ["image", "images", "image_url", "url", "image_data", "img_uri"];
const VIDEO_KEYS: [&str; 3] = ["video", "videos", "video_url"];

/// One question to the model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    /// Where it stands in the body, such as `inputs[2]`; empty for the body itself.
    pub(super) path: String,
    /// Which of Vertex AI's instances it belongs to; 0 elsewhere.
    pub(super) instance: usize,
    pub(super) asked: Asked,
    /// Pictures and videos beside the text.
    pub(super) shown: Vec<Medium>,
    /// Parameters of this record only.
    pub(super) parameters: Map<String, Value>,
    /// Visual question answering: the reply carries `answer` and `score` as well.
    pub(super) is_visual_question: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asked {
    Text(String),
    /// As the client sent them.
    Messages(Vec<Value>),
    /// Nothing: there are pictures or videos only.
    Nothing,
}

impl Record {
    pub(super) fn new(path: &str, asked: Asked, shown: Vec<Medium>) -> Record {
        let path = path.to_owned();
        Record { path, instance: 0, asked, shown, parameters: Map::new(), is_visual_question: false }
    }
}

/// The records in `value`, which stands at `path`: a text, a conversation, an object with a text, pictures and videos, or a
/// list of any of these.
pub(super) fn records(value: Value, path: &str) -> Result<Vec<Record>, Error> {
    match value {
        Value::Array(items) if items.is_empty() => Err(refuse(path, "is an empty list")),
        Value::Array(items) if is_message(&items[0]) => Ok(vec![Record::new(path, Asked::Messages(items), Vec::new())]),
        Value::Array(items) => {
            items.into_iter().enumerate().map(|(index, item)| record(item, &format!("{path}[{index}]"))).collect()
        }
        one => Ok(vec![record(one, path)?]),
    }
}

fn record(value: Value, path: &str) -> Result<Record, Error> {
    match value {
        Value::String(text) => record_of_text(text, path),
        Value::Array(items) if items.first().is_some_and(is_message) => {
            Ok(Record::new(path, Asked::Messages(items), Vec::new()))
        }
        Value::Array(_) => Err(refuse(path, "must be a conversation: a list of objects with `role` and `content`")),
        Value::Object(object) => record_of_object(object, path),
        other => Err(refuse(path, &format!("must be a string, a list or an object, not {}", kind(&other)))),
    }
}

fn record_of_text(text: String, path: &str) -> Result<Record, Error> {
    if text.trim().is_empty() {
        return Err(refuse(path, "is an empty text"));
    }
    let asked = match encoded_conversation(&text) {
        Some(messages) => Asked::Messages(messages),
        None => Asked::Text(text),
    };
    Ok(Record::new(path, asked, Vec::new()))
}

/// A conversation that was encoded as JSON once more, as some clients do.
fn encoded_conversation(text: &str) -> Option<Vec<Value>> {
    if !text.trim_start().starts_with('[') {
        return None;
    }
    serde_json::from_str::<Vec<Value>>(text).ok().filter(|messages| messages.first().is_some_and(is_message))
}

/// The record in an object: a text or a conversation, pictures and videos beside it, and parameters in whatever else it has.
pub(super) fn record_of_object(mut object: Map<String, Value>, path: &str) -> Result<Record, Error> {
    if object.contains_key("role") {
        return Ok(Record::new(path, Asked::Messages(vec![Value::Object(object)]), Vec::new()));
    }
    let pictures = match take_one_of(&mut object, &PICTURE_KEYS, path)? {
        Some((key, value)) => pictures(value, &join(path, key))?,
        None => Vec::new(),
    };
    let videos = match take_one_of(&mut object, &VIDEO_KEYS, path)? {
        Some((key, value)) => videos(key, value, &join(path, key))?,
        None => Vec::new(),
    };
    let keys = [&CONVERSATION_KEYS[..], &TEXT_KEYS[..]].concat();
    let (asked, key) = match take_one_of(&mut object, &keys, path)? {
        Some((key, value)) => (asked(value, &join(path, key))?, key),
        None if pictures.is_empty() && videos.is_empty() => return Err(refuse(path, &says_nothing())),
        None => (Asked::Nothing, ""),
    };
    let is_visual_question = key == "question" && !pictures.is_empty();
    let shown = [pictures, videos].concat();
    Ok(Record { parameters: object, is_visual_question, ..Record::new(path, asked, shown) })
}

/// Whether an object has anything that [`record_of_object`] would read.
pub(super) fn is_record(object: &Map<String, Value>) -> bool {
    keys().any(|key| object.contains_key(key))
}

/// The fields that [`record_of_object`] reads; others are parameters.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    CONVERSATION_KEYS.into_iter().chain(TEXT_KEYS).chain(PICTURE_KEYS).chain(VIDEO_KEYS)
}

/// Whether an object has pictures or videos.
pub(super) fn shows(object: &Map<String, Value>) -> bool {
    PICTURE_KEYS.iter().chain(&VIDEO_KEYS).any(|key| object.contains_key(*key))
}

fn asked(value: Value, path: &str) -> Result<Asked, Error> {
    match value {
        Value::Array(messages) if messages.first().is_some_and(is_message) => Ok(Asked::Messages(messages)),
        Value::String(text) => Ok(record_of_text(text, path)?.asked),
        _ => Err(refuse(path, "must be a text, or a list of messages with `role` and `content`")),
    }
}

/// One picture or a list of them, each a text or `{"url": text}`.
fn pictures(value: Value, path: &str) -> Result<Vec<Medium>, Error> {
    match value {
        Value::Array(items) => {
            let pictures = items.into_iter().enumerate();
            pictures.map(|(index, item)| picture(item, &format!("{path}[{index}]")).map(Medium::Picture)).collect()
        }
        one => Ok(vec![Medium::Picture(picture(one, path)?)]),
    }
}

/// One video, or under `videos` a list of them; a list under another key is one video's frames.
fn videos(key: &str, value: Value, path: &str) -> Result<Vec<Medium>, Error> {
    let one = |value, path: &str| video(value, VideoOptions::default(), path).map(Medium::Video);
    match value {
        Value::Array(items) if key == "videos" => {
            items.into_iter().enumerate().map(|(index, item)| one(item, &format!("{path}[{index}]"))).collect()
        }
        value => Ok(vec![one(value, path)?]),
    }
}

fn is_message(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.contains_key("role"))
}

fn says_nothing() -> String {
    format!(
        "has nothing to answer: send a conversation in `messages`, a text in one of {}, a picture in one of {}, or a video in \
         one of {}",
        TEXT_KEYS.join(", "),
        PICTURE_KEYS.join(", "),
        VIDEO_KEYS.join(", ")
    )
}

//! The messages of a conversation: pictures and videos taken out of their parts, in order.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::json::{join, kind, refuse, take_one_of};
use super::video::{self, take_video};
use crate::error::Error;
use crate::media::{Medium, Source, Video, VideoOptions};

/// Where a part may hold its picture.
const SOURCE_KEYS: [&str; 5] = ["image", "image_url", "url", "base64", "data"];

/// Qwen's own sizing of single pictures, which would change how many tokens one costs.
const SIZING_KEYS: [&str; 5] = ["min_pixels", "max_pixels", "resized_height", "resized_width", "size"];

const ACCEPTED_PARTS: &str = "accepted are text (or input_text, output_text), image (or image_url, input_image) and video (or video_url, \
                              input_video)";

/// Replaces the pictures and videos of `messages` by `{"type": "image"}` and `{"type": "video"}`, and returns them in order.
/// `beside` are those for the parts that hold none; they must be as many. What a video does not say of how to read it,
/// `usual` says. `path` is where the messages stand.
pub(in crate::http) fn take_media(
    messages: Vec<Value>,
    beside: Vec<Medium>,
    usual: VideoOptions,
    path: &str,
) -> Result<(Vec<Value>, Vec<Medium>), Error> {
    let (mut pictures, mut videos) = (VecDeque::new(), VecDeque::new());
    for medium in beside {
        match medium {
            Medium::Picture(source) => pictures.push_back(source),
            Medium::Video(video) => videos.push_back(video),
        }
    }
    let mut taken = Taken { pictures, videos, usual, media: Vec::new() };
    let messages = messages.into_iter().enumerate();
    let messages: Vec<Value> = messages
        .map(|(index, message)| taken.message(message, &format!("{path}[{index}]")))
        .collect::<Result<_, _>>()?;
    for (noun, num_left) in [("pictures", taken.pictures.len()), ("videos", taken.videos.len())] {
        if num_left > 0 {
            return Err(refuse(path, &format!("has {num_left} {noun} more than its messages have parts for")));
        }
    }
    Ok((messages, taken.media))
}

struct Taken {
    /// Those beside the messages that no part has taken yet.
    pictures: VecDeque<Source>,
    videos: VecDeque<Video>,
    usual: VideoOptions,
    media: Vec<Medium>,
}

impl Taken {
    fn message(&mut self, message: Value, path: &str) -> Result<Value, Error> {
        let Value::Object(mut message) = message else {
            let what = format!("must be a message: an object with `role` and `content`, not {}", kind(&message));
            return Err(refuse(path, &what));
        };
        if !message.get("role").is_some_and(Value::is_string) {
            return Err(refuse(&join(path, "role"), "must be a string such as user, assistant or system"));
        }
        match message.get_mut("content") {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(Value::Array(parts)) => {
                for (index, part) in parts.iter_mut().enumerate() {
                    *part = self.part(std::mem::take(part), &format!("{path}.content[{index}]"))?;
                }
            }
            Some(other) => {
                let what = format!("must be a string, a list of parts or null, not {}", kind(other));
                return Err(refuse(&join(path, "content"), &what));
            }
        }
        Ok(Value::Object(message))
    }

    fn part(&mut self, part: Value, path: &str) -> Result<Value, Error> {
        let Value::Object(mut part) = part else {
            return Err(refuse(path, &format!("must be an object with a `type`, not {}", kind(&part))));
        };
        let part_type = match part.shift_remove("type") {
            Some(Value::String(part_type)) => part_type,
            None | Some(Value::Null) => implied_type(&part).to_owned(),
            Some(other) => return Err(refuse(&join(path, "type"), &format!("must be a string, not {}", kind(&other)))),
        };
        match part_type.as_str() {
            "text" | "input_text" | "output_text" => match part.shift_remove("text") {
                Some(Value::String(text)) => Ok(json!({ "type": "text", "text": text })),
                _ => Err(refuse(&join(path, "text"), "must be a string")),
            },
            "image" | "image_url" | "input_image" => {
                let picture = self.picture(part, path)?;
                self.media.push(Medium::Picture(picture));
                Ok(json!({ "type": "image" }))
            }
            "" => Err(refuse(path, &format!("needs a `type`; {ACCEPTED_PARTS}"))),
            "video" | "video_url" | "input_video" => {
                let video = self.video(part, path)?;
                self.media.push(Medium::Video(video));
                Ok(json!({ "type": "video" }))
            }
            other => Err(refuse(&join(path, "type"), &format!("{other:?} is not known; {ACCEPTED_PARTS}"))),
        }
    }

    fn picture(&mut self, mut part: Map<String, Value>, path: &str) -> Result<Source, Error> {
        if let Some(key) = SIZING_KEYS.iter().find(|key| part.get(**key).is_some_and(|value| !value.is_null())) {
            return Err(refuse(&join(path, key), "is not supported: pictures are sized as the checkpoint says"));
        }
        if part.contains_key("path") {
            return Err(refuse(
                &join(path, "path"),
                "is not read: this server opens no file for a client; send the file itself",
            ));
        }
        match take_one_of(&mut part, &SOURCE_KEYS, path)? {
            Some((key, value)) => picture(value, &join(path, key)),
            None => self.pictures.pop_front().ok_or_else(|| {
                let message = format!("is a picture without a source: send it in one of {}", SOURCE_KEYS.join(", "));
                refuse(path, &message)
            }),
        }
    }

    fn video(&mut self, mut part: Map<String, Value>, path: &str) -> Result<Video, Error> {
        match take_video(&mut part, self.usual, path)? {
            Some(video) => Ok(video),
            None => self.videos.pop_front().ok_or_else(|| {
                let keys = video::SOURCE_KEYS.join(", ");
                refuse(path, &format!("is a video without a source: send it in one of {keys}"))
            }),
        }
    }
}

/// A picture's source: a text or `{"url": text}`.
pub(in crate::http) fn picture(value: Value, path: &str) -> Result<Source, Error> {
    let value = match value {
        Value::Object(mut object) => object.remove("url").unwrap_or(Value::Object(object)),
        other => other,
    };
    match value {
        Value::String(text) if !text.trim().is_empty() => Ok(Source::Text(text)),
        Value::String(_) => Err(refuse(path, "is empty: send an http(s) URL, a data: URL or base64")),
        other => {
            let message = format!("must be an http(s) URL, a data: URL or base64, not {}", kind(&other));
            Err(refuse(path, &message))
        }
    }
}

/// The type of a part that names none, by what it holds; empty where that says nothing.
fn implied_type(part: &Map<String, Value>) -> &'static str {
    if part.contains_key("text") {
        "text"
    } else if ["video", "video_url", "frames"].iter().any(|key| part.contains_key(*key)) {
        "video"
    } else if SOURCE_KEYS.iter().any(|key| part.contains_key(*key)) {
        "image"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::take_media;
    use crate::error::Error;
    use crate::media::{Footage, Medium, Source, Video, VideoOptions};

    fn user(parts: Value) -> Vec<Value> {
        vec![json!({"role": "user", "content": parts})]
    }

    fn sources(texts: &[&str]) -> Vec<Medium> {
        texts.iter().map(|text| Medium::Picture(Source::Text(text.to_string()))).collect()
    }

    fn take_pictures(
        messages: Vec<Value>,
        beside: Vec<Medium>,
        path: &str,
    ) -> Result<(Vec<Value>, Vec<Medium>), Error> {
        take_media(messages, beside, VideoOptions::default(), path)
    }

    fn refusal(messages: Vec<Value>) -> String {
        take_pictures(messages, Vec::new(), "inputs").unwrap_err().to_string()
    }

    #[test]
    fn every_spelling_of_a_picture_is_understood() {
        for part in [
            json!({"type": "image", "image": "u"}),
            json!({"type": "image", "url": "u"}),
            json!({"type": "image", "base64": "u"}),
            json!({"type": "image", "data": "u"}),
            json!({"type": "image", "image": {"url": "u"}}),
            json!({"type": "image_url", "image_url": {"url": "u", "detail": "auto"}}),
            json!({"type": "image_url", "image_url": "u"}),
            json!({"type": "input_image", "image_url": "u"}),
            json!({"image": "u"}),
        ] {
            let (messages, media) = take_pictures(user(json!([part, {"text": "t"}])), Vec::new(), "inputs").unwrap();
            assert_eq!(messages, user(json!([{"type": "image"}, {"type": "text", "text": "t"}])), "{part}");
            assert_eq!(media, sources(&["u"]), "{part}");
        }
    }

    #[test]
    fn pictures_of_all_messages_keep_their_order_and_bare_parts_take_those_beside() {
        let messages = [user(json!([{"type": "image"}])), user(json!([{"image": "b"}, {"type": "image"}]))].concat();
        let (_, media) = take_pictures(messages, sources(&["a", "c"]), "inputs").unwrap();
        assert_eq!(media, sources(&["a", "b", "c"]));
    }

    #[test]
    fn videos_keep_their_place_among_the_pictures_and_bare_parts_take_those_beside() {
        let video = |text: &str| {
            let footage = Footage::File(Source::Text(text.to_owned()));
            Medium::Video(Video { footage, options: VideoOptions::default() })
        };
        let parts = json!([{"video": "a"}, {"image": "b"}, {"type": "input_video"}, {"type": "video_url", "video_url": {"url": "d"}}]);
        let (messages, media) = take_pictures(user(parts), vec![video("c")], "inputs").unwrap();
        let types = ["video", "image", "video", "video"].map(|kind| json!({"type": kind}));
        assert_eq!(messages, user(json!(types)));
        assert_eq!(media, [vec![video("a")], sources(&["b"]), vec![video("c"), video("d")]].concat());
        assert!(
            take_pictures(user(json!("t")), vec![video("a")], "inputs").unwrap_err().to_string().contains("1 videos")
        );
    }

    #[test]
    fn errors_name_the_place() {
        for (parts, place) in [
            (json!([{"type": "audio"}]), "`inputs[0].content[0].type` \"audio\""),
            (json!([{"type": "video", "video": 5}]), "`inputs[0].content[0].video` must be"),
            (json!([{"type": "video"}]), "`inputs[0].content[0]` is a video without a source"),
            (json!([{"type": "text"}]), "`inputs[0].content[0].text`"),
            (json!(["t"]), "`inputs[0].content[0]`"),
            (json!([{}]), "`inputs[0].content[0]`"),
            (json!([{"type": "image"}]), "`inputs[0].content[0]`"),
            (json!([{"type": "image", "path": "/etc/passwd"}]), "`inputs[0].content[0].path`"),
            (json!([{"type": "image", "image": 5}]), "`inputs[0].content[0].image`"),
            (json!([{"type": "image", "image": "u", "max_pixels": 5}]), "`inputs[0].content[0].max_pixels`"),
            (json!(5), "`inputs[0].content`"),
        ] {
            let refusal = refusal(user(parts.clone()));
            assert!(refusal.starts_with(place), "{parts}: {refusal}");
        }
        assert!(refusal(vec![json!({"role": 5})]).starts_with("`inputs[0].role`"));
        assert!(refusal(vec![json!({"role": "user"}), json!("hi")]).starts_with("`inputs[1]`"));
        assert!(take_pictures(user(json!("t")), sources(&["a"]), "inputs").is_err());
    }
}

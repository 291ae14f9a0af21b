//! The messages of a conversation: pictures and videos taken out of their parts, in order.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::json::{join, kind, refuse, take_one_of};
use super::sizing::take_area;
use super::video::{self, take_video};
use crate::error::Error;
use crate::media::{Area, Medium, Source, Video};

/// Where a part may hold its picture.
const SOURCE_KEYS: [&str; 5] = ["image", "image_url", "url", "base64", "data"];

/// Other ways to size single pictures, which are not implemented.
const SIZING_KEYS: [&str; 3] = ["resized_height", "resized_width", "size"];

const ACCEPTED_PARTS: &str = "accepted are text (or input_text, output_text), image (or image_url, input_image) and video (or video_url, \
                              input_video)";

/// Replaces the pictures and videos of `messages` by `{"type": "image"}` and `{"type": "video"}`, and returns them in order.
/// `beside` are those for the parts that hold none; they must be as many. `path` is where the messages stand.
pub(in crate::http) fn take_media(
    messages: Vec<Value>,
    beside: Vec<Medium>,
    path: &str,
) -> Result<(Vec<Value>, Vec<Medium>), Error> {
    let (mut pictures, mut videos) = (VecDeque::new(), VecDeque::new());
    for medium in beside {
        match medium {
            Medium::Picture(source) => pictures.push_back(source),
            Medium::Video(video) => videos.push_back(video),
        }
    }
    let mut taken = Taken { pictures, videos, media: Vec::new() };
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
            return Err(refuse(
                &join(path, key),
                "is not supported: bound the area with `min_pixels` and `max_pixels`",
            ));
        }
        if part.contains_key("path") {
            return Err(refuse(
                &join(path, "path"),
                "is not read: this server opens no file for a client; send the file itself",
            ));
        }
        let area = take_area(&mut part, path)?;
        let picture = match take_one_of(&mut part, &SOURCE_KEYS, path)? {
            Some((key, value)) => picture(value, &join(path, key)),
            None => self.pictures.pop_front().ok_or_else(|| {
                let message = format!("is a picture without a source: send it in one of {}", SOURCE_KEYS.join(", "));
                refuse(path, &message)
            }),
        };
        Ok(picture?.within(area))
    }

    fn video(&mut self, mut part: Map<String, Value>, path: &str) -> Result<Video, Error> {
        match take_video(&mut part, path)? {
            Some(video) => Ok(video),
            None => self.videos.pop_front().ok_or_else(|| {
                let keys = video::SOURCE_KEYS.join(", ");
                refuse(path, &format!("is a video without a source: send it in one of {keys}"))
            }),
        }
    }
}

/// A picture's source: a text or `{"url": text}`, where its size may be bounded as well.
pub(in crate::http) fn picture(value: Value, path: &str) -> Result<Source, Error> {
    let (value, area) = match value {
        Value::Object(mut object) => {
            let area = take_area(&mut object, path)?;
            (object.remove("url").unwrap_or(Value::Object(object)), area)
        }
        other => (other, Area::default()),
    };
    match value {
        Value::String(text) if !text.trim().is_empty() => Ok(Source::Text(text).within(area)),
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
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngSeed, TestRunner};
    use serde_json::{Value, json};

    use super::take_media;
    use crate::error::Error;
    use crate::media::{Area, Footage, Medium, Source, Video, VideoOptions};

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
        take_media(messages, beside, path)
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
    fn a_part_bounds_the_area_of_its_picture() {
        let parts = json!([
            {"image": "a", "max_pixels": 5000},
            {"type": "image_url", "image_url": {"url": "b", "detail": "low"}, "min_pixels": 10},
            {"type": "input_image", "image_url": "c", "detail": "low"},
            {"type": "image", "max_pixels": 7000},
        ]);
        let (_, media) = take_pictures(user(parts), sources(&["d"]), "inputs").unwrap();
        let within = |text: &str, min_pixels, max_pixels| {
            Medium::from(Source::Text(text.to_owned()).within(Area { min_pixels, max_pixels }))
        };
        let low = Some(512 * 512);
        let expected = [
            within("a", None, Some(5000)),
            within("b", Some(10), low),
            within("c", None, low),
            within("d", None, Some(7000)),
        ];
        assert_eq!(media, expected);
    }

    fn json() -> impl Strategy<Value = Value> {
        let words = "type|text|image|image_url|url|base64|data|input_image|video|video_url|frames|fps|num_frames|video_start|video_end|detail|low|min_pixels|max_pixels|path|role|content|user";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            words.prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            let object = proptest::collection::vec((words, inner.clone()), 0..5);
            prop_oneof![
                proptest::collection::vec(inner, 0..4).prop_map(Value::from),
                object.prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// Whatever a client calls a message: it becomes places and as many pictures, or words that name the place.
    #[test]
    fn no_message_brings_the_server_down() {
        const CASES: u32 = 2000;
        let usual = Config::default(); // PROPTEST_CASES raises it
        let config =
            Config { cases: usual.cases.max(CASES), rng_seed: RngSeed::Fixed(5), failure_persistence: None, ..usual };
        let part = (json(), "text|image|image_url|input_image|video|video_url").prop_map(|(mut part, kind)| {
            if let Value::Object(fields) = &mut part {
                fields.entry("type").or_insert(json!(kind));
            }
            part
        });
        let messages = prop_oneof![
            proptest::collection::vec(json(), 0..3),
            proptest::collection::vec(part, 0..4).prop_map(|parts| user(Value::Array(parts))),
        ];
        let outcome = TestRunner::new(config).run(&messages, |messages| {
            match take_pictures(messages, Vec::new(), "inputs") {
                Ok((messages, media)) => {
                    let text = json!(messages).to_string();
                    let places = |kind: &str| text.matches(&json!({ "type": kind }).to_string()).count();
                    prop_assert!(places("image") + places("video") >= media.len());
                }
                Err(error) => prop_assert!(error.to_string().contains("inputs"), "{error}"),
            }
            Ok(())
        });
        outcome.unwrap();
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
            (json!([{"type": "image", "image": "u", "max_pixels": 0.5}]), "`inputs[0].content[0].max_pixels`"),
            (json!([{"type": "image", "image": "u", "resized_height": 5}]), "`inputs[0].content[0].resized_height`"),
            (json!([{"image_url": {"url": "u", "detail": "x"}}]), "`inputs[0].content[0].image_url.detail`"),
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

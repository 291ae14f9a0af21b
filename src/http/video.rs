//! A video in a request's JSON: a file or a list of frames, and how the client wants it read.

use serde_json::{Map, Value};

use super::json::{join, kind, refuse, shown, take_one_of};
use super::messages::picture;
use crate::error::Error;
use crate::media::{Footage, Part, Video, VideoOptions};

/// Where a part may hold its video.
pub(in crate::http) const SOURCE_KEYS: [&str; 6] = ["video", "video_url", "url", "base64", "data", "frames"];

/// Other ways to sample and size, of qwen-vl-utils and Transformers, which are not implemented.
const UNSUPPORTED_KEYS: [&str; 6] =
    ["resized_height", "resized_width", "size", "min_frames", "max_frames", "max_duration"];

/// Takes the video out of `object`, which stands at `path`; `None` where it holds none.
pub(in crate::http) fn take_video(object: &mut Map<String, Value>, path: &str) -> Result<Option<Video>, Error> {
    if object.contains_key("path") {
        return Err(refuse(
            &join(path, "path"),
            "is not read: this server opens no file for a client; send the file itself",
        ));
    }
    let beside = take_options(object, path)?;
    let Some((key, value)) = take_one_of(object, &SOURCE_KEYS, path)? else { return Ok(None) };
    video(value, beside, &join(path, key)).map(Some)
}

/// A video: a text, `{"url": text}` with or without options, or a list of frames.
pub(in crate::http) fn video(value: Value, usual: VideoOptions, path: &str) -> Result<Video, Error> {
    match value {
        Value::Array(frames) if frames.is_empty() => Err(refuse(path, "is an empty list of frames")),
        Value::Array(frames) => {
            let frames = frames.into_iter().enumerate();
            let frames = frames.map(|(index, value)| frame(value, &format!("{path}[{index}]")));
            Ok(Video { footage: Footage::Frames(frames.collect::<Result<_, _>>()?), options: usual })
        }
        Value::Object(mut object) => {
            let options = take_options(&mut object, path)?.or(usual);
            let footage = Footage::File(picture(Value::Object(object), path)?);
            Ok(Video { footage, options })
        }
        text => Ok(Video { footage: Footage::File(picture(text, path)?), options: usual }),
    }
}

/// A frame: a picture's source, or an image part that holds one.
fn frame(value: Value, path: &str) -> Result<crate::media::Source, Error> {
    const KEYS: [&str; 3] = ["image", "image_url", "url"];
    match value {
        Value::Object(mut part) => match take_one_of(&mut part, &KEYS, path)? {
            Some((key, value)) => picture(value, &join(path, key)),
            None => picture(Value::Object(part), path),
        },
        other => picture(other, path),
    }
}

/// How the pictures and videos of a request are read that do not say it themselves: vLLM's `mm_processor_kwargs`.
pub(in crate::http) fn processor_kwargs(given: Option<Map<String, Value>>) -> Result<VideoOptions, Error> {
    const FIELD: &str = "mm_processor_kwargs";
    let mut given = given.unwrap_or_default();
    let options = take_options(&mut given, FIELD)?;
    match given.into_iter().find(|(_, value)| !value.is_null()) {
        None => Ok(options),
        Some((key, _)) => Err(refuse(
            &join(FIELD, &key),
            "is not known; there are min_pixels and max_pixels, and for videos fps, num_frames, video_start, video_end and \
             total_pixels",
        )),
    }
}

fn take_options(object: &mut Map<String, Value>, path: &str) -> Result<VideoOptions, Error> {
    if let Some(key) = UNSUPPORTED_KEYS.iter().find(|key| object.get(**key).is_some_and(|value| !value.is_null())) {
        let message = "is not supported; there are fps, num_frames, video_start, video_end, min_pixels, max_pixels and \
                       total_pixels";
        return Err(refuse(&join(path, key), message));
    }
    Ok(VideoOptions {
        fps: take_number(object, &["fps", "sample_fps"], path)?,
        num_frames: take_count(object, &["num_frames", "nframes"], path)?,
        min_pixels: take_count(object, &["min_pixels"], path)?,
        max_pixels: take_count(object, &["max_pixels"], path)?,
        total_pixels: take_count(object, &["total_pixels"], path)?,
        part: take_part(object, path)?,
    })
}

/// The part of a video file that is read, by qwen-vl-utils' names.
fn take_part(object: &mut Map<String, Value>, path: &str) -> Result<Part, Error> {
    let part =
        Part { start: take_seconds(object, "video_start", path)?, end: take_seconds(object, "video_end", path)? };
    match (part.start.unwrap_or(0.0), part.end) {
        (start, Some(end)) if end <= start => Err(refuse(
            &join(path, "video_end"),
            &format!("is {end}, and must be after `video_start`, which is {start}"),
        )),
        _ => Ok(part),
    }
}

fn take_seconds(object: &mut Map<String, Value>, key: &str, path: &str) -> Result<Option<f64>, Error> {
    let Some((_, value)) = take_one_of(object, &[key], path)? else { return Ok(None) };
    match value.as_f64().filter(|seconds| *seconds >= 0.0) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(refuse(&join(path, key), &format!("must be seconds, at least 0, not {}", described(&value)))),
    }
}

fn take_number(object: &mut Map<String, Value>, keys: &[&str], path: &str) -> Result<Option<f64>, Error> {
    let Some((key, value)) = take_one_of(object, keys, path)? else { return Ok(None) };
    match value.as_f64().filter(|number| *number > 0.0) {
        Some(number) => Ok(Some(number)),
        None => Err(refuse(&join(path, key), &format!("must be a number above 0, not {}", described(&value)))),
    }
}

pub(super) fn take_count(object: &mut Map<String, Value>, keys: &[&str], path: &str) -> Result<Option<usize>, Error> {
    let Some((key, value)) = take_one_of(object, keys, path)? else { return Ok(None) };
    match value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0) {
        Some(count) => Ok(Some(count)),
        None => Err(refuse(&join(path, key), &format!("must be a whole number above 0, not {}", described(&value)))),
    }
}

fn described(value: &Value) -> String {
    if value.is_number() { shown(value) } else { kind(value).to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{processor_kwargs, take_video};
    use crate::error::Error;
    use crate::media::{Area, Footage, Medium, Part, Source, Video, VideoOptions};

    fn read(mut part: Value) -> Result<Video, Error> {
        take_video(part.as_object_mut().unwrap(), "p").map(|video| video.expect("there is one"))
    }

    fn file(options: VideoOptions) -> Video {
        Video { footage: Footage::File(Source::Text("u".to_owned())), options }
    }

    #[test]
    fn every_spelling_of_a_video_is_understood() {
        let fps = |fps| VideoOptions { fps: Some(fps), ..VideoOptions::default() };
        for part in
            [json!({"video": "u"}), json!({"url": "u"}), json!({"base64": "u"}), json!({"video_url": {"url": "u"}})]
        {
            assert_eq!(read(part.clone()), Ok(file(VideoOptions::default())), "{part}");
        }
        let part = Part { start: Some(1.5), end: Some(3.0) };
        let options = VideoOptions { part, ..VideoOptions::default() };
        assert_eq!(read(json!({"video": "u", "video_start": 1.5, "video_end": 3})), Ok(file(options)));
        for part in [json!({"video": "u", "fps": 1}), json!({"video_url": {"url": "u", "fps": 1.0}})] {
            assert_eq!(read(part.clone()), Ok(file(fps(1.0))), "{part}");
        }
        let frames = Footage::Frames(vec![Source::Text("a".to_owned()), Source::Text("b".to_owned())]);
        for part in [
            json!({"video": ["a", {"url": "b"}], "fps": 2}),
            json!({"frames": [{"type": "image", "image": "a"}, {"type": "image_url", "image_url": {"url": "b"}}], "sample_fps": 2}),
        ] {
            assert_eq!(read(part.clone()), Ok(Video { footage: frames.clone(), options: fps(2.0) }), "{part}");
        }
    }

    #[test]
    fn errors_name_the_place() {
        for (part, place) in [
            (json!({"video": []}), "`p.video` is an empty list"),
            (json!({"video": 5}), "`p.video` must be"),
            (json!({"video": ["a", 5]}), "`p.video[1]` must be"),
            (json!({"video": "u", "fps": 0}), "`p.fps` must be a number above 0, not 0"),
            (json!({"video": "u", "num_frames": 2.5}), "`p.num_frames` must be a whole number"),
            (json!({"video": "u", "fps": 1, "sample_fps": 1}), "`p.sample_fps` and `fps`"),
            (json!({"video": "u", "max_duration": 3}), "`p.max_duration` is not supported"),
            (json!({"video": "u", "video_start": -1}), "`p.video_start` must be seconds, at least 0, not -1"),
            (json!({"video": "u", "video_end": "1:00"}), "`p.video_end` must be seconds, at least 0, not"),
            (json!({"video": "u", "video_start": 3, "video_end": 3}), "`p.video_end` is 3, and must be after"),
            (json!({"video": "u", "video_end": 0}), "`p.video_end` is 0, and must be after"),
            (json!({"path": "/etc/passwd"}), "`p.path` is not read"),
        ] {
            let refusal = read(part.clone()).unwrap_err().to_string();
            assert!(refusal.starts_with(place), "{part}: {refusal}");
        }
        let refusal = processor_kwargs(json!({"crop": 1}).as_object().cloned()).unwrap_err().to_string();
        assert!(refusal.starts_with("`mm_processor_kwargs.crop`"), "{refusal}");
    }

    #[test]
    fn a_part_says_more_than_its_request() {
        let request = processor_kwargs(json!({"fps": 4, "max_pixels": 1000}).as_object().cloned()).unwrap();
        let video = Medium::Video(read(json!({"video": "u", "num_frames": 6})).unwrap()).or(request);
        let expected = VideoOptions { num_frames: Some(6), max_pixels: Some(1000), ..VideoOptions::default() };
        assert_eq!(video, Medium::Video(file(expected)));
        let bounded = Source::Text("i".to_owned()).within(Area { min_pixels: None, max_pixels: Some(1000) });
        assert_eq!(Medium::Picture(Source::Text("i".to_owned())).or(request), Medium::Picture(bounded));
    }
}

//! Which form a request's body has, and whether its client takes what the route makes.

use bytes::Bytes;

use crate::error::Error;

const SUPPORTED: &str = "send `application/json`, a form as `multipart/form-data`, a picture as `image/png`, `image/jpeg`, `image/webp`, `image/gif`, `image/bmp` or `image/tiff`, or a video as `video/mp4`, `video/webm` or `video/quicktime`";

/// A body whose form is known.
#[derive(Debug, PartialEq)]
pub(super) enum Body {
    Json(Bytes),
    Picture(Bytes),
    Video(Bytes),
    /// multipart/form-data; its content type names the boundary.
    Form {
        content_type: String,
        body: Bytes,
    },
}

/// Tells the form of `body` by its content type, compared without parameters and case; where that says nothing (no type,
/// `application/octet-stream`, a form as curl calls everything, or plain text), by the bytes themselves.
pub(super) fn classify(content_type: Option<&str>, body: Bytes) -> Result<Body, Error> {
    let essence = content_type.map(essence).unwrap_or_default();
    match essence.as_str() {
        "application/json" | "text/json" => Ok(Body::Json(body)),
        json if json.starts_with("application/") && json.ends_with("+json") => Ok(Body::Json(body)),
        "multipart/form-data" => Ok(Body::Form { content_type: content_type.unwrap_or_default().to_owned(), body }),
        picture if picture.starts_with("image/") => Ok(Body::Picture(body)),
        video if video.starts_with("video/") => Ok(Body::Video(body)),
        "" | "application/octet-stream" | "binary/octet-stream" => sniff(body).ok_or_else(|| {
            unsupported("the body has no content type and is neither JSON nor a picture nor a video".to_owned())
        }),
        "application/x-www-form-urlencoded" | "text/plain" => match sniff(body) {
            Some(Body::Json(body)) => Ok(Body::Json(body)),
            _ => Err(unsupported(format!("content type {essence} is read only where the body is JSON"))),
        },
        _ => Err(unsupported(format!("content type {essence} is not supported"))),
    }
}

/// The forms of a reply that a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) json: bool,
    pub(super) event_stream: bool,
}

impl Accepted {
    /// Reads the `Accept` header. Refuses a client that takes neither form, before the model runs.
    pub(super) fn read(accept: Option<&str>) -> Result<Accepted, Error> {
        let accept = accept.unwrap_or("*/*");
        let accepted = Accepted {
            json: accepts(accept, "application", "json"),
            event_stream: accepts(accept, "text", "event-stream"),
        };
        if accepted.json || accepted.event_stream {
            return Ok(accepted);
        }
        Err(Error::NotAcceptable(format!(
            "this route answers application/json or, as a stream, text/event-stream; `Accept: {accept}` rules out both"
        )))
    }
}

/// Whether the `Accept` header `accept` admits `kind/subtype`: the most specific range that fits decides.
fn accepts(accept: &str, kind: &str, subtype: &str) -> bool {
    if accept.trim().is_empty() {
        return true;
    }
    let fitting = accept.split(',').filter_map(|range| {
        let essence = essence(range);
        let (range_kind, range_subtype) = essence.split_once('/').unwrap_or((essence.as_str(), "*"));
        let specificity = match (range_kind, range_subtype) {
            (k, s) if k == kind && s == subtype => 2,
            (k, "*") if k == kind => 1,
            ("*", "*") => 0,
            _ => return None,
        };
        Some((specificity, quality(range)))
    });
    fitting.max_by_key(|(specificity, _)| *specificity).is_some_and(|(_, quality)| quality > 0.0)
}

/// The `q` of a range; 1 where there is none.
fn quality(range: &str) -> f32 {
    let parameters = range.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let q = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("q")).map(|(_, value)| value.trim());
    q.filter_map(|value| value.parse().ok()).next().unwrap_or(1.0)
}

/// `type/subtype` in lower case, without parameters.
fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn sniff(body: Bytes) -> Option<Body> {
    if is_picture(&body) {
        return Some(Body::Picture(body));
    }
    if is_video(&body) {
        return Some(Body::Video(body));
    }
    let text = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&body);
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace())?;
    matches!(first, b'{' | b'[' | b'"').then_some(Body::Json(body))
}

/// The first bytes of the picture formats that are decoded.
fn is_picture(body: &[u8]) -> bool {
    const MAGIC: [&[u8]; 7] = [b"\x89PNG\r\n\x1a\n", b"\xFF\xD8\xFF", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*"];
    let is_webp = body.starts_with(b"RIFF") && body.get(8..12) == Some(b"WEBP");
    is_webp || MAGIC.iter().any(|magic| body.starts_with(magic))
}

/// The first bytes of the video formats that people send.
fn is_video(body: &[u8]) -> bool {
    let is_still = body.get(8..12).is_some_and(|brand| [b"avif", b"heic", b"mif1"].iter().any(|still| *still == brand));
    let is_mp4 = body.get(4..8) == Some(b"ftyp") && !is_still;
    is_mp4 || body.starts_with(b"\x1a\x45\xdf\xa3")
}

fn unsupported(what: String) -> Error {
    Error::UnsupportedMediaType(format!("{what}; {SUPPORTED}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Accepted, Body, classify};

    #[test]
    fn the_content_type_is_compared_by_its_essence() {
        for content_type in
            ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/problem+json"]
        {
            assert!(matches!(classify(Some(content_type), Bytes::from("{}")), Ok(Body::Json(_))), "{content_type}");
        }
    }

    #[test]
    fn a_body_without_a_telling_type_is_known_by_its_bytes() {
        for content_type in [None, Some("application/octet-stream"), Some("")] {
            assert!(matches!(classify(content_type, Bytes::from(" \n{}")), Ok(Body::Json(_))), "{content_type:?}");
            let png = Bytes::from_static(b"\x89PNG\r\n\x1a\n...");
            assert!(matches!(classify(content_type, png), Ok(Body::Picture(_))), "{content_type:?}");
            let mp4 = Bytes::from_static(b"\0\0\0\x20ftypisom...");
            assert!(matches!(classify(content_type, mp4), Ok(Body::Video(_))), "{content_type:?}");
            assert!(classify(content_type, Bytes::from("inputs=hello")).is_err(), "{content_type:?}");
        }
    }

    #[test]
    fn a_form_is_read_only_where_it_is_json_in_disguise() {
        let form = Some("application/x-www-form-urlencoded");
        assert!(matches!(classify(form, Bytes::from("{\"inputs\": 1}")), Ok(Body::Json(_))));
        assert!(classify(form, Bytes::from("inputs=hello")).is_err());
        assert!(classify(form, Bytes::from_static(b"\xFF\xD8\xFF")).is_err());
    }

    #[test]
    fn an_unknown_type_is_told_what_is_supported() {
        let refused = classify(Some("audio/wav"), Bytes::new()).unwrap_err().to_string();
        assert!(refused.contains("audio/wav") && refused.contains("application/json"), "{refused}");
    }

    #[test]
    fn accept_is_read_as_the_standard_says() {
        for (accept, json, event_stream) in [
            (None, true, true),
            (Some(""), true, true),
            (Some("*/*"), true, true),
            (Some("application/json, text/plain, */*"), true, true),
            (Some("application/*;q=0.5"), true, false),
            (Some("text/html, application/json;q=0.1"), true, false),
            (Some("text/event-stream"), false, true),
            (Some("application/json;q=0, */*"), false, true),
        ] {
            assert_eq!(Accepted::read(accept), Ok(Accepted { json, event_stream }), "{accept:?}");
        }
        for accept in ["text/html", "image/png", "*/*;q=0"] {
            assert!(Accepted::read(Some(accept)).is_err(), "{accept}");
        }
    }
}

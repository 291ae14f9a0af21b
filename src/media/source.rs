//! What a client's text for a picture or a video is: a URL, a `data:` URL, base64, or something that is refused.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use url::Url;

use super::kind::Kind;
use super::{Source, format};
use crate::error::Error;

/// Where the bytes of a picture or a video are.
#[derive(Debug, PartialEq)]
pub(super) enum Located<'a> {
    Remote(Url),
    /// Not yet decoded, and perhaps not even base64: the text may be long, so a blocking thread looks at it.
    Base64(&'a str),
    File(&'a Bytes),
}

/// Tells a URL from inline data by its first characters, and refuses what this server does not open.
pub(super) fn locate(source: &Source, kind: Kind) -> Result<Located<'_>, Error> {
    let text = match source {
        Source::File(bytes) => return Ok(Located::File(bytes)),
        Source::Sized { source, .. } => return locate(source, kind),
        Source::Text(text) => text.trim(),
    };
    match scheme(text).as_deref() {
        Some("http" | "https") => match Url::parse(text) {
            Ok(url) => Ok(Located::Remote(url)),
            Err(error) => {
                Err(Error::invalid(format!("the {}'s URL {} is malformed: {error}", kind.noun(), start_of(text))))
            }
        },
        Some("data") => data_url(text, kind).map(Located::Base64),
        Some("file") => Err(local_file(text, kind)),
        Some(scheme) => {
            Err(Error::invalid(format!("{}s are not fetched by {scheme}:; {}", kind.noun(), kind.accepted())))
        }
        None => Ok(Located::Base64(text)),
    }
}

/// The URL scheme in lower case. A single letter is a Windows drive, not a scheme; base64 has no colon.
fn scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.split_at_checked(text.bytes().take(32).position(|byte| byte == b':')?)?;
    let mut letters = scheme.bytes();
    let is_scheme = scheme.len() > 1
        && letters.next()?.is_ascii_alphabetic()
        && letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then(|| scheme.to_ascii_lowercase())
}

/// The base64 text of a `data:` URL. The media type it claims is not looked at: the content decides.
fn data_url(text: &str, kind: Kind) -> Result<&str, Error> {
    let Some((header, data)) = text.split_once(',') else {
        return Err(Error::invalid("the data: URL has no comma between its header and its data"));
    };
    let is_base64 = header.rsplit(';').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64"));
    if !is_base64 {
        return Err(Error::invalid(format!(
            "the data: URL is percent-encoded text; a {} must be base64: {}",
            kind.noun(),
            kind.data_url()
        )));
    }
    Ok(data)
}

/// Decodes base64 in either alphabet, with or without padding, with white space anywhere.
///
/// Anything that is neither base64 nor a known format ends in an [`Error::Invalid`] that says what it looks like.
pub(super) fn decode_base64(text: &str, kind: Kind, max_bytes: usize) -> Result<Vec<u8>, Error> {
    if text.trim().is_empty() {
        return Err(Error::invalid(format!("the {} is empty; {}", kind.noun(), kind.accepted())));
    }
    if text.len() / 4 * 3 > max_bytes + max_bytes / 16 {
        // A sixteenth more leaves room for white space; the decoded bytes are held to the limit itself.
        return Err(Error::invalid(kind.too_many_bytes(max_bytes)));
    }
    let symbols: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).map(standard_symbol).collect();
    let decoded = ENGINE.decode(&symbols).ok();
    if let Some(bytes) = &decoded
        && format::is_known(bytes)
    {
        return Ok(decoded.expect("it was just looked at"));
    }
    if looks_like_a_path(text) {
        return Err(local_file(text, kind));
    }
    decoded
        .ok_or_else(|| Error::invalid(format!("{} is neither a URL nor base64; {}", start_of(text), kind.accepted())))
}

/// The standard alphabet's symbol for one of the URL-safe alphabet.
fn standard_symbol(byte: u8) -> u8 {
    match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    }
}

/// As forgiving as Python's `base64.decodebytes`: padding may be absent, and spare bits may be set.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Whether a text reads like a file's name. Base64 may begin with a slash (every JPEG's does), so this is asked last.
fn looks_like_a_path(text: &str) -> bool {
    const LONGEST_PATH: usize = 4096;
    let text = text.trim();
    let has_root = text.starts_with(['/', '\\', '~', '.']) || text.as_bytes().get(1) == Some(&b':');
    let has_extension = text.rsplit(['/', '\\']).next().is_some_and(|name| name.contains('.'));
    text.len() <= LONGEST_PATH && (has_root || has_extension)
}

fn local_file(text: &str, kind: Kind) -> Error {
    Error::invalid(format!(
        "{} looks like a file's name: this server does not open files for its clients; {}",
        start_of(text),
        kind.accepted()
    ))
}

/// Enough of a client's text to recognise it by, for an error.
fn start_of(text: &str) -> String {
    const LENGTH: usize = 60;
    match text.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "PNG"'s signature and a little more: enough to be recognised as a picture.
    const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n\xfb\xff";
    const LIMIT: usize = 1 << 20;

    fn locate_text(text: &str) -> Result<Located<'static>, Error> {
        locate(Box::leak(Box::new(Source::Text(text.to_owned()))), Kind::Picture)
    }

    fn refusal(text: &str) -> String {
        let located = locate_text(text).and_then(|located| match located {
            Located::Base64(text) => decode_base64(text, Kind::Picture, LIMIT).map(|bytes| format!("{bytes:?}")),
            other => Ok(format!("{other:?}")),
        });
        match located {
            Err(Error::Invalid { message, .. }) => message,
            other => panic!("{text} was not refused: {other:?}"),
        }
    }

    #[test]
    fn base64_is_read_in_every_spelling() {
        let texts =
            ["iVBORw0KGgr7/w==", "iVBORw0KGgr7_w==", "iVBORw0KGgr7/w", "iVBORw0KGgr7_w", " iVBORw0K\r\n  Ggr7/w==\n"];
        for text in texts {
            assert_eq!(decode_base64(text, Kind::Picture, LIMIT).unwrap(), SIGNATURE, "{text}");
        }
    }

    #[test]
    fn a_data_url_is_read_whatever_its_media_type_and_parameters() {
        for header in [
            "data:image/png;base64",
            "DATA:image/x-own;charset=utf-8;BASE64",
            "data:;base64",
            "data:application/octet-stream;base64",
        ] {
            let located = locate_text(&format!("{header},iVBORw0KGgr7/w==")).unwrap();
            assert_eq!(located, Located::Base64("iVBORw0KGgr7/w=="), "{header}");
        }
    }

    #[test]
    fn a_data_url_without_base64_is_refused() {
        assert!(refusal("data:image/svg+xml,%3Csvg%3E").contains("percent-encoded"));
        assert!(refusal("data:image/png;base64").contains("no comma"));
    }

    #[test]
    fn local_files_are_refused_by_name() {
        for text in [
            "/etc/passwd",
            "file:///etc/passwd",
            "FILE:/etc/passwd",
            "cat.png",
            "./cat",
            "../../cat.png",
            "~/cat.png",
            "C:\\cat.png",
        ] {
            assert!(refusal(text).contains("does not open files"), "{text}");
        }
    }

    #[test]
    fn other_schemes_are_refused_with_what_is_accepted() {
        for text in [
            "ftp://example.com/cat.png",
            "gs://bucket/cat.png",
            "s3://bucket/cat.png",
            "javascript:alert(1)",
            "blob:abc",
        ] {
            assert!(refusal(text).contains("http(s) URL"), "{text}");
        }
        assert!(refusal("http://").contains("malformed"));
        assert!(refusal("  ").contains("empty"));
        assert!(refusal("not a picture!").contains("neither a URL nor base64"));
    }

    #[test]
    fn base64_that_begins_with_a_slash_is_not_a_path() {
        let jpeg = [0xff, 0xd8, 0xff, 0xe0, 0, 16, b'J', b'F', b'I', b'F'];
        let text = base64::engine::general_purpose::STANDARD.encode(jpeg);
        assert!(text.starts_with("/9j/"));
        assert_eq!(decode_base64(&text, Kind::Picture, LIMIT).unwrap(), jpeg);
    }

    #[test]
    fn base64_longer_than_the_limit_is_refused_before_it_is_decoded() {
        let Err(Error::Invalid { message, .. }) = decode_base64(&"A".repeat(4000), Kind::Picture, 1000) else {
            panic!()
        };
        assert!(message.contains("1000 bytes") && message.contains("--max-image-bytes"), "{message}");
    }
}

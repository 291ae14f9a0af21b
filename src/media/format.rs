//! Which file format some bytes are in, judged by their content alone.

use image::ImageFormat;

use crate::error::Error;

const ACCEPTED: &str = "send PNG, JPEG, WebP, GIF, BMP or TIFF";

/// The format that a decoder is chosen by. Anything that this server cannot decode is refused by its name.
pub(super) fn recognise(bytes: &[u8]) -> Result<ImageFormat, Error> {
    if let Some(format) = decodable(bytes) {
        return Ok(format);
    }
    Err(Error::invalid(match refused(bytes) {
        Some(name) => format!("the picture is {name}, which this server does not decode; {ACCEPTED}"),
        None if bytes.is_empty() => format!("the picture's file is empty; {ACCEPTED}"),
        None => format!("the data is not a picture in a format that this server knows; {ACCEPTED}"),
    }))
}

/// Whether bytes are of a format that is either decoded or refused by name.
pub(super) fn is_known(bytes: &[u8]) -> bool {
    name_of(bytes).is_some()
}

/// What to call a file of a known format.
pub(super) fn name_of(bytes: &[u8]) -> Option<&'static str> {
    if decodable(bytes).is_some() { Some("a picture") } else { refused(bytes) }
}

fn decodable(bytes: &[u8]) -> Option<ImageFormat> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    image::guess_format(bytes).ok().filter(|format| matches!(format, Png | Jpeg | WebP | Gif | Bmp | Tiff))
}

fn refused(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8) == Some(b"ftyp") {
        // ISO base media: the major brand tells a still picture from a video.
        return Some(match bytes.get(8..12)? {
            b"avif" | b"avis" => "an AVIF file",
            b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1" => "a HEIC file",
            _ => "an MP4 video",
        });
    }
    const BY_SIGNATURE: &[(&[u8], &str)] = &[
        (b"%PDF-", "a PDF document"),
        (b"\x1a\x45\xdf\xa3", "a WebM or Matroska video"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL file"),
        (b"\xff\x0a", "a JPEG XL file"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000 file"),
        (b"\0\0\x01\0", "an icon file"),
        (b"8BPS", "a Photoshop file"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip archive"),
    ];
    let by_signature = BY_SIGNATURE.iter().find(|(signature, _)| bytes.starts_with(signature));
    by_signature.map(|(_, name)| *name).or_else(|| refused_text(bytes))
}

/// Markup that clients and servers send where a picture was meant.
fn refused_text(bytes: &[u8]) -> Option<&'static str> {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]).to_ascii_lowercase();
    let start = start.trim_start_matches('\u{feff}').trim_start();
    if start.starts_with('<') && start.contains("<svg") {
        Some("an SVG drawing")
    } else if start.starts_with("<!doctype html") || start.starts_with("<html") {
        Some("an HTML page")
    } else {
        None
    }
}

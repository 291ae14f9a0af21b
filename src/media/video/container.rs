//! What kind of file a video is, judged by its content alone: ffmpeg is told, and never guesses.

use crate::error::Error;
use crate::media::format;

const ACCEPTED: &str =
    "send MP4, MOV, WebM, Matroska, AVI or MPEG-TS, an animated GIF, WebP or APNG, or a list of pictures";

/// Demuxers that find a place inside a file by its time, exactly: others were not tried.
pub(super) const SOUGHT: [&str; 2] = ["mov", "matroska"];

/// What reads a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    /// ffmpeg, with the demuxer of this name.
    Ffmpeg(&'static str),
    /// This process itself.
    Animation(Animation),
}

/// Pictures that move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Animation {
    Gif,
    Webp,
    Png,
}

/// Tells the container. Playlists and everything else that could name other files is none.
pub(super) fn recognise(file: &[u8]) -> Result<Container, Error> {
    if file.is_empty() {
        return Err(Error::invalid(format!("the video's file is empty; {ACCEPTED}")));
    }
    find(file).ok_or_else(|| {
        Error::invalid(match format::name_of(file) {
            Some(name) => format!("the video is {name}, which this server does not read as a video; {ACCEPTED}"),
            None => format!("the data is not a video in a format that this server knows; {ACCEPTED}"),
        })
    })
}

fn find(file: &[u8]) -> Option<Container> {
    const QUICKTIME_ATOMS: [&[u8]; 5] = [b"moov", b"mdat", b"wide", b"free", b"skip"];
    let brand = file.get(8..12).unwrap_or_default();
    let riff = file.starts_with(b"RIFF").then_some(brand);
    match file.get(4..8) {
        Some(b"ftyp") => {
            let is_still = [&b"avif"[..], b"avis", b"heic", b"heix", b"mif1", b"msf1"].contains(&brand);
            return (!is_still).then_some(Container::Ffmpeg("mov"));
        }
        Some(atom) if QUICKTIME_ATOMS.contains(&atom) => return Some(Container::Ffmpeg("mov")),
        _ => {}
    }
    const TRANSPORT_PACKET: usize = 188;
    if file.starts_with(b"\x1a\x45\xdf\xa3") {
        Some(Container::Ffmpeg("matroska"))
    } else if riff == Some(b"AVI ") {
        Some(Container::Ffmpeg("avi"))
    } else if riff == Some(b"WEBP") {
        Some(Container::Animation(Animation::Webp))
    } else if file.starts_with(b"GIF8") {
        Some(Container::Animation(Animation::Gif))
    } else if file.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some(Container::Animation(Animation::Png))
    } else if file[0] == 0x47 && file.get(TRANSPORT_PACKET) == Some(&0x47) {
        Some(Container::Ffmpeg("mpegts"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Animation, Container, recognise};

    #[test]
    fn containers_are_known_by_their_first_bytes_and_playlists_are_none() {
        for (file, expected) in [
            (&b"\0\0\0\x20ftypisom...."[..], Container::Ffmpeg("mov")),
            (b"\0\0\0\x08wide....", Container::Ffmpeg("mov")),
            (b"\x1a\x45\xdf\xa3....", Container::Ffmpeg("matroska")),
            (b"RIFF....AVI LIST", Container::Ffmpeg("avi")),
            (b"RIFF....WEBPVP8X", Container::Animation(Animation::Webp)),
            (b"GIF89a", Container::Animation(Animation::Gif)),
        ] {
            assert_eq!(recognise(file), Ok(expected));
        }
        for file in
            [&b"#EXTM3U\nfile:///etc/passwd"[..], b"ffconcat version 1.0", b"", b"\0\0\0\x20ftypheic", b"\xff\xd8\xff"]
        {
            let refused = recognise(file).unwrap_err().to_string();
            assert!(refused.contains("send MP4"), "{refused}");
        }
    }
}

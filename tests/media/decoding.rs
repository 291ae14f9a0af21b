//! Files of every format, sound and broken, against PIL.

use std::time::{Duration, Instant};

use sardine::error::Error;
use sardine::media::Rgb;
use sardine::media::decode::{Bounds, decode, open};

use crate::fixtures::{bounds, file, pictures, rows, sha256};

fn decoded(name: &str) -> Rgb {
    decode(&file(name), bounds()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn refusal(bytes: &[u8]) -> String {
    match decode(bytes, bounds()) {
        Err(Error::Invalid { message, .. }) => message,
        other => panic!("not refused as invalid: {other:?}"),
    }
}

#[test]
fn every_format_decodes_to_the_bytes_that_pil_gives() {
    let exact = |name: &str| name != "grey-16.png";
    for row in rows("decoded") {
        let name = row["file"].as_str().unwrap();
        let picture = decoded(name);
        assert_eq!(
            (row["height"].as_u64(), row["width"].as_u64()),
            (Some(picture.height as u64), Some(picture.width as u64)),
            "{name}"
        );
        if exact(name) {
            assert_eq!(sha256(&picture.pixels), row["sha256"].as_str().unwrap(), "{name}");
        }
    }
}

#[test]
fn sixteen_bit_grey_keeps_its_high_byte() {
    // PIL would saturate nearly all of it to white.
    assert_eq!(decoded("grey-16.png"), decoded("grey.png"));
}

#[test]
fn a_small_file_that_claims_a_huge_picture_is_refused_at_once() {
    let mut gif = file("animated.gif");
    gif[6..10].copy_from_slice(&[0xff; 4]);
    let mut bmp = file("rgb.bmp");
    bmp[18..26].copy_from_slice(&[0x60, 0xea, 0, 0, 0x60, 0xea, 0, 0]);
    let mut jpeg = file("photo-444.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    // libjpeg itself reads no side above 65500.
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff, 0, 0xff, 0]);
    for (name, bytes) in [("png", file("bomb.png")), ("gif", gif), ("bmp", bmp), ("jpeg", jpeg)] {
        let start = Instant::now();
        let message = refusal(&bytes);
        assert!(message.contains("--max-image-pixels"), "{name}: {message}");
        assert!(start.elapsed() < Duration::from_millis(200), "{name} took {:?}", start.elapsed());
    }
}

#[test]
fn a_file_cut_in_half_is_refused() {
    // The first frame is in the first half of this one.
    for name in pictures().into_iter().filter(|name| name != "animated.gif") {
        let whole = file(&name);
        let message = refusal(&whole[..whole.len() / 2]);
        assert!(message.contains("cut short") || message.contains("could not be decoded"), "{name}: {message}");
    }
}

#[test]
fn what_cannot_be_decoded_is_refused_by_its_name() {
    let cases: [(&[u8], &str); 9] = [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "MP4"),
        (b"<?xml version=\"1.0\"?>\n<svg xmlns=\"x\"/>", "SVG"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\x1a\x45\xdf\xa3", "WebM"),
        (b"", "empty"),
        (b"hello", "not a picture"),
    ];
    for (bytes, name) in cases {
        let message = refusal(bytes);
        assert!(message.contains(name) && message.contains("PNG, JPEG"), "{name}: {message}");
    }
}

#[test]
fn a_side_too_many_times_the_other_is_refused_by_the_header() {
    let limit = Bounds { max_ratio: 1.3, ..bounds() };
    for name in pictures() {
        let Err(Error::Invalid { message, .. }) = decode(&file(&name), limit) else { panic!("{name} was not refused") };
        assert!(message.contains("1.3 times") && message.contains("--max-aspect-ratio"), "{name}: {message}");
    }
}

#[test]
fn a_thumbnail_is_not_taken_for_scans_of_the_picture() {
    let plain = file("photo-420.jpg");
    let mut segment = vec![0xff, 0xe1];
    segment.extend_from_slice(&(plain.len() as u16 + 2).to_be_bytes());
    let with_thumbnail = [&plain[..2], &segment, &plain, &plain[2..], &plain].concat();
    let num_bytes = |file: &[u8]| open(file, bounds()).unwrap().num_bytes();
    assert_eq!(num_bytes(&with_thumbnail), num_bytes(&plain));
    assert_eq!(decode(&with_thumbnail, bounds()), decode(&plain, bounds()));
    assert!(num_bytes(&file("progressive.jpg")) > num_bytes(&plain), "coefficients of scans are kept");
}

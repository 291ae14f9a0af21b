//! Files of every format, sound and broken, against PIL.

use std::time::{Duration, Instant};

use sardine::error::Error;
use sardine::media::Rgb;
use sardine::media::decode::decode;

use crate::fixtures::{file, pictures, rows, sha256};

const MAX_PIXELS: u64 = 1_000_000;

fn decoded(name: &str) -> Rgb {
    decode(&file(name), MAX_PIXELS).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn refusal(bytes: &[u8]) -> String {
    match decode(bytes, MAX_PIXELS) {
        Err(Error::Invalid { message, .. }) => message,
        other => panic!("not refused as invalid: {other:?}"),
    }
}

#[test]
fn every_format_but_jpeg_decodes_to_the_bytes_that_pil_gives() {
    let exact = |name: &str| !name.ends_with(".jpg") && name != "grey-16.png";
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

/// Decoders round the cosine transform differently, and enlarge halved colours (4:2:0) differently. Measured, not
/// derived.
#[test]
fn jpeg_differs_from_pil_by_a_few_levels_at_most() {
    for name in pictures().into_iter().filter(|name| name.ends_with(".jpg")) {
        let (ours, pil) = (decoded(&name), decoded(&format!("{name}.expected.png")));
        let differences: Vec<u8> = ours.pixels.iter().zip(&pil.pixels).map(|(a, b)| a.abs_diff(*b)).collect();
        let largest = differences.iter().copied().max().unwrap();
        let mean = differences.iter().map(|difference| f64::from(*difference)).sum::<f64>() / differences.len() as f64;
        println!("{name}: largest {largest}, mean {mean:.4}");
        let has_halved_colours = name == "photo-420.jpg" || name == "photo-422.jpg";
        let (largest_allowed, mean_allowed) = if has_halved_colours { (4, 0.5) } else { (2, 0.05) };
        assert!(largest <= largest_allowed && mean <= mean_allowed, "{name}: largest {largest}, mean {mean}");
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
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
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

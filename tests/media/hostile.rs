//! Files made to do harm: each is refused within its time, by name of the limit, and its memory comes back.

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use image::{DynamicImage, ImageFormat, RgbImage};
use sardine::error::Error;
use sardine::media::decode::{Bounds, decode};
use sardine::media::{MediaLimits, Source};

use crate::corpus::Corpus;
use crate::fixtures::{bounds, file, media};
use crate::harmful::{
    FORMATS, archive_behind_a_picture, claiming_the_most, cut, deflated_zeros, disguised, endless_scans, laden, lines,
    nothings, plain, png_with, too_large,
};

/// Longest time that any refusal may take here, on a busy machine without optimisation.
const PATIENCE: Duration = Duration::from_secs(5);

fn refusal(name: &str, bytes: &[u8]) -> String {
    let begun = Instant::now();
    let outcome = decode(bytes, bounds());
    assert!(begun.elapsed() < PATIENCE, "{name} took {:?}", begun.elapsed());
    match outcome {
        Err(Error::Invalid { message, .. }) => message,
        other => panic!("{name} was not refused: {:?}", other.map(|picture| (picture.height, picture.width))),
    }
}

#[test]
fn a_real_picture_with_too_many_pixels_is_refused_in_every_format() {
    for (name, bytes) in too_large() {
        let message = refusal(&name, &bytes);
        assert!(message.contains("1001x1000") && message.contains("--max-image-pixels"), "{name}: {message}");
    }
}

#[test]
fn a_header_that_claims_the_most_its_format_can_is_refused_in_every_format() {
    for (name, bytes) in claiming_the_most() {
        let message = refusal(&name, &bytes);
        // Some decoders refuse such a header themselves, and WebP's 14 bits wrap to nothing.
        let named = ["--max-image-pixels", "could not be decoded", "nothing to see"];
        assert!(named.iter().any(|words| message.contains(words)), "{name}: {message}");
    }
}

#[test]
fn a_file_cut_at_any_tenth_is_refused_or_was_complete_by_then() {
    let corpus = Corpus::load();
    for row in corpus.rows() {
        let whole = corpus.bytes(&row.file);
        let expected = decode(&whole, bounds()).unwrap();
        for (tenth, part) in cut(&whole) {
            match decode(part, bounds()) {
                Ok(picture) => assert!(picture == expected, "{} cut at {tenth}/10 gives another picture", row.file),
                Err(Error::Invalid { .. }) => {}
                Err(other) => panic!("{}: {other:?}", row.file),
            }
        }
    }
}

#[test]
fn lines_and_nothings_are_refused() {
    for (name, bytes) in lines() {
        let message = refusal(&name, &bytes);
        assert!(message.contains("200 times") && message.contains("--max-aspect-ratio"), "{name}: {message}");
    }
    for (name, bytes) in nothings() {
        let message = refusal(&name, &bytes);
        assert!(!name.contains("GIF") || message.contains("could not be decoded"), "{name}: {message}");
    }
}

#[test]
fn a_picture_that_is_something_else_as_well_is_a_picture_or_refused() {
    assert!(decode(&archive_behind_a_picture(), bounds()).is_ok(), "what follows a picture is none of ours");
    for (name, bytes) in disguised() {
        refusal(&name, &bytes);
    }
}

#[test]
fn what_a_picture_carries_beside_its_pixels_costs_nothing() {
    for (name, bytes) in laden() {
        let begun = Instant::now();
        match decode(&bytes, bounds()) {
            Ok(picture) => assert_eq!((picture.height, picture.width), (8, 8)),
            Err(Error::Invalid { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "{name} took {:?}", begun.elapsed());
    }
}

#[test]
fn a_jpeg_of_endless_scans_is_refused() {
    let endless = endless_scans(&Corpus::load().bytes("jpeg/444-progressive"));
    assert!(refusal("scans", &endless).contains("scans"));
}

#[test]
fn decoding_ends_when_its_time_is_over_in_every_format() {
    let limit = Bounds { timeout: Duration::ZERO, max_pixels: 10_000_000, ..bounds() };
    let noise =
        RgbImage::from_fn(600, 600, |x, y| image::Rgb([(x * y % 251) as u8, (x * 7 + y * 13) as u8, (x ^ y) as u8]));
    for format in FORMATS {
        let mut file = std::io::Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(noise.clone()).write_to(&mut file, format).unwrap();
        match decode(&file.into_inner(), limit) {
            Err(Error::Invalid { message, .. }) => {
                assert!(message.contains("--decode-timeout-ms"), "{format:?}: {message}")
            }
            other => panic!("{format:?}: {:?}", other.map(|picture| picture.height)),
        }
    }
}

/// Bytes that this process has in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Run by [`memory_comes_back_after_hostile_files`], in a process of its own.
#[tokio::test]
#[ignore = "run by memory_comes_back_after_hostile_files"]
async fn hostile_files_by_the_dozen() {
    const PIXELS: u32 = 12_000_000;
    let large = [ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Jpeg]
        .map(|format| plain(6000, PIXELS / 6000, format));
    let limits =
        || MediaLimits { max_image_pixels: u64::from(PIXELS), max_image_tokens: 2000, ..MediaLimits::default() };
    let media = media(limits());
    let round = async || {
        for file in large
            .iter()
            .cloned()
            .chain([file("bomb.png"), png_with(b"iCCP", &[b"p\0\0", &deflated_zeros(64 << 20)[..]].concat())])
        {
            // 12 megapixels are decoded, and cost more tokens than there are.
            let _ = media.prepare(&[Source::File(Bytes::from(file)).into()]).await;
        }
    };
    round().await; // what is allocated once is allocated now
    let before = resident();
    for _ in 0..3 {
        round().await;
    }
    let grown = resident().saturating_sub(before);
    println!("grown by {} KiB over {} KiB", grown >> 10, before >> 10);
    assert!(grown < 48 << 20, "grown by {grown} bytes");
    assert_eq!(media.held_bytes(), 0);
}

#[test]
fn memory_comes_back_after_hostile_files() {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", "hostile::hostile_files_by_the_dozen", "--ignored", "--nocapture"];
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

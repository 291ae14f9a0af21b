//! Files made to do harm: each is refused within its time, by name of the limit, and its memory comes back.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::{DynamicImage, ImageFormat, RgbImage};
use sardine::error::Error;
use sardine::media::decode::{Bounds, decode};
use sardine::media::{MediaLimits, Source};

use crate::corpus::Corpus;
use crate::fixtures::{bounds, file, media};

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

/// A file of one colour in any format.
fn plain(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(RgbImage::new(width, height)).write_to(&mut file, format).unwrap();
    file.into_inner()
}

const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A PNG with `chunk` after its header.
fn png_with(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    const HEADER_END: usize = 8 + 25;
    let plain = plain(8, 8, ImageFormat::Png);
    let mut chunk = (content.len() as u32).to_be_bytes().to_vec();
    chunk.extend_from_slice(kind);
    chunk.extend_from_slice(content);
    let mut checksum = flate2::Crc::new();
    checksum.update(&chunk[4..]);
    chunk.extend_from_slice(&checksum.sum().to_be_bytes());
    [&plain[..HEADER_END], &chunk, &plain[HEADER_END..]].concat()
}

#[test]
fn a_real_picture_with_too_many_pixels_is_refused_in_every_format() {
    for format in FORMATS {
        let message = refusal(&format!("{format:?}"), &plain(1001, 1000, format));
        assert!(message.contains("1001x1000") && message.contains("--max-image-pixels"), "{format:?}: {message}");
    }
}

#[test]
fn a_header_that_claims_the_most_its_format_can_is_refused_in_every_format() {
    let most = |format: ImageFormat| {
        let mut file = plain(20, 20, format);
        match format {
            ImageFormat::Png => file[16..24].fill(0x7f),
            ImageFormat::Jpeg => {
                let frame = file.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
                file[frame + 5..frame + 9].fill(0xff);
            }
            ImageFormat::WebP => file[21..25].copy_from_slice(&[0xff, 0xff, 0xff, 0x0f]),
            ImageFormat::Gif => file[6..10].fill(0xff),
            ImageFormat::Bmp => file[18..26].copy_from_slice(&[0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0xff, 0x3f]),
            _ => {
                let directory = u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize;
                for entry in (0..12).map(|index| directory + 2 + index * 12) {
                    if matches!(file[entry..entry + 2], [0, 1] | [1, 1]) {
                        file[entry + 8..entry + 12].copy_from_slice(&[0xff, 0xff, 0xff, 0x0f]);
                    }
                }
            }
        }
        file
    };
    for format in FORMATS {
        let message = refusal(&format!("{format:?}"), &most(format));
        // Some decoders refuse such a header themselves, and WebP's 14 bits wrap to nothing.
        let named = ["--max-image-pixels", "could not be decoded", "nothing to see"];
        let is_named = named.iter().any(|name| message.contains(name));
        assert!(is_named, "{format:?}: {message}");
    }
}

#[test]
fn a_file_cut_at_any_tenth_is_refused_or_was_complete_by_then() {
    let corpus = Corpus::load();
    for row in corpus.rows() {
        let whole = corpus.bytes(&row.file);
        let expected = decode(&whole, bounds()).unwrap();
        for tenth in 0..10 {
            match decode(&whole[..whole.len() * tenth / 10], bounds()) {
                Ok(picture) => assert!(picture == expected, "{} cut at {tenth}/10 gives another picture", row.file),
                Err(Error::Invalid { .. }) => {}
                Err(other) => panic!("{}: {other:?}", row.file),
            }
        }
    }
}

#[test]
fn lines_and_nothings_are_refused() {
    for format in FORMATS {
        for (width, height) in [(1, 65_000), (65_000, 1)] {
            // WebP ends at 16383 and takes no more.
            let (width, height) =
                if format == ImageFormat::WebP { (width.min(16_000), height.min(16_000)) } else { (width, height) };
            let message = refusal(&format!("{format:?}"), &plain(width, height, format));
            assert!(message.contains("200 times") && message.contains("--max-aspect-ratio"), "{format:?}: {message}");
        }
    }
    let mut no_width = plain(8, 8, ImageFormat::Png);
    no_width[16..20].fill(0);
    refusal("a PNG without width", &no_width);
    let no_frames = b"GIF89a\x08\x00\x08\x00\x00\x00\x00;";
    let message = refusal("a GIF without frames", no_frames);
    assert!(message.contains("could not be decoded"), "{message}");
    let no_frames = b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x07\0\0\x07\0\0ANIM\x06\0\0\0\0\0\0\0\0\0";
    refusal("a WebP without frames", no_frames);
    refusal("a TIFF without pictures", b"II*\0\0\0\0\0");
    refusal("a TIFF whose pages go in a circle", b"II*\0\x08\0\0\0\0\0\x08\0\0\0");
}

#[test]
fn a_picture_that_is_something_else_as_well_is_a_picture_or_refused() {
    let png = plain(8, 8, ImageFormat::Png);
    let zip = b"PK\x03\x04 an archive behind it";
    assert!(decode(&[&png[..], zip].concat(), bounds()).is_ok(), "what follows a picture is none of ours");
    for (name, bytes) in [
        ("a picture in a PDF", [b"%PDF-1.7\n", &png[..]].concat()),
        ("a page that begins as a GIF", b"GIF89a/*<html><script>alert(1)</script>*/=1".to_vec()),
        ("a page that begins as a BMP", b"BM/*<!doctype html><html></html>*/".to_vec()),
        ("a script that begins as a JPEG", b"\xff\xd8\xff\xe0/*alert(1)*/".to_vec()),
        ("a TIFF in both byte orders", b"IIMM\0*\0\0\0\x08".to_vec()),
        ("a PNG in a GIF's clothes", [b"GIF89a", &png[..]].concat()),
        ("SVG", b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>".to_vec()),
    ] {
        refusal(name, &bytes);
    }
}

#[test]
fn what_a_picture_carries_beside_its_pixels_costs_nothing() {
    let gigabyte = {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        (0..256).for_each(|_| encoder.write_all(&vec![0; 4 << 20]).unwrap());
        encoder.finish().unwrap()
    };
    for (kind, content) in [
        (b"zTXt", [b"Comment\0\0", &gigabyte[..]].concat()),
        (b"iTXt", [b"Comment\0\x01\0\0\0", &gigabyte[..]].concat()),
        (b"iCCP", [b"profile\0\0", &gigabyte[..]].concat()),
        (b"eXIf", vec![0xff; 1 << 20]),
    ] {
        let file = png_with(kind, &content);
        let begun = Instant::now();
        match decode(&file, bounds()) {
            Ok(picture) => assert_eq!((picture.height, picture.width), (8, 8)),
            Err(Error::Invalid { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "{:?} took {:?}", String::from_utf8_lossy(kind), begun.elapsed());
    }
}

#[test]
fn a_jpeg_of_endless_scans_is_refused() {
    let corpus = Corpus::load();
    let file = corpus.bytes("jpeg/444-progressive");
    let scans = file.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
    let again = [&file[..file.len() - 2], &file[scans..file.len() - 2].repeat(100)[..], &[0xff, 0xd9]].concat();
    assert!(refusal("scans", &again).contains("scans"));
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
            .chain([file("bomb.png"), png_with(b"iCCP", &[b"p\0\0", &deflated(&vec![0; 64 << 20])[..]].concat())])
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

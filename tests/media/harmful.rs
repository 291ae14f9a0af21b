//! Files made to do harm, for tests of the decoders and for those that send them to a server.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::{DynamicImage, ImageFormat, RgbImage};

/// A file, and what is wrong with it.
pub type Harmful = (String, Vec<u8>);

pub const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];

/// A file of one colour in any format.
pub fn plain(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(RgbImage::new(width, height)).write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// So many zeros, which take a thousandth of that.
pub fn deflated_zeros(num_bytes: usize) -> Vec<u8> {
    const PIECE: usize = 4 << 20;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    (0..num_bytes / PIECE).for_each(|_| encoder.write_all(&vec![0; PIECE]).unwrap());
    encoder.finish().unwrap()
}

/// A PNG with a chunk after its header.
pub fn png_with(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
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

/// Whole pictures of 1001 x 1000 pixels, which need a few kilobytes.
pub fn too_large() -> Vec<Harmful> {
    FORMATS.map(|format| (format!("{format:?} of 1001x1000"), plain(1001, 1000, format))).into()
}

/// Small files whose headers claim the most that their format can.
pub fn claiming_the_most() -> Vec<Harmful> {
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
    FORMATS.map(|format| (format!("{format:?} that claims the most"), most(format))).into()
}

/// A picture cut at each tenth.
pub fn cut(whole: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    (0..10).map(|tenth| (tenth, &whole[..whole.len() * tenth / 10]))
}

/// Pictures of a single row or column.
pub fn lines() -> Vec<Harmful> {
    let line = |format, (width, height): (u32, u32)| {
        // WebP ends at 16383 and takes no more.
        let most = if format == ImageFormat::WebP { 16_000 } else { 65_000 };
        let (width, height) = (width.min(most), height.min(most));
        (format!("{format:?} of {width}x{height}"), plain(width, height, format))
    };
    FORMATS.into_iter().flat_map(|format| [line(format, (1, 65_000)), line(format, (65_000, 1))]).collect()
}

/// Files without pixels, frames, pages or an end of them.
pub fn nothings() -> Vec<Harmful> {
    let mut no_width = plain(8, 8, ImageFormat::Png);
    no_width[16..20].fill(0);
    let webp = b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x07\0\0\x07\0\0ANIM\x06\0\0\0\0\0\0\0\0\0";
    [
        ("a PNG without width", no_width),
        ("a GIF without frames", b"GIF89a\x08\x00\x08\x00\x00\x00\x00;".to_vec()),
        ("a WebP without frames", webp.to_vec()),
        ("a TIFF without pictures", b"II*\0\0\0\0\0".to_vec()),
        ("a TIFF whose pages go in a circle", b"II*\0\x08\0\0\0\0\0\x08\0\0\0".to_vec()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

/// Files that are something else, or something else as well.
pub fn disguised() -> Vec<Harmful> {
    let png = plain(8, 8, ImageFormat::Png);
    [
        ("a picture in a PDF", [b"%PDF-1.7\n", &png[..]].concat()),
        ("a page that begins as a GIF", b"GIF89a/*<html><script>alert(1)</script>*/=1".to_vec()),
        ("a page that begins as a BMP", b"BM/*<!doctype html><html></html>*/".to_vec()),
        ("a script that begins as a JPEG", b"\xff\xd8\xff\xe0/*alert(1)*/".to_vec()),
        ("a TIFF in both byte orders", b"IIMM\0*\0\0\0\x08".to_vec()),
        ("a PNG in a GIF's clothes", [b"GIF89a", &png[..]].concat()),
        ("SVG", b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>".to_vec()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

/// An archive hidden behind a picture, which is none of a decoder's business.
pub fn archive_behind_a_picture() -> Vec<u8> {
    [&plain(8, 8, ImageFormat::Png)[..], b"PK\x03\x04 an archive behind it"].concat()
}

/// Small pictures that carry a gigabyte, deflated, where no pixels are.
pub fn laden() -> Vec<Harmful> {
    let gigabyte = deflated_zeros(1 << 30);
    [
        (b"zTXt", [b"Comment\0\0", &gigabyte[..]].concat()),
        (b"iTXt", [b"Comment\0\x01\0\0\0", &gigabyte[..]].concat()),
        (b"iCCP", [b"profile\0\0", &gigabyte[..]].concat()),
        (b"eXIf", vec![0xff; 1 << 20]),
    ]
    .map(|(kind, content)| (format!("a laden {}", String::from_utf8_lossy(kind)), png_with(kind, &content)))
    .into()
}

/// A progressive JPEG whose scans are there a hundred times.
pub fn endless_scans(progressive: &[u8]) -> Vec<u8> {
    let end = progressive.len() - 2;
    let scans = progressive.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
    [&progressive[..end], &progressive[scans..end].repeat(100)[..], &[0xff, 0xd9]].concat()
}

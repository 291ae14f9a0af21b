//! An encoded file -> RGB, as PIL's `exif_transpose(image).convert("RGB")` gives it.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::Rgb;
use super::format;
use crate::error::Error;

/// Decodes PNG, JPEG, WebP, GIF (its first frame), BMP or TIFF, told apart by content.
///
/// The EXIF orientation is applied, transparency dropped (not composited), colour profiles ignored: what Transformers
/// does to a picture from a URL. Errors are [`Error::Invalid`]. A hostile file may make a decoder panic: call it where
/// that is caught.
pub fn decode(file: &[u8], max_pixels: u64) -> Result<Rgb, Error> {
    let format = format::recognise(file)?;
    if format == ImageFormat::Jpeg && !jpeg_is_complete(file) {
        return Err(Error::invalid("the picture's JPEG file is cut short: its end marker is missing"));
    }
    let undecodable = |error: ImageError| Error::invalid(format!("the picture could not be decoded: {error}"));

    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    reader.limits(limits(max_pixels));
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    check_size(decoder.dimensions(), max_pixels)?;
    let orientation = decoder.orientation().map_err(undecodable)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    picture.apply_orientation(orientation);
    to_rgb(picture)
}

/// What a decoder may allocate for itself. The picture's own buffer is bounded by [`check_size`], before it exists.
fn limits(max_pixels: u64) -> Limits {
    const BYTES_PER_PIXEL: u64 = 8; // 16-bit RGBA, the widest of the formats
    const TABLES: u64 = 16 << 20;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_pixels * BYTES_PER_PIXEL + TABLES);
    limits
}

fn check_size((width, height): (u32, u32), max_pixels: u64) -> Result<(), Error> {
    if width == 0 || height == 0 {
        return Err(Error::invalid(format!("the picture has {width}x{height} pixels, so there is nothing to see")));
    }
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(Error::invalid(format!(
            "the picture has {width}x{height} pixels, more than the {max_pixels} that this server decodes \
             (--max-image-pixels, SARDINE_MAX_IMAGE_PIXELS); send a smaller one"
        )));
    }
    Ok(())
}

/// Whether an end marker follows the last start of a scan. The decoder itself would fill what is missing with grey.
fn jpeg_is_complete(file: &[u8]) -> bool {
    const START_OF_SCAN: [u8; 2] = [0xff, 0xda];
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    // Neither pair can occur inside a scan's data: there 0xff is always followed by 0 or a restart marker.
    let last = |marker: [u8; 2]| file.windows(2).rposition(|pair| pair == marker);
    match (last(START_OF_SCAN), last(END_OF_IMAGE)) {
        (Some(scan), Some(end)) => scan < end,
        _ => false,
    }
}

fn to_rgb(picture: DynamicImage) -> Result<Rgb, Error> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let pixels = match picture {
        // PIL keeps the high byte of 16 bits, where `into_rgb8` would round. It saturates 16-bit grey to white above
        // 255, which leaves nothing to see; the high byte is what was meant.
        DynamicImage::ImageRgb16(picture) => high_bytes(&picture, 3, [0, 1, 2]),
        DynamicImage::ImageRgba16(picture) => high_bytes(&picture, 4, [0, 1, 2]),
        DynamicImage::ImageLuma16(picture) => high_bytes(&picture, 1, [0, 0, 0]),
        DynamicImage::ImageLumaA16(picture) => high_bytes(&picture, 2, [0, 0, 0]),
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => {
            return Err(Error::invalid("the picture has floating-point pixels; send 8 or 16 bits a channel"));
        }
        eight_bits => eight_bits.into_rgb8().into_raw(),
    };
    Ok(Rgb { height, width, pixels })
}

/// The high bytes of three of a pixel's `num_channels` channels.
fn high_bytes(samples: &[u16], num_channels: usize, rgb: [usize; 3]) -> Vec<u8> {
    let pixels = samples.chunks_exact(num_channels);
    pixels.flat_map(|pixel| rgb.map(|channel| (pixel[channel] >> 8) as u8)).collect()
}

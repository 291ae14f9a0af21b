//! JPEG by libjpeg-turbo's decoder, which PIL uses as well: other decoders round and enlarge colours differently.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use mozjpeg::{ColorSpace, Decompress, Marker};

use super::timed::Timed;
use super::{Decoded, Decoder};

/// Scans of one file. Each goes over the whole picture, however few bytes it has; encoders write about ten.
const MAX_SCANS: usize = 100;

pub(super) struct Jpeg<'a> {
    decoder: Decompress<Timed<'a>>,
    num_channels: u64,
    is_progressive: bool,
}

impl<'a> Jpeg<'a> {
    /// Reads the header of `file`.
    pub(super) fn open(file: &'a [u8], timed: Timed<'a>) -> Result<Jpeg<'a>, String> {
        let scans = scans(file).ok_or("the JPEG file is cut short: its end marker is missing")?;
        let num_scans = scans.windows(2).filter(|pair| *pair == START_OF_SCAN).count();
        if num_scans > MAX_SCANS {
            return Err(format!("the JPEG file has {num_scans} scans, where {MAX_SCANS} are read at most"));
        }
        let decoder = caught(|| {
            Decompress::builder().with_markers(&[Marker::APP(1)]).from_reader(timed).map_err(|error| error.to_string())
        })?;
        let num_channels = decoder.components().len() as u64;
        let is_progressive = num_scans > 1;
        Ok(Jpeg { decoder, num_channels, is_progressive })
    }

    fn orientation(&self) -> Orientation {
        let exif = self.decoder.markers().find_map(|marker| marker.data.strip_prefix(b"Exif\0\0"));
        exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
    }
}

impl Decoder for Jpeg<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.decoder.width() as u32, self.decoder.height() as u32)
    }

    fn bytes_per_pixel(&self) -> u64 {
        // Several scans are put together from coefficients of two bytes, all of which are kept.
        3 + if self.is_progressive { 2 * self.num_channels } else { 0 }
    }

    fn decode(self: Box<Self>) -> Result<Decoded, String> {
        let orientation = self.orientation();
        let (width, height) = self.dimensions();
        let pixels = caught(|| {
            if self.num_channels == 4 { from_cmyk(self.decoder) } else { rows(self.decoder, ColorSpace::JCS_RGB, 3) }
        })?;
        let picture = RgbImage::from_raw(width, height, pixels).ok_or("rows are missing")?;
        Ok((DynamicImage::ImageRgb8(picture), orientation))
    }
}

fn rows(decoder: Decompress<Timed>, colours: ColorSpace, num_channels: usize) -> Result<Vec<u8>, String> {
    let mut started = decoder.to_colorspace(colours).map_err(|error| error.to_string())?;
    let mut samples = vec![0; started.width() * started.height() * num_channels];
    let read = started.read_scanlines_into(&mut samples).map_err(|error| error.to_string())?.len();
    if read < samples.len() {
        return Err("rows are missing".to_owned());
    }
    // Trailing damage is none of the picture's: whatever `finish` says, all rows are there.
    Ok(samples)
}

/// Files with four channels have them inverted, as Adobe writes them; PIL takes that for granted as well.
fn from_cmyk(decoder: Decompress<Timed>) -> Result<Vec<u8>, String> {
    let samples = rows(decoder, ColorSpace::JCS_CMYK, 4)?;
    let pixels = samples.chunks_exact(4);
    Ok(pixels.flat_map(|pixel| [0, 1, 2].map(|channel| tinted(255 - pixel[channel], pixel[3]))).collect())
}

/// What an ink leaves of the light that black leaves, in PIL's integers.
fn tinted(ink: u8, light: u8) -> u8 {
    let product = u32::from(ink) * u32::from(light) + 128;
    light - (((product >> 8) + product) >> 8) as u8
}

/// Runs a piece of libjpeg, whose errors unwind.
fn caught<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| Err(message(payload)))
}

fn message(payload: Box<dyn Any + Send>) -> String {
    payload.downcast::<String>().map_or_else(|_| "libjpeg gave up".to_owned(), |message| *message)
}

const START_OF_SCAN: [u8; 2] = [0xff, 0xda];

/// The file from its first scan to its end marker; `None` where that is missing, which the decoder itself would make up for
/// with grey. What stands before (such as a thumbnail, a JPEG itself) and behind is none of it.
fn scans(file: &[u8]) -> Option<&[u8]> {
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    let mut at = 2;
    loop {
        at += match file.get(at..at + 2)? {
            [0xff, 0xda] => break,
            // Markers without a length.
            [0xff, 0x01 | 0xd0..=0xd8] => 2,
            // Fill bytes, and what is no marker.
            [0xff, 0 | 0xff] => 1,
            [0xff, _] => 2 + usize::from(u16::from_be_bytes([*file.get(at + 2)?, *file.get(at + 3)?])),
            _ => 1,
        };
    }
    // The pair cannot occur inside a scan's data: there 0xff is always followed by 0 or a restart marker.
    let end = file[at..].windows(2).position(|pair| pair == END_OF_IMAGE)?;
    Some(&file[at..at + end])
}

//! TIFF files with a palette or with grey of less than eight bits, which `image` does not open.

use std::borrow::Cow;

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use tiff::decoder::{Decoder as TiffDecoder, DecodingResult, Limits};
use tiff::tags::{PhotometricInterpretation, Tag};

use super::timed::Timed;
use super::{Decoded, Decoder};

/// What decides how a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each sample is the number of a colour, or a grey of few bits: for [`Tiff`].
    Indexed,
    /// Colours were multiplied by their opacity.
    Associated,
    Other,
}

/// The kind of `file`, by the tags of its first picture.
pub(super) fn kind(mut timed: Timed, limits: Limits) -> Result<Kind, String> {
    let mut decoder = TiffDecoder::new(&mut timed).map_err(|error| error.to_string())?.with_limits(limits);
    let photometric: Option<u16> =
        decoder.find_tag_unsigned(Tag::PhotometricInterpretation).map_err(|error| error.to_string())?;
    let depths = number_list(&mut decoder, Tag::BitsPerSample)?;
    let extra = number_list(&mut decoder, Tag::ExtraSamples)?;
    Ok(if photometric == Some(PhotometricInterpretation::RGBPalette.to_u16()) || matches!(depths[..], [2 | 4]) {
        Kind::Indexed
    } else if extra.last() == Some(&1) {
        Kind::Associated
    } else {
        Kind::Other
    })
}

/// An [`Kind::Indexed`] file.
pub(super) struct Tiff<'a> {
    file: Cow<'a, [u8]>,
    deadline: std::time::Instant,
    limits: Limits,
    width: u32,
    height: u32,
}

impl<'a> Tiff<'a> {
    /// Reads the tags of the first picture.
    pub(super) fn open(file: &'a [u8], deadline: std::time::Instant, limits: Limits) -> Result<Tiff<'a>, String> {
        let mut decoder = TiffDecoder::new(Timed::new(file, deadline)).map_err(|error| error.to_string())?;
        let (width, height) = decoder.dimensions().map_err(|error| error.to_string())?;
        Ok(Tiff {
            file: with_indices_as_grey(file).map_or(Cow::Borrowed(file), Cow::Owned),
            deadline,
            limits,
            width,
            height,
        })
    }
}

impl Decoder for Tiff<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn bytes_per_pixel(&self) -> u64 {
        1 + 3
    }

    fn decode(self: Box<Self>) -> Result<Decoded, String> {
        let timed = Timed::new(&self.file, self.deadline);
        let mut decoder = TiffDecoder::new(timed).map_err(|error| error.to_string())?.with_limits(self.limits);
        let depth = match number_list(&mut decoder, Tag::BitsPerSample)?[..] {
            [depth @ (1 | 2 | 4 | 8)] => depth,
            [] => 1,
            ref depths => return Err(format!("a palette over samples of {depths:?} bits is not read")),
        };
        let orientation = decoder.find_tag_unsigned(Tag::Orientation).map_err(|error| error.to_string())?;
        let palette = number_list(&mut decoder, Tag::ColorMap)?;
        let DecodingResult::U8(samples) = decoder.read_image().map_err(|error| error.to_string())? else {
            return Err("the TIFF file's samples are not whole bytes".to_owned());
        };
        let colours = colours(&palette, depth);
        let row_len = (self.width as usize * depth as usize).div_ceil(8);
        let mut picture = RgbImage::new(self.width, self.height);
        for (row, samples) in picture.rows_mut().zip(samples.chunks_exact(row_len.max(1))) {
            for (x, pixel) in row.enumerate() {
                let bit = x * depth as usize;
                let sample = samples[bit / 8] >> (8 - depth as usize - bit % 8) & (0xff >> (8 - depth));
                *pixel = image::Rgb(colours[usize::from(sample)]);
            }
        }
        let orientation = orientation.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms);
        Ok((DynamicImage::ImageRgb8(picture), orientation))
    }
}

/// The colour of each sample. A palette has all reds, then all greens, then all blues, of sixteen bits.
fn colours(palette: &[u32], depth: u32) -> Vec<[u8; 3]> {
    let num_colours = 1usize << depth;
    let plane = palette.len() / 3;
    let of_palette = |index: usize| {
        [0, 1, 2].map(|channel| palette.get(channel * plane + index).map_or(0, |value| (value >> 8) as u8))
    };
    let grey = |index: usize| [(index * 255 / (num_colours - 1)) as u8; 3];
    (0..num_colours).map(|index| if plane > 0 && index < plane { of_palette(index) } else { grey(index) }).collect()
}

fn number_list<R: std::io::Read + std::io::Seek>(decoder: &mut TiffDecoder<R>, tag: Tag) -> Result<Vec<u32>, String> {
    Ok(decoder.find_tag_unsigned_vec(tag).map_err(|error| error.to_string())?.unwrap_or_default())
}

/// The file with its palette's indices declared to be grey, which the decoder hands out as they are; `None` where it has none.
fn with_indices_as_grey(file: &[u8]) -> Option<Vec<u8>> {
    let is_little = file.starts_with(b"II");
    let u16_at = |at: usize| {
        let bytes = [*file.get(at)?, *file.get(at + 1)?];
        Some(if is_little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let (low, high) = if is_little { (u16_at(4)?, u16_at(6)?) } else { (u16_at(6)?, u16_at(4)?) };
    let directory = usize::from(high) << 16 | usize::from(low);
    let mut entries = (0..usize::from(u16_at(directory)?)).map(|index| directory + 2 + index * 12);
    let entry = entries.find(|entry| u16_at(*entry) == Some(Tag::PhotometricInterpretation.to_u16()))?;
    if u16_at(entry + 8)? != PhotometricInterpretation::RGBPalette.to_u16() {
        return None;
    }
    let mut changed = file.to_vec();
    let grey = PhotometricInterpretation::BlackIsZero.to_u16();
    let bytes = if is_little { grey.to_le_bytes() } else { grey.to_be_bytes() };
    changed[entry + 8..entry + 10].copy_from_slice(&bytes);
    Some(changed)
}

//! The first frame of a GIF on its screen, as PIL shows it: transparent pixels keep their colour.

use gif::{ColorOutput, DecodeOptions, MemoryLimit};
use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

use super::timed::Timed;
use super::{Decoded, Decoder};

pub(super) struct Gif<'a> {
    decoder: gif::Decoder<Timed<'a>>,
    width: u32,
    height: u32,
}

impl<'a> Gif<'a> {
    /// Reads up to the first frame.
    pub(super) fn open(timed: Timed<'a>) -> Result<Gif<'a>, String> {
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::Indexed);
        // Nothing is allocated for a frame before its size was compared with the limits.
        options.set_memory_limit(MemoryLimit::Unlimited);
        let mut decoder = options.read_info(timed).map_err(|error| error.to_string())?;
        let (width, height) = (u32::from(decoder.width()), u32::from(decoder.height()));
        let Some(frame) = decoder.next_frame_info().map_err(|error| error.to_string())? else {
            return Err("the GIF file has no frame".to_owned());
        };
        // A frame that sticks out makes its screen larger.
        let width = width.max(u32::from(frame.left) + u32::from(frame.width));
        let height = height.max(u32::from(frame.top) + u32::from(frame.height));
        Ok(Gif { decoder, width, height })
    }
}

impl Decoder for Gif<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn bytes_per_pixel(&self) -> u64 {
        1 + 3
    }

    fn decode(mut self: Box<Self>) -> Result<Decoded, String> {
        let mut indices = vec![0; self.decoder.buffer_size()];
        self.decoder.read_into_buffer(&mut indices).map_err(|error| error.to_string())?;
        let frame = self.decoder.current_frame_info().ok_or("the GIF file has no frame")?;
        let palette = frame.palette.as_deref().or(self.decoder.global_palette()).unwrap_or_default();
        let colour = |index: u8| {
            let at = usize::from(index) * 3;
            palette.get(at..at + 3).map_or([0; 3], |colour| [colour[0], colour[1], colour[2]])
        };
        let around = image::Rgb(colour(frame.transparent.unwrap_or(0)));
        let mut picture = RgbImage::from_pixel(self.width, self.height, around);
        let (left, top) = (u32::from(frame.left), u32::from(frame.top));
        for (y, row) in (top..).zip(indices.chunks_exact(usize::from(frame.width).max(1))) {
            for (x, &index) in (left..).zip(row) {
                picture.put_pixel(x, y, image::Rgb(colour(index)));
            }
        }
        Ok((DynamicImage::ImageRgb8(picture), Orientation::NoTransforms))
    }
}

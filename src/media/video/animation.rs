//! Animated GIF, WebP and PNG, frame by frame, in this process: no ffmpeg before 8 reads animated WebP. Frames are those of ffmpeg
//! and PIL to the bit, but for blended frames of WebP, whose values may lie one below libwebp's.

use std::io::Cursor;
use std::time::{Duration, Instant};

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, Frame, ImageDecoder, ImageError, ImageResult, Limits};

use super::container::Animation;
use super::sampling::Timing;
use crate::error::Error;
use crate::media::{MediaLimits, Rgb};

/// An animation that is to be decoded by a deadline.
pub(super) struct Animated<'a> {
    file: &'a [u8],
    kind: Animation,
    limits: &'a MediaLimits,
    deadline: Instant,
}

impl<'a> Animated<'a> {
    pub(super) fn new(file: &'a [u8], kind: Animation, limits: &'a MediaLimits) -> Animated<'a> {
        Animated { file, kind, limits, deadline: Instant::now() + limits.video_timeout }
    }

    /// How many frames there are, and how long they are shown, which only decoding tells.
    pub(super) fn timing(&self) -> Result<Timing, Error> {
        let (mut num_frames, mut shown) = (0, Duration::ZERO);
        self.each_frame(|frame| {
            num_frames += 1;
            shown += self.delay(&frame);
            Ok(true)
        })?;
        let seconds = shown.as_secs_f64();
        Ok(Timing { num_frames, fps: (seconds > 0.0).then(|| num_frames as f64 / seconds), seconds })
    }

    /// Calls `take` with the frames at `indices`, which ascend, and how often each comes in a row. Transparent places are black, as in ffmpeg.
    pub(super) fn frames(
        &self,
        indices: &[usize],
        mut take: impl FnMut(Rgb, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut wanted, mut index) = (indices.iter().peekable(), 0);
        self.each_frame(|frame| {
            let copies = std::iter::from_fn(|| wanted.next_if_eq(&&index)).count();
            if copies > 0 {
                take(opaque(&frame), copies)?;
            }
            index += 1;
            Ok(wanted.peek().is_some())
        })
    }

    /// Decodes until there are no more frames, or `take` says that it needs none.
    fn each_frame(&self, mut take: impl FnMut(Frame) -> Result<bool, Error>) -> Result<(), Error> {
        let undecodable = |error: ImageError| Error::invalid(format!("the animation could not be decoded: {error}"));
        for frame in self.decoder().map_err(undecodable)? {
            if Instant::now() > self.deadline {
                return Err(self.limits.video_too_slow());
            }
            if !take(frame.map_err(undecodable)?)? {
                break;
            }
        }
        Ok(())
    }

    fn decoder(&self) -> ImageResult<image::Frames<'a>> {
        let input = Cursor::new(self.file);
        Ok(match self.kind {
            Animation::Gif => bounded(GifDecoder::new(input)?, self.limits)?.into_frames(),
            Animation::Webp => bounded(WebPDecoder::new(input)?, self.limits)?.into_frames(),
            Animation::Png => bounded(PngDecoder::new(input)?, self.limits)?.apng()?.into_frames(),
        })
    }

    /// How long a frame is shown. Files say 0, or nearly, and mean "as usual": what that is differs, and is ffmpeg's here.
    fn delay(&self, frame: &Frame) -> Duration {
        let delay = Duration::from(frame.delay());
        match self.kind {
            Animation::Gif if delay < Duration::from_millis(20) => Duration::from_millis(100),
            Animation::Png if delay.is_zero() => Duration::from_secs(1) / 15,
            Animation::Webp if delay.is_zero() => Duration::from_millis(100),
            _ => delay,
        }
    }
}

/// The decoder, which refuses a picture larger than the limits before it makes room for it.
fn bounded<D: ImageDecoder>(mut decoder: D, limits: &MediaLimits) -> ImageResult<D> {
    const BYTES_PER_PIXEL: u64 = 4;
    const CANVASES: u64 = 4; // this frame, the one before, what is kept of it, and the decoder's own
    let (width, height) = decoder.dimensions();
    let mut bounds = Limits::no_limits();
    bounds.max_alloc = Some(limits.max_image_pixels * BYTES_PER_PIXEL * CANVASES);
    decoder.set_limits(bounds)?;
    if u64::from(width) * u64::from(height) > limits.max_image_pixels {
        return Err(ImageError::IoError(std::io::Error::other(format!(
            "it has {width}x{height} pixels, more than the {} that this server decodes \
             (--max-image-pixels, SARDINE_MAX_IMAGE_PIXELS)",
            limits.max_image_pixels
        ))));
    }
    Ok(decoder)
}

fn opaque(frame: &Frame) -> Rgb {
    let picture = frame.buffer();
    let pixels = picture.pixels().flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]]).collect();
    Rgb { height: picture.height() as usize, width: picture.width() as usize, pixels }
}

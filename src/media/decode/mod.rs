//! An encoded file -> RGB, as PIL's `exif_transpose(image).convert("RGB")` gives it.

mod gif;
mod jpeg;
mod tiff;
mod timed;

use std::time::{Duration, Instant};

use ::tiff::decoder::Limits as TiffLimits;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use self::gif::Gif;
use self::jpeg::Jpeg;
use self::tiff::{Kind, Tiff};
use self::timed::Timed;
use super::{Rgb, format, kind};
use crate::error::Error;

/// What a picture may cost before it is resized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    pub max_pixels: u64,
    /// The longer side, as a multiple of the shorter one.
    pub max_ratio: f64,
    /// How long decoding may take, from the first look at the file.
    pub timeout: Duration,
}

/// A file whose header was read and found within its bounds.
pub struct Opened<'a> {
    decoder: Box<dyn Decoder + 'a>,
    bounds: Bounds,
    deadline: Instant,
    /// The file has 16 bits a pixel, which PIL widens otherwise.
    widens_as_pil: Option<Widening>,
    is_associated: bool,
}

/// A picture as its file stores it, and how to turn it.
type Decoded = (DynamicImage, Orientation);

/// What a format's decoder is asked. It has read the header already.
trait Decoder {
    /// Width and height.
    fn dimensions(&self) -> (u32, u32);

    /// Bytes that decoding holds for each pixel at once.
    fn bytes_per_pixel(&self) -> u64;

    fn decode(self: Box<Self>) -> Result<Decoded, String>;
}

/// Reads the header of PNG, JPEG, WebP, GIF (its first frame), BMP or TIFF (its first page), told apart by content.
///
/// Errors are [`Error::Invalid`]. A hostile file may make a decoder panic: call it, and [`Opened::decode`], where that is caught.
pub fn open(file: &[u8], bounds: Bounds) -> Result<Opened<'_>, Error> {
    let format = format::recognise(file)?;
    let deadline = Instant::now() + bounds.timeout;
    let opened = decoder(file, format, bounds, deadline);
    let (decoder, is_associated) = opened.map_err(|problem| undecodable(&problem, bounds, deadline))?;
    check_size(decoder.dimensions(), bounds)?;
    let widens_as_pil = (format == ImageFormat::Bmp).then(|| Widening::of_bmp(file)).flatten();
    Ok(Opened { decoder, bounds, deadline, widens_as_pil, is_associated })
}

impl Opened<'_> {
    /// Bytes that decoding holds at once.
    pub fn num_bytes(&self) -> u64 {
        let (width, height) = self.decoder.dimensions();
        u64::from(width) * u64::from(height) * self.decoder.bytes_per_pixel()
    }

    /// Decodes it all. The EXIF orientation is applied, transparency dropped (not composited), colour profiles ignored: what
    /// Transformers does to a picture from a URL. Errors are [`Error::Invalid`].
    pub fn decode(self) -> Result<Rgb, Error> {
        let Opened { decoder, bounds, deadline, widens_as_pil, is_associated } = self;
        let decoded = decoder.decode().and_then(|(mut picture, orientation)| {
            picture.apply_orientation(orientation);
            if is_associated {
                divide_by_opacity(&mut picture);
            }
            to_rgb(picture)
        });
        let mut picture = decoded.map_err(|problem| undecodable(&problem, bounds, deadline))?;
        if let Some(widening) = widens_as_pil {
            widening.apply(&mut picture.pixels);
        }
        Ok(picture)
    }
}

/// [`open`] and [`Opened::decode`] in one.
pub fn decode(file: &[u8], bounds: Bounds) -> Result<Rgb, Error> {
    open(file, bounds)?.decode()
}

/// The decoder of a file, and whether its colours were multiplied by their opacity.
fn decoder<'a>(
    file: &'a [u8],
    format: ImageFormat,
    bounds: Bounds,
    deadline: Instant,
) -> Result<(Box<dyn Decoder + 'a>, bool), String> {
    let timed = || Timed::new(file, deadline);
    let mut is_associated = false;
    match format {
        ImageFormat::Jpeg => return Ok((Box::new(Jpeg::open(file, timed())?), false)),
        ImageFormat::Gif => return Ok((Box::new(Gif::open(timed())?), false)),
        ImageFormat::Tiff => match tiff::kind(timed(), tiff_limits(bounds))? {
            Kind::Indexed => return Ok((Box::new(Tiff::open(file, deadline, tiff_limits(bounds))?), false)),
            kind => is_associated = kind == Kind::Associated,
        },
        _ => {}
    }
    let mut reader = ImageReader::with_format(timed(), format);
    reader.limits(limits(bounds));
    let decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    Ok((Box::new(Other(decoder)), is_associated))
}

/// A format that `image` decodes.
struct Other<D>(D);

impl<D: ImageDecoder> Decoder for Other<D> {
    fn dimensions(&self) -> (u32, u32) {
        self.0.dimensions()
    }

    fn bytes_per_pixel(&self) -> u64 {
        u64::from(self.0.color_type().bytes_per_pixel()) + 3
    }

    fn decode(mut self: Box<Self>) -> Result<Decoded, String> {
        let orientation = self.0.orientation().map_err(|error| error.to_string())?;
        let picture = DynamicImage::from_decoder(self.0).map_err(|error| error.to_string())?;
        Ok((picture, orientation))
    }
}

/// What a decoder may allocate for itself. The picture's own buffer is bounded by [`check_size`], before it exists.
fn max_alloc(bounds: Bounds) -> u64 {
    const BYTES_PER_PIXEL: u64 = 8; // 16-bit RGBA, the widest of the formats
    const TABLES: u64 = 16 << 20;
    bounds.max_pixels.saturating_mul(BYTES_PER_PIXEL).saturating_add(TABLES)
}

fn limits(bounds: Bounds) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_alloc(bounds));
    limits
}

fn tiff_limits(bounds: Bounds) -> TiffLimits {
    let mut limits = TiffLimits::default();
    limits.decoding_buffer_size = usize::try_from(max_alloc(bounds)).unwrap_or(usize::MAX);
    limits
}

fn undecodable(problem: &str, bounds: Bounds, deadline: Instant) -> Error {
    if Instant::now() > deadline {
        return too_slow(bounds.timeout);
    }
    Error::invalid(format!("the picture could not be decoded: {problem}"))
}

/// The error of a picture that takes too long.
pub(super) fn too_slow(timeout: Duration) -> Error {
    Error::invalid(format!(
        "the picture takes longer to decode than the {} ms that this server gives it \
         (--decode-timeout-ms, SARDINE_DECODE_TIMEOUT_MS); send a smaller one",
        timeout.as_millis()
    ))
}

fn check_size((width, height): (u32, u32), bounds: Bounds) -> Result<(), Error> {
    let Bounds { max_pixels, max_ratio, .. } = bounds;
    if width == 0 || height == 0 {
        return Err(Error::invalid(format!("the picture has {width}x{height} pixels, so there is nothing to see")));
    }
    let (columns, rows) = (u64::from(width), u64::from(height));
    if columns * rows > max_pixels {
        return Err(kind::Kind::Picture.too_many_pixels((columns, rows), max_pixels));
    }
    if f64::from(width.max(height)) / f64::from(width.min(height)) > max_ratio {
        return Err(Error::invalid(format!(
            "the picture has {width}x{height} pixels: one side is more than {max_ratio} times the other \
             (--max-aspect-ratio, SARDINE_MAX_ASPECT_RATIO)"
        )));
    }
    Ok(())
}

fn to_rgb(picture: DynamicImage) -> Result<Rgb, String> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let pixels = match picture {
        // PIL keeps the high byte of 16 bits, where `into_rgb8` would round. It saturates 16-bit grey to white above
        // 255, which leaves nothing to see; the high byte is what was meant.
        DynamicImage::ImageRgb16(picture) => high_bytes(&picture, 3, [0, 1, 2]),
        DynamicImage::ImageRgba16(picture) => high_bytes(&picture, 4, [0, 1, 2]),
        DynamicImage::ImageLuma16(picture) => high_bytes(&picture, 1, [0, 0, 0]),
        DynamicImage::ImageLumaA16(picture) => high_bytes(&picture, 2, [0, 0, 0]),
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => {
            return Err("it has floating-point pixels; send 8 or 16 bits a channel".to_owned());
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

/// Undoes the multiplication of colours by their opacity, as PIL does: without rounding, and black where nothing is seen.
fn divide_by_opacity(picture: &mut DynamicImage) {
    let Some(picture) = picture.as_mut_rgba8() else { return };
    for pixel in picture.pixels_mut() {
        let [red, green, blue, opacity] = pixel.0;
        let divided = |colour: u8| match opacity {
            0 => 0,
            opacity => (u32::from(colour) * 255 / u32::from(opacity)).min(255) as u8,
        };
        pixel.0 = [divided(red), divided(green), divided(blue), opacity];
    }
}

/// How many bits each channel of a 16-bit BMP has. `image` rounds to eight bits; PIL cuts.
struct Widening([u32; 3]);

impl Widening {
    /// That of a BMP with 16 bits a pixel, in the two layouts that PIL reads.
    fn of_bmp(file: &[u8]) -> Option<Widening> {
        const BIT_FIELDS: u32 = 3;
        let number = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
        let bits_per_pixel = number(28)? & 0xffff;
        let has_six_green = number(30)? == BIT_FIELDS && number(58)? == 0x7e0;
        (bits_per_pixel == 16).then_some(Widening([5, if has_six_green { 6 } else { 5 }, 5]))
    }

    fn apply(&self, pixels: &mut [u8]) {
        for pixel in pixels.chunks_exact_mut(3) {
            for (value, bits) in pixel.iter_mut().zip(self.0) {
                *value = ((u32::from(*value) >> (8 - bits)) * 255 / ((1 << bits) - 1)) as u8;
            }
        }
    }
}

//! The size that a picture is resized to before it is cut into patches.

use crate::error::Error;

/// The longer side of what the model reads, as a multiple of the shorter one: Transformers' bound for pictures and videos.
pub const MAX_RATIO: f64 = 200.0;

/// Height and width, both multiples of `factor`, closest to the picture's own and with an area from `min_pixels` to
/// `max_pixels`.
///
/// Transformers' `smart_resize` (models/qwen2_vl/image_processing_qwen2_vl.py): f64 throughout, and Python's `round`,
/// which takes halves to the even side. Errors where one side is more than [`MAX_RATIO`] times the other.
pub fn smart_resize(
    height: usize,
    width: usize,
    factor: usize,
    min_pixels: usize,
    max_pixels: usize,
) -> Result<(usize, usize), Error> {
    let (h, w, f) = (height as f64, width as f64, factor as f64);
    if h.max(w) / h.min(w) > MAX_RATIO {
        return Err(Error::invalid(format!(
            "the picture has {width}x{height} pixels: one side is more than {MAX_RATIO} times the other, \
             which the model cannot read"
        )));
    }
    let rounded = |side: f64| (side / f).round_ties_even() as usize * factor;
    let (nearest_height, nearest_width) = (rounded(h), rounded(w));
    let area = nearest_height * nearest_width;
    if area > max_pixels {
        let shrink = (h * w / max_pixels as f64).sqrt();
        let shrunk = |side: f64| factor.max((side / shrink / f).floor() as usize * factor);
        Ok((shrunk(h), shrunk(w)))
    } else if area < min_pixels {
        let grow = (min_pixels as f64 / (h * w)).sqrt();
        let grown = |side: f64| (side * grow / f).ceil() as usize * factor;
        Ok((grown(h), grown(w)))
    } else {
        Ok((nearest_height, nearest_width))
    }
}

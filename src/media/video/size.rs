//! The size that a video's frames are resized to.

use crate::error::Error;
use crate::media::size::MAX_RATIO;

/// Bounds on the area of a whole clip, in pixels: those of a frame times the number of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipArea {
    pub min: usize,
    pub max: usize,
}

/// Height and width, both multiples of `factor`, for each of `num_frames` frames, so that the clip has an area within `area`.
///
/// Transformers' `smart_resize` (models/qwen3_vl/video_processing_qwen3_vl.py): f64 throughout, and Python's `round`, which
/// takes halves to the even side. Errors where one side is more than [`MAX_RATIO`] times the other, and where there are fewer frames
/// than `temporal_factor`.
pub fn smart_resize(
    num_frames: usize,
    (height, width): (usize, usize),
    temporal_factor: usize,
    factor: usize,
    area: ClipArea,
) -> Result<(usize, usize), Error> {
    if num_frames < temporal_factor {
        return Err(Error::invalid(format!(
            "the video has {num_frames} frame, and the model reads videos of at least {temporal_factor}; \
             send a single frame as a picture: {{\"type\": \"image\", ...}}"
        )));
    }
    let (h, w) = enlarged(height, width, factor);
    let (t, f) = (num_frames as f64, factor as f64);
    if h.max(w) / h.min(w) > MAX_RATIO {
        return Err(Error::invalid(format!(
            "the video has {width}x{height} pixels: one side is more than {MAX_RATIO} times the other, which the model cannot read"
        )));
    }
    let rounded = |side: f64| (side / f).round_ties_even() as usize * factor;
    let rounded_frames = (t / temporal_factor as f64).round_ties_even() as usize * temporal_factor;
    let (nearest_height, nearest_width) = (rounded(h), rounded(w));
    let nearest_area = rounded_frames * nearest_height * nearest_width;
    if nearest_area > area.max {
        let shrink = (t * h * w / area.max as f64).sqrt();
        let shrunk = |side: f64| factor.max((side / shrink / f).floor() as usize * factor);
        Ok((shrunk(h), shrunk(w)))
    } else if nearest_area < area.min {
        let grow = (area.min as f64 / (t * h * w)).sqrt();
        let grown = |side: f64| (side * grow / f).ceil() as usize * factor;
        Ok((grown(h), grown(w)))
    } else {
        Ok((nearest_height, nearest_width))
    }
}

/// A frame with a side shorter than `factor` counts as one enlarged until it is not, in whole pixels.
fn enlarged(height: usize, width: usize, factor: usize) -> (f64, f64) {
    let (h, w, f) = (height as f64, width as f64, factor as f64);
    if height >= factor && width >= factor {
        return (h, w);
    }
    let scale = (f / h).max(f / w);
    ((h * scale).trunc(), (w * scale).trunc())
}

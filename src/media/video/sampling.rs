//! Which frames of a video the model sees, and when each pair of them is shown.

use super::processor::VideoProcessor;
use crate::error::Error;

/// What a decoder knows of a video before it decodes a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    pub num_frames: usize,
    /// Frames per second, on average; `None` where the file does not say when its frames are shown.
    pub fps: Option<f64>,
    pub seconds: f64,
}

/// A part of a video, in seconds from its beginning: qwen-vl-utils' `video_start` and `video_end`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Part {
    /// `None`: the video's beginning.
    pub start: Option<f64>,
    /// `None`: the video's end.
    pub end: Option<f64>,
}

impl Part {
    /// The first frame of the part of a video with `timing`, and the timing of the part.
    ///
    /// The frames are those that qwen-vl-utils' `calculate_video_frame_range` names: from the first at or after `start` to the
    /// last at or before `end`, on average. Errors where there are fewer than two.
    pub fn of(&self, timing: &Timing) -> Result<(usize, Timing), Error> {
        if *self == Part::default() {
            return Ok((0, *timing));
        }
        let fps = timing.fps.unwrap_or(UNKNOWN_FPS);
        let seconds = timing.num_frames as f64 / fps;
        // A cast brings what is below 0 to 0.
        let first = self.start.map_or(0, |start| (start.min(seconds) * fps).ceil() as usize);
        let last = timing.num_frames.saturating_sub(1);
        let last = self.end.map_or(last, |end| last.min((end.min(seconds) * fps).floor() as usize));
        if first >= last {
            let (start, end) = (self.start.unwrap_or(0.0), self.end.unwrap_or(seconds));
            return Err(Error::invalid(format!(
                "the part of the video from {start} s (`video_start`) to {end} s (`video_end`) has fewer than two frames: \
                 the video lasts {seconds:.2} s and has {} frames",
                timing.num_frames
            )));
        }
        let num_frames = last - first + 1;
        Ok((first, Timing { num_frames, fps: timing.fps, seconds: num_frames as f64 / fps }))
    }
}

/// How many frames a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Rate {
    /// As many per second as the checkpoint wants.
    #[default]
    Usual,
    /// So many per second.
    Fps(f64),
    /// So many of the whole video.
    NumFrames(usize),
}

/// Frames per second of a video that does not say: Transformers'.
pub const UNKNOWN_FPS: f64 = 24.0;

/// The indices of the frames that the model sees, in order: Transformers' `Qwen3VLVideoProcessor.sample_frames`, and at most
/// `max_frames` of them. An index may come twice where more frames are asked for than there are.
pub fn indices(timing: &Timing, rate: Rate, processor: &VideoProcessor, max_frames: usize) -> Vec<usize> {
    let total = timing.num_frames;
    let per_second = |fps: f64| {
        let wanted = (total as f64 / timing.fps.unwrap_or(UNKNOWN_FPS) * fps) as usize;
        wanted.max(processor.min_frames).min(processor.max_frames).min(total)
    };
    let num_frames = match rate {
        Rate::Usual => per_second(processor.fps),
        Rate::Fps(fps) => per_second(fps),
        Rate::NumFrames(num_frames) => num_frames,
    };
    spread(total, num_frames.min(max_frames))
}

/// `numpy.linspace(0, total - 1, num)`, rounded: halves to the even side.
pub fn spread(total: usize, num: usize) -> Vec<usize> {
    let last = total.saturating_sub(1);
    let step = last as f64 / (num.max(2) - 1) as f64;
    let mut places: Vec<usize> = (0..num).map(|place| (place as f64 * step).round_ties_even() as usize).collect();
    if let [_, .., end] = &mut places[..] {
        *end = last;
    }
    places
}

/// When each group of `group` frames is shown, in seconds: the mean of its first and its last. The last frame is repeated
/// where a group is not full.
pub fn timestamps(indices: &[usize], fps: f64, group: usize) -> Vec<f64> {
    let seconds = |index: usize| index as f64 / fps;
    let groups = indices.chunks(group);
    groups.map(|group| (seconds(group[0]) + seconds(group[group.len() - 1])) / 2.0).collect()
}

/// Refuses what cannot be sampled by.
pub(super) fn check(rate: Rate, max_frames: usize) -> Result<(), Error> {
    match rate {
        Rate::Fps(fps) if !(fps.is_finite() && fps > 0.0) => {
            Err(Error::invalid(format!("a video's `fps` is {fps}; it must be a number above 0")))
        }
        Rate::NumFrames(num_frames) if num_frames > max_frames => Err(Error::invalid(format!(
            "`num_frames` asks for {num_frames} frames, more than the {max_frames} that this server shows the model \
             (--max-video-frames, SARDINE_MAX_VIDEO_FRAMES)"
        ))),
        Rate::NumFrames(num_frames) if num_frames < 2 => Err(Error::invalid(
            "`num_frames` must be at least 2; a single frame is a picture: send it as an image part",
        )),
        _ => Ok(()),
    }
}

//! How the checkpoint wants its videos prepared: video_preprocessor_config.json.

use serde::Deserialize;
use serde_json::{Value, json};

use super::VideoOptions;
use super::size::{ClipArea, smart_resize};
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::media::preprocess::Preprocess;

const FILE: &str = "video_preprocessor_config.json";
/// Where Transformers 5 saves the same object, under `video_processor`.
const PROCESSOR_FILE: &str = "processor_config.json";
/// What Transformers reads where there is neither.
const PICTURE_FILE: &str = "preprocessor_config.json";

/// The preparation of a video, checked against what is implemented.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoProcessor {
    /// How a frame is cut into patches. Its areas are those of a whole clip.
    pub frames: Preprocess,
    /// Frames per second that are sampled.
    pub fps: f64,
    /// The fewest frames that are sampled by `fps`, where there are as many.
    pub min_frames: usize,
    pub max_frames: usize,
    /// Whether a frame is bounded by itself too, so that a short clip costs no more tokens a second than a long one.
    pub cap_pixels_per_frame: bool,
    /// Tokens that bound is, with `cap_pixels_per_frame`.
    pub max_frame_tokens: usize,
}

impl VideoProcessor {
    /// The preparation that `checkpoint` asks for. One without any of the files gets Qwen3.5's published values, with a
    /// warning. Errors, in one line, where it wants what is not implemented.
    pub fn load(checkpoint: &Checkpoint) -> Result<VideoProcessor, String> {
        let (file, value) = match read_config(checkpoint)? {
            Some(found) => found,
            None => {
                tracing::warn!("{}: there is no {FILE}; videos are prepared as Qwen3.5 publishes", checkpoint.name());
                (FILE, json!({"size": {"shortest_edge": 4096, "longest_edge": 25_165_824}}))
            }
        };
        VideoProcessor::from_json(value).map_err(|error| format!("{}: {file}: {error}", checkpoint.name()))
    }

    /// Reads a video_preprocessor_config.json; absent keys have the values of Transformers' class, but for mean and deviation,
    /// which every checkpoint of the family sets to one half.
    pub fn from_json(mut value: Value) -> Result<VideoProcessor, String> {
        let config = Config::deserialize(&value).map_err(|error| error.to_string())?;
        config.check()?;
        if let Value::Object(value) = &mut value {
            // The picture processor's file names the picture processor's class.
            value.remove("image_processor_type");
            value.entry("size").or_insert_with(|| json!({"shortest_edge": 131_072, "longest_edge": 786_432}));
        }
        Ok(VideoProcessor {
            frames: Preprocess::from_json(value)?,
            fps: config.fps,
            min_frames: config.min_frames,
            max_frames: config.max_frames,
            cap_pixels_per_frame: config.cap_pixels_per_frame.unwrap_or(false),
            max_frame_tokens: config.max_video_tokens,
        })
    }

    /// The size, (height, width), that each of `num_frames` frames is resized to.
    pub fn target_size(
        &self,
        num_frames: usize,
        frame: (usize, usize),
        options: &VideoOptions,
    ) -> Result<(usize, usize), Error> {
        let area = self.area(num_frames, options)?;
        smart_resize(num_frames, frame, self.frames.temporal_patch_size, self.frames.factor(), area)
    }

    /// Tokens of the largest group of frames, which the vision tower reads at once.
    pub fn largest_group(&self) -> usize {
        self.frames.max_pixels / self.frames.temporal_patch_size / self.frames.factor().pow(2)
    }

    /// The bounds on the area of a clip. A client's are those of a frame, or of the whole clip, and never wider than the
    /// checkpoint's, which the memory was planned for.
    fn area(&self, num_frames: usize, options: &VideoOptions) -> Result<ClipArea, Error> {
        let of_clip = |pixels: usize| pixels.saturating_mul(num_frames);
        let longest = self.frames.max_pixels.min(options.total_pixels.unwrap_or(usize::MAX));
        let longest = longest.min(options.max_pixels.map_or(usize::MAX, of_clip));
        let shortest = options.min_pixels.map_or(self.frames.min_pixels, of_clip);
        if let Some(min) = options.min_pixels.filter(|_| shortest > longest) {
            return Err(Error::invalid(format!(
                "a video's `min_pixels` of {min} is {shortest} for its {num_frames} frames, above their bound of {longest} \
                 (`max_pixels`, `total_pixels` and the checkpoint's longest_edge)"
            )));
        }
        if !self.cap_pixels_per_frame || num_frames == 0 {
            return Ok(ClipArea { min: shortest.min(longest), max: longest });
        }
        let frame_cap = self.max_frame_tokens * self.frames.factor().pow(2);
        let per_frame = frame_cap.min(longest / num_frames).max((shortest as f64 * 1.05) as usize);
        Ok(ClipArea { min: shortest.min(longest), max: of_clip(per_frame) })
    }
}

/// The video processor's object and the file it is in, in the order in which Transformers looks.
fn read_config(checkpoint: &Checkpoint) -> Result<Option<(&'static str, Value)>, String> {
    if let Some(mut processor) = checkpoint.json(PROCESSOR_FILE)?
        && let Some(nested) = processor.get_mut("video_processor").filter(|nested| nested.is_object())
    {
        return Ok(Some((PROCESSOR_FILE, nested.take())));
    }
    for file in [FILE, PICTURE_FILE] {
        if let Some(config) = checkpoint.json(file)? {
            return Ok(Some((file, config)));
        }
    }
    Ok(None)
}

/// The keys that only videos have.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    video_processor_type: String,
    fps: f64,
    min_frames: usize,
    max_frames: usize,
    do_sample_frames: bool,
    cap_pixels_per_frame: Option<bool>,
    max_video_tokens: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            video_processor_type: "Qwen3VLVideoProcessor".to_owned(),
            fps: 2.0,
            min_frames: 4,
            max_frames: 768,
            do_sample_frames: true,
            cap_pixels_per_frame: None,
            max_video_tokens: 768,
        }
    }
}

impl Config {
    /// Refuses what is not implemented here.
    fn check(&self) -> Result<(), String> {
        let kind = &self.video_processor_type;
        if kind != "Qwen3VLVideoProcessor" {
            return Err(format!("video_processor_type is {kind}; only Qwen3VLVideoProcessor is implemented"));
        }
        if !self.do_sample_frames {
            return Err("do_sample_frames is false; only true is implemented".to_owned());
        }
        if !(self.fps.is_finite() && self.fps > 0.0) || self.max_frames < 2 {
            return Err("fps must be above 0 and max_frames at least 2".to_owned());
        }
        Ok(())
    }
}

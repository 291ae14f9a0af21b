//! How the checkpoint wants its pictures prepared: preprocessor_config.json.

use serde::Deserialize;
use serde_json::Value;

use super::Area;
use super::size::smart_resize;
use crate::checkpoint::Checkpoint;
use crate::engine::Grid;
use crate::error::Error;

const FILE: &str = "preprocessor_config.json";
/// Where Transformers 5 saves the same object, under `image_processor`.
const PROCESSOR_FILE: &str = "processor_config.json";

/// The preparation of a picture, checked against what is implemented.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocess {
    /// Areas in pixels that a resized picture stays between.
    pub min_pixels: usize,
    pub max_pixels: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Frames in a patch; a still picture is repeated.
    pub temporal_patch_size: usize,
    /// Side of the block of patches that becomes one token.
    pub merge_size: usize,
    /// `[3][256]`: the value of each byte in each channel.
    pub normalised: Box<[[f32; 256]; 3]>,
}

impl Preprocess {
    /// The preparation that `checkpoint` asks for, or `None` where its config.json has no vision tower.
    ///
    /// A checkpoint with a vision tower but neither file gets Qwen3.5's published values, with a warning: fine-tunes
    /// are often saved without their processor, and the values are the same for every size of Qwen3.5.
    pub fn load(checkpoint: &Checkpoint) -> Result<Option<Preprocess>, String> {
        let config = checkpoint.json("config.json")?.unwrap_or(Value::Null);
        let Some(vision) = config.get("vision_config").filter(|vision| vision.is_object()) else { return Ok(None) };
        let (file, value) = match read_config(checkpoint)? {
            Some(found) => found,
            None => {
                tracing::warn!("{}: there is no {FILE}; pictures are prepared as Qwen3.5 publishes", checkpoint.name());
                (FILE, serde_json::json!({}))
            }
        };
        let name = |error: String| format!("{}: {file}: {error}", checkpoint.name());
        let preprocess = Preprocess::from_json(value).map_err(name)?;
        preprocess.check_tower(vision).map_err(name)?;
        Ok(Some(preprocess))
    }

    /// Reads a preprocessor_config.json; absent keys have Qwen3.5's values. Errors name the key, its value and what was
    /// expected.
    pub fn from_json(value: Value) -> Result<Preprocess, String> {
        let config: Config = serde_json::from_value(value).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(Preprocess {
            min_pixels: config.min_pixels.unwrap_or(config.size.shortest_edge),
            max_pixels: config.max_pixels.unwrap_or(config.size.longest_edge),
            patch_size: config.patch_size,
            temporal_patch_size: config.temporal_patch_size,
            merge_size: config.merge_size,
            normalised: normalised(&config),
        })
    }

    /// The sides of a resized picture are multiples of this: those of a block of patches.
    pub fn factor(&self) -> usize {
        self.patch_size * self.merge_size
    }

    /// The same, on a server that resizes no picture to more than `max_pixels`.
    pub(super) fn within(mut self, max_pixels: Option<usize>) -> Preprocess {
        self.max_pixels = self.max_pixels.min(max_pixels.unwrap_or(usize::MAX));
        self.min_pixels = self.min_pixels.min(self.max_pixels);
        self
    }

    /// Refuses an area that no picture of this server may have. An upper bound above the server's own is none of that: whatever
    /// the picture becomes is below it.
    pub(super) fn check_area(&self, area: Area) -> Result<(), Error> {
        let smallest = self.factor().pow(2);
        match (area.min_pixels, area.max_pixels) {
            (Some(min), _) if min > self.max_pixels => Err(Error::invalid(format!(
                "min_pixels is {min}, and this server resizes pictures to at most {} pixels \
                 (--max-resized-pixels, SARDINE_MAX_RESIZED_PIXELS)",
                self.max_pixels
            ))),
            (Some(min), Some(max)) if min > max => {
                Err(Error::invalid(format!("min_pixels is {min}, more than max_pixels, which is {max}")))
            }
            (_, Some(max)) if max < smallest => {
                Err(Error::invalid(format!("max_pixels is {max}, and one token has {smallest} pixels")))
            }
            _ => Ok(()),
        }
    }

    /// The size, (height, width), that a picture is resized to within `area`. Where a client gives one bound beyond the
    /// checkpoint's other one, that one gives way.
    pub fn target_size(&self, height: usize, width: usize, area: Area) -> Result<(usize, usize), Error> {
        let max = area.max_pixels.unwrap_or(self.max_pixels).min(self.max_pixels);
        let own_min = if self.min_pixels > max { self.factor().pow(2) } else { self.min_pixels };
        let min = area.min_pixels.unwrap_or(own_min).min(max);
        smart_resize(height, width, self.factor(), min, max)
    }

    /// The grid of a picture that has its target size.
    pub fn grid(&self, height: usize, width: usize) -> Grid {
        Grid { height: height / self.patch_size, width: width / self.patch_size }
    }

    /// The patches cut here must be the ones that the tower's weights were made for.
    pub(super) fn check_tower(&self, vision: &Value) -> Result<(), String> {
        let sizes = [
            ("patch_size", "patch_size", self.patch_size),
            ("temporal_patch_size", "temporal_patch_size", self.temporal_patch_size),
            ("merge_size", "spatial_merge_size", self.merge_size),
        ];
        for (key, tower_key, size) in sizes {
            match vision.get(tower_key).and_then(Value::as_u64) {
                Some(tower) if tower != size as u64 => {
                    return Err(format!("{key} is {size}, but config.json has vision_config.{tower_key} {tower}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The image processor's object and the file it is in. The nested one comes first, as in Transformers.
fn read_config(checkpoint: &Checkpoint) -> Result<Option<(&'static str, Value)>, String> {
    if let Some(mut processor) = checkpoint.json(PROCESSOR_FILE)?
        && let Some(nested) = processor.get_mut("image_processor").filter(|nested| nested.is_object())
    {
        return Ok(Some((PROCESSOR_FILE, nested.take())));
    }
    Ok(checkpoint.json(FILE)?.map(|config| (FILE, config)))
}

/// The keys of preprocessor_config.json that matter, with Qwen3.5's values for those that are absent.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    image_processor_type: String,
    size: Size,
    /// Older checkpoints have these two; they override `size`.
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
    patch_size: usize,
    temporal_patch_size: usize,
    merge_size: usize,
    image_mean: [f32; 3],
    image_std: [f32; 3],
    rescale_factor: f64,
    resample: u64,
    do_resize: bool,
    do_rescale: bool,
    do_normalize: bool,
    do_convert_rgb: bool,
}

/// Areas in pixels, in spite of their names.
#[derive(Deserialize)]
#[serde(default)]
struct Size {
    shortest_edge: usize,
    longest_edge: usize,
}

impl Default for Size {
    fn default() -> Size {
        Size { shortest_edge: 65_536, longest_edge: 16_777_216 }
    }
}

/// PIL's number for bicubic.
const BICUBIC: u64 = 3;

impl Default for Config {
    fn default() -> Config {
        Config {
            image_processor_type: "Qwen2VLImageProcessor".to_owned(),
            size: Size::default(),
            min_pixels: None,
            max_pixels: None,
            patch_size: 16,
            temporal_patch_size: 2,
            merge_size: 2,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
            rescale_factor: 1.0 / 255.0,
            resample: BICUBIC,
            do_resize: true,
            do_rescale: true,
            do_normalize: true,
            do_convert_rgb: true,
        }
    }
}

impl Config {
    /// Refuses what is not implemented here.
    fn check(&self) -> Result<(), String> {
        let kind = self.image_processor_type.trim_end_matches("Fast");
        if kind != "Qwen2VLImageProcessor" {
            return Err(format!("image_processor_type is {kind}; only Qwen2VLImageProcessor is implemented"));
        }
        let steps = [
            ("do_resize", self.do_resize),
            ("do_rescale", self.do_rescale),
            ("do_normalize", self.do_normalize),
            ("do_convert_rgb", self.do_convert_rgb),
        ];
        if let Some((step, _)) = steps.into_iter().find(|(_, done)| !done) {
            return Err(format!("{step} is false; only true is implemented"));
        }
        if self.resample != BICUBIC {
            return Err(format!("resample is {}; only {BICUBIC} (bicubic) is implemented", self.resample));
        }
        if self.merge_size != 2 {
            return Err(format!("merge_size is {}; only 2 is implemented", self.merge_size));
        }
        if self.patch_size == 0 || self.temporal_patch_size == 0 {
            return Err("patch_size and temporal_patch_size must be at least 1".to_owned());
        }
        if self.rescale_factor <= 0.0 || self.image_std.iter().any(|std| *std <= 0.0) {
            return Err("rescale_factor and image_std must be positive".to_owned());
        }
        let (min, max) =
            (self.min_pixels.unwrap_or(self.size.shortest_edge), self.max_pixels.unwrap_or(self.size.longest_edge));
        if min == 0 || min > max {
            return Err(format!(
                "the areas {min} (shortest_edge) and {max} (longest_edge) must be positive and in order"
            ));
        }
        Ok(())
    }
}

/// Each byte's value. Transformers folds the rescaling into mean and deviation, in f32, and so does this: the order of
/// the roundings decides the last bit.
fn normalised(config: &Config) -> Box<[[f32; 256]; 3]> {
    let unscale = (1.0 / config.rescale_factor) as f32;
    let mut values = Box::new([[0.0; 256]; 3]);
    for (channel, values) in values.iter_mut().enumerate() {
        let (mean, std) = (config.image_mean[channel] * unscale, config.image_std[channel] * unscale);
        for (byte, value) in values.iter_mut().enumerate() {
            *value = (byte as f32 - mean) / std;
        }
    }
    values
}

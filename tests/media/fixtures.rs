//! The pictures and expectations that make_fixtures.py wrote, and a `Media` to try them on.

use std::path::PathBuf;
use std::time::Duration;

use sardine::checkpoint::Checkpoint;
use sardine::media::decode::Bounds;
use sardine::media::{Media, MediaLimits, Rgb};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

/// The names of all pictures that decode, and of none that do not.
pub fn pictures() -> Vec<String> {
    rows("decoded").iter().map(|row| row["file"].as_str().unwrap().to_owned()).collect()
}

/// One of the tables of expected.json.
pub fn rows(table: &str) -> Vec<Value> {
    let expected: Value = serde_json::from_slice(&file("expected.json")).unwrap();
    expected[table].as_array().unwrap().clone()
}

/// The two numbers at `key`, (height, width).
pub fn pair(row: &Value, key: &str) -> (usize, usize) {
    let number = |index: usize| row[key][index].as_u64().unwrap() as usize;
    (number(0), number(1))
}

/// Bounds of a picture that no sound file here exceeds.
pub fn bounds() -> Bounds {
    Bounds { max_pixels: 1_000_000, max_ratio: 200.0, timeout: Duration::from_secs(10) }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same busy picture as `pattern` in make_fixtures.py.
pub fn pattern(height: usize, width: usize) -> Rgb {
    let sample = |y: usize, x: usize, c: usize| (x * 7 + y * 13 + c * 29 + ((x * y) >> 3) * 5 + (x ^ y) * 31) as u8;
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
    let pixels = places.flat_map(|(y, x)| [0, 1, 2].map(|c| sample(y, x, c))).collect();
    Rgb { height, width, pixels }
}

/// Qwen3.5's preprocessor_config.json.
pub fn preprocessor_config() -> Value {
    json!({
        "size": {"longest_edge": 16777216, "shortest_edge": 65536},
        "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor", "image_processor_type": "Qwen2VLImageProcessorFast",
    })
}

/// A config.json as far as pictures are concerned.
pub fn vision_config() -> Value {
    json!({"vision_config": {"patch_size": 16, "temporal_patch_size": 2, "spatial_merge_size": 2}})
}

/// A `Media` for a checkpoint that has just these files.
pub fn media_of(files: &[(&str, Value)], limits: MediaLimits) -> Result<Media, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content.to_string()).unwrap();
    }
    Media::start(&Checkpoint::in_folder(folder.path())?, limits)
}

/// A `Media` for Qwen3.5.
pub fn media(limits: MediaLimits) -> Media {
    let files = [("config.json", vision_config()), ("preprocessor_config.json", preprocessor_config())];
    media_of(&files, limits).unwrap()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/media/fixtures")
}

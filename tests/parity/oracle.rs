//! Any checkpoint against a folder of goldens that Transformers made for it.
//!
//! `SARDINE_ORACLE_CHECKPOINT=DIR SARDINE_ORACLE_GOLDEN=DIR cargo test --release --test parity oracle -- --ignored --nocapture`
//!
//! For each case the folder holds `<case>.inputs.safetensors` (a processor's output), `<case>.fp32.safetensors`
//! (`layer.{i}.out`, `logits`, `position_ids`, `rope_deltas`, `vision.{images,videos}.embeds`), `<case>.bf16.safetensors` and
//! `<case>.json` (`fp32.greedy`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sardine::checkpoint::Checkpoint;
use sardine::engine::{Grid, Picture, PlacedPicture, Prompt};
use sardine::model::{Dtype, QwenRunner, VisionConfig};
use serde_json::Value;
use tch::{Kind, Tensor};

use crate::bfloat16::{cosine, shared_in_top_five};
use crate::driving::{generate, watch};
use crate::fixtures::{difference, integers, options, read_tensors};

const TOLERANCE: f64 = 1e-3;

#[test]
#[ignore = "needs SARDINE_ORACLE_CHECKPOINT and SARDINE_ORACLE_GOLDEN"]
fn oracle_goldens_agree() {
    let golden = folder("SARDINE_ORACLE_GOLDEN");
    let mut runner = load(Dtype::Float32);
    let mut cases = cases_in(&golden);
    cases.sort();
    assert!(!cases.is_empty(), "no case in {}", golden.display());
    for name in cases {
        let answers = read_tensors(&golden.join(format!("{name}.fp32.safetensors")));
        let prompt = prompt(&read_tensors(&golden.join(format!("{name}.inputs.safetensors"))), &answers, &runner);
        let seen = watch(&mut runner);
        generate(&mut runner, &prompt, 0, usize::MAX, 1);
        let seen = seen.lock().unwrap();
        let layers = (0..runner.config().text.layer_types.len()).map(|layer| {
            difference(&seen[&format!("layer.{layer}")], &answers[&format!("layer.{layer}.out")].squeeze_dim(0))
        });
        let worst = layers.fold(0.0, f64::max);
        let logits = difference(&seen["logits"].squeeze_dim(0), &last_row(&answers["logits"]));
        drop(seen);
        let json: Value =
            serde_json::from_str(&std::fs::read_to_string(golden.join(format!("{name}.json"))).unwrap()).unwrap();
        let greedy: Vec<u32> = serde_json::from_value(json["fp32"]["greedy"].clone()).unwrap();
        println!("{name:12} {:4} tokens: hidden states differ by {worst:.1e}, logits by {logits:.1e}", prompt.len());
        assert!(worst < TOLERANCE && logits < TOLERANCE, "{name}");
        for chunk in [usize::MAX, 37, 1] {
            assert_eq!(generate(&mut runner, &prompt, 1, chunk, greedy.len()), greedy, "{name} in pieces of {chunk}");
        }
    }
}

#[test]
#[ignore = "needs SARDINE_ORACLE_CHECKPOINT and SARDINE_ORACLE_GOLDEN"]
fn oracle_goldens_are_like_in_bf16() {
    let golden = folder("SARDINE_ORACLE_GOLDEN");
    let mut runner = load(Dtype::Bfloat16);
    for name in cases_in(&golden) {
        let answers = read_tensors(&golden.join(format!("{name}.fp32.safetensors")));
        let prompt = prompt(&read_tensors(&golden.join(format!("{name}.inputs.safetensors"))), &answers, &runner);
        let seen = watch(&mut runner);
        generate(&mut runner, &prompt, 0, usize::MAX, 1);
        let seen = seen.lock().unwrap();
        let theirs = read_tensors(&golden.join(format!("{name}.bf16.safetensors")));
        let layers = (0..runner.config().text.layer_types.len())
            .map(|layer| cosine(&seen[&format!("layer.{layer}")], &theirs[&format!("layer.{layer}.out")]))
            .collect::<Vec<_>>();
        let (ours, logits) = (seen["logits"].squeeze_dim(0), last_row(&theirs["logits"]));
        let (likeness, shared) = (cosine(&ours, &logits), shared_in_top_five(&ours, &logits));
        println!("{name:12} cosine {likeness:.5}, {shared} of the best five; layers {layers:.5?}");
        assert!(likeness > 0.9 && shared >= 2, "{name}: cosine {likeness}, {shared} of the best five");
    }
}

fn folder(variable: &str) -> PathBuf {
    PathBuf::from(std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set")))
}

pub fn load(dtype: Dtype) -> QwenRunner {
    let checkpoint = Checkpoint::in_folder(&folder("SARDINE_ORACLE_CHECKPOINT")).unwrap();
    sardine::model::load(&checkpoint, &options(dtype), &|_, _| {}).unwrap()
}

fn cases_in(golden: &Path) -> Vec<String> {
    let files = std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files.filter_map(|file| file.strip_suffix(".inputs.safetensors").map(str::to_owned)).collect()
}

fn last_row(logits: &Tensor) -> Tensor {
    logits.get(0).get(-1)
}

/// A processor's output as the engine's prompt. Each of a video's temporal patches is a picture of its own.
fn prompt(inputs: &HashMap<String, Tensor>, answers: &HashMap<String, Tensor>, runner: &QwenRunner) -> Prompt {
    let vision = runner.config().vision.as_ref().expect("the oracle has a vision tower");
    let ids: Vec<u32> = integers(&inputs["input_ids"]).iter().map(|id| *id as u32).collect();
    let images = pictures(inputs, "pixel_values", "image_grid_thw");
    let videos = pictures(inputs, "pixel_values_videos", "video_grid_thw");
    Prompt {
        positions: integers(&answers["position_ids"].squeeze_dim(1).tr()).as_chunks().0.to_vec(),
        rope_delta: integers(&answers["rope_deltas"])[0],
        pictures: place(&ids, images, videos, vision),
        ids,
    }
}

fn pictures(inputs: &HashMap<String, Tensor>, values: &str, grids: &str) -> Vec<Picture> {
    let Some(values) = inputs.get(values) else { return Vec::new() };
    let (mut pictures, mut first) = (Vec::new(), 0);
    for [frames, height, width] in integers(&inputs[grids]).as_chunks().0 {
        for _ in 0..*frames {
            let patches = values.narrow(0, first, height * width).to_kind(Kind::Float).flatten(0, -1);
            let grid = Grid { height: *height as usize, width: *width as usize };
            pictures.push(Picture::new(Vec::try_from(patches).unwrap(), grid));
            first += height * width;
        }
    }
    pictures
}

/// Gives the pictures, in order, the placeholders of their kind.
fn place(ids: &[u32], images: Vec<Picture>, videos: Vec<Picture>, vision: &VisionConfig) -> Vec<PlacedPicture> {
    let (mut images, mut videos) = (images.into_iter(), videos.into_iter());
    let (mut placed, mut index) = (Vec::new(), 0);
    while index < ids.len() {
        let picture = match ids[index] {
            id if id == vision.image_token_id => images.next(),
            id if id == vision.video_token_id => videos.next(),
            _ => {
                index += 1;
                continue;
            }
        };
        let picture = Arc::new(picture.expect("a picture for every run of placeholders"));
        let end = index + picture.grid.num_tokens();
        placed.push(PlacedPicture { picture, placeholders: index..end });
        index = end;
    }
    placed
}

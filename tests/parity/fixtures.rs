//! The committed checkpoint, and the cases that Transformers has answered.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sardine::checkpoint::Checkpoint;
use sardine::engine::{Grid, Picture, PlacedPicture, Prompt};
use sardine::model::{DeviceChoice, Dtype, DtypeChoice, LoadOptions, QwenRunner};
use tch::{Kind, Tensor};

/// Every prompt with goldens.
pub const CASES: [&str; 8] =
    ["text", "one_token", "tokens_63", "tokens_64", "tokens_65", "long", "one_image", "two_images"];
/// The cases whose hidden states are kept too.
pub const CASES_WITH_LAYERS: [&str; 2] = ["text", "one_image"];

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity")
}

pub fn checkpoint() -> Checkpoint {
    Checkpoint::in_folder(&folder().join("checkpoint")).unwrap()
}

pub fn options(dtype: Dtype) -> LoadOptions {
    LoadOptions {
        threads: Some(1),
        batch_invariant: false,
        picture_cache_bytes: 0,
        device: DeviceChoice::Cpu,
        dtype: DtypeChoice::Exactly(dtype),
        quantize: None,
        max_batch_size: 4,
        cuda_library: "none".to_owned(),
    }
}

pub fn load(dtype: Dtype) -> QwenRunner {
    sardine::model::load(&checkpoint(), &options(dtype), &|_, _| {}).unwrap()
}

/// One prompt, and the tensors that Transformers computed for it.
pub struct Case {
    pub prompt: Prompt,
    tensors: HashMap<String, Tensor>,
}

impl Case {
    pub fn read(name: &str) -> Case {
        let tensors = read_tensors(&folder().join(format!("fixtures/{name}.safetensors")));
        let positions = integers(&tensors["positions"].tr());
        let prompt = Prompt {
            ids: integers(&tensors["ids"]).iter().map(|id| *id as u32).collect(),
            positions: positions.as_chunks().0.to_vec(),
            rope_delta: integers(&tensors["rope_delta"])[0],
            pictures: (0..).map_while(|index| placed_picture(&tensors, index)).collect(),
        };
        Case { prompt, tensors }
    }

    pub fn golden(&self, name: &str) -> &Tensor {
        &self.tensors[name]
    }

    /// The continuation that Transformers chose, greedily, in fp32.
    pub fn greedy(&self) -> Vec<u32> {
        integers(self.golden("fp32.greedy")).iter().map(|id| *id as u32).collect()
    }
}

fn placed_picture(tensors: &HashMap<String, Tensor>, index: usize) -> Option<PlacedPicture> {
    // A still picture is stored once, as levels; the tower reads it as two equal frames of -1..1.
    let levels = tensors.get(&format!("patches.{index}"))?.to_kind(Kind::Float).view((-1, 3, 1, 256));
    let patches = ((levels - 127.5) / 127.5).expand([-1, 3, 2, 256], false).flatten(0, -1);
    let grid = integers(&tensors[&format!("grid.{index}")]);
    let grid = Grid { height: grid[0] as usize, width: grid[1] as usize };
    let placeholders = integers(&tensors[&format!("placeholders.{index}")]);
    Some(PlacedPicture {
        picture: Arc::new(Picture::new(Vec::try_from(patches).unwrap(), grid)),
        placeholders: placeholders[0] as usize..placeholders[1] as usize,
    })
}

pub fn read_tensors(path: &Path) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into_iter().collect()
}

pub fn integers(tensor: &Tensor) -> Vec<i64> {
    Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Int64)).unwrap()
}

/// The largest difference between two tensors of one shape.
pub fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a.to_kind(Kind::Float) - b.to_kind(Kind::Float)).abs().max().double_value(&[])
}

//! Checkpoints of other forms load and agree; broken ones are refused in one line that says what is wrong.

use std::collections::BTreeMap;
use std::sync::Mutex;

use safetensors::tensor::{Dtype as Stored, SafeTensors, TensorView};
use sardine::checkpoint::Checkpoint;
use sardine::model::{Dtype, QwenRunner};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tempfile::TempDir;

use crate::driving::{generate, watch};
use crate::fixtures::{Case, checkpoint, difference, folder, load, options};

/// A copy of the committed checkpoint, to be changed before it is written, as one file without an index.
struct Copy {
    config: Value,
    tensors: BTreeMap<String, (Stored, Vec<usize>, Vec<u8>)>,
}

impl Copy {
    fn new() -> Copy {
        let mut tensors = BTreeMap::new();
        for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
            let bytes = checkpoint().map(shard).unwrap();
            for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                tensors.insert(name, (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()));
            }
        }
        Copy { config: checkpoint().json("config.json").unwrap().unwrap(), tensors }
    }

    /// Stores the tensors that `choose` as `kind`.
    fn convert(&mut self, choose: impl Fn(&str) -> bool, kind: Kind, stored: Stored) {
        for (name, tensor) in &mut self.tensors {
            if choose(name) {
                let bf16 = Tensor::from_data_size(&tensor.2, &[tensor.2.len() as i64 / 2], Kind::BFloat16);
                let converted = bf16.to_kind(kind);
                let mut bytes = vec![0; converted.numel() * kind.elt_size_in_bytes()];
                converted.copy_data_u8(&mut bytes, converted.numel());
                (tensor.0, tensor.2) = (stored, bytes);
            }
        }
    }

    fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), self.config.to_string()).unwrap();
        let view = |(dtype, shape, bytes): &'_ (Stored, Vec<usize>, Vec<u8>)| (*dtype, shape.clone(), bytes.clone());
        let owned: Vec<_> = self.tensors.iter().map(|(name, tensor)| (name, view(tensor))).collect();
        let views = owned
            .iter()
            .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
        folder
    }

    fn load(&self, dtype: Dtype) -> Result<QwenRunner, String> {
        // The files may go: the maps keep what they hold.
        load_from(&self.write(), dtype)
    }

    /// The one line that refuses this copy.
    fn refusal(&self) -> String {
        let error = self.load(Dtype::Bfloat16).err().expect("it loads");
        assert!(!error.contains('\n'), "{error}");
        error
    }
}

fn load_from(folder: &TempDir, dtype: Dtype) -> Result<QwenRunner, String> {
    sardine::model::load(&Checkpoint::in_folder(folder.path())?, &options(dtype), &|_, _| {})
}

/// The two shards and the index as they are, in a folder of their own.
fn copied_shards() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in [
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ] {
        std::fs::copy(folder().join("checkpoint").join(file), copy.path().join(file)).unwrap();
    }
    copy
}

fn logits(runner: &mut QwenRunner, case: &Case) -> Tensor {
    let seen = watch(runner);
    generate(runner, &case.prompt, 0, usize::MAX, 1);
    seen.lock().unwrap()["logits"].shallow_clone()
}

#[test]
fn a_missing_tensor_is_named() {
    let mut copy = Copy::new();
    copy.tensors.remove("model.language_model.layers.2.mlp.up_proj.weight");
    let error = copy.refusal();
    assert!(error.contains("1 tensor missing: model.language_model.layers.2.mlp.up_proj.weight"), "{error}");
}

#[test]
fn of_many_missing_tensors_a_few_are_named() {
    let mut copy = Copy::new();
    copy.tensors.retain(|name, _| !name.starts_with("model.visual.blocks.1."));
    let error = copy.refusal();
    assert!(error.contains("12 tensors missing: model.visual.blocks.1.norm1.weight,"), "{error}");
    assert!(error.contains("and 9 more"), "{error}");
}

#[test]
fn an_unexpected_tensor_is_named() {
    let mut copy = Copy::new();
    let norm = copy.tensors["model.language_model.norm.weight"].clone();
    copy.tensors.insert("model.language_model.layers.8.input_layernorm.weight".to_owned(), norm);
    let error = copy.refusal();
    assert!(error.contains("1 tensor unexpected: model.language_model.layers.8.input_layernorm.weight"), "{error}");
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let mut copy = Copy::new();
    copy.tensors.get_mut("model.language_model.layers.3.self_attn.k_proj.weight").unwrap().1 = vec![32, 128];
    let error = copy.refusal();
    assert!(error.contains("layers.3.self_attn.k_proj.weight is [32, 128], expected [64, 64]"), "{error}");
}

#[test]
fn a_tensor_of_integers_is_refused() {
    let mut copy = Copy::new();
    copy.tensors.get_mut("model.language_model.norm.weight").unwrap().0 = Stored::I16;
    let error = copy.refusal();
    assert!(error.contains("model.language_model.norm.weight is I16, expected BF16, F16 or F32"), "{error}");
}

#[test]
fn an_unknown_model_type_is_refused() {
    let mut copy = Copy::new();
    copy.config["model_type"] = json!("llama");
    let error = copy.refusal();
    assert!(error.contains("config.json: unknown `model_type` \"llama\": sardine serves qwen3_5"), "{error}");
}

#[test]
fn a_shard_that_is_cut_short_is_named() {
    for left in [500_000, 100, 3] {
        let copy = copied_shards();
        let shard = std::fs::OpenOptions::new().write(true).open(copy.path().join("model-00002-of-00002.safetensors"));
        shard.unwrap().set_len(left).unwrap();
        let error = load_from(&copy, Dtype::Bfloat16).err().expect("it loads");
        assert!(
            error.contains(&format!("model-00002-of-00002.safetensors: it is cut short: its {left} bytes")),
            "{error}"
        );
    }
}

#[test]
fn a_shard_that_is_not_there_is_named() {
    let copy = copied_shards();
    std::fs::remove_file(copy.path().join("model-00001-of-00002.safetensors")).unwrap();
    let error = load_from(&copy, Dtype::Bfloat16).err().expect("it loads");
    assert!(error.contains("model-00001-of-00002.safetensors: No such file"), "{error}");
}

#[test]
fn an_index_cannot_point_outside_the_checkpoint() {
    let copy = copied_shards();
    let index = json!({"weight_map": {"model.language_model.norm.weight": "../elsewhere.safetensors"}});
    std::fs::write(copy.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let error = load_from(&copy, Dtype::Bfloat16).err().expect("it loads");
    assert!(error.contains("\"../elsewhere.safetensors\" is no file name"), "{error}");
}

#[test]
fn islands_stored_in_f32_give_the_same_numbers() {
    let case = Case::read("text");
    let mut copy = Copy::new();
    copy.convert(|name| name.ends_with("A_log") || name.ends_with("linear_attn.norm.weight"), Kind::Float, Stored::F32);
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        let mut islands = copy.load(dtype).unwrap();
        assert_eq!(logits(&mut islands, &case), logits(&mut load(dtype), &case));
    }
}

#[test]
fn a_checkpoint_in_f32_computes_alike() {
    let case = Case::read("one_image");
    let mut copy = Copy::new();
    copy.convert(|_| true, Kind::Float, Stored::F32);
    // Not to the last bit: the same weights at another alignment are summed in another order.
    for (dtype, tolerance) in [(Dtype::Float32, 1e-4), (Dtype::Bfloat16, 0.1)] {
        let worst = difference(&logits(&mut copy.load(dtype).unwrap(), &case), &logits(&mut load(dtype), &case));
        assert!(worst < tolerance, "{dtype:?}: logits differ by {worst}");
    }
}

#[test]
fn a_text_only_export_answers_alike() {
    let mut copy = Copy::new();
    let text = copy.config["text_config"].clone();
    copy.config = text;
    copy.config["tie_word_embeddings"] = json!(true);
    copy.tensors.retain(|name, _| !name.starts_with("model.visual.") && !name.starts_with("mtp."));
    copy.tensors = std::mem::take(&mut copy.tensors)
        .into_iter()
        .map(|(name, tensor)| (name.replace("model.language_model.", "model."), tensor))
        .collect();
    let mut runner = copy.load(Dtype::Float32).unwrap();
    let case = Case::read("text");
    assert_eq!(generate(&mut runner, &case.prompt, 0, usize::MAX, 24), case.greedy());
}

#[test]
fn an_untied_head_is_used() {
    let mut copy = Copy::new();
    copy.config["tie_word_embeddings"] = json!(false);
    let (dtype, shape, bytes) = copy.tensors["model.language_model.embed_tokens.weight"].clone();
    // The embeddings upside down: the token that was chosen is now counted from the end.
    let row = bytes.len() / shape[0];
    let upside_down: Vec<u8> = bytes.chunks(row).rev().flatten().copied().collect();
    copy.tensors.insert("lm_head.weight".to_owned(), (dtype, shape.clone(), upside_down));
    let mut runner = copy.load(Dtype::Float32).unwrap();
    let case = Case::read("text");
    let expected = shape[0] as u32 - 1 - case.greedy()[0];
    assert_eq!(generate(&mut runner, &case.prompt, 0, usize::MAX, 1), [expected]);

    copy.tensors.remove("lm_head.weight");
    assert!(copy.refusal().contains("1 tensor missing: lm_head.weight"));
}

#[test]
fn progress_ends_at_the_total() {
    let reports = Mutex::new(Vec::new());
    let report = |loaded, total| reports.lock().unwrap().push((loaded, total));
    sardine::model::load(&checkpoint(), &options(Dtype::Bfloat16), &report).unwrap();
    let reports = reports.into_inner().unwrap();
    assert!(reports.is_sorted() && reports.len() > 100);
    let (loaded, total) = *reports.last().unwrap();
    assert_eq!(loaded, total);
}

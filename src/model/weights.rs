//! The checkpoint's weights as tensors: checked against the inventory, converted and moved one by one.

use std::cell::Cell;
use std::collections::HashMap;

use safetensors::Dtype;
use tch::{Device, Kind, Tensor};

use super::config::Config;
use super::inventory::{Listed, Part, inventory};
use super::kernels;
use super::options::Quantization;
use super::shards::{Shards, Stored};
use super::weight::{Quantized, Weight};
use crate::checkpoint::{Bytes, Checkpoint};

/// Told how many bytes of the weights are loaded, and of how many.
pub type Progress<'a> = &'a dyn Fn(u64, u64);

/// A checkpoint's weights, checked, on their way to `device` as `kind`.
pub(super) struct Weights<'a> {
    shards: Shards,
    text_prefix: &'static str,
    /// Those that are to be quantised.
    quantized: HashMap<String, Quantization>,
    kind: Kind,
    device: Device,
    progress: Progress<'a>,
    loaded_bytes: Cell<u64>,
    total_bytes: u64,
}

impl<'a> Weights<'a> {
    /// Maps the files and compares what they hold with what `config` asks for. The error is one line that lists missing,
    /// unexpected and misshapen tensors.
    pub fn open(
        checkpoint: &Checkpoint,
        config: &Config,
        (kind, device): (Kind, Device),
        quantize: Option<Quantization>,
        progress: Progress<'a>,
    ) -> Result<Weights<'a>, String> {
        let shards = Shards::open(checkpoint)?;
        let is_whole_model = shards.tensors.keys().any(|name| name.starts_with("model.language_model."));
        let text_prefix = if is_whole_model { "model.language_model." } else { "model." };
        let listed = inventory(config, text_prefix);
        compare(&listed, &shards, config).map_err(|error| format!("{}: {error}", checkpoint.name()))?;
        let loaded = listed.iter().filter(|tensor| tensor.part != Part::Draft);
        let total_bytes = loaded.map(|tensor| shards.bytes(&shards.tensors[&tensor.name]).len() as u64).sum();
        let quantized =
            listed.iter().filter_map(|tensor| Some((tensor.name.clone(), tensor.quantized(quantize)?))).collect();
        Ok(Weights { shards, text_prefix, quantized, kind, device, progress, loaded_bytes: Cell::new(0), total_bytes })
    }

    /// The decoder's weights, wherever this export keeps them.
    pub fn text(&self) -> At<'_, 'a> {
        At { weights: self, prefix: self.text_prefix.to_owned() }
    }

    /// Weights by their full names.
    pub fn root(&self) -> At<'_, 'a> {
        At { weights: self, prefix: String::new() }
    }

    /// The mapped files. Invariant: on the CPU tensors lie in them, so they must outlive every tensor.
    pub fn into_files(self) -> Vec<Bytes> {
        self.shards.files
    }

    fn tensor(&self, name: &str) -> Tensor {
        let stored = self.stored(name);
        let tensor = self.as_stored(stored).to_device_(self.device, self.kind, false, false);
        self.count(stored);
        tensor
    }

    fn weight(&self, name: &str) -> Weight {
        let Some(quantization) = self.quantized.get(name) else { return Weight::Plain(self.tensor(name)) };
        let stored = self.stored(name);
        let weight = self.as_stored(stored).to_kind(self.kind);
        let quantized = kernels::quantize(&weight, *quantization);
        drop(weight);
        self.shards.forget(stored);
        self.count(stored);
        Weight::Quantized(Quantized { panels: quantized.panels.to_device(self.device), ..quantized })
    }

    fn stored(&self, name: &str) -> &Stored {
        self.shards.tensors.get(name).expect("Invariant: the inventory lists what the layers ask for")
    }

    /// Tells that a tensor is loaded.
    fn count(&self, stored: &Stored) {
        self.loaded_bytes.set(self.loaded_bytes.get() + self.shards.bytes(stored).len() as u64);
        (self.progress)(self.loaded_bytes.get(), self.total_bytes);
    }

    /// The tensor in the mapped file itself, where its address allows; a copy where not (files compiled into the binary lie
    /// at odd addresses).
    fn as_stored(&self, stored: &Stored) -> Tensor {
        let bytes = self.shards.bytes(stored);
        let kind = kind_of(stored.dtype).expect("Invariant: compare() has refused other types");
        let shape: Vec<i64> = stored.shape.iter().map(|size| *size as i64).collect();
        if bytes.as_ptr().addr().is_multiple_of(kind.elt_size_in_bytes()) {
            // Safety: the bytes are as long as the shape asks (safetensors checks it), aligned, and outlive the tensor by
            // the invariant of `into_files`. Nothing writes to a weight: the map is read-only.
            unsafe { Tensor::from_blob(bytes.as_ptr(), &shape, &[], kind, Device::Cpu) }
        } else {
            Tensor::from_data_size(bytes, &shape, kind)
        }
    }
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::BF16 => Some(Kind::BFloat16),
        Dtype::F32 => Some(Kind::Float),
        Dtype::F16 => Some(Kind::Half),
        _ => None,
    }
}

/// A place in the tree of weights: a layer asks for its tensors by the names that the checkpoint gives them.
#[derive(Clone)]
pub(super) struct At<'w, 'a> {
    weights: &'w Weights<'a>,
    prefix: String,
}

impl<'w, 'a> At<'w, 'a> {
    pub fn at(&self, name: impl std::fmt::Display) -> At<'w, 'a> {
        At { weights: self.weights, prefix: format!("{}{name}.", self.prefix) }
    }

    /// The precision that the model computes in.
    pub fn kind(&self) -> Kind {
        self.weights.kind
    }

    /// The tensor `name`, of the wanted precision, on the wanted device.
    ///
    /// A tensor that is stored in F32 (Qwen's own files keep `A_log` and `linear_attn.norm.weight` so) is rounded to the
    /// wanted precision like any other, because Transformers does: parity wins over the bits.
    pub fn tensor(&self, name: &str) -> Tensor {
        self.weights.tensor(&format!("{}{name}", self.prefix))
    }

    /// The weight of a linear layer: quantised, where that was asked for and the inventory says so.
    pub fn weight(&self, name: &str) -> Weight {
        self.weights.weight(&format!("{}{name}", self.prefix))
    }
}

/// One line about everything in which the files differ from the list.
fn compare(listed: &[Listed], shards: &Shards, config: &Config) -> Result<(), String> {
    let mut missing = Vec::new();
    let mut misshapen = Vec::new();
    let has_draft = shards.tensors.keys().any(|name| name.starts_with("mtp."));
    let names: std::collections::HashSet<&str> = listed.iter().map(|tensor| tensor.name.as_str()).collect();
    for tensor in listed {
        match shards.tensors.get(&tensor.name) {
            None if tensor.part == Part::Draft && !has_draft => {}
            None => missing.push(tensor.name.clone()),
            Some(found) => misshapen.extend(fault(tensor, found)),
        }
    }
    // A tied head that is stored all the same is the embedding once more; Transformers ignores MTP tensors whatever they are.
    let is_known = |name: &str| {
        names.contains(name) || name.starts_with("mtp.") || (config.tie_word_embeddings && name == "lm_head.weight")
    };
    let unexpected: Vec<String> = shards.tensors.keys().filter(|name| !is_known(name)).cloned().collect();
    let complaints: Vec<String> = [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{} {what}: {}", count(names), first_few(names)))
        .collect();
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(format!("the weights do not fit config.json: {}", complaints.join("; ")))
    }
}

fn fault(tensor: &Listed, found: &Stored) -> Option<String> {
    if found.shape != tensor.shape {
        return Some(format!("{} is {:?}, expected {:?}", tensor.name, found.shape, tensor.shape));
    }
    kind_of(found.dtype).is_none().then(|| format!("{} is {:?}, expected BF16, F16 or F32", tensor.name, found.dtype))
}

fn count(names: &[String]) -> String {
    format!("{} tensor{}", names.len(), if names.len() == 1 { "" } else { "s" })
}

fn first_few(names: &[String]) -> String {
    const FEW: usize = 3;
    let more = if names.len() > FEW { format!(" and {} more", names.len() - FEW) } else { String::new() };
    names[..names.len().min(FEW)].join(", ") + &more
}

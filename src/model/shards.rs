//! The checkpoint's safetensors files: mapped, their headers read, their tensors found by name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde_json::Value;

use crate::checkpoint::{Bytes, Checkpoint};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// All safetensors files of a checkpoint.
pub(super) struct Shards {
    pub files: Vec<Bytes>,
    pub tensors: BTreeMap<String, Stored>,
}

/// Where a tensor lies, and as what.
pub(super) struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    file: usize,
    bytes: Range<usize>,
}

impl Shards {
    /// Maps the files that the index names, or the single file where there is no index. Errors name the file.
    pub fn open(checkpoint: &Checkpoint) -> Result<Shards, String> {
        let mut shards = Shards { files: Vec::new(), tensors: BTreeMap::new() };
        for file in file_names(checkpoint)? {
            let bytes = checkpoint.map(&file)?;
            shards.read_header(&bytes).map_err(|error| format!("{}: {file}: {error}", checkpoint.name()))?;
            shards.files.push(bytes);
        }
        Ok(shards)
    }

    /// Adds the tensors of the next file.
    fn read_header(&mut self, bytes: &Bytes) -> Result<(), String> {
        let (header_len, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| match error {
            SafeTensorError::HeaderTooSmall
            | SafeTensorError::InvalidHeaderLength
            | SafeTensorError::MetadataIncompleteBuffer => {
                format!("it is cut short: its {} bytes are not what its header promises", bytes.len())
            }
            error => format!("it is no safetensors file: {error}"),
        })?;
        let data = size_of::<u64>() + header_len; // the header's length comes first
        for (name, info) in metadata.tensors() {
            let bytes = data + info.data_offsets.0..data + info.data_offsets.1;
            let stored = Stored { dtype: info.dtype, shape: info.shape.clone(), file: self.files.len(), bytes };
            self.tensors.insert(name, stored);
        }
        Ok(())
    }

    /// A tensor's bytes, little-endian and row-major.
    pub fn bytes(&self, tensor: &Stored) -> &[u8] {
        &self.files[tensor.file][tensor.bytes.clone()]
    }

    /// Gives the memory that a tensor's file took in this process back: nothing reads it any more.
    pub fn forget(&self, tensor: &Stored) {
        self.files[tensor.file].forget(tensor.bytes.clone());
    }
}

/// The files that hold the weights. Invariant: tensors' names come from the files themselves, so any shard naming works.
fn file_names(checkpoint: &Checkpoint) -> Result<BTreeSet<String>, String> {
    let Some(index) = checkpoint.json(INDEX)? else { return Ok(BTreeSet::from([SINGLE.to_owned()])) };
    let wrong = |what: &str| format!("{}: {INDEX}: {what}", checkpoint.name());
    let map = index.get("weight_map").and_then(Value::as_object).ok_or_else(|| wrong("`weight_map` is missing"))?;
    let file_name = |file: &Value| match file.as_str() {
        // A name with a folder in it could point outside the checkpoint.
        Some(name) if !name.contains(['/', '\\']) => Ok(name.to_owned()),
        _ => Err(wrong(&format!("{file} is no file name"))),
    };
    map.values().map(file_name).collect()
}

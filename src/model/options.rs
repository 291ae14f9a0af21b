//! How to load the model, as plain data for the command line.

use std::fmt;
use std::str::FromStr;

use super::config::Dtype;

/// How to load the model.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadOptions {
    pub device: DeviceChoice,
    pub dtype: DtypeChoice,
    /// What the decoder's large weights are quantised to while they are loaded. `None`: they stay as they are stored.
    pub quantize: Option<Quantization>,
    /// Sequences that run at once: slots.
    pub max_batch_size: usize,
    /// CPU threads that compute. `None`: one for a small model, whose layers are not worth sharing, else one a core.
    pub threads: Option<usize>,
    /// On a GPU every sequence is computed by itself, so that company cannot change its last bits. On a CPU it never does.
    pub batch_invariant: bool,
    /// Memory for what the vision tower made of pictures, for those that come again. 0 keeps nothing.
    pub picture_cache_bytes: u64,
    /// Shared library that brings libtorch's CUDA side ("libtorch_cuda.so"); "none" loads nothing.
    pub cuda_library: String,
}

/// In how many bits a weight is held: codes, and a bf16 scale for every 32 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    Int8,
    Int4,
}

/// Where to compute: `auto` (the first CUDA device that answers, else the CPU), `cpu`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    Auto,
    Cpu,
    Cuda(usize),
}

/// In which precision: `auto` (the checkpoint's), `bfloat16` or `float32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DtypeChoice {
    Auto,
    Exactly(Dtype),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(DeviceChoice::Cuda)
                .ok_or_else(|| format!("unknown device \"{text}\": expected auto, cpu, cuda or cuda:N")),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => write!(f, "auto"),
            DeviceChoice::Cpu => write!(f, "cpu"),
            DeviceChoice::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl DtypeChoice {
    /// The precision to compute in, of a checkpoint made for `stored`.
    pub fn given(self, stored: Dtype) -> Dtype {
        match self {
            DtypeChoice::Auto => stored,
            DtypeChoice::Exactly(dtype) => dtype,
        }
    }
}

impl FromStr for Quantization {
    type Err = String;

    fn from_str(text: &str) -> Result<Quantization, String> {
        match text {
            "int8" => Ok(Quantization::Int8),
            "int4" => Ok(Quantization::Int4),
            _ => Err(format!("unknown quantization \"{text}\": expected int8 or int4")),
        }
    }
}

impl FromStr for DtypeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DtypeChoice, String> {
        match text {
            "auto" => Ok(DtypeChoice::Auto),
            "bfloat16" | "bf16" => Ok(DtypeChoice::Exactly(Dtype::Bfloat16)),
            "float32" | "fp32" => Ok(DtypeChoice::Exactly(Dtype::Float32)),
            _ => Err(format!("unknown dtype \"{text}\": expected auto, bfloat16 or float32")),
        }
    }
}

impl fmt::Display for DtypeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DtypeChoice::Auto => write!(f, "auto"),
            DtypeChoice::Exactly(Dtype::Bfloat16) => write!(f, "bfloat16"),
            DtypeChoice::Exactly(Dtype::Float32) => write!(f, "float32"),
        }
    }
}

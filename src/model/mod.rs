//! Qwen3.5 in tensors; the only home of `tch`.

pub mod sampler;

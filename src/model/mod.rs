//! Qwen3.5 in tensors; the only home of `tch`.
//!
//! [`load`] reads a checkpoint and gives a [`QwenRunner`], which runs the engine's steps:
//! `packing` makes one list of a step's tokens, `sight` turns pictures into embeddings by the tower of `vision` and the memory
//! of `features`, `decoder` runs the layers
//! (`attention`, `delta_net`) over what `cache` remembers of each sequence, and the sampler chooses. `company` says what may share
//! a pass. `kernels` computes what libtorch would compute slowly, or with other bits in other company, on the CPU; `threads`
//! are those that do, `pages` asks for memory that they read fast.
//!
//! The numbers are Transformers': what is rounded where follows its `modeling_qwen3_5.py`, and `tests/parity` holds it to that.

mod attention;
mod cache;
mod company;
mod config;
mod convolution;
mod cpu;
pub mod cuda;
mod decoder;
mod delta_inputs;
mod delta_net;
pub mod delta_rule;
mod elementwise;
mod features;
mod footprint;
mod inventory;
mod kernels;
mod layers;
mod machine;
mod options;
mod packing;
mod pages;
mod patch_positions;
mod rotary;
mod runner;
pub mod sampler;
mod shards;
mod sight;
mod threads;
mod vision;
mod weight;
mod weights;

use tch::Kind;

use crate::checkpoint::Checkpoint;

pub use config::{Config, Dtype, LayerType, Rope, TextConfig, VisionConfig};
pub use cuda::{Place, find_place};
pub use footprint::{Largest, PerToken, Precision, costs, per_token};
pub use machine::{MachineLimits, measure as measure_machine};
pub use options::{DeviceChoice, DtypeChoice, LoadOptions, Quantization};
pub use runner::{Observer, QwenRunner};
pub use weights::Progress;

/// Loads a checkpoint's model. `progress` is told the bytes of weights that are loaded, and of how many.
///
/// On the CPU in the checkpoint's own precision weights are used where they are mapped: the process needs little more
/// memory than the files, and they may be shared with others.
///
/// Errors are one line for whoever starts the server: the file, what is wrong with it, what was expected.
pub fn load(checkpoint: &Checkpoint, options: &LoadOptions, progress: Progress) -> Result<QwenRunner, String> {
    let config = Config::load(checkpoint)?;
    let device = cuda::find_device(options.device, &options.cuda_library)?;
    let kind = kind_of(options.dtype.given(config.dtype));
    threads::set(options.threads, &config);
    let _guard = tch::no_grad_guard();
    let weights = weights::Weights::open(checkpoint, &config, (kind, device), options.quantize, progress)?;
    let decoder = decoder::Decoder::load(&weights, &config, device);
    let company = company::Company::of(kind, device, options.batch_invariant);
    let sight = |vision| sight::Sight {
        tower: vision::VisionTower::load(&weights.root().at("model.visual"), vision, device),
        features: features::FeatureCache::new(options.picture_cache_bytes),
        company,
    };
    Ok(QwenRunner {
        sight: config.vision.as_ref().map(sight),
        decoder,
        slots: cache::Slots::new(options.max_batch_size, &config, (kind, device)),
        config,
        device,
        kind,
        company,
        observer: None,
        _files: weights.into_files(),
    })
}

fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Bfloat16 => Kind::BFloat16,
        Dtype::Float32 => Kind::Float,
    }
}

//! Settings of the model: which one, from where, on which device, for how many at once.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::media::MediaFlags;
use super::secret::Secret;
use super::units::bytes;
use crate::chat::{SpecialText, VideoPlaces};
use crate::checkpoint::HubSettings;
use crate::engine::{EngineLimits, MemoryPlan};
use crate::model::{Config, DeviceChoice, DtypeChoice, LoadOptions, Precision, Quantization};

/// Which model, on which device.
#[derive(Debug, Clone, Args)]
pub struct ModelSettings {
    /// A folder in Hugging Face layout, or a hub id such as `org/name`. Without it: /repository if it holds a checkpoint,
    /// else the miniature inside the binary.
    #[arg(long, env = "SARDINE_MODEL", value_name = "DIR|HUB_ID")]
    pub model: Option<String>,
    /// Branch, tag or commit of a hub id.
    #[arg(long, env = "SARDINE_REVISION", default_value = "main")]
    pub revision: String,
    /// `cuda` fails where no GPU answers; `auto` takes one where it does. Several, as in `cuda:0,cuda:1`: each gets the whole
    /// model, and requests go to the least loaded.
    #[arg(
        long = "device",
        env = "SARDINE_DEVICE",
        default_value = "auto",
        value_delimiter = ',',
        value_name = "auto|cpu|cuda[:N]"
    )]
    pub devices: Vec<DeviceChoice>,
    /// `auto`: bfloat16, as the checkpoint is stored.
    #[arg(long, env = "SARDINE_DTYPE", default_value = "auto", value_name = "auto|bfloat16|float32")]
    pub dtype: DtypeChoice,
    /// Hold the decoder's large weights in 8 or 4 bits: smaller, and on a CPU faster, for some of their precision.
    #[arg(long, env = "SARDINE_QUANTIZE", value_name = "int8|int4")]
    pub quantize: Option<Quantization>,
    /// Tokens of the longest sequence, prompt included. Default: what all sequences can have at once within the memory, at least
    /// 32768 where one such sequence fits, at most the checkpoint's.
    #[arg(long, env = "SARDINE_MAX_MODEL_LEN", value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_model_len: Option<u32>,
    /// Memory for the weights and all that is computed, on each device. Default: what is free there, less a reserve.
    #[arg(long, env = "SARDINE_MEMORY", value_name = "48GiB", value_parser = bytes)]
    pub memory: Option<u64>,
    /// CPU threads that compute. Default: one a core, and one for a small model.
    #[arg(long, env = "SARDINE_THREADS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// On a GPU: compute every sequence by itself, so that an answer is the same bits whatever shares the batch; slower with
    /// many at once. On a CPU it is always so.
    #[arg(long, env = "SARDINE_BATCH_INVARIANT")]
    pub batch_invariant: bool,
    /// The library that brings CUDA into the process; `none` loads nothing.
    #[arg(long, env = "SARDINE_CUDA_LIBRARY", default_value = "libtorch_cuda.so", value_name = "FILE|none")]
    pub cuda_library: String,
    /// What strings such as `<|im_end|>` become inside text that a client sent; `tokens` is Transformers' behaviour.
    #[arg(long, env = "SARDINE_SPECIAL_TOKENS_IN_TEXT", default_value = "text")]
    pub special_tokens_in_text: SpecialTokensInText,
    /// Where a video's frames stand in the prompt: `inside` the template's start and end, as in Transformers since 5.10, or `instead`
    /// of them, as in Transformers 4.57.
    #[arg(long, env = "SARDINE_VIDEO_PLACES", default_value = "inside")]
    pub video_places: VideoPlaceSetting,
    #[command(flatten)]
    pub hub: HubFlags,
    #[command(flatten)]
    pub media: MediaFlags,
    #[command(flatten)]
    pub engine: EngineFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SpecialTokensInText {
    Text,
    Tokens,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VideoPlaceSetting {
    Inside,
    Instead,
}

/// How to reach the hub.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hub")]
pub struct HubFlags {
    /// Where the hub answers.
    #[arg(long, env = "HF_ENDPOINT", default_value = "https://huggingface.co", value_name = "URL")]
    pub hub_endpoint: String,
    /// Where downloads are kept. Default: HF_HOME/hub, else ~/.cache/huggingface/hub.
    #[arg(long, env = "HF_HUB_CACHE", value_name = "DIR")]
    pub hub_cache: Option<PathBuf>,
    /// For gated and private repositories. Never logged.
    #[arg(long, env = "HF_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub hub_token: Option<Secret>,
}

/// What shares the model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Engine")]
pub struct EngineFlags {
    /// Sequences that run at the same time on a device; fewer where the memory is short.
    #[arg(long, env = "SARDINE_MAX_BATCH_SIZE", default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_batch_size: u32,
    /// Requests that may wait; one more is answered 429.
    #[arg(long, env = "SARDINE_MAX_QUEUE", default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_queue: u32,
    /// Tokens of a prompt that are read between two tokens of the other sequences.
    #[arg(long, env = "SARDINE_PREFILL_CHUNK", default_value_t = 512, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub prefill_chunk: u32,
}

impl HubFlags {
    /// The hub's cache, where every program of the hub looks for it.
    pub fn cache(&self) -> PathBuf {
        let folder = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || folder("HOME").unwrap_or_else(std::env::temp_dir).join(".cache/huggingface");
        self.hub_cache.clone().unwrap_or_else(|| folder("HF_HOME").unwrap_or_else(home).join("hub"))
    }
}

impl ModelSettings {
    /// How to load the model on `device`, with memory as planned.
    pub fn load_options(&self, device: DeviceChoice, plan: &MemoryPlan) -> LoadOptions {
        LoadOptions {
            device,
            dtype: self.dtype,
            quantize: self.quantize,
            max_batch_size: plan.max_batch_size,
            threads: self.threads.map(|threads| threads as usize),
            batch_invariant: self.batch_invariant,
            picture_cache_bytes: plan.picture_cache_bytes,
            cuda_library: self.cuda_library.clone(),
        }
    }

    /// In which precision a model of `config` is served.
    pub fn precision(&self, config: &Config) -> Precision {
        Precision { dtype: self.dtype.given(config.dtype), quantize: self.quantize }
    }

    pub fn special_text(&self) -> SpecialText {
        match self.special_tokens_in_text {
            SpecialTokensInText::Text => SpecialText::StaysText,
            SpecialTokensInText::Tokens => SpecialText::BecomesToken,
        }
    }

    pub fn video_places(&self) -> VideoPlaces {
        match self.video_places {
            VideoPlaceSetting::Inside => VideoPlaces::InsidePair,
            VideoPlaceSetting::Instead => VideoPlaces::InPlaceOfPair,
        }
    }

    pub fn hub_settings(&self) -> HubSettings {
        HubSettings {
            endpoint: self.hub.hub_endpoint.clone(),
            token: self.hub.hub_token.as_ref().map(|token| token.expose().clone()),
            revision: self.revision.clone(),
            cache: self.hub.cache(),
        }
    }

    /// The engine's limits, which are the plan's where memory decides.
    pub fn engine_limits(&self, plan: &MemoryPlan) -> EngineLimits {
        EngineLimits {
            max_batch_size: plan.max_batch_size,
            max_queue: self.engine.max_queue as usize,
            prefill_chunk: self.engine.prefill_chunk as usize,
            max_model_len: plan.max_model_len,
            max_kv_tokens: plan.max_kv_tokens,
        }
    }
}

//! A checkpoint's config.json: the sizes of the network, and a refusal of what the layers do not implement.

mod keys;

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use keys::Keys;

/// The network's sizes, under the names of config.json. Plain data: no tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub text: TextConfig,
    /// `None` for a text-only export.
    pub vision: Option<VisionConfig>,
    /// The output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// The precision that the checkpoint was made for.
    pub dtype: Dtype,
}

/// Floating-point formats that the model computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    Bfloat16,
    Float32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub rms_norm_eps: f64,
    /// The token mixer of each decoder layer.
    pub layer_types: Vec<LayerType>,
    /// Query heads; each has a gate of its own size beside it.
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub rope: Rope,
    pub linear_num_key_heads: usize,
    pub linear_num_value_heads: usize,
    pub linear_key_head_dim: usize,
    pub linear_value_head_dim: usize,
    pub linear_conv_kernel_dim: usize,
    /// Layers of the multi-token-prediction head that the checkpoint carries.
    pub mtp_num_hidden_layers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerType {
    /// Gated DeltaNet: a state of constant size.
    LinearAttention,
    /// Gated softmax attention over all tokens before.
    FullAttention,
}

/// Interleaved mRoPE over the first `dim` of a head's channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    pub theta: f64,
    pub dim: usize,
    /// Frequencies driven by (t, h, w); their sum is `dim / 2`.
    pub mrope_section: [usize; 3],
}

#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    pub image_token_id: u32,
    pub video_token_id: u32,
    pub depth: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_heads: usize,
    pub in_channels: usize,
    pub patch_size: usize,
    pub temporal_patch_size: usize,
    pub spatial_merge_size: usize,
    /// Rows of the learned table of positions, a square number.
    pub num_position_embeddings: usize,
    pub out_hidden_size: usize,
}

impl Config {
    /// Reads and checks config.json. Errors are one line that names the file, the key and what was expected.
    pub fn load(checkpoint: &Checkpoint) -> Result<Config, String> {
        let json =
            checkpoint.json("config.json")?.ok_or_else(|| format!("{}: there is no config.json", checkpoint.name()))?;
        Config::from_json(&json).map_err(|error| format!("{}: config.json: {error}", checkpoint.name()))
    }

    /// Reads either form: the whole model (`qwen3_5`, with `text_config` and `vision_config`), or a text-only export
    /// (`qwen3_5_text`) that has the text's keys at the top. Unknown keys are ignored.
    pub fn from_json(json: &Value) -> Result<Config, String> {
        let top = Keys::of(json, "")?;
        let model_type = top.text("model_type").unwrap_or("nothing");
        if !matches!(model_type, "qwen3_5" | "qwen3_5_text") {
            return Err(format!(
                "unknown `model_type` \"{model_type}\": sardine serves qwen3_5, the dense Qwen3.5 models"
            ));
        }
        if top.value("quantization_config").is_some() {
            return Err("`quantization_config`: quantised checkpoints are not supported, use the bf16 one".to_owned());
        }
        let nested = top.section("text_config")?;
        let text = nested.as_ref().unwrap_or(&top);
        let vision = match top.section("vision_config")? {
            Some(vision) if !top.flag("language_model_only", false)? => Some(VisionConfig::read(&vision, &top)?),
            _ => None,
        };
        let config = Config {
            tie_word_embeddings: top.flag("tie_word_embeddings", text.flag("tie_word_embeddings", false)?)?,
            dtype: stored_dtype(text).or_else(|| stored_dtype(&top)).unwrap_or(Dtype::Bfloat16),
            text: TextConfig::read(text)?,
            vision,
        };
        match &config.vision {
            Some(vision) if vision.out_hidden_size != config.text.hidden_size => Err(format!(
                "`vision_config.out_hidden_size` is {}, but `text_config.hidden_size` is {}",
                vision.out_hidden_size, config.text.hidden_size
            )),
            _ => Ok(config),
        }
    }
}

/// `dtype`, or `torch_dtype` as older releases of Transformers wrote it.
fn stored_dtype(keys: &Keys) -> Option<Dtype> {
    match keys.text("dtype").or_else(|| keys.text("torch_dtype"))? {
        "float32" => Some(Dtype::Float32),
        _ => Some(Dtype::Bfloat16),
    }
}

impl TextConfig {
    fn read(keys: &Keys) -> Result<TextConfig, String> {
        refuse_what_the_decoder_lacks(keys)?;
        let head_dim = keys.count("head_dim")?;
        let config = TextConfig {
            vocab_size: keys.count("vocab_size")?,
            max_position_embeddings: keys.count("max_position_embeddings")?,
            hidden_size: keys.count("hidden_size")?,
            intermediate_size: keys.count("intermediate_size")?,
            rms_norm_eps: keys.number_or("rms_norm_eps", 1e-6)?,
            layer_types: layer_types(keys)?,
            num_attention_heads: keys.count("num_attention_heads")?,
            num_key_value_heads: keys.count("num_key_value_heads")?,
            head_dim,
            rope: Rope::read(keys, head_dim)?,
            linear_num_key_heads: keys.count("linear_num_key_heads")?,
            linear_num_value_heads: keys.count("linear_num_value_heads")?,
            linear_key_head_dim: keys.count("linear_key_head_dim")?,
            linear_value_head_dim: keys.count("linear_value_head_dim")?,
            linear_conv_kernel_dim: keys.count_or("linear_conv_kernel_dim", 4)?,
            mtp_num_hidden_layers: keys.count_or("mtp_num_hidden_layers", 0)?,
        };
        keys.must_divide("num_key_value_heads", "num_attention_heads")?;
        keys.must_divide("linear_num_key_heads", "linear_num_value_heads")?;
        Ok(config)
    }
}

fn refuse_what_the_decoder_lacks(keys: &Keys) -> Result<(), String> {
    if keys.count_or("num_experts", 0)? > 0 {
        return Err(keys.refusal("num_experts", "mixtures of experts are not implemented"));
    }
    if !keys.list("mlp_only_layers")?.is_empty() {
        return Err(keys.refusal("mlp_only_layers", "mixtures of experts are not implemented"));
    }
    keys.must_be_text("hidden_act", "silu")?;
    keys.must_be_flag("attention_bias", false)?;
    keys.must_be_flag("attn_output_gate", true)
}

/// `layer_types`, or where it is missing every `full_attention_interval`-th layer attends fully, as Transformers has it.
fn layer_types(keys: &Keys) -> Result<Vec<LayerType>, String> {
    let num_layers = keys.count("num_hidden_layers")?;
    if keys.value("layer_types").is_none() {
        let interval = keys.count_or("full_attention_interval", 4)?.max(1);
        let is_full = |layer: usize| (layer + 1).is_multiple_of(interval);
        let layer_type = |layer| if is_full(layer) { LayerType::FullAttention } else { LayerType::LinearAttention };
        return Ok((0..num_layers).map(layer_type).collect());
    }
    let listed = keys.list("layer_types")?;
    if listed.len() != num_layers {
        return Err(keys.refusal(
            "layer_types",
            &format!("{} layers listed, but `num_hidden_layers` is {num_layers}", listed.len()),
        ));
    }
    let read = |value: &Value| match value.as_str() {
        Some("linear_attention") => Ok(LayerType::LinearAttention),
        Some("full_attention") => Ok(LayerType::FullAttention),
        _ => Err(keys.refusal("layer_types", &format!("unknown layer type {value}"))),
    };
    listed.iter().map(read).collect()
}

impl Rope {
    /// From `rope_parameters`, or from `rope_theta` and `rope_scaling` as older releases of Transformers wrote them.
    fn read(text: &Keys, head_dim: usize) -> Result<Rope, String> {
        let nested = match text.section("rope_parameters")? {
            Some(section) => Some(section),
            None => text.section("rope_scaling")?,
        };
        let rope = nested.as_ref().unwrap_or(text);
        let rope_type = rope.text("rope_type").or_else(|| rope.text("type")).unwrap_or("default");
        if !matches!(rope_type, "default" | "mrope") {
            return Err(rope.refusal("rope_type", &format!("\"{rope_type}\" is not implemented, only \"default\"")));
        }
        rope.must_be_flag("mrope_interleaved", true)?;
        let theta = match rope.number("rope_theta")? {
            Some(theta) => theta,
            None => text.number("rope_theta")?.ok_or_else(|| rope.refusal("rope_theta", "it is missing"))?,
        };
        let factor = match rope.number("partial_rotary_factor")? {
            Some(factor) => factor,
            None => text.number_or("partial_rotary_factor", 0.25)?,
        };
        let dim = (head_dim as f64 * factor) as usize;
        let mrope_section = mrope_section(rope)?;
        if mrope_section.iter().sum::<usize>() * 2 != dim {
            return Err(rope.refusal(
                "mrope_section",
                &format!("{mrope_section:?} does not add up to half of {dim} rotary channels"),
            ));
        }
        Ok(Rope { theta, dim, mrope_section })
    }
}

fn mrope_section(rope: &Keys) -> Result<[usize; 3], String> {
    if rope.value("mrope_section").is_none() {
        return Ok([11, 11, 10]); // Transformers' default
    }
    let listed: Option<Vec<usize>> =
        rope.list("mrope_section")?.iter().map(|value| value.as_u64().map(|number| number as usize)).collect();
    listed
        .and_then(|listed| <[usize; 3]>::try_from(listed).ok())
        .ok_or_else(|| rope.refusal("mrope_section", "expected three counts"))
}

impl VisionConfig {
    fn read(keys: &Keys, top: &Keys) -> Result<VisionConfig, String> {
        keys.must_be_text("hidden_act", "gelu_pytorch_tanh")?;
        if !keys.list("deepstack_visual_indexes")?.is_empty() {
            return Err(
                keys.refusal("deepstack_visual_indexes", "deepstack is not implemented, expected an empty list")
            );
        }
        let config = VisionConfig {
            image_token_id: top.count("image_token_id")? as u32,
            video_token_id: top.count("video_token_id")? as u32,
            depth: keys.count("depth")?,
            hidden_size: keys.count("hidden_size")?,
            intermediate_size: keys.count("intermediate_size")?,
            num_heads: keys.count("num_heads")?,
            in_channels: keys.count_or("in_channels", 3)?,
            patch_size: keys.count_or("patch_size", 16)?,
            temporal_patch_size: keys.count_or("temporal_patch_size", 2)?,
            spatial_merge_size: keys.count_or("spatial_merge_size", 2)?,
            num_position_embeddings: keys.count("num_position_embeddings")?,
            out_hidden_size: keys.count("out_hidden_size")?,
        };
        // engine::Grid counts four patches to a token.
        if config.spatial_merge_size != 2 {
            return Err(keys.refusal("spatial_merge_size", "expected 2"));
        }
        if config.num_position_embeddings.isqrt().pow(2) != config.num_position_embeddings {
            return Err(keys.refusal("num_position_embeddings", "expected a square number"));
        }
        keys.must_divide("num_heads", "hidden_size")?;
        Ok(config)
    }

    /// Numbers in one patch: (channel, frame, row, column).
    pub fn patch_len(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }
}

#[cfg(test)]
mod tests;

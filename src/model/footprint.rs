//! What the model costs in memory, in bytes, from its config alone: no file is opened and no tensor made.
//!
//! Weights, states, keys and values are exact. Activations are estimates: what the layers hold at their widest moment.

use super::config::{Config, Dtype, LayerType, TextConfig, VisionConfig};
use super::inventory::{Listed, Part, inventory};
use super::kernels;
use super::options::Quantization;
use super::sight::TOKENS_A_PASS;
use crate::engine::Costs;

/// Whatever is computed in fp32.
const FLOAT: u64 = 4;
/// Queries that attention handles at a time, each with a mask over the whole context.
const QUERY_BLOCK: u64 = 512;

/// Rows of a prompt whose log-probabilities are computed at a time.
const SCORED_ROWS: usize = 64;

/// The largest step and the largest picture that will be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Largest {
    /// Tokens of prompts in one step.
    pub prefill_chunk: usize,
    /// Rows that are sampled in one step.
    pub max_batch_size: usize,
    pub picture_tokens: usize,
}

/// In which precision a model computes, and holds its large weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precision {
    pub dtype: Dtype,
    pub quantize: Option<Quantization>,
}

impl Precision {
    /// What a tensor takes.
    fn bytes_of(self, tensor: &Listed) -> u64 {
        match tensor.quantized(self.quantize) {
            None => product(&tensor.shape) * bytes_of(self.dtype),
            Some(quantization) => kernels::quantized_bytes(tensor.shape[0], tensor.shape[1], quantization) as u64,
        }
    }
}

/// The costs of serving a model of `config` in `precision`.
pub fn costs(config: &Config, precision: Precision, largest: Largest) -> Costs {
    let size = bytes_of(precision.dtype);
    let text = &config.text;
    let tokens = (largest.prefill_chunk + largest.max_batch_size) as u64;
    let (vision_per_token, largest_picture, pictures_a_pass) = match &config.vision {
        Some(vision) => (vision_activations(vision, size), largest.picture_tokens, TOKENS_A_PASS),
        None => (0, 0, 0),
    };
    Costs {
        weights: weights(config, precision),
        step: tokens * layer_activations(text, size)
            + largest.max_batch_size.max(SCORED_ROWS) as u64 * logits(text, size),
        // The mask as booleans and as what is added to the scores.
        step_per_context_token: QUERY_BLOCK.min(largest.prefill_chunk as u64) * (1 + size),
        vision_per_token,
        largest_picture,
        pictures_a_pass,
        per_sequence: num_layers(text, LayerType::LinearAttention) * state(text, size),
        per_kv_token: num_layers(text, LayerType::FullAttention)
            * product(&[2, text.num_key_value_heads, text.head_dim])
            * size,
    }
}

/// What a token costs the layers and the head, whatever the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerToken {
    /// Bytes of weights that are read for it, where it is computed alone.
    pub bytes: u64,
    /// Operations of the layers' products: a token of a prompt, which does not go through the head.
    pub flops: u64,
}

/// What a token of a model of `config` costs in `precision`.
pub fn per_token(config: &Config, precision: Precision) -> PerToken {
    let decoder = inventory(config, "").into_iter().filter(|tensor| tensor.part == Part::Decoder);
    // Untied, the embedding is a table of which one row is read.
    let is_read = |tensor: &Listed| config.tie_word_embeddings || tensor.name != "embed_tokens.weight";
    let read: Vec<Listed> = decoder.filter(is_read).collect();
    let of_layers = read.iter().filter(|tensor| tensor.name.starts_with("layers."));
    PerToken {
        bytes: read.iter().map(|tensor| precision.bytes_of(tensor)).sum(),
        flops: 2 * of_layers.map(|tensor| product(&tensor.shape)).sum::<u64>(),
    }
}

fn bytes_of(dtype: Dtype) -> u64 {
    match dtype {
        Dtype::Bfloat16 => 2,
        Dtype::Float32 => 4,
    }
}

/// What is loaded: all but the draft head.
fn weights(config: &Config, precision: Precision) -> u64 {
    let loaded = inventory(config, "").into_iter().filter(|tensor| tensor.part != Part::Draft);
    loaded.map(|tensor| precision.bytes_of(&tensor)).sum()
}

fn num_layers(text: &TextConfig, layer_type: LayerType) -> u64 {
    text.layer_types.iter().filter(|listed| **listed == layer_type).count() as u64
}

/// One linear layer's memory of a sequence: the delta rule's matrix in fp32, and the convolution's window.
fn state(text: &TextConfig, size: u64) -> u64 {
    let matrix = product(&[text.linear_num_value_heads, text.linear_key_head_dim, text.linear_value_head_dim]);
    matrix * FLOAT + channels(text) * (text.linear_conv_kernel_dim as u64 - 1) * size
}

/// What the convolution runs over: queries, keys and values.
fn channels(text: &TextConfig) -> u64 {
    product(&[2, text.linear_num_key_heads, text.linear_key_head_dim]) + linear_values(text)
}

fn linear_values(text: &TextConfig) -> u64 {
    product(&[text.linear_num_value_heads, text.linear_value_head_dim])
}

/// What a token holds while the widest layer works on it.
fn layer_activations(text: &TextConfig, size: u64) -> u64 {
    let hidden = text.hidden_size as u64;
    let residual = hidden * (3 * size + 2 * FLOAT); // itself, normed, mixed; the norm works in fp32
    let mlp = 3 * text.intermediate_size as u64 * size; // gate, up, their product
    let delta_net = {
        let heads = product(&[text.linear_num_value_heads, text.linear_key_head_dim]);
        let convolved = channels(text) * (2 * size + 2 * FLOAT);
        let rule = (4 * heads + 4 * linear_values(text)) * FLOAT; // q, k, v and what a chunk makes of them
        convolved + rule + 2 * linear_values(text) * size
    };
    let attention = {
        let queries = product(&[text.num_attention_heads, text.head_dim]);
        let keys = product(&[text.num_key_value_heads, text.head_dim]);
        (5 * queries + 4 * keys) * size + (queries + keys) * FLOAT
    };
    residual + mlp.max(delta_net).max(attention)
}

/// What a sampled row holds: its logits, and in fp32 their processed, sorted and accumulated forms.
fn logits(text: &TextConfig, size: u64) -> u64 {
    text.vocab_size as u64 * (size + 4 * FLOAT)
}

/// What a picture's token holds in the tower at its widest moment: when the learned positions are read, or in a block.
fn vision_activations(vision: &VisionConfig, size: u64) -> u64 {
    let (hidden, inner) = (vision.hidden_size as u64, vision.intermediate_size as u64);
    let patch = vision.patch_len() as u64;
    let embedding = patch * (FLOAT + size) + hidden * (2 * size + 4 * (size + FLOAT)); // four taps of the table
    let attention = hidden * (9 * size + 2 * FLOAT);
    let mlp = (3 * hidden + 2 * inner) * size;
    let patches = (vision.spatial_merge_size as u64).pow(2);
    patches * embedding.max(attention).max(mlp) + vision.out_hidden_size as u64 * size
}

fn product(sizes: &[usize]) -> u64 {
    sizes.iter().map(|size| *size as u64).product()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Largest, Precision, costs};
    use crate::engine::Costs;
    use crate::model::{Config, Dtype, Quantization};

    const LARGEST: Largest = Largest { prefill_chunk: 512, max_batch_size: 8, picture_tokens: 16_384 };

    /// Qwen3.5-4B, as its config.json describes it.
    fn four_billion() -> Config {
        Config::from_json(&json!({
            "model_type": "qwen3_5",
            "tie_word_embeddings": true,
            "image_token_id": 248056,
            "video_token_id": 248057,
            "text_config": {
                "model_type": "qwen3_5_text", "dtype": "bfloat16", "vocab_size": 248320, "hidden_size": 2560,
                "intermediate_size": 9216, "num_hidden_layers": 32, "full_attention_interval": 4,
                "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 256, "hidden_act": "silu",
                "max_position_embeddings": 262144, "linear_conv_kernel_dim": 4, "linear_num_key_heads": 16,
                "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
                "mtp_num_hidden_layers": 1,
                "rope_parameters": {
                    "mrope_interleaved": true, "mrope_section": [11, 11, 10], "rope_type": "default",
                    "rope_theta": 10000000, "partial_rotary_factor": 0.25
                }
            },
            "vision_config": {
                "model_type": "qwen3_5", "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
                "num_position_embeddings": 2304, "out_hidden_size": 2560, "hidden_act": "gelu_pytorch_tanh",
                "deepstack_visual_indexes": []
            }
        }))
        .unwrap()
    }

    fn four_billion_costs(dtype: Dtype) -> Costs {
        costs(&four_billion(), Precision { dtype, quantize: None }, LARGEST)
    }

    #[test]
    fn the_quantised_4b_is_as_small_as_its_bits() {
        let gib = |quantize| {
            let precision = Precision { dtype: Dtype::Bfloat16, quantize: Some(quantize) };
            costs(&four_billion(), precision, LARGEST).weights as f64 / f64::from(1 << 30)
        };
        // The decoder's 4.2 billion in 8.5 or 4.5 bits, its vocabulary in 8.5; the tower's 0.33 in 16.
        assert!((4.7..4.8).contains(&gib(Quantization::Int8)), "int8: {} GiB", gib(Quantization::Int8));
        assert!((3.0..3.2).contains(&gib(Quantization::Int4)), "int4: {} GiB", gib(Quantization::Int4));
    }

    #[test]
    fn the_4b_has_the_weights_that_transformers_loads() {
        assert_eq!(four_billion_costs(Dtype::Bfloat16).weights, 2 * 4_539_265_536);
    }

    #[test]
    fn a_sequence_of_the_4b_costs_48_mib_of_states_and_little_more_than_one_of_convolutions() {
        let (states, convolutions) = (48 << 20, 24 * 8192 * 3 * 2);
        assert_eq!(four_billion_costs(Dtype::Bfloat16).per_sequence, states + convolutions);
    }

    #[test]
    fn a_token_of_the_4b_costs_32_kib_of_keys_and_values() {
        assert_eq!(four_billion_costs(Dtype::Bfloat16).per_kv_token, 32 << 10);
        assert_eq!(four_billion_costs(Dtype::Float32).per_kv_token, 64 << 10);
    }

    #[test]
    fn activations_are_of_a_plausible_size() {
        let costs = four_billion_costs(Dtype::Bfloat16);
        let picture = costs.vision_per_token * costs.largest_picture as u64;
        assert!((100 << 20..600 << 20).contains(&costs.step), "a step: {}", costs.step);
        assert!((1 << 30..4_u64 << 30).contains(&picture), "a picture of 16384 tokens: {picture}");
    }

    #[test]
    fn a_text_only_model_has_no_pictures_to_pay_for() {
        let costs = costs(
            &Config { vision: None, ..four_billion() },
            Precision { dtype: Dtype::Bfloat16, quantize: None },
            LARGEST,
        );
        assert_eq!((costs.vision_per_token, costs.largest_picture), (0, 0));
        assert!(costs.weights < 2 * 4_300_000_000);
    }
}

//! Which tensors a checkpoint of given sizes holds: the names and shapes of Transformers' Qwen3_5ForConditionalGeneration.

use super::config::{Config, LayerType, TextConfig, VisionConfig};
use super::kernels::GROUP;
use super::options::Quantization;

/// A tensor that the checkpoint should hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub name: String,
    pub shape: Vec<usize>,
    pub part: Part,
}

impl Listed {
    /// How it is held where `wanted` is asked for: `None` as it is stored.
    ///
    /// The decoder's large matrices are quantised. The vocabulary's, in which most of the error would lie, stays in 8 bits at
    /// least; what decides the delta rule's gates is small and delicate and stays as it is, like the vision tower, which is not
    /// read for every token.
    pub fn quantized(&self, wanted: Option<Quantization>) -> Option<Quantization> {
        let is_gate = self.name.contains(".in_proj_a.") || self.name.contains(".in_proj_b.");
        let [_, inputs] = self.shape[..] else { return None };
        if self.part != Part::Decoder || is_gate || !inputs.is_multiple_of(GROUP) {
            return None;
        }
        let is_vocabulary = self.name.ends_with("embed_tokens.weight") || self.name == "lm_head.weight";
        wanted.map(|wanted| if is_vocabulary { Quantization::Int8 } else { wanted })
    }
}

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Decoder,
    Vision,
    /// The multi-token-prediction head, which may be missing.
    Draft,
}

/// Every tensor of the checkpoint. `text_prefix` is "model.language_model." or, in text-only exports, "model.".
pub fn inventory(config: &Config, text_prefix: &str) -> Vec<Listed> {
    let mut list = List { tensors: Vec::new(), part: Part::Decoder };
    list.decoder(&config.text, text_prefix);
    if !config.tie_word_embeddings {
        list.add("lm_head.weight", &[config.text.vocab_size, config.text.hidden_size]);
    }
    if let Some(vision) = &config.vision {
        list.part = Part::Vision;
        list.vision(vision);
    }
    list.part = Part::Draft;
    list.draft(&config.text);
    list.tensors
}

/// The list while it is written.
struct List {
    tensors: Vec<Listed>,
    part: Part,
}

impl List {
    fn add(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.tensors.push(Listed { name: name.into(), shape: shape.to_vec(), part: self.part });
    }

    fn decoder(&mut self, text: &TextConfig, prefix: &str) {
        self.add(format!("{prefix}embed_tokens.weight"), &[text.vocab_size, text.hidden_size]);
        self.add(format!("{prefix}norm.weight"), &[text.hidden_size]);
        for (index, layer_type) in text.layer_types.iter().enumerate() {
            self.layer(text, *layer_type, &format!("{prefix}layers.{index}."));
        }
    }

    fn layer(&mut self, text: &TextConfig, layer_type: LayerType, layer: &str) {
        let (hidden, inner) = (text.hidden_size, text.intermediate_size);
        self.add(format!("{layer}input_layernorm.weight"), &[hidden]);
        match layer_type {
            LayerType::FullAttention => self.attention(text, &format!("{layer}self_attn.")),
            LayerType::LinearAttention => self.delta_net(text, &format!("{layer}linear_attn.")),
        }
        self.add(format!("{layer}post_attention_layernorm.weight"), &[hidden]);
        self.add(format!("{layer}mlp.gate_proj.weight"), &[inner, hidden]);
        self.add(format!("{layer}mlp.up_proj.weight"), &[inner, hidden]);
        self.add(format!("{layer}mlp.down_proj.weight"), &[hidden, inner]);
    }

    fn attention(&mut self, text: &TextConfig, mixer: &str) {
        let queries = text.num_attention_heads * text.head_dim;
        let keys = text.num_key_value_heads * text.head_dim;
        self.add(format!("{mixer}q_proj.weight"), &[2 * queries, text.hidden_size]); // a gate beside every query
        self.add(format!("{mixer}k_proj.weight"), &[keys, text.hidden_size]);
        self.add(format!("{mixer}v_proj.weight"), &[keys, text.hidden_size]);
        self.add(format!("{mixer}o_proj.weight"), &[text.hidden_size, queries]);
        self.add(format!("{mixer}q_norm.weight"), &[text.head_dim]);
        self.add(format!("{mixer}k_norm.weight"), &[text.head_dim]);
    }

    fn delta_net(&mut self, text: &TextConfig, mixer: &str) {
        let heads = text.linear_num_value_heads;
        let keys = text.linear_num_key_heads * text.linear_key_head_dim;
        let values = heads * text.linear_value_head_dim;
        self.add(format!("{mixer}in_proj_qkv.weight"), &[2 * keys + values, text.hidden_size]);
        self.add(format!("{mixer}in_proj_z.weight"), &[values, text.hidden_size]);
        self.add(format!("{mixer}in_proj_b.weight"), &[heads, text.hidden_size]);
        self.add(format!("{mixer}in_proj_a.weight"), &[heads, text.hidden_size]);
        self.add(format!("{mixer}conv1d.weight"), &[2 * keys + values, 1, text.linear_conv_kernel_dim]);
        self.add(format!("{mixer}A_log"), &[heads]);
        self.add(format!("{mixer}dt_bias"), &[heads]);
        self.add(format!("{mixer}norm.weight"), &[text.linear_value_head_dim]);
        self.add(format!("{mixer}out_proj.weight"), &[text.hidden_size, values]);
    }

    fn vision(&mut self, vision: &VisionConfig) {
        let (hidden, inner, patch) = (vision.hidden_size, vision.intermediate_size, vision.patch_size);
        let kernel = [hidden, vision.in_channels, vision.temporal_patch_size, patch, patch];
        self.add("model.visual.patch_embed.proj.weight", &kernel);
        self.add("model.visual.patch_embed.proj.bias", &[hidden]);
        self.add("model.visual.pos_embed.weight", &[vision.num_position_embeddings, hidden]);
        for index in 0..vision.depth {
            let block = format!("model.visual.blocks.{index}.");
            self.layer_norm(&format!("{block}norm1"), hidden);
            self.layer_norm(&format!("{block}norm2"), hidden);
            self.biased(&format!("{block}attn.qkv"), 3 * hidden, hidden);
            self.biased(&format!("{block}attn.proj"), hidden, hidden);
            self.biased(&format!("{block}mlp.linear_fc1"), inner, hidden);
            self.biased(&format!("{block}mlp.linear_fc2"), hidden, inner);
        }
        let merged = hidden * vision.spatial_merge_size.pow(2);
        self.layer_norm("model.visual.merger.norm", hidden);
        self.biased("model.visual.merger.linear_fc1", merged, merged);
        self.biased("model.visual.merger.linear_fc2", vision.out_hidden_size, merged);
    }

    fn layer_norm(&mut self, name: &str, size: usize) {
        self.add(format!("{name}.weight"), &[size]);
        self.add(format!("{name}.bias"), &[size]);
    }

    fn biased(&mut self, name: &str, outputs: usize, inputs: usize) {
        self.add(format!("{name}.weight"), &[outputs, inputs]);
        self.add(format!("{name}.bias"), &[outputs]);
    }

    fn draft(&mut self, text: &TextConfig) {
        if text.mtp_num_hidden_layers == 0 {
            return;
        }
        let hidden = text.hidden_size;
        self.add("mtp.fc.weight", &[hidden, 2 * hidden]);
        for norm in ["pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"] {
            self.add(format!("mtp.{norm}.weight"), &[hidden]);
        }
        for index in 0..text.mtp_num_hidden_layers {
            self.layer(text, LayerType::FullAttention, &format!("mtp.layers.{index}."));
        }
    }
}

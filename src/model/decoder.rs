//! The decoder: layers of a token mixer and an MLP around a residual stream, then the head.

use tch::{Device, Kind, Tensor};

use super::attention::Attention;
use super::cache::Slots;
use super::config::{Config, LayerType, TextConfig};
use super::delta_net::DeltaNet;
use super::layers::{Embedding, Linear, Mlp, RmsNorm};
use super::packing::{Asked, Packed};
use super::rotary::{Rotation, TextRotary};
use super::weights::{At, Weights};

pub(super) struct Decoder {
    pub embed_tokens: Embedding,
    rotary: TextRotary,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
}

impl Decoder {
    pub fn load(weights: &Weights, config: &Config, device: Device) -> Decoder {
        let at = weights.text();
        let text = &config.text;
        let embed_tokens = Embedding::load(&at.at("embed_tokens"));
        let lm_head = if config.tie_word_embeddings {
            Linear::sharing(&embed_tokens.weight)
        } else {
            Linear::load(&weights.root().at("lm_head"))
        };
        let layers = text.layer_types.iter().enumerate();
        Decoder {
            rotary: TextRotary::new(&text.rope, device),
            layers: layers
                .map(|(index, layer_type)| Layer::load(&at.at("layers").at(index), *layer_type, text))
                .collect(),
            norm: RmsNorm::load(&at.at("norm"), text.rms_norm_eps),
            embed_tokens,
            lm_head,
        }
    }

    /// The rotation of tokens at `positions` [3, tokens].
    pub fn rotation(&self, positions: &Tensor, kind: Kind) -> Rotation {
        self.rotary.at(positions, kind)
    }

    /// Embeddings [tokens, hidden] -> the last layer's output [tokens asked for, hidden]. `observe` sees every layer's.
    pub fn forward(
        &self,
        embeddings: Tensor,
        rotation: &Rotation,
        packed: &Packed,
        asked: Option<&Asked>,
        slots: &mut Slots,
        observe: &mut dyn FnMut(usize, &Tensor),
    ) -> Tensor {
        let mut hidden = embeddings;
        for (index, layer) in self.layers.iter().enumerate() {
            let asked = asked.filter(|_| index + 1 == self.layers.len());
            hidden = layer.forward(&hidden, rotation, packed, asked, slots, index);
            observe(index, &hidden);
        }
        hidden
    }

    /// The last layer's output [rows, hidden] -> logits [rows, vocabulary].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        self.lm_head.forward(&self.norm.forward(hidden))
    }
}

struct Layer {
    input_layernorm: RmsNorm,
    mixer: Mixer,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

enum Mixer {
    LinearAttention(DeltaNet),
    FullAttention(Attention),
}

impl Layer {
    fn load(at: &At, layer_type: LayerType, text: &TextConfig) -> Layer {
        Layer {
            input_layernorm: RmsNorm::load(&at.at("input_layernorm"), text.rms_norm_eps),
            mixer: match layer_type {
                LayerType::LinearAttention => Mixer::LinearAttention(DeltaNet::load(&at.at("linear_attn"), text)),
                LayerType::FullAttention => Mixer::FullAttention(Attention::load(&at.at("self_attn"), text)),
            },
            post_attention_layernorm: RmsNorm::load(&at.at("post_attention_layernorm"), text.rms_norm_eps),
            mlp: Mlp::load(&at.at("mlp")),
        }
    }

    /// [tokens, hidden] -> [tokens asked for, hidden]
    fn forward(
        &self,
        x: &Tensor,
        rotation: &Rotation,
        packed: &Packed,
        asked: Option<&Asked>,
        slots: &mut Slots,
        index: usize,
    ) -> Tensor {
        let only_asked = |x: Tensor| match asked {
            None => x,
            Some(asked) => asked.of(&x),
        };
        let normed = self.input_layernorm.forward(x);
        let mixed = match &self.mixer {
            Mixer::LinearAttention(delta_net) => {
                only_asked(delta_net.forward(&normed, &packed.batches, slots.states(index)))
            }
            Mixer::FullAttention(attention) => attention.forward(&normed, rotation, &packed.spans, asked, slots, index),
        };
        let x = only_asked(x.shallow_clone()) + mixed;
        let mixed = self.mlp.forward(&self.post_attention_layernorm.forward(&x));
        x + mixed
    }
}

//! Gated DeltaNet: the token mixer with a state of constant size, three layers of every four.

use tch::{Kind, Tensor};

use super::cache::{Recurrent, Slots};
use super::config::TextConfig;
use super::delta_rule::{DeltaInputs, gated_delta_rule};
use super::layers::{GatedRmsNorm, Linear};
use super::packing::{Span, pack};
use super::weights::At;

pub(super) struct DeltaNet {
    in_proj_qkv: Linear,
    in_proj_z: Linear,
    in_proj_b: Linear,
    in_proj_a: Linear,
    conv1d: Tensor,     // [channels, 1, kernel]
    decay_rate: Tensor, // -exp(A_log): [heads], fp32
    dt_bias: Tensor,    // [heads], fp32
    norm: GatedRmsNorm,
    out_proj: Linear,
    key_heads: i64,
    value_heads: i64,
    key_dim: i64,
    value_dim: i64,
}

impl DeltaNet {
    pub fn load(at: &At, text: &TextConfig) -> DeltaNet {
        DeltaNet {
            in_proj_qkv: Linear::load(&at.at("in_proj_qkv")),
            in_proj_z: Linear::load(&at.at("in_proj_z")),
            in_proj_b: Linear::load(&at.at("in_proj_b")),
            in_proj_a: Linear::load(&at.at("in_proj_a")),
            conv1d: at.at("conv1d").tensor("weight"),
            decay_rate: -at.tensor("A_log").to_kind(Kind::Float).exp(),
            dt_bias: at.tensor("dt_bias").to_kind(Kind::Float),
            norm: GatedRmsNorm::load(&at.at("norm"), text.rms_norm_eps),
            out_proj: Linear::load(&at.at("out_proj")),
            key_heads: text.linear_num_key_heads as i64,
            value_heads: text.linear_num_value_heads as i64,
            key_dim: text.linear_key_head_dim as i64,
            value_dim: text.linear_value_head_dim as i64,
        }
    }

    /// [tokens, hidden] -> [tokens, hidden], for all `spans` at once; each goes on from its own slot's state.
    pub fn forward(&self, x: &Tensor, spans: &[Span], slots: &mut Slots, layer: usize) -> Tensor {
        let projected = self.in_proj_qkv.forward(x); // [tokens, channels]
        let z = self.in_proj_z.forward(x).view((-1, self.value_heads, self.value_dim));
        let beta = self.in_proj_b.forward(x).sigmoid(); // [tokens, heads]
        let step = (self.in_proj_a.forward(x).to_kind(Kind::Float) + &self.dt_bias).softplus();
        let decay = &self.decay_rate * step; // <= 0

        let convolved = spans.iter().map(|span| self.convolve(&span.of(&projected), slots.recurrent(span.slot, layer)));
        let inputs = self.inputs(&pack(convolved.collect()), &beta, &decay);
        let read = spans.iter().map(|span| {
            let state = slots.recurrent(span.slot, layer).state();
            gated_delta_rule(&inputs.narrow(span.first, span.len), state)
        });
        let read = pack(read.collect()).to_kind(x.kind()); // [tokens, heads, value_dim]
        self.out_proj.forward(&self.norm.forward(&read, &z).flatten(1, 2))
    }

    /// A causal convolution of each channel with its own past, then SiLU: [tokens, channels], of the same shape.
    fn convolve(&self, projected: &Tensor, memory: &mut Recurrent) -> Tensor {
        let (tokens, channels) = projected.size2().expect("Invariant: the projection is [tokens, channels]");
        let past = memory.conv(); // [channels, kernel - 1]
        let window = Tensor::cat(&[&*past, &projected.tr()], 1); // [channels, kernel - 1 + tokens]
        past.copy_(&window.narrow(1, tokens, past.size()[1]));
        let convolved = window.unsqueeze(0).conv1d(&self.conv1d, None::<&Tensor>, 1, 0, 1, channels);
        convolved.silu().squeeze_dim(0).tr()
    }

    /// Cuts the convolved channels [tokens, channels] into queries, keys and values.
    fn inputs(&self, convolved: &Tensor, beta: &Tensor, decay: &Tensor) -> DeltaInputs {
        let (keys, values) = (self.key_heads * self.key_dim, self.value_heads * self.value_dim);
        let heads = |first: i64, len: i64, dim: i64| convolved.narrow(1, first, len).reshape([-1, len / dim, dim]);
        let (q, k) = (heads(0, keys, self.key_dim), heads(keys, keys, self.key_dim));
        let v = heads(2 * keys, values, self.value_dim);
        DeltaInputs::new(&q, &k, &v, beta, decay)
    }
}

//! Gated DeltaNet: the token mixer with a state of constant size, three layers of every four.

use tch::{Kind, Tensor};

use super::cache::States;
use super::config::TextConfig;
use super::convolution::CausalConvolution;
use super::delta_rule::{DeltaInputs, gated_delta_rule, one_each};
use super::elementwise::{by_rows, elementwise};
use super::layers::{GatedRmsNorm, Linear};
use super::packing::{Batch, pack};
use super::weights::At;

pub(super) struct DeltaNet {
    in_proj_qkv: Linear,
    in_proj_z: Linear,
    in_proj_b: Linear,
    in_proj_a: Linear,
    conv1d: CausalConvolution,
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
            conv1d: CausalConvolution::load(&at.at("conv1d")),
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

    /// [tokens, hidden] -> [tokens, hidden], for all `batches` at once; each sequence goes on from its own slot's state.
    pub fn forward(&self, x: &Tensor, batches: &[Batch], states: &States) -> Tensor {
        let layers = [&self.in_proj_qkv, &self.in_proj_z, &self.in_proj_b, &self.in_proj_a];
        let [projected, z, beta, step] = Linear::forward_each(layers, x); // projected: [tokens, channels]
        let z = z.view((-1, self.value_heads, self.value_dim));
        let beta = elementwise(&beta, Tensor::sigmoid); // [tokens, heads]
        let step = step.to_kind(Kind::Float) + &self.dt_bias;
        let step = elementwise(&step, Tensor::softplus);
        let decay = &self.decay_rate * step; // <= 0

        let convolved = batches.iter().map(|batch| {
            let (projected, mut past) = (batch.of(&projected), states.conv(&batch.slots));
            match batch.is_one_each() {
                true => self.conv1d.forward_each(&projected, &mut past),
                false => self.conv1d.forward(&projected, &mut past.get(0)),
            }
        });
        let convolved = by_rows([&pack(convolved.collect())], |[x]| x.silu());
        let inputs = self.inputs(&convolved, &beta, &decay);
        let read = batches.iter().map(|batch| {
            let (inputs, mut state) = (inputs.narrow(batch.first, batch.len), states.rule(&batch.slots));
            match batch.is_one_each() {
                true => one_each(&inputs, &mut state),
                false => gated_delta_rule(&inputs, &mut state.get(0)),
            }
        });
        let read = pack(read.collect()).to_kind(x.kind()); // [tokens, heads, value_dim]
        self.out_proj.forward(&self.norm.forward(&read, &z).flatten(1, 2))
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

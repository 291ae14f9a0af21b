//! Gated DeltaNet: the token mixer with a state of constant size, three layers of every four.

use tch::{Kind, Tensor};

use super::cache::States;
use super::config::TextConfig;
use super::convolution::CausalConvolution;
use super::delta_rule::{DeltaInputs, HeadShape, gated_delta_rule, one_each};
use super::kernels;
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
    shape: HeadShape,
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
            shape: HeadShape {
                num_heads: text.linear_num_value_heads as i64,
                key_dim: text.linear_key_head_dim as i64,
                value_dim: text.linear_value_head_dim as i64,
            },
        }
    }

    /// [tokens, hidden] -> [tokens, hidden], for all `batches` at once; each sequence goes on from its own slot's state.
    pub fn forward(&self, x: &Tensor, batches: &[Batch], states: &States) -> Tensor {
        let layers = [&self.in_proj_qkv, &self.in_proj_z, &self.in_proj_b, &self.in_proj_a];
        let [projected, z, written, step] = Linear::forward_each(layers, x); // projected: [tokens, channels]
        let [beta, decay] = self.gates(&written, &step);
        let mixed = batches.iter().map(|batch| {
            let (projected, mut past) = (batch.of(&projected), states.conv(&batch.slots));
            match batch.is_one_each() {
                true => self.conv1d.forward_each(&projected, &mut past),
                false => self.conv1d.forward(&projected, &mut past.get(0)),
            }
        });
        let inputs = DeltaInputs::new(pack(mixed.collect()), beta, decay, self.shape);
        let read = batches.iter().map(|batch| {
            let (inputs, mut state) = (inputs.narrow(batch.first, batch.len), states.rule(&batch.slots));
            match batch.is_one_each() {
                true => one_each(&inputs, &mut state),
                false => gated_delta_rule(&inputs, &mut state.get(0)),
            }
        });
        let read = pack(read.collect()); // [tokens, heads, value_dim]
        self.out_proj.forward(&self.norm.forward(&read, &z.view_as(&read)).flatten(1, 2))
    }

    /// How much of each token is written, and the logarithm of how much of the state is kept: [tokens, heads] in fp32 each.
    fn gates(&self, written: &Tensor, step: &Tensor) -> [Tensor; 2] {
        kernels::gates(written, step, &self.dt_bias, &self.decay_rate)
            .unwrap_or_else(|| self.gates_by_libtorch(written, step))
    }

    fn gates_by_libtorch(&self, written: &Tensor, step: &Tensor) -> [Tensor; 2] {
        let step = (step.to_kind(Kind::Float) + &self.dt_bias).softplus();
        [written.sigmoid().to_kind(Kind::Float), &self.decay_rate * step]
    }
}

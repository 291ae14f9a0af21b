//! The plain layers: linear, norms, embedding, MLP. Only here is known how a linear layer multiplies.

use tch::{Kind, Tensor};

use super::cpu::{is_exact, is_worth_widening};
use super::weights::At;

/// `x W^T + b`.
pub(super) struct Linear {
    weight: Tensor, // [outputs, inputs]
    bias: Option<Tensor>,
}

impl Linear {
    pub fn load(at: &At) -> Linear {
        Linear { weight: at.tensor("weight"), bias: None }
    }

    /// A layer with outputs to spare, all zero, so that they are a multiple of `multiple`.
    pub fn load_padded(at: &At, multiple: i64) -> Linear {
        Linear { weight: padded(&at.tensor("weight"), multiple), bias: None }
    }

    pub fn load_biased(at: &At) -> Linear {
        Linear { weight: at.tensor("weight"), bias: Some(at.tensor("bias")) }
    }

    /// A layer over a weight that is held elsewhere too: the tied head.
    pub fn sharing(weight: &Tensor) -> Linear {
        Linear { weight: weight.shallow_clone(), bias: None }
    }

    /// A convolution whose kernel is its stride sees each patch once: it is a linear layer over flattened patches.
    pub fn load_patch_convolution(at: &At) -> Linear {
        Linear { weight: at.tensor("weight").flatten(1, -1), bias: Some(at.tensor("bias")) }
    }

    /// [rows, inputs] -> [rows, outputs]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let rows = x.size()[0];
        if rows >= WORTH_WIDENING && is_worth_widening(x) {
            return self.forward_widened(x);
        }
        if (2..=EXACT_ROWS).contains(&rows) && self.bias.is_none() && is_exact(x.kind(), x.device()) {
            return self.forward_each(x);
        }
        x.linear(&self.weight, self.bias.as_ref())
    }

    /// Each row as it is multiplied alone, bit for bit. libtorch rounds a row of a product in one way alone, in another among two
    /// or three, and in a third among more (fp32, MKL).
    fn forward_each(&self, x: &Tensor) -> Tensor {
        let weight = self.weight.tr().unsqueeze(0).expand([x.size()[0], -1, -1], false); // no copy: [rows, inputs, outputs]
        x.unsqueeze(1).bmm(&weight).squeeze_dim(1)
    }

    /// The same sums of the same products, in fp32 and rounded once, as the bf16 operator does it. Block by block, so that a
    /// wide copy of the largest weight never exists.
    fn forward_widened(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float);
        let outputs = self.weight.size()[0];
        let block = (WIDENED_ELEMENTS / self.weight.size()[1]).clamp(1, outputs);
        let blocks: Vec<Tensor> = (0..outputs)
            .step_by(block as usize)
            .map(|first| {
                let length = block.min(outputs - first);
                let part = |tensor: &Tensor| tensor.narrow(0, first, length).to_kind(Kind::Float);
                x.linear(&part(&self.weight), self.bias.as_ref().map(part)).to_kind(Kind::BFloat16)
            })
            .collect();
        Tensor::cat(&blocks, -1)
    }
}

/// Up to so many rows a linear layer gives each the bits that it gets alone, where it [`is_exact`]. The price grows with the
/// rows: a product with 192 x 448 takes 1.5 times as long at 4 rows, 1.8 at 8, 2.7 at 16, with 2560 x 9216 1.0, 2.0 and 2.8.
pub(super) const EXACT_ROWS: i64 = 16;

/// `x` with zeros behind its first dimension, up to a multiple of `multiple`; itself where it is one.
pub(super) fn padded(x: &Tensor, multiple: i64) -> Tensor {
    let missing = (multiple - x.size()[0] % multiple) % multiple;
    if missing == 0 {
        return x.shallow_clone();
    }
    let zeros = [&[missing], &x.size()[1..]].concat();
    Tensor::cat(&[x, &Tensor::zeros(zeros, (x.kind(), x.device()))], 0)
}

/// Rows from which a wide copy of the weight costs less than slow products. 2560 x 9216 on one thread with AVX2, ms in bf16
/// and widened: 19 and 17 at 4 rows, 36 and 20 at 8, 280 and 48 at 64, 1123 and 166 at 256.
const WORTH_WIDENING: i64 = 8;

/// Weights that are widened at a time, so that they are still in the cache when they are multiplied: 4 MiB of fp32. The whole
/// weight at once took 135 ms at 64 rows.
const WIDENED_ELEMENTS: i64 = 1 << 20;

/// Token embeddings.
pub(super) struct Embedding {
    pub weight: Tensor, // [vocabulary, hidden]
}

impl Embedding {
    pub fn load(at: &At) -> Embedding {
        Embedding { weight: at.tensor("weight") }
    }

    /// [tokens] -> [tokens, hidden]
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        self.weight.index_select(0, ids)
    }
}

/// Zero-centred RMSNorm: `x / rms(x) * (1 + w)`, all in fp32 and rounded once, at the end.
pub(super) struct RmsNorm {
    scale: Tensor, // 1 + w, fp32
    eps: f64,
}

impl RmsNorm {
    pub fn load(at: &At, eps: f64) -> RmsNorm {
        RmsNorm { scale: at.tensor("weight").to_kind(Kind::Float) + 1.0, eps }
    }

    /// Over the last dimension.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        (by_rms(x, self.eps) * &self.scale).to_kind(x.kind())
    }
}

/// RMSNorm with a plain weight, then a gate: `w * (x / rms(x)) * silu(gate)`. As in Transformers the product with the
/// weight is rounded to the activations' type, the one with the gate is fp32.
pub(super) struct GatedRmsNorm {
    weight: Tensor,
    eps: f64,
}

impl GatedRmsNorm {
    pub fn load(at: &At, eps: f64) -> GatedRmsNorm {
        GatedRmsNorm { weight: at.tensor("weight"), eps }
    }

    /// Over the last dimension.
    pub fn forward(&self, x: &Tensor, gate: &Tensor) -> Tensor {
        let scaled = &self.weight * by_rms(x, self.eps).to_kind(x.kind());
        (scaled * gate.to_kind(Kind::Float).silu()).to_kind(x.kind())
    }
}

/// `x / rms(x)` in fp32.
fn by_rms(x: &Tensor, eps: f64) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let inverse = (x.square().mean_dim(-1, true, Kind::Float) + eps).rsqrt();
    x * inverse
}

/// LayerNorm with bias, of the vision tower.
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    const EPS: f64 = 1e-6;

    pub fn load(at: &At) -> LayerNorm {
        LayerNorm { weight: at.tensor("weight"), bias: at.tensor("bias") }
    }

    /// Over the last dimension.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), LayerNorm::EPS, true)
    }
}

/// The decoder's gated MLP: `down(silu(gate(x)) * up(x))`.
pub(super) struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    pub fn load(at: &At) -> Mlp {
        Mlp {
            gate_proj: Linear::load(&at.at("gate_proj")),
            up_proj: Linear::load(&at.at("up_proj")),
            down_proj: Linear::load(&at.at("down_proj")),
        }
    }

    /// [tokens, hidden] -> [tokens, hidden]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let gate = self.gate_proj.forward(x).silu();
        self.down_proj.forward(&(gate * self.up_proj.forward(x)))
    }
}

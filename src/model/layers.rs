//! The plain layers: linear, norms, embedding, MLP. Only here is known how a linear layer multiplies.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::kernels::{self, Gate};
use super::weight::Weight;
use super::weights::At;

/// `x W^T + b`.
pub(super) struct Linear {
    weight: Weight, // [outputs, inputs]
    bias: Option<Tensor>,
}

impl Linear {
    pub fn load(at: &At) -> Linear {
        Linear { weight: at.weight("weight"), bias: None }
    }

    pub fn load_biased(at: &At) -> Linear {
        Linear { weight: at.weight("weight"), bias: Some(at.tensor("bias")) }
    }

    /// A layer over a weight that is held elsewhere too: the tied head.
    pub fn sharing(weight: &Weight) -> Linear {
        Linear { weight: weight.shallow_clone(), bias: None }
    }

    /// A convolution whose kernel is its stride sees each patch once: it is a linear layer over flattened patches.
    pub fn load_patch_convolution(at: &At) -> Linear {
        Linear { weight: Weight::Plain(at.tensor("weight").flatten(1, -1)), bias: Some(at.tensor("bias")) }
    }

    /// [rows, inputs] -> [rows, outputs]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let [product] = Linear::forward_each([self], x);
        product
    }

    /// Several layers of the same rows, which are shared out among the threads together.
    pub fn forward_each<const N: usize>(layers: [&Linear; N], x: &Tensor) -> [Tensor; N] {
        let x = x.contiguous();
        let products = kernels::linear(&x, layers.map(|layer| (&layer.weight, layer.bias.as_ref())));
        products.unwrap_or_else(|| layers.map(|layer| layer.by_libtorch(&x)))
    }

    /// On a CPU our threads call libtorch's operator, each for a part of the outputs.
    fn by_libtorch(&self, x: &Tensor) -> Tensor {
        let weight = self.weight.to_plain(x.kind());
        let threads = rayon::current_num_threads();
        if x.device() != Device::Cpu || threads == 1 {
            return x.linear(&weight, self.bias.as_ref());
        }
        let biases = self.bias.as_ref().map(|bias| bias.chunk(threads as i64, 0));
        let parts = weight.chunk(threads as i64, 0).into_iter().enumerate().map(|(part, weight)| {
            let bias = biases.as_ref().map(|biases| biases[part].shallow_clone());
            (x.shallow_clone(), weight, bias)
        });
        let parts: Vec<_> = parts.collect();
        let products = parts.into_par_iter().map(|(x, weight, bias)| x.linear(&weight, bias.as_ref()));
        Tensor::cat(&products.collect::<Vec<_>>(), 1)
    }
}

/// Token embeddings.
pub(super) struct Embedding {
    pub weight: Weight, // [vocabulary, hidden]
    kind: Kind,
}

impl Embedding {
    pub fn load(at: &At) -> Embedding {
        Embedding { weight: at.weight("weight"), kind: at.kind() }
    }

    /// [tokens] -> [tokens, hidden]
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        self.weight.rows(ids, self.kind)
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

    /// Over the last dimension of `x` [..., columns], or over its first columns where there are more than weights.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        kernels::rms_norm(&x.contiguous(), &self.scale, self.eps).unwrap_or_else(|| self.by_libtorch(x))
    }

    fn by_libtorch(&self, x: &Tensor) -> Tensor {
        let x = x.narrow(-1, 0, self.scale.size()[0]);
        (by_rms(&x, self.eps) * &self.scale).to_kind(x.kind())
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
        kernels::gated_rms_norm(x, gate, &self.weight, self.eps).unwrap_or_else(|| self.by_libtorch(x, gate))
    }

    fn by_libtorch(&self, x: &Tensor, gate: &Tensor) -> Tensor {
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
        let [gate, up] = Linear::forward_each([&self.gate_proj, &self.up_proj], x);
        let inner = kernels::gated(&up, &gate, Gate::Silu).unwrap_or_else(|| gate.silu() * up);
        self.down_proj.forward(&inner)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::{GatedRmsNorm, Linear, RmsNorm, Weight};
    use crate::model::kernels::agreement::assert_agree;

    /// On a CPU that multiplies bf16 by itself, libtorch's is the form that reads prompts.
    #[test]
    fn both_forms_of_a_linear_layer_agree() {
        for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 2e-2)] {
            let random = |shape: &[i64]| (Tensor::rand(shape, (Kind::Float, Device::Cpu)) - 0.5).to_kind(kind);
            let plain_weight = |shape: &[i64]| Weight::Plain(random(shape));
            let biased = Linear { weight: plain_weight(&[33, 70]), bias: Some(random(&[33])) };
            let plain = Linear { weight: plain_weight(&[5, 70]), bias: None };
            for rows in [1, 5, 40] {
                let x = random(&[rows, 70]);
                let products = Linear::forward_each([&biased, &plain], &x);
                for (product, layer) in products.iter().zip([&biased, &plain]) {
                    let other = layer.by_libtorch(&x);
                    assert_eq!((product.size(), product.kind()), (other.size(), kind));
                    let worst = (product - other).abs().max().double_value(&[]);
                    assert!(worst < tolerance, "{rows} rows in {kind:?}: off by {worst}");
                }
            }
        }
    }

    #[test]
    fn both_forms_of_the_norms_agree() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind);
            let (x, gate) = (random(&[37, 4, 120]), random(&[37, 4, 120]) * 3.0);
            let plain = RmsNorm { scale: random(&[120]).to_kind(Kind::Float), eps: 1e-6 };
            assert_agree(&plain.forward(&x), &plain.by_libtorch(&x));
            let gated = GatedRmsNorm { weight: random(&[120]), eps: 1e-6 };
            assert_agree(&gated.forward(&x, &gate), &gated.by_libtorch(&x, &gate));
        }
    }
}

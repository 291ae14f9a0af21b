//! The causal convolution before the delta rule: each channel with its own last few values.

use tch::{Kind, Tensor};

use super::cpu::is_worth_widening;
use super::weights::At;

pub(super) struct CausalConvolution {
    weight: Tensor, // [channels, 1, kernel]; fp32 where products are widened
    kind: Kind,
}

impl CausalConvolution {
    /// libtorch's bf16 fallback takes 28 ms for one token of 8192 channels where fp32 takes 0.24 (one thread, AVX2).
    pub fn load(at: &At) -> CausalConvolution {
        let weight = at.tensor("weight");
        let kind = weight.kind();
        let weight = if is_worth_widening(&weight) { weight.to_kind(Kind::Float) } else { weight };
        CausalConvolution { weight, kind }
    }

    /// [tokens, channels], of the same shape. `past` holds the columns before the first token, [channels, kernel - 1], and
    /// afterwards those before the next.
    pub fn forward(&self, x: &Tensor, past: &mut Tensor) -> Tensor {
        let (tokens, channels) = x.size2().expect("Invariant: the projection is [tokens, channels]");
        let window = Tensor::cat(&[&*past, &x.tr()], 1); // [channels, kernel - 1 + tokens]
        past.copy_(&window.narrow(1, tokens, past.size()[1]));
        let window = window.unsqueeze(0).to_kind(self.weight.kind());
        let convolved = window.conv1d(&self.weight, None::<&Tensor>, 1, 0, 1, channels).to_kind(self.kind);
        convolved.squeeze_dim(0).tr()
    }
}

//! The causal convolution before the delta rule, and its SiLU: each channel with its own last few values.

use tch::{Kind, Tensor};

use super::kernels;
use super::weights::At;

pub(super) struct CausalConvolution {
    weight: Tensor, // [channels, 1, kernel]
    taps: Tensor,   // the same as [kernel, channels], fp32
    kind: Kind,
}

impl CausalConvolution {
    pub fn load(at: &At) -> CausalConvolution {
        let weight = at.tensor("weight");
        let kind = weight.kind();
        let taps = weight.squeeze_dim(1).tr().to_kind(Kind::Float).contiguous();
        CausalConvolution { weight, taps, kind }
    }

    /// The next tokens of one sequence, [tokens, channels], of the same shape. `past` [kernel - 1, channels] holds the rows
    /// before the first token, and afterwards those before the next.
    pub fn forward(&self, x: &Tensor, past: &mut Tensor) -> Tensor {
        kernels::convolve(&x.contiguous(), past, &self.taps).unwrap_or_else(|| self.forward_by_libtorch(x, past))
    }

    fn forward_by_libtorch(&self, x: &Tensor, past: &mut Tensor) -> Tensor {
        let (tokens, channels) = x.size2().expect("Invariant: activations are [tokens, channels]");
        let window = Tensor::cat(&[past.tr(), x.tr()], 1); // [channels, kernel - 1 + tokens]
        past.copy_(&window.narrow(1, tokens, past.size()[0]).tr());
        let convolved = window.unsqueeze(0).conv1d(&self.weight, None::<&Tensor>, 1, 0, 1, channels);
        convolved.squeeze_dim(0).tr().silu() // [tokens, channels]
    }

    /// The next token of each of some sequences, [sequences, channels], of the same shape; `past` [sequences, kernel - 1,
    /// channels]. What a sequence gets does not depend on the others.
    pub fn forward_each(&self, x: &Tensor, past: &mut Tensor) -> Tensor {
        if let Some(convolved) = kernels::convolve(&x.contiguous(), past, &self.taps) {
            return convolved;
        }
        let window = Tensor::cat(&[&*past, &x.unsqueeze(1)], 1); // [sequences, kernel, channels]
        past.copy_(&window.narrow(1, 1, past.size()[1]));
        (window * &self.taps).sum_dim_intlist(1, false, Kind::Float).to_kind(self.kind).silu()
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::CausalConvolution;

    #[test]
    fn sequences_together_get_the_bits_that_they_get_alone_and_the_numbers_of_libtorchs() {
        const MOST: i64 = 8;
        for channels in [160, 256, 8192] {
            let random = |shape: &[i64]| Tensor::rand(shape, (Kind::Float, Device::Cpu)) - 0.5;
            let weight = random(&[channels, 1, 4]);
            let taps = weight.squeeze_dim(1).tr().contiguous();
            let conv1d = CausalConvolution { weight, taps, kind: Kind::Float };
            let (x, past) = (random(&[MOST, channels]), random(&[MOST, 3, channels]));
            let each = |first: i64, len: i64| {
                let mut past = past.narrow(0, first, len).copy();
                (conv1d.forward_each(&x.narrow(0, first, len), &mut past), past)
            };
            for count in 1..=MOST {
                let (together, pasts) = each(0, count);
                for sequence in 0..count {
                    let (alone, past_alone) = each(sequence, 1);
                    assert!(together.narrow(0, sequence, 1).equal(&alone), "{count} of {channels} channels");
                    assert!(pasts.narrow(0, sequence, 1).equal(&past_alone), "{count} of {channels} channels");
                }
            }
            let mut past_long = past.get(0).copy();
            let long = conv1d.forward(&x, &mut past_long);
            let mut past_by_libtorch = past.get(0).copy();
            let by_libtorch = conv1d.forward_by_libtorch(&x, &mut past_by_libtorch);
            assert!((&long - by_libtorch).abs().max().double_value(&[]) < 1e-6);
            assert!(past_long.equal(&past_by_libtorch));
            let mut past = past.narrow(0, 0, 1).copy();
            for token in 0..MOST {
                let short = conv1d.forward_each(&x.narrow(0, token, 1), &mut past);
                assert!(short.equal(&long.narrow(0, token, 1)), "token {token} of {channels} channels");
            }
            assert!(past.get(0).equal(&past_long));
        }
    }
}

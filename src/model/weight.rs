//! A linear layer's weight as it is held: numbers, or codes and scales that it was quantised to when it was loaded.

use tch::{Kind, Tensor};

use super::kernels;
use super::options::Quantization;

/// A weight [outputs, inputs].
pub(super) enum Weight {
    Plain(Tensor),
    Quantized(Quantized),
}

/// A code for every weight, and a scale for every [`kernels::GROUP`] inputs of an output: a weight is its code times its scale.
pub(super) struct Quantized {
    pub quantization: Quantization,
    /// In 8 bits [outputs, inputs], int8; in 4 bits [outputs, inputs / 8], int32, each of which holds eight codes.
    pub codes: Tensor,
    pub scales: Tensor, // [outputs, inputs / GROUP], bf16
}

impl Weight {
    /// As numbers of `kind`: a copy of a quantised weight.
    pub fn to_plain(&self, kind: Kind) -> Tensor {
        match self {
            Weight::Plain(weight) => weight.shallow_clone(),
            Weight::Quantized(quantized) => quantized.dequantize(kind),
        }
    }

    /// Cut into so many parts, at most, of neighbouring outputs.
    pub fn chunk(&self, parts: i64) -> Vec<Weight> {
        match self {
            Weight::Plain(weight) => weight.chunk(parts, 0).into_iter().map(Weight::Plain).collect(),
            Weight::Quantized(Quantized { quantization, codes, scales }) => {
                let parts = codes.chunk(parts, 0).into_iter().zip(scales.chunk(parts, 0));
                let part = |(codes, scales)| Quantized { quantization: *quantization, codes, scales };
                parts.map(|part_of| Weight::Quantized(part(part_of))).collect()
            }
        }
    }

    /// The outputs `ids`, as numbers of `kind`: [ids, inputs].
    pub fn rows(&self, ids: &Tensor, kind: Kind) -> Tensor {
        match self {
            Weight::Plain(weight) => weight.index_select(0, ids),
            Weight::Quantized(Quantized { quantization, codes, scales }) => {
                let (codes, scales) = (codes.index_select(0, ids), scales.index_select(0, ids));
                Quantized { quantization: *quantization, codes, scales }.dequantize(kind)
            }
        }
    }

    /// The same weight, held once.
    pub fn shallow_clone(&self) -> Weight {
        match self {
            Weight::Plain(weight) => Weight::Plain(weight.shallow_clone()),
            Weight::Quantized(Quantized { quantization, codes, scales }) => Weight::Quantized(Quantized {
                quantization: *quantization,
                codes: codes.shallow_clone(),
                scales: scales.shallow_clone(),
            }),
        }
    }
}

impl Quantized {
    /// The plain form of what the kernels do while they multiply: exact in fp32.
    pub fn dequantize(&self, kind: Kind) -> Tensor {
        let (outputs, groups) = self.scales.size2().expect("Invariant: scales are [outputs, groups]");
        let codes = match self.quantization {
            Quantization::Int8 => self.codes.to_kind(Kind::Float),
            Quantization::Int4 => {
                // Eight lanes make a step; a lane's n-th code is the step's n-th eight.
                let lanes = self.codes.view([outputs, -1, 1, 8]);
                let shifts = Tensor::arange_start_step(0, 32, 4, (Kind::Int, lanes.device())).view([8, 1]);
                lanes.bitwise_right_shift(&shifts).bitwise_and(15).to_kind(Kind::Float) - 8.0
            }
        };
        let scales = self.scales.to_kind(Kind::Float).unsqueeze(-1);
        (codes.reshape([outputs, groups, kernels::GROUP as i64]) * scales).view([outputs, -1]).to_kind(kind)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::Weight;
    use crate::model::kernels;
    use crate::model::options::Quantization;

    #[test]
    fn every_weight_is_within_half_a_step_of_what_it_was() {
        for (quantization, codes) in [(Quantization::Int8, 127.0), (Quantization::Int4, 8.0)] {
            for kind in [Kind::Float, Kind::BFloat16] {
                let weight = Tensor::randn([5, 192], (Kind::Float, Device::Cpu)).to_kind(kind);
                let (outputs, groups) = (5, 192 / kernels::GROUP as i64);
                let by_group = |x: &Tensor| x.to_kind(Kind::Double).view([outputs, groups, -1]);
                let quantized = kernels::quantize(&weight, quantization);
                let step = by_group(&weight).abs().amax([-1_i64], true) / codes;
                let error = by_group(&(quantized.dequantize(Kind::Float) - &weight)).abs() / step;
                // Half a step, and what rounding the scale to bf16 makes of the largest code; in 4 bits the largest code has
                // no counterpart on the other side of zero.
                let most = if quantization == Quantization::Int4 { 1.05 } else { 0.76 };
                let worst = error.max().double_value(&[]);
                assert!((0.4..most).contains(&worst), "{quantization:?} of {kind:?}: off by {worst} steps");
            }
        }
    }

    #[test]
    fn zeros_and_whole_steps_stay_what_they_are() {
        for quantization in [Quantization::Int8, Quantization::Int4] {
            let zeros = Tensor::zeros([3, 64], (Kind::Float, Device::Cpu));
            assert!(kernels::quantize(&zeros, quantization).dequantize(Kind::Float).equal(&zeros));
        }
        let steps = (Tensor::arange(64, (Kind::Int, Device::Cpu)).remainder(16) - 8).to_kind(Kind::Float) * 0.25;
        let quantized = kernels::quantize(&steps.view([1, 64]), Quantization::Int4);
        assert!(quantized.dequantize(Kind::Float).equal(&steps.view([1, 64])));
    }

    #[test]
    fn rows_and_parts_are_those_of_the_whole() {
        let weight = Tensor::randn([7, 128], (Kind::Float, Device::Cpu));
        for quantization in [Quantization::Int8, Quantization::Int4] {
            let weight = Weight::Quantized(kernels::quantize(&weight, quantization));
            let whole = weight.to_plain(Kind::Float);
            let ids = Tensor::from_slice(&[6_i64, 0, 6]);
            assert!(weight.rows(&ids, Kind::Float).equal(&whole.index_select(0, &ids)));
            let parts: Vec<Tensor> = weight.chunk(3).iter().map(|part| part.to_plain(Kind::Float)).collect();
            assert!(Tensor::cat(&parts, 0).equal(&whole));
        }
    }
}

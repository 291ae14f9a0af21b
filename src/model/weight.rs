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
    /// As the kernels read them, see `kernels/quantized.rs`: [panels, bytes of one].
    pub panels: Tensor,
    pub outputs: i64,
    pub inputs: i64,
}

impl Weight {
    /// As numbers of `kind`: a copy of a quantised weight.
    pub fn to_plain(&self, kind: Kind) -> Tensor {
        match self {
            Weight::Plain(weight) => weight.shallow_clone(),
            Weight::Quantized(quantized) => quantized.dequantize(kind),
        }
    }

    /// The outputs `ids`, as numbers of `kind`: [ids, inputs].
    pub fn rows(&self, ids: &Tensor, kind: Kind) -> Tensor {
        match self {
            Weight::Plain(weight) => weight.index_select(0, ids),
            Weight::Quantized(quantized) => quantized.rows(ids, kind),
        }
    }

    /// The same weight, held once.
    pub fn shallow_clone(&self) -> Weight {
        match self {
            Weight::Plain(weight) => Weight::Plain(weight.shallow_clone()),
            Weight::Quantized(weight) => {
                Weight::Quantized(Quantized { panels: weight.panels.shallow_clone(), ..*weight })
            }
        }
    }
}

impl Quantized {
    /// The plain form of what the kernels do while they multiply: exact in fp32.
    pub fn dequantize(&self, kind: Kind) -> Tensor {
        let [scales, codes] = self.fields().map(|field| field.transpose(1, 2).flatten(0, 1)); // [outputs, blocks, bytes]
        self.product(&scales, &codes).narrow(0, 0, self.outputs).to_kind(kind)
    }

    /// The outputs `ids`: [ids, inputs].
    fn rows(&self, ids: &Tensor, kind: Kind) -> Tensor {
        let panel = ids.divide_scalar_mode(kernels::PANEL as i64, "floor");
        let output = ids.remainder(kernels::PANEL as i64);
        let [scales, codes] = self.fields().map(|field| field.index(&[Some(&panel), None, Some(&output)]));
        self.product(&scales, &codes).to_kind(kind)
    }

    /// Scales and codes [panels, blocks, outputs of a panel, bytes], where they lie.
    fn fields(&self) -> [Tensor; 2] {
        let panels = self.panels.view([self.panels.size()[0], self.blocks(), -1]);
        let scale_bytes = (kernels::PANEL * kernels::SCALE_BYTES) as i64;
        let code_bytes = panels.size()[2] - scale_bytes;
        [panels.narrow(2, 0, scale_bytes), panels.narrow(2, scale_bytes, code_bytes)].map(|field| {
            let (panels, blocks, bytes) = field.size3().expect("Invariant: it was just made of three dimensions");
            field.view([panels, blocks, kernels::PANEL as i64, bytes / kernels::PANEL as i64])
        })
    }

    fn blocks(&self) -> i64 {
        (self.inputs as usize).div_ceil(kernels::BLOCK) as i64
    }

    /// Scales and codes [outputs, blocks, bytes] -> [outputs, inputs] in fp32.
    fn product(&self, scales: &Tensor, codes: &Tensor) -> Tensor {
        let (scales, codes) = (scales.contiguous(), codes.contiguous());
        let groups = (kernels::BLOCK / kernels::GROUP) as i64;
        // [..., registers, groups, pairs in a register, halves of a pair]
        let codes = match self.quantization {
            Quantization::Int8 => codes.view_dtype(Kind::Int8).view([-1, 8, groups, 2, 2]).transpose(3, 4),
            Quantization::Int4 => {
                let eights = codes.view_dtype(Kind::Int).view([-1, 4, groups, 1, 1]);
                let shifts = [0_i64, 16, 4, 20, 8, 24, 12, 28];
                let shifts = Tensor::from_slice(&shifts).to_kind(Kind::Int).to_device(eights.device()).view([4, 2]);
                eights.bitwise_right_shift(&shifts).bitwise_and(15) - 8
            }
        };
        let weights = codes.transpose(1, 2).reshape([-1, groups, kernels::GROUP as i64]).to_kind(Kind::Float)
            * scales.view_dtype(Kind::BFloat16).view([-1, groups, 1]).to_kind(Kind::Float);
        weights.view([scales.size()[0], -1]).narrow(1, 0, self.inputs)
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
    fn rows_are_those_of_the_whole() {
        let weight = Tensor::randn([39, 320], (Kind::Float, Device::Cpu));
        for quantization in [Quantization::Int8, Quantization::Int4] {
            let weight = Weight::Quantized(kernels::quantize(&weight, quantization));
            let whole = weight.to_plain(Kind::Float);
            let ids = Tensor::from_slice(&[6_i64, 38, 0, 17, 6]);
            assert!(weight.rows(&ids, Kind::Float).equal(&whole.index_select(0, &ids)));
        }
    }
}

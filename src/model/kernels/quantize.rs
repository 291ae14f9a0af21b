//! Quantises weights: round to nearest, a scale for every group, symmetric around zero.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::element::{Bf16, Element};
use super::quantized::{BLOCK, Codes, GROUP, Int4, Int8, PANEL, PanelBlock};
use super::tensors::{Matrix, Output};
use super::vector::{self, Loop};
use crate::model::options::Quantization;
use crate::model::weight::Quantized;

/// `weight` [outputs, inputs] on the CPU in fp32 or bf16, whose inputs make whole groups, in so many bits.
pub(in super::super) fn quantize(weight: &Tensor, quantization: Quantization) -> Quantized {
    let weight = weight.contiguous();
    match weight.kind() {
        Kind::BFloat16 => quantize_of::<Bf16>(&weight, quantization),
        _ => quantize_of::<f32>(&weight.to_kind(Kind::Float), quantization),
    }
}

fn quantize_of<T: Element>(weight: &Tensor, quantization: Quantization) -> Quantized {
    let weight = Matrix::<T>::of(weight).expect("Invariant: weights are loaded on the CPU, in one piece");
    let panels = match quantization {
        Quantization::Int8 => panels_of::<T, Int8>(&weight),
        Quantization::Int4 => panels_of::<T, Int4>(&weight),
    };
    Quantized { quantization, panels, outputs: weight.rows() as i64, inputs: weight.columns as i64 }
}

/// Codes that a group can be rounded to.
trait Rounds: Codes {
    /// Its scale, and its codes.
    fn round(group: &[f32; GROUP]) -> (Bf16, [i8; GROUP]);
}

impl Rounds for Int8 {
    /// The largest becomes the largest code.
    #[inline(always)]
    fn round(group: &[f32; GROUP]) -> (Bf16, [i8; GROUP]) {
        let largest = group.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
        let (scale, codes_a_unit) = scale_of(largest / 127.0);
        (scale, group.map(|weight| nearest(weight * codes_a_unit, -127.0, 127.0)))
    }
}

impl Rounds for Int4 {
    /// The largest becomes the code -8, whatever its sign: there are more codes below zero than above.
    #[inline(always)]
    fn round(group: &[f32; GROUP]) -> (Bf16, [i8; GROUP]) {
        let ends = |(least, most): (f32, f32), weight: &f32| (least.min(*weight), most.max(*weight));
        let (least, most) = group.iter().fold((0.0, 0.0), ends);
        let largest = if most > -least { most } else { least };
        let (scale, codes_a_unit) = scale_of(largest / -8.0);
        (scale, group.map(|weight| nearest(weight * codes_a_unit, -8.0, 7.0)))
    }
}

/// [panels, bytes of one]
fn panels_of<T: Element, C: Rounds>(weight: &Matrix<T>) -> Tensor {
    let blocks = weight.columns.div_ceil(BLOCK);
    let mut panels = Output::<u8>::new(weight.rows().div_ceil(PANEL), blocks * size_of::<PanelBlock<C>>());
    let all = PanelBlock::<C>::all_in_mut(panels.numbers_mut()).expect("Invariant: libtorch aligns memory to 64 bytes");
    let outputs = weight.numbers.par_chunks(PANEL * weight.columns);
    all.par_chunks_exact_mut(blocks).zip(outputs).for_each(|(panel, outputs)| {
        panel.fill(PanelBlock::ZERO);
        for (output, weights) in outputs.chunks_exact(weight.columns).enumerate() {
            vector::run(QuantizedRow { weights, panel, output });
        }
    });
    panels.into_tensor()
}

/// An output on its way into its panel.
struct QuantizedRow<'a, T, C> {
    weights: &'a [T],               // [inputs]
    panel: &'a mut [PanelBlock<C>], // [blocks]
    output: usize,
}

impl<T: Element, C: Rounds> Loop for QuantizedRow<'_, T, C> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (weights, block) in self.weights.chunks(BLOCK).zip(self.panel) {
            for (lane, group) in weights.as_chunks::<GROUP>().0.iter().enumerate() {
                let (scale, codes) = C::round(&group.map(T::widen));
                block.scales[self.output][lane] = scale;
                block.codes[self.output].put(lane, &codes);
            }
        }
    }
}

/// The nearest whole number, ties to even, within bounds: adding 1.5 * 2^23 leaves no bits for a fraction.
#[inline(always)]
fn nearest(x: f32, least: f32, most: f32) -> i8 {
    const NO_FRACTION: f32 = 12_582_912.0;
    ((x + NO_FRACTION) - NO_FRACTION).clamp(least, most) as i8
}

/// A scale as it is stored, and its inverse: zero for a group of zeros.
#[inline(always)]
fn scale_of(scale: f32) -> (Bf16, f32) {
    let stored = Bf16::round(scale);
    let inverse = 1.0 / stored.widen();
    (stored, if inverse.is_finite() { inverse } else { 0.0 })
}

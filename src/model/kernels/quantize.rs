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
    /// The least and the most.
    const BOUNDS: (f32, f32);

    /// The scale with which the group's largest weight becomes the largest code.
    fn scale(group: &[f32; GROUP]) -> f32;
}

impl Rounds for Int8 {
    const BOUNDS: (f32, f32) = (-127.0, 127.0);

    #[inline(always)]
    fn scale(group: &[f32; GROUP]) -> f32 {
        // Of numbers without a sign the bits are in the same order; whole numbers are compared eight at a time.
        let largest = group.iter().fold(0, |largest, weight| largest.max(weight.abs().to_bits()));
        f32::from_bits(largest) / 127.0
    }
}

impl Rounds for Int4 {
    const BOUNDS: (f32, f32) = (-8.0, 7.0);

    /// There are more codes below zero than above: the largest becomes -8, whatever its sign.
    #[inline(always)]
    fn scale(group: &[f32; GROUP]) -> f32 {
        // With a sign bit they are larger than all without one.
        let most = group.iter().fold(0, |most, weight| most.max(weight.to_bits() as i32));
        let least = group.iter().fold((-0.0_f32).to_bits(), |least, weight| least.max(weight.to_bits()));
        let (most, least) = (f32::from_bits(most as u32), f32::from_bits(least));
        (if most > -least { most } else { least }) / -8.0
    }
}

/// [panels, bytes of one]
fn panels_of<T: Element, C: Rounds>(weight: &Matrix<T>) -> Tensor {
    let blocks = weight.columns.div_ceil(BLOCK);
    let mut panels = Output::<u8>::new(weight.rows().div_ceil(PANEL), blocks * size_of::<PanelBlock<C>>());
    panels.ask_for_huge_pages();
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
                // Loops, not `map`: that would not be compiled for the CPU.
                let (mut wide, mut codes) = ([0.0; GROUP], [0; GROUP]);
                wide.iter_mut().zip(group).for_each(|(wide, weight)| *wide = weight.widen());
                let (scale, codes_a_unit) = scale_of(C::scale(&wide));
                codes.iter_mut().zip(wide).for_each(|(code, weight)| *code = nearest::<C>(weight * codes_a_unit));
                block.scales[self.output][lane] = scale;
                block.codes[self.output].put(lane, &codes);
            }
        }
    }
}

/// The nearest code, ties to even.
#[inline(always)]
fn nearest<C: Rounds>(code: f32) -> i8 {
    vector::whole(code.clamp(C::BOUNDS.0, C::BOUNDS.1) + vector::WHOLE) as i8
}

/// A scale as it is stored, and its inverse: zero for a group of zeros.
#[inline(always)]
fn scale_of(scale: f32) -> (Bf16, f32) {
    let stored = Bf16::round(scale);
    let inverse = 1.0 / stored.widen();
    (stored, if inverse.is_finite() { inverse } else { 0.0 })
}

//! Quantises weights: round to nearest, a scale for every group, symmetric around zero.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::element::{Bf16, Element, LANES};
use super::quantized::{GROUP, OFFSET, STEP};
use super::tensors::{Matrix, Output};
use super::vector::{self, Loop};
use crate::model::options::Quantization;
use crate::model::weight::Quantized;

/// `weight` [outputs, inputs] on the CPU in fp32 or bf16, whose inputs make whole steps, in so many bits.
pub(in super::super) fn quantize(weight: &Tensor, quantization: Quantization) -> Quantized {
    let weight = weight.contiguous();
    match weight.kind() {
        Kind::BFloat16 => quantize_of::<Bf16>(&weight, quantization),
        _ => quantize_of::<f32>(&weight.to_kind(Kind::Float), quantization),
    }
}

fn quantize_of<T: Element>(weight: &Tensor, quantization: Quantization) -> Quantized {
    let weight = Matrix::<T>::of(weight).expect("Invariant: weights are loaded on the CPU, in one piece");
    let (outputs, inputs) = (weight.rows(), weight.columns);
    let mut scales = Output::<Bf16>::new(outputs, inputs / GROUP);
    let rows = weight.numbers.par_chunks_exact(inputs).zip(scales.numbers_mut().par_chunks_exact_mut(inputs / GROUP));
    let codes = match quantization {
        Quantization::Int8 => {
            let mut codes = Output::<i8>::new(outputs, inputs);
            let rows = rows.zip(codes.numbers_mut().par_chunks_exact_mut(inputs));
            rows.for_each(|((weights, scales), codes)| vector::run(To8Bits { weights, scales, codes }));
            codes.into_tensor()
        }
        Quantization::Int4 => {
            let mut codes = Output::<i32>::new(outputs, inputs / STEP * LANES);
            let rows = rows.zip(codes.numbers_mut().par_chunks_exact_mut(inputs / STEP * LANES));
            rows.for_each(|((weights, scales), lanes)| vector::run(To4Bits { weights, scales, lanes }));
            codes.into_tensor()
        }
    };
    Quantized { quantization, codes, scales: scales.into_tensor() }
}

/// An output in 8 bits: the largest of each group becomes the largest code.
struct To8Bits<'a, T> {
    weights: &'a [T],       // [inputs]
    scales: &'a mut [Bf16], // [inputs / GROUP]
    codes: &'a mut [i8],    // [inputs]
}

impl<T: Element> Loop for To8Bits<'_, T> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let (groups, codes) = (self.weights.as_chunks::<GROUP>().0, self.codes.as_chunks_mut::<GROUP>().0);
        for ((group, codes), stored) in groups.iter().zip(codes).zip(self.scales) {
            let largest = group.iter().fold(0.0_f32, |largest, weight| largest.max(weight.widen().abs()));
            let (scale, codes_a_unit) = scale_of(largest / 127.0);
            for (code, weight) in codes.iter_mut().zip(group) {
                *code = nearest(weight.widen() * codes_a_unit, -127.0, 127.0) as i8;
            }
            *stored = scale;
        }
    }
}

/// An output in 4 bits, as [`super::quantized::Int4`] lays codes out. The largest of each group becomes the code -8, whatever
/// its sign: there are more codes below zero than above.
struct To4Bits<'a, T> {
    weights: &'a [T],       // [inputs]
    scales: &'a mut [Bf16], // [inputs / GROUP]
    lanes: &'a mut [i32],   // [inputs / STEP, LANES]
}

impl<T: Element> Loop for To4Bits<'_, T> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        self.lanes.fill(0);
        let (groups, lanes) = (self.weights.as_chunks::<GROUP>().0, self.lanes.as_chunks_mut::<LANES>().0);
        for ((index, group), stored) in groups.iter().enumerate().zip(self.scales) {
            let (least, most) = group.iter().fold((0.0_f32, 0.0_f32), |(least, most), weight| {
                (least.min(weight.widen()), most.max(weight.widen()))
            });
            let largest = if most > -least { most } else { least };
            let (scale, codes_a_unit) = scale_of(largest / -OFFSET);
            let lanes = &mut lanes[index * GROUP / STEP];
            let first = index % (STEP / GROUP) * (GROUP / LANES);
            for (place, eight) in (first..).zip(group.as_chunks::<LANES>().0) {
                for (lane, weight) in lanes.iter_mut().zip(eight) {
                    let code = nearest(weight.widen() * codes_a_unit, -OFFSET, OFFSET - 1.0) + OFFSET;
                    *lane |= (code as i32) << (4 * place);
                }
            }
            *stored = scale;
        }
    }
}

/// The nearest whole number, ties to even, within bounds: adding 1.5 * 2^23 leaves no bits for a fraction.
#[inline(always)]
fn nearest(x: f32, least: f32, most: f32) -> f32 {
    const NO_FRACTION: f32 = 12_582_912.0;
    ((x + NO_FRACTION) - NO_FRACTION).clamp(least, most)
}

/// A scale as it is stored, and its inverse: zero for a group of zeros.
#[inline(always)]
fn scale_of(scale: f32) -> (Bf16, f32) {
    let stored = Bf16::round(scale);
    let inverse = 1.0 / stored.widen();
    (stored, if inverse.is_finite() { inverse } else { 0.0 })
}

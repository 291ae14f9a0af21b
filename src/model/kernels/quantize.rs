//! Quantises weights: round to nearest, a scale for every group, symmetric around zero.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::element::{Bf16, Element, LANES};
use super::quantized::{GROUP, OFFSET, STEP};
use super::tensors::{Matrix, Output};
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
    let rows = scales.numbers_mut().par_chunks_exact_mut(inputs / GROUP).enumerate();
    let codes = match quantization {
        Quantization::Int8 => {
            let mut codes = Output::<i8>::new(outputs, inputs);
            rows.zip(codes.numbers_mut().par_chunks_exact_mut(inputs)).for_each(|((row, scales), codes)| {
                let groups = weight.row(row).chunks_exact(GROUP).zip(codes.chunks_exact_mut(GROUP));
                scales.iter_mut().zip(groups).for_each(|(scale, (group, codes))| *scale = to_8_bits(group, codes));
            });
            codes.into_tensor()
        }
        Quantization::Int4 => {
            let mut codes = Output::<i32>::new(outputs, inputs / STEP * LANES);
            let lanes = codes.numbers_mut().par_chunks_exact_mut(inputs / STEP * LANES);
            rows.zip(lanes).for_each(|((row, scales), lanes)| {
                lanes.fill(0);
                let steps = weight.row(row).chunks_exact(STEP).zip(lanes.chunks_exact_mut(LANES));
                for (scales, (step, lanes)) in scales.chunks_exact_mut(STEP / GROUP).zip(steps) {
                    for (half, (scale, group)) in scales.iter_mut().zip(step.chunks_exact(GROUP)).enumerate() {
                        *scale = to_4_bits(group, half * GROUP / LANES, lanes);
                    }
                }
            });
            codes.into_tensor()
        }
    };
    Quantized { quantization, codes, scales: scales.into_tensor() }
}

/// The scale that makes the largest of `group` the largest code.
fn to_8_bits<T: Element>(group: &[T], codes: &mut [i8]) -> Bf16 {
    let largest = group.iter().fold(0.0_f32, |largest, weight| largest.max(weight.widen().abs()));
    let (scale, codes_a_unit) = scale_of(largest / 127.0);
    for (code, weight) in codes.iter_mut().zip(group) {
        *code = (weight.widen() * codes_a_unit).round_ties_even().clamp(-127.0, 127.0) as i8;
    }
    scale
}

/// The scale that makes the largest of `group` the code -8, whatever its sign: there are more codes below zero than above.
/// Adds the codes to `lanes`, the first eight at the place `place`.
fn to_4_bits<T: Element>(group: &[T], place: usize, lanes: &mut [i32]) -> Bf16 {
    let of_larger = |a: f32, b: f32| if b.abs() > a.abs() { b } else { a };
    let largest = group.iter().map(|weight| weight.widen()).fold(0.0, of_larger);
    let (scale, codes_a_unit) = scale_of(largest / -OFFSET);
    for (eight, weights) in group.chunks_exact(LANES).enumerate() {
        for (lane, weight) in lanes.iter_mut().zip(weights) {
            let code = (weight.widen() * codes_a_unit).round_ties_even().clamp(-8.0, 7.0) + OFFSET;
            *lane |= (code as i32) << (4 * (place + eight));
        }
    }
    scale
}

/// A scale as it is stored, and its inverse: zero for a group of zeros.
fn scale_of(scale: f32) -> (Bf16, f32) {
    let stored = Bf16::round(scale);
    let inverse = 1.0 / stored.widen();
    (stored, if inverse.is_finite() { inverse } else { 0.0 })
}

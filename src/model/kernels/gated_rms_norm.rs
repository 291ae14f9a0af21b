//! RMSNorm with a gate, in one pass.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::element::{Bf16, Element};
use super::exponential::silu;
use super::rms_norm::inverse_rms;
use super::tensors::{Matrix, Output};
use super::vector::{self, Loop, NUMBERS_A_TASK};

/// `weight * (x / sqrt(mean(x^2) + eps)) * silu(gate)` over the last dimension of `x` and `gate` [..., width]. Rounded are the
/// quotient, its product with the weight, and the result; what `silu` gives is not.
///
/// `None` where another operator must do it: on another device, in other precisions, and where tensors do not lie in one
/// piece.
pub(in super::super) fn gated_rms_norm(x: &Tensor, gate: &Tensor, weight: &Tensor, eps: f64) -> Option<Tensor> {
    match x.kind() {
        Kind::BFloat16 => gated_rms_norm_of::<Bf16>(x, gate, weight, eps as f32),
        Kind::Float => gated_rms_norm_of::<f32>(x, gate, weight, eps as f32),
        _ => None,
    }
}

fn gated_rms_norm_of<T: Element>(x: &Tensor, gate: &Tensor, weight: &Tensor, eps: f32) -> Option<Tensor> {
    let (numbers, gate) = (Matrix::<T>::of(x)?, Matrix::<T>::of(gate)?);
    let weight = Matrix::<T>::of(weight)?.numbers;
    let width = numbers.columns;
    let mut normed = Output::<T>::new(numbers.rows(), width);
    let rows = numbers.numbers.par_chunks_exact(width).zip(gate.numbers.par_chunks_exact(width));
    let rows = rows.zip(normed.numbers_mut().par_chunks_exact_mut(width));
    rows.with_min_len(NUMBERS_A_TASK.div_ceil(width)).for_each(|((x, gate), normed)| {
        vector::run(Row { x, gate, weight, eps, normed });
    });
    Some(normed.into_tensor().view(x.size().as_slice()))
}

struct Row<'a, T> {
    x: &'a [T],
    gate: &'a [T],
    weight: &'a [T],
    eps: f32,
    normed: &'a mut [T],
}

impl<T: Element> Loop for Row<'_, T> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let inverse = inverse_rms(self.x, self.eps);
        let rows = self.normed.iter_mut().zip(self.x).zip(self.gate).zip(self.weight);
        for (((normed, x), gate), weight) in rows {
            let scaled = T::round(weight.widen() * T::round(x.widen() * inverse).widen());
            *normed = T::round(scaled.widen() * silu::<FMA>(gate.widen()));
        }
    }
}

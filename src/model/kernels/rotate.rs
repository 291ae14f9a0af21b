//! Rotary positions, applied in one pass.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::element::{Bf16, Element};
use super::tensors::{Matrix, Output};
use super::vector::{self, Loop, NUMBERS_A_TASK};

/// Rotates the first channels of each head of `x` [tokens, heads, head_dim] by `cos` and `sin` [tokens, 1, rotary] and passes
/// the others. As libtorch would, each product and then the sum is rounded to the type of `cos`, and the result to that of `x`.
///
/// `None` where another operator must do it: on another device, in other precisions, and where tensors do not lie in one
/// piece.
pub(in super::super) fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Option<Tensor> {
    match (x.kind(), cos.kind()) {
        (Kind::BFloat16, Kind::BFloat16) => rotate_of::<Bf16, Bf16>(x, cos, sin),
        (Kind::BFloat16, Kind::Float) => rotate_of::<Bf16, f32>(x, cos, sin),
        (Kind::Float, Kind::Float) => rotate_of::<f32, f32>(x, cos, sin),
        _ => None,
    }
}

fn rotate_of<T: Element, C: Element>(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Option<Tensor> {
    let (heads, cos, sin) = (Matrix::<T>::of(x)?, Matrix::<C>::of(cos)?, Matrix::<C>::of(sin)?);
    let token = heads.numbers.len() / cos.rows(); // heads * head_dim
    let mut rotated = Output::<T>::new(heads.rows(), heads.columns);
    let tokens = heads.numbers.par_chunks_exact(token).zip(rotated.numbers_mut().par_chunks_exact_mut(token));
    tokens.enumerate().with_min_len(NUMBERS_A_TASK.div_ceil(token)).for_each(|(token, (x, rotated))| {
        vector::run(Token { x, head_dim: heads.columns, cos: cos.row(token), sin: sin.row(token), rotated });
    });
    Some(rotated.into_tensor().view(x.size().as_slice()))
}

struct Token<'a, T, C> {
    x: &'a [T], // [heads, head_dim]
    head_dim: usize,
    cos: &'a [C], // [rotary]
    sin: &'a [C],
    rotated: &'a mut [T],
}

impl<T: Element, C: Element> Loop for Token<'_, T, C> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let (rotary, half) = (self.cos.len(), self.cos.len() / 2);
        let heads = self.rotated.chunks_exact_mut(self.head_dim).zip(self.x.chunks_exact(self.head_dim));
        for (rotated, x) in heads {
            let (first, second) = x[..rotary].split_at(half);
            let (turned, passed) = rotated.split_at_mut(rotary);
            let (turned_first, turned_second) = turned.split_at_mut(half);
            for i in 0..half {
                let (a, b) = (first[i].widen(), second[i].widen());
                turned_first[i] = turn(a, -b, self.cos[i], self.sin[i]);
                turned_second[i] = turn(b, a, self.cos[half + i], self.sin[half + i]);
            }
            passed.copy_from_slice(&x[rotary..]);
        }
    }
}

#[inline(always)]
fn turn<T: Element, C: Element>(x: f32, partner: f32, cos: C, sin: C) -> T {
    let sum = C::round(x * cos.widen()).widen() + C::round(partner * sin.widen()).widen();
    T::round(C::round(sum).widen())
}

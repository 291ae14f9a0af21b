//! The causal convolution and its SiLU for one token of each of some sequences.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::element::{Bf16, Element};
use super::exponential::silu;
use super::tensors::{Matrix, Output, numbers_mut};
use super::vector::{self, Loop, multiply_add};

/// Channels that are summed up together: their sums stay in the fastest cache.
const BLOCK: usize = 256;

/// The next token of each of some sequences: `x` [sequences, channels], `past` [sequences, kernel - 1, channels], which moves
/// on by one, and `taps` [kernel, channels] in fp32. Each sum is rounded, and then its SiLU. What a sequence gets does not
/// depend on the others.
///
/// `None` where another operator must do it: on another device, and where tensors do not lie in one piece.
pub(in super::super) fn convolve_step(x: &Tensor, past: &mut Tensor, taps: &Tensor) -> Option<Tensor> {
    match x.kind() {
        Kind::BFloat16 => convolve_step_of::<Bf16>(x, past, taps),
        Kind::Float => convolve_step_of::<f32>(x, past, taps),
        _ => None,
    }
}

fn convolve_step_of<T: Element>(x: &Tensor, past: &mut Tensor, taps: &Tensor) -> Option<Tensor> {
    let (x, taps) = (Matrix::<T>::of(x)?, Matrix::<f32>::of(taps)?.numbers);
    let channels = x.columns;
    let mut convolved = Output::<T>::new(x.rows(), channels);
    let past = numbers_mut::<T>(past)?.par_chunks_exact_mut(taps.len() - channels);
    let sequences = past.zip(convolved.numbers_mut().par_chunks_exact_mut(channels)).enumerate();
    sequences.with_min_len(4).for_each(|(sequence, (past, convolved))| {
        vector::run(Sequence { x: x.row(sequence), past, taps, convolved });
    });
    Some(convolved.into_tensor())
}

struct Sequence<'a, T> {
    x: &'a [T],
    past: &'a mut [T], // [kernel - 1, channels]
    taps: &'a [f32],   // [kernel, channels]
    convolved: &'a mut [T],
}

impl<T: Element> Loop for Sequence<'_, T> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let channels = self.x.len();
        for (block, convolved) in self.convolved.chunks_mut(BLOCK).enumerate() {
            let channel = block * BLOCK..block * BLOCK + convolved.len();
            let mut sums = [0.0; BLOCK];
            let rows = self.past.chunks_exact(channels).chain([self.x]);
            for (row, taps) in rows.zip(self.taps.chunks_exact(channels)) {
                for ((sum, x), tap) in sums.iter_mut().zip(&row[channel.clone()]).zip(&taps[channel.clone()]) {
                    *sum = multiply_add::<FMA>(x.widen(), *tap, *sum);
                }
            }
            for (convolved, sum) in convolved.iter_mut().zip(sums) {
                *convolved = T::round(silu::<FMA>(T::round(sum).widen()));
            }
        }
        self.past.copy_within(channels.., 0);
        let last = self.past.len() - channels;
        self.past[last..].copy_from_slice(self.x);
    }
}

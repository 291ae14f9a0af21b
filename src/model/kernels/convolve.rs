//! The causal convolution and its SiLU, for the next tokens of each of some sequences.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::element::{Bf16, Element};
use super::exponential::silu;
use super::tensors::{Matrix, Output, numbers_mut};
use super::vector::{self, Loop, multiply_add};

/// Channels that are summed up together: their sums stay in the fastest cache.
const BLOCK: usize = 256;

/// Tokens of one task at least: one of 8192 channels takes three microseconds.
const TOKENS_A_TASK: usize = 4;

/// The next tokens of each of some sequences, as many of each: `x` [sequences * tokens, channels], `past` [sequences, kernel - 1,
/// channels], which moves on, and `taps` [kernel, channels] in fp32. Each sum is rounded, and then its SiLU. What a sequence
/// gets does not depend on the others.
///
/// `None` where another operator must do it: on another device, and where tensors do not lie in one piece.
pub(in super::super) fn convolve(x: &Tensor, past: &mut Tensor, taps: &Tensor) -> Option<Tensor> {
    match x.kind() {
        Kind::BFloat16 => convolve_of::<Bf16>(x, past, taps),
        Kind::Float => convolve_of::<f32>(x, past, taps),
        _ => None,
    }
}

fn convolve_of<T: Element>(x: &Tensor, past: &mut Tensor, taps: &Tensor) -> Option<Tensor> {
    let (x, taps) = (Matrix::<T>::of(x)?, Matrix::<f32>::of(taps)?.numbers);
    let channels = x.columns;
    let past = numbers_mut::<T>(past)?;
    let past_len = taps.len() - channels; // of a sequence
    let tokens = x.rows() / (past.len() / past_len);
    let sequence = |index: usize| Sequence {
        past: &past[index * past_len..(index + 1) * past_len],
        x: &x.numbers[index * tokens * channels..(index + 1) * tokens * channels],
        taps,
        channels,
    };
    let mut convolved = Output::<T>::new(x.rows(), channels);
    let rows = convolved.numbers_mut().par_chunks_exact_mut(channels).enumerate();
    rows.with_min_len(TOKENS_A_TASK).for_each(|(row, convolved)| {
        vector::run(Token { sequence: sequence(row / tokens), token: row % tokens, convolved });
    });
    for (past, x) in past.chunks_exact_mut(past_len).zip(x.numbers.chunks_exact(tokens * channels)) {
        let new = x.len().min(past_len);
        past.copy_within(new.., 0);
        past[past_len - new..].copy_from_slice(&x[x.len() - new..]);
    }
    Some(convolved.into_tensor())
}

#[derive(Clone, Copy)]
struct Sequence<'a, T> {
    past: &'a [T],   // [kernel - 1, channels]
    x: &'a [T],      // [tokens, channels]
    taps: &'a [f32], // [kernel, channels]
    channels: usize,
}

impl<'a, T> Sequence<'a, T> {
    /// A token's row, counted from the first of the past.
    #[inline(always)]
    fn row(&self, index: usize) -> &'a [T] {
        let at = index * self.channels;
        match at < self.past.len() {
            true => &self.past[at..at + self.channels],
            false => &self.x[at - self.past.len()..][..self.channels],
        }
    }
}

struct Token<'a, T> {
    sequence: Sequence<'a, T>,
    token: usize,
    convolved: &'a mut [T],
}

impl<T: Element> Loop for Token<'_, T> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Sequence { taps, channels, .. } = self.sequence;
        for (block, convolved) in self.convolved.chunks_mut(BLOCK).enumerate() {
            let channel = block * BLOCK..block * BLOCK + convolved.len();
            let mut sums = [0.0; BLOCK];
            for (tap, taps) in taps.chunks_exact(channels).enumerate() {
                let row = &self.sequence.row(self.token + tap)[channel.clone()];
                for ((sum, x), tap) in sums.iter_mut().zip(row).zip(&taps[channel.clone()]) {
                    *sum = multiply_add::<FMA>(x.widen(), *tap, *sum);
                }
            }
            for (convolved, sum) in convolved.iter_mut().zip(sums) {
                *convolved = T::round(silu::<FMA>(T::round(sum).widen()));
            }
        }
    }
}

//! The gated delta rule for one token of each of some sequences: every state is read from memory and written once.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::element::{Bf16, Element};
use super::rms_norm::sum_of_squares;
use super::tensors::{Matrix, Output, numbers_mut};
use super::vector::{self, Loop, multiply_add};

/// Heads of one task at least: a head of 128 x 128 takes two microseconds.
const HEADS_A_TASK: usize = 8;

/// ```text
/// S = S * exp(decay);  S += k (beta * (v - S^T k))^T;  o = S^T q
/// ```
/// for `mixed` [sequences, channels], which are the queries and the keys of all key heads, then the values of all heads;
/// `beta` and `decay` [sequences, heads] in fp32; and `states` [sequences, heads, key_dim, value_dim] in fp32. Neighbouring
/// heads share a key head, whose key is made as long as 1 and whose query as 1 / sqrt(key_dim). Everything is fp32, and what
/// is returned, [sequences, heads, value_dim], rounded to the type of `mixed`. What a sequence gets does not depend on the
/// others.
///
/// `None` where another operator must do it: on another device, in other precisions, and where tensors do not lie in one
/// piece.
pub(in super::super) fn delta_step(
    mixed: &Tensor,
    beta: &Tensor,
    decay: &Tensor,
    states: &mut Tensor,
) -> Option<Tensor> {
    match mixed.kind() {
        Kind::BFloat16 => delta_step_of::<Bf16>(mixed, beta, decay, states),
        Kind::Float => delta_step_of::<f32>(mixed, beta, decay, states),
        _ => None,
    }
}

fn delta_step_of<T: Element>(mixed: &Tensor, beta: &Tensor, decay: &Tensor, states: &mut Tensor) -> Option<Tensor> {
    let &[sequences, num_heads, key_dim, value_dim] = states.size().as_slice() else { return None };
    let shape = [sequences, num_heads, value_dim];
    let [num_heads, key_dim, value_dim] = [num_heads, key_dim, value_dim].map(|size| size as usize);
    let mixed = Matrix::<T>::of(mixed)?;
    let (beta, decay) = (Matrix::<f32>::of(beta)?.numbers, Matrix::<f32>::of(decay)?.numbers);
    let keys = (mixed.columns - num_heads * value_dim) / 2; // channels of all key heads
    let group = num_heads * key_dim / keys;
    let states = numbers_mut::<f32>(states)?;
    let mut read = Output::<T>::new(mixed.rows() * num_heads, value_dim);
    let heads =
        states.par_chunks_exact_mut(key_dim * value_dim).zip(read.numbers_mut().par_chunks_exact_mut(value_dim));
    heads.enumerate().with_min_len(HEADS_A_TASK).for_each(|(index, (state, read))| {
        let (sequence, head) = (index / num_heads, index % num_heads);
        let (queries, rest) = mixed.row(sequence).split_at(keys);
        let (keys, values) = rest.split_at(keys);
        let of_key_head = head / group * key_dim..(head / group + 1) * key_dim;
        vector::run(Head {
            q: &queries[of_key_head.clone()],
            k: &keys[of_key_head],
            v: &values[head * value_dim..(head + 1) * value_dim],
            beta: beta[index],
            decay: decay[index],
            state,
            read,
        });
    });
    Some(read.into_tensor().view(shape))
}

struct Head<'a, T> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    beta: f32,
    decay: f32,
    state: &'a mut [f32], // [key_dim, value_dim]
    read: &'a mut [T],    // [value_dim]
}

impl<T: Element> Loop for Head<'_, T> {
    /// Twice over the state: the second time it comes from the cache.
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let value_dim = self.v.len();
        let kept = self.decay.exp();
        let (q, k) = (of_length(1.0 / (self.q.len() as f32).sqrt(), self.q), of_length(1.0, self.k));
        let known = &mut vec![0.0; value_dim][..]; // S^T k
        for (row, k) in self.state.chunks_exact(value_dim).zip(&k) {
            for (known, s) in known.iter_mut().zip(row) {
                *known = multiply_add::<FMA>(*k, *s, *known);
            }
        }
        for (correction, v) in known.iter_mut().zip(self.v) {
            *correction = self.beta * (v.widen() - kept * *correction);
        }
        let read = &mut vec![0.0; value_dim][..]; // S^T q
        for ((row, k), q) in self.state.chunks_exact_mut(value_dim).zip(&k).zip(&q) {
            for ((s, correction), read) in row.iter_mut().zip(&*known).zip(&mut *read) {
                *s = multiply_add::<FMA>(*k, *correction, kept * *s);
                *read = multiply_add::<FMA>(*q, *s, *read);
            }
        }
        self.read.iter_mut().zip(read).for_each(|(rounded, read)| *rounded = T::round(*read));
    }
}

/// `x / |x| * length` in fp32, with Transformers' epsilon inside the root.
#[inline(always)]
fn of_length<T: Element>(length: f32, x: &[T]) -> Vec<f32> {
    let mut scaled = vec![0.0; x.len()];
    put_of_length(length, x, &mut scaled);
    scaled
}

/// [`of_length`] into `scaled`, which is as long.
#[inline(always)]
pub(super) fn put_of_length<T: Element>(length: f32, x: &[T], scaled: &mut [f32]) {
    let inverse = 1.0 / (sum_of_squares(x) + 1e-6).sqrt();
    scaled.iter_mut().zip(x).for_each(|(scaled, x)| *scaled = x.widen() * inverse * length);
}

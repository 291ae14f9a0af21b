//! The gated delta rule for one token of each of some sequences: every state is read from memory and written once.

use rayon::prelude::*;
use tch::{Device, Tensor};

use super::tensors::{Matrix, Output, numbers_mut};
use super::vector::{self, Loop, multiply_add};

/// Heads of one task at least: a head of 128 x 128 takes two microseconds.
const HEADS_A_TASK: usize = 8;

/// ```text
/// S = S * exp(decay);  S += k (beta * (v - S^T k))^T;  o = S^T q
/// ```
/// for `inputs` q and k [sequences, heads, key_dim], v [sequences, heads, value_dim], beta and decay [sequences, heads], and
/// `states` [sequences, heads, key_dim, value_dim], all fp32. Returns [sequences, heads, value_dim]. What a sequence gets
/// does not depend on the others.
///
/// `None` where another operator must do it: on another device.
pub(in super::super) fn delta_step(inputs: [&Tensor; 5], states: &mut Tensor) -> Option<Tensor> {
    if states.device() != Device::Cpu {
        return None;
    }
    let inputs = inputs.map(Tensor::contiguous);
    let [q, k, v, beta, decay] = inputs.each_ref().map(Matrix::<f32>::of);
    let (q, k, v, beta, decay) = (q?, k?, v?, beta?, decay?);
    let (key_dim, value_dim) = (k.columns, v.columns);
    let states = numbers_mut::<f32>(states)?;
    let mut read = Output::<f32>::new(v.rows(), value_dim);
    let heads =
        states.par_chunks_exact_mut(key_dim * value_dim).zip(read.numbers_mut().par_chunks_exact_mut(value_dim));
    heads.enumerate().with_min_len(HEADS_A_TASK).for_each(|(head, (state, read))| {
        vector::run(Head {
            q: q.row(head),
            k: k.row(head),
            v: v.row(head),
            beta: beta.numbers[head],
            decay: decay.numbers[head],
            state,
            read,
        });
    });
    Some(read.into_tensor().view_as(&inputs[2]))
}

struct Head<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    beta: f32,
    decay: f32,
    state: &'a mut [f32], // [key_dim, value_dim]
    read: &'a mut [f32],  // [value_dim]
}

impl Loop for Head<'_> {
    /// Twice over the state: the second time it comes from the cache.
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let value_dim = self.v.len();
        let kept = self.decay.exp();
        let known = &mut vec![0.0; value_dim][..]; // S^T k
        for (row, k) in self.state.chunks_exact(value_dim).zip(self.k) {
            for (known, s) in known.iter_mut().zip(row) {
                *known = multiply_add::<FMA>(*k, *s, *known);
            }
        }
        for (correction, v) in known.iter_mut().zip(self.v) {
            *correction = self.beta * (v - kept * *correction);
        }
        self.read.fill(0.0);
        for ((row, k), q) in self.state.chunks_exact_mut(value_dim).zip(self.k).zip(self.q) {
            for ((s, correction), read) in row.iter_mut().zip(&*known).zip(&mut *self.read) {
                *s = multiply_add::<FMA>(*k, *correction, kept * *s);
                *read = multiply_add::<FMA>(*q, *s, *read);
            }
        }
    }
}

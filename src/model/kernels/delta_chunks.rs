//! The gated delta rule over a sequence's next tokens, in chunks: within a chunk the corrections are solved for at once, between
//! chunks the state is carried. Everything of a chunk stays in the caches.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::delta_step::put_of_length;
use super::element::{Bf16, Element};
use super::exponential::exp;
use super::tensors::{Matrix, Output, numbers_mut};
use super::tile::{self, TILE_COLUMNS, TILE_ROWS, add_product, add_to_tile};
use super::vector::{self, Loop, multiply_add};

/// Tokens of a chunk, as in Transformers.
const CHUNK: usize = 64;

/// As [`super::delta_step`], for the next tokens of one sequence: `mixed` [tokens, channels], `beta` and `decay` [tokens, heads],
/// `state` [heads, key_dim, value_dim]. Returns [tokens, heads, value_dim].
///
/// With G the decay summed up within a chunk, S the state before it, and D_ij = exp(G_i - G_j):
/// ```text
/// (I + tril(beta K K^T o D, -1)) V' = beta (V - exp(G) K S)
/// O = exp(G) Q S + tril(Q K^T o D) V';  S = exp(G_last) S + K^T (exp(G_last - G) V')
/// ```
///
/// `None` where another operator must do it: on another device, in other precisions, where tensors do not lie in one piece,
/// and for heads whose sizes are no multiples of a tile's.
pub(in super::super) fn delta_chunks(
    mixed: &Tensor,
    beta: &Tensor,
    decay: &Tensor,
    state: &mut Tensor,
) -> Option<Tensor> {
    match mixed.kind() {
        Kind::BFloat16 => delta_chunks_of::<Bf16>(mixed, beta, decay, state),
        Kind::Float => delta_chunks_of::<f32>(mixed, beta, decay, state),
        _ => None,
    }
}

fn delta_chunks_of<T: Element>(mixed: &Tensor, beta: &Tensor, decay: &Tensor, state: &mut Tensor) -> Option<Tensor> {
    let &[num_heads, key_dim, value_dim] = state.size().as_slice() else { return None };
    let [num_heads, key_dim, value_dim] = [num_heads, key_dim, value_dim].map(|size| size as usize);
    if !key_dim.is_multiple_of(TILE_ROWS) || !value_dim.is_multiple_of(TILE_COLUMNS) {
        return None;
    }
    let mixed = Matrix::<T>::of(mixed)?;
    let (beta, decay) = (Matrix::<f32>::of(beta)?, Matrix::<f32>::of(decay)?);
    let keys = (mixed.columns - num_heads * value_dim) / 2; // channels of all key heads
    let group = num_heads * key_dim / keys;
    let states = numbers_mut::<f32>(state)?;
    let read = Output::<T>::new(mixed.rows(), num_heads * value_dim);
    let groups = states.par_chunks_exact_mut(group * key_dim * value_dim).enumerate();
    groups.with_max_len(1).for_each(|(key_head, states)| {
        let first_head = key_head * group;
        vector::run(Group {
            mixed: &mixed,
            beta: &beta,
            decay: &decay,
            query: key_head * key_dim,
            key: keys + key_head * key_dim,
            value: 2 * keys + first_head * value_dim,
            first_head,
            key_dim,
            value_dim,
            states,
            read: &read,
        });
    });
    Some(read.into_tensor().view([-1, num_heads as i64, value_dim as i64]))
}

/// A key head, and the heads that share it.
struct Group<'a, T> {
    mixed: &'a Matrix<'a, T>,
    beta: &'a Matrix<'a, f32>,
    decay: &'a Matrix<'a, f32>,
    /// Where queries and keys begin among the channels, and the values of the first head.
    query: usize,
    key: usize,
    value: usize,
    first_head: usize,
    key_dim: usize,
    value_dim: usize,
    states: &'a mut [f32], // [heads, key_dim, value_dim]
    read: &'a Output<T>,   // [tokens, all heads * value_dim]
}

impl<T: Element> Loop for Group<'_, T> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Group { key_dim, value_dim, .. } = self;
        let mut chunk = Chunk::new(key_dim, value_dim);
        for first in (0..self.mixed.rows()).step_by(CHUNK) {
            let len = CHUNK.min(self.mixed.rows() - first);
            chunk.read_keys::<FMA, T>(len, |token| {
                let row = self.mixed.row(first + token);
                [&row[self.query..][..key_dim], &row[self.key..][..key_dim]]
            });
            for (index, state) in self.states.chunks_exact_mut(key_dim * value_dim).enumerate() {
                let head = self.first_head + index;
                chunk.read_gates(|token| [self.beta.row(first + token)[head], self.decay.row(first + token)[head]]);
                chunk.weigh::<FMA>();
                chunk.solve::<FMA, T>(state, |token| {
                    &self.mixed.row(first + token)[self.value + index * value_dim..][..value_dim]
                });
                chunk.read_out::<FMA>(state);
                for (token, out) in chunk.out.chunks_exact(value_dim).take(len).enumerate() {
                    // Safety: a head's outputs are its group's alone.
                    let place = unsafe { self.read.place(first + token, head * value_dim, value_dim) };
                    for (offset, out) in out.iter().enumerate() {
                        // Safety: so many numbers have their place there.
                        unsafe { place.add(offset).write(T::round(*out)) };
                    }
                }
                chunk.carry::<FMA>(state);
            }
        }
    }
}

/// A chunk's numbers. Tokens are filled up with zeros to whole tiles, which change nothing.
struct Chunk {
    key_dim: usize,
    value_dim: usize,
    len: usize,
    padded: usize,
    q: Vec<f32>,      // [tokens, key_dim]
    k: Vec<f32>,      // [tokens, key_dim]
    k_t: Vec<f32>,    // [key_dim, tokens]
    within: Vec<f32>, // K K^T: [tokens, tokens]
    among: Vec<f32>,  // Q K^T: [tokens, tokens]
    beta: [f32; CHUNK],
    decay: [f32; CHUNK],   // G
    minus_a: Vec<f32>,     // -tril(beta K K^T o D, -1): [tokens, tokens]
    p: Vec<f32>,           // tril(Q K^T o D): [tokens, tokens]
    corrections: Vec<f32>, // V': [tokens, value_dim]
    out: Vec<f32>,         // O: [tokens, value_dim]
}

impl Chunk {
    fn new(key_dim: usize, value_dim: usize) -> Chunk {
        let zeros = |columns: usize| vec![0.0; CHUNK * columns];
        Chunk {
            key_dim,
            value_dim,
            len: 0,
            padded: 0,
            q: zeros(key_dim),
            k: zeros(key_dim),
            k_t: zeros(key_dim),
            within: zeros(CHUNK),
            among: zeros(CHUNK),
            beta: [0.0; CHUNK],
            decay: [0.0; CHUNK],
            minus_a: zeros(CHUNK),
            p: zeros(CHUNK),
            corrections: zeros(value_dim),
            out: zeros(value_dim),
        }
    }

    /// What all heads of a group share: queries, keys, and their products.
    #[inline(always)]
    fn read_keys<'a, const FMA: bool, T: Element>(&mut self, len: usize, of_token: impl Fn(usize) -> [&'a [T]; 2]) {
        let key_dim = self.key_dim;
        (self.len, self.padded) = (len, len.next_multiple_of(TILE_COLUMNS));
        let padded = self.padded;
        for token in 0..len {
            let ([query, key], at) = (of_token(token), token * key_dim);
            put_of_length(1.0 / (key_dim as f32).sqrt(), query, &mut self.q[at..at + key_dim]);
            put_of_length(1.0, key, &mut self.k[at..at + key_dim]);
        }
        self.q[len * key_dim..].fill(0.0);
        self.k[len * key_dim..].fill(0.0);
        let columns = &mut self.k_t[..key_dim * padded];
        for (token, k) in self.k.chunks_exact(key_dim).take(padded).enumerate() {
            columns[token..].iter_mut().step_by(padded).zip(k).for_each(|(column, k)| *column = *k);
        }
        for (rows, products) in [(&self.k, &mut self.within), (&self.q, &mut self.among)] {
            let products = &mut products[..padded * padded];
            products.fill(0.0);
            add_product::<FMA>(rows, &self.k_t, key_dim, |_| key_dim, products, padded);
        }
    }

    #[inline(always)]
    fn read_gates(&mut self, of_token: impl Fn(usize) -> [f32; 2]) {
        let mut sum = 0.0;
        for token in 0..self.padded {
            let [beta, decay] = if token < self.len { of_token(token) } else { [0.0; 2] };
            sum += decay;
            (self.beta[token], self.decay[token]) = (beta, sum);
        }
    }

    /// What tokens weigh for later ones: `minus_a` and `p`.
    #[inline(always)]
    fn weigh<const FMA: bool>(&mut self) {
        let padded = self.padded;
        for token in 0..padded {
            let row = token * padded..token * padded + padded;
            let products = self.within[row.clone()].iter().zip(&self.among[row.clone()]).zip(&self.decay);
            let weights = self.minus_a[row.clone()].iter_mut().zip(&mut self.p[row]);
            let (beta, decay) = (self.beta[token], self.decay[token]);
            for (other, ((minus_a, p), ((within, among), other_decay))) in weights.zip(products).enumerate() {
                // Of later tokens the difference is positive, and its exponential could overflow.
                let kept = exp::<FMA>((decay - other_decay).min(0.0));
                *minus_a = if other < token { -beta * within * kept } else { 0.0 };
                *p = if other <= token { among * kept } else { 0.0 };
            }
        }
    }

    /// V', by forward substitution.
    #[inline(always)]
    fn solve<'a, const FMA: bool, T: Element>(&mut self, state: &[f32], values: impl Fn(usize) -> &'a [T]) {
        let (padded, value_dim) = (self.padded, self.value_dim);
        let corrections = &mut self.corrections[..padded * value_dim];
        corrections.fill(0.0);
        add_product::<FMA>(&self.k, state, self.key_dim, |_| self.key_dim, corrections, value_dim);
        for (token, known) in corrections.chunks_exact_mut(value_dim).take(self.len).enumerate() {
            let (beta, grown) = (self.beta[token], exp::<FMA>(self.decay[token]));
            known.iter_mut().zip(values(token)).for_each(|(x, v)| *x = beta * (v.widen() - grown * *x));
        }
        for column in (0..value_dim).step_by(TILE_COLUMNS) {
            for first in (0..padded).step_by(TILE_ROWS) {
                let rows = std::array::from_fn(|row| &self.minus_a[(first + row) * padded..][..padded]);
                let mut tile = tile::load(&corrections[first * value_dim + column..], value_dim);
                add_to_tile::<FMA, f32>(
                    &rows.map(|row: &[f32]| &row[..first]),
                    &corrections[column..],
                    value_dim,
                    &mut tile,
                );
                for (row, weights) in rows.iter().enumerate() {
                    let (before, this) = tile.split_at_mut(row);
                    for (weight, before) in weights[first..].iter().zip(before) {
                        for (x, before) in this[0].iter_mut().zip(before) {
                            *x = multiply_add::<FMA>(*weight, *before, *x);
                        }
                    }
                }
                tile::store(&tile, &mut corrections[first * value_dim + column..], value_dim);
            }
        }
    }

    /// O.
    #[inline(always)]
    fn read_out<const FMA: bool>(&mut self, state: &[f32]) {
        let (padded, value_dim) = (self.padded, self.value_dim);
        let out = &mut self.out[..padded * value_dim];
        out.fill(0.0);
        add_product::<FMA>(&self.q, state, self.key_dim, |_| self.key_dim, out, value_dim);
        for (token, out) in out.chunks_exact_mut(value_dim).enumerate() {
            let grown = exp::<FMA>(self.decay[token]);
            out.iter_mut().for_each(|x| *x *= grown);
        }
        add_product::<FMA>(&self.p, &self.corrections, padded, |row| row + TILE_ROWS, out, value_dim);
    }

    /// The state after the chunk.
    #[inline(always)]
    fn carry<const FMA: bool>(&mut self, state: &mut [f32]) {
        let (padded, value_dim) = (self.padded, self.value_dim);
        let last = self.decay[padded - 1];
        let corrections = &mut self.corrections[..padded * value_dim];
        for (token, correction) in corrections.chunks_exact_mut(value_dim).enumerate() {
            let kept = exp::<FMA>(last - self.decay[token]);
            correction.iter_mut().for_each(|x| *x *= kept);
        }
        let kept = exp::<FMA>(last);
        state.iter_mut().for_each(|x| *x *= kept);
        add_product::<FMA>(&self.k_t, corrections, padded, |_| padded, state, value_dim);
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::super::delta_step;
    use super::{CHUNK, delta_chunks};

    fn random(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn agrees_with_the_rule_token_by_token_and_goes_on_from_where_it_stopped() {
        let chunk = CHUNK as i64;
        for (key_heads, heads, key_dim, value_dim) in [(2, 4, 32, 32), (1, 1, 4, 16), (2, 4, 128, 128), (3, 3, 20, 48)]
        {
            for tokens in [1, 5, 17, chunk, chunk + 1, 3 * chunk + 30] {
                let mixed = random(&[tokens, 2 * key_heads * key_dim + heads * value_dim]);
                let beta = random(&[tokens, heads]).sigmoid();
                let decay = -random(&[tokens, heads]).exp() * 0.1;
                let begin = random(&[heads, key_dim, value_dim]) * 0.1;
                let rows = |x: &Tensor, first: i64, len: i64| x.narrow(0, first, len);

                let mut state = begin.copy();
                let first_len = tokens.min(chunk);
                let whole = delta_chunks(&mixed, &beta, &decay, &mut state).unwrap();
                let mut pieces_state = begin.copy();
                let mut pieces = |first: i64, len: i64| {
                    let [mixed, beta, decay] = [&mixed, &beta, &decay].map(|x| rows(x, first, len));
                    delta_chunks(&mixed, &beta, &decay, &mut pieces_state).unwrap()
                };
                assert!(pieces(0, first_len).equal(&rows(&whole, 0, first_len)), "a chunk is the same bits by itself");
                if tokens > first_len {
                    let rest = pieces(first_len, tokens - first_len);
                    assert!(rest.equal(&rows(&whole, first_len, tokens - first_len)));
                }
                assert!(pieces_state.equal(&state));

                let mut states = begin.copy().unsqueeze(0);
                for token in 0..tokens {
                    let [mixed, beta, decay] = [&mixed, &beta, &decay].map(|x| rows(x, token, 1));
                    let step = delta_step(&mixed, &beta, &decay, &mut states).unwrap();
                    let worst = (step - rows(&whole, token, 1)).abs().max().double_value(&[]);
                    assert!(
                        worst < 1e-4,
                        "token {token} of {tokens}, {heads} x {key_dim} x {value_dim}: off by {worst}"
                    );
                }
                let worst = (states.squeeze_dim(0) - state).abs().max().double_value(&[]);
                assert!(worst < 1e-4, "the state after {tokens}, {heads} x {key_dim} x {value_dim}: off by {worst}");
            }
        }
    }
}

//! Attention of one new token over a sequence's keys and values, each of which is read from memory once.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::element::{Bf16, Element};
use super::stored::{Plain, Rows};
use super::tensors::{Matrix, Output};
use super::vector::{self, Loop, multiply_add};

/// Tokens of the past that one task reads. Partial results are joined in their order, so the numbers do not depend on the
/// threads.
const TOKENS_A_TASK: usize = 512;

/// softmax(q k^T / sqrt(head_dim)) v for `queries` [heads, head_dim], of which neighbours share a head of `keys` and
/// `values` [kv_heads, length, head_dim], in fp32 and rounded once. Returns [1, heads * head_dim].
///
/// `None` where another operator must do it: on another device, in other precisions, and where a head's keys or values do
/// not lie in one piece.
pub(in super::super) fn attend_one(queries: &Tensor, keys: &Tensor, values: &Tensor) -> Option<Tensor> {
    match queries.kind() {
        Kind::BFloat16 => attend_one_of::<Bf16>(queries, keys, values),
        Kind::Float => attend_one_of::<f32>(queries, keys, values),
        _ => None,
    }
}

fn attend_one_of<T: Element>(queries: &Tensor, keys: &Tensor, values: &Tensor) -> Option<Tensor> {
    let q = Matrix::<T>::of(queries)?;
    let (heads, head_dim) = (q.rows(), q.columns);
    let kv_heads = keys.size()[0] as usize;
    let group = heads / kv_heads;
    let by_head = |tensor: &Tensor| (0..kv_heads as i64).map(|head| tensor.select(0, head)).collect::<Vec<_>>();
    let (keys, values) = (by_head(keys), by_head(values)); // [length, head_dim] each
    let mut blocks = Vec::new();
    for (head, (keys, values)) in keys.iter().zip(&values).enumerate() {
        let queries = &q.numbers[head * group * head_dim..(head + 1) * group * head_dim];
        let (keys, values) = (Matrix::<T>::of(keys)?.numbers, Matrix::<T>::of(values)?.numbers);
        let tasks = keys.chunks(TOKENS_A_TASK * head_dim).zip(values.chunks(TOKENS_A_TASK * head_dim));
        blocks.extend(tasks.map(|(keys, values)| (queries, keys, values)));
    }
    let partials: Vec<Partial> =
        blocks.into_par_iter().with_max_len(1).map(|block| Partial::of(block, head_dim)).collect();
    let mut attended = Output::<T>::new(1, heads * head_dim);
    let partials = partials.chunks_exact(partials.len() / kv_heads);
    for (partials, attended) in partials.zip(attended.numbers_mut().chunks_exact_mut(group * head_dim)) {
        join(partials, head_dim, attended);
    }
    Some(attended.into_tensor())
}

/// The softmax over a block of tokens, not divided yet, for the queries of a group.
struct Partial {
    largest: Vec<f32>, // [group]: the largest score
    weight: Vec<f32>,  // [group]: the sum of all exp(score - largest)
    sums: Vec<f32>,    // [group, head_dim]: the values, weighted alike
}

impl Partial {
    fn of<T: Element>((queries, keys, values): (&[T], &[T], &[T]), head_dim: usize) -> Partial {
        let (group, length) = (queries.len() / head_dim, keys.len() / head_dim);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let mut weights = vec![0.0; group * length]; // [group, length]
        let queries = Rows::of(&Matrix { numbers: queries, columns: head_dim });
        queries.multiply(Plain { numbers: keys, inputs: head_dim }, &mut |query, token, sums| {
            let weights = &mut weights[query * length + token..][..sums.len()];
            weights.iter_mut().zip(sums).for_each(|(weight, sum)| *weight = sum * scale);
        });
        let (mut largest, mut weight) = (Vec::with_capacity(group), Vec::with_capacity(group));
        for scores in weights.chunks_exact_mut(length) {
            let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.iter_mut().for_each(|score| *score = (*score - most).exp());
            largest.push(most);
            weight.push(scores.iter().sum());
        }
        let mut sums = vec![0.0; group * head_dim];
        vector::run(Weighted { weights: &weights, values, head_dim, sums: &mut sums });
        Partial { largest, weight, sums }
    }
}

/// Adds up values weighted by each query: `sums` [group, head_dim] of `weights` [group, length], `values` [length, head_dim].
struct Weighted<'a, T> {
    weights: &'a [f32],
    values: &'a [T],
    head_dim: usize,
    sums: &'a mut [f32],
}

impl<T: Element> Loop for Weighted<'_, T> {
    /// Four tokens at a time: so the sums are read and written once for four.
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        const TOKENS: usize = 4;
        let (dim, length) = (self.head_dim, self.values.len() / self.head_dim);
        let mut wide = vec![0.0; TOKENS * dim];
        for (step, values) in self.values.chunks(TOKENS * dim).enumerate() {
            wide.iter_mut().zip(values).for_each(|(wide, value)| *wide = value.widen());
            let tokens = values.len() / dim;
            for (weights, sums) in self.weights.chunks_exact(length).zip(self.sums.chunks_exact_mut(dim)) {
                let mut four = [0.0; TOKENS];
                four[..tokens].copy_from_slice(&weights[step * TOKENS..][..tokens]);
                let (a, rest) = wide.split_at(dim);
                let (b, rest) = rest.split_at(dim);
                let (c, d) = rest.split_at(dim);
                for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    let first = multiply_add::<FMA>(four[1], *b, four[0] * a);
                    let second = multiply_add::<FMA>(four[3], *d, four[2] * c);
                    *sum += first + second;
                }
            }
        }
    }
}

/// Brings the partial softmaxes of a group's queries to one scale, adds and divides them.
fn join<T: Element>(partials: &[Partial], head_dim: usize, attended: &mut [T]) {
    for (query, attended) in attended.chunks_exact_mut(head_dim).enumerate() {
        let largest = partials.iter().map(|partial| partial.largest[query]).fold(f32::NEG_INFINITY, f32::max);
        let mut weight = 0.0;
        let mut sums = vec![0.0; head_dim];
        for partial in partials {
            let scale = (partial.largest[query] - largest).exp();
            weight += scale * partial.weight[query];
            let partial = &partial.sums[query * head_dim..(query + 1) * head_dim];
            sums.iter_mut().zip(partial).for_each(|(sum, partial)| *sum += scale * partial);
        }
        attended.iter_mut().zip(sums).for_each(|(attended, sum)| *attended = T::round(sum / weight));
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::super::testing::median_seconds;
    use super::{TOKENS_A_TASK, attend_one};

    #[test]
    fn agrees_with_libtorch_at_any_length() {
        let block = TOKENS_A_TASK as i64;
        for (heads, kv_heads, dim) in [(4, 2, 64), (16, 4, 256), (3, 3, 20)] {
            for length in [1, 2, 7, block, block + 1, 3 * block + 5] {
                let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
                let (q, k, v) =
                    (random(&[heads, dim]), random(&[kv_heads, length, dim]), random(&[kv_heads, length, dim]));
                let grouped = q.view([1, kv_heads, heads / kv_heads, dim]);
                let theirs = |q: &Tensor, k: &Tensor, v: &Tensor| {
                    let (k, v) = (k.unsqueeze(0), v.unsqueeze(0));
                    Tensor::scaled_dot_product_attention(q, &k, &v, None::<&Tensor>, 0.0, false, None, false)
                };
                let expected = theirs(&grouped, &k, &v).view([1, -1]);
                let ours = attend_one(&q, &k, &v).unwrap();
                let worst = (&ours - &expected).abs().max().double_value(&[]);
                assert!(worst < 2e-6, "{heads} heads over {length}: off by {worst}");

                let rounded = [&q, &k, &v].map(|x| x.to_kind(Kind::BFloat16));
                let ours = attend_one(&rounded[0], &rounded[1], &rounded[2]).unwrap().to_kind(Kind::Float);
                let [q, k, v] = rounded.map(|x| x.to_kind(Kind::Float));
                let expected = theirs(&q.view_as(&grouped), &k, &v).view([1, -1]);
                let worst = ((&ours - &expected).abs() / (expected.abs() + 1e-2)).max().double_value(&[]);
                assert!(worst < 5e-3, "{heads} heads in bf16 over {length}: off by {worst}"); // a rounding is 2^-9
            }
        }
    }

    /// A layer of the 4B model.
    #[test]
    #[ignore = "prints, for people to read"]
    fn speed_over_long_pasts() {
        tch::set_num_threads(1); // or its threads would spin beside ours
        for length in [1024, 8192, 32_768] {
            let random = |shape: &[i64]| Tensor::randn(shape, (Kind::BFloat16, Device::Cpu));
            let (q, k, v) = (random(&[16, 256]), random(&[4, length, 256]), random(&[4, length, 256]));
            let ours = median_seconds(15, || drop(attend_one(&q, &k, &v)));
            let grouped = (q.view([1, 4, 4, 256]), k.unsqueeze(0), v.unsqueeze(0));
            let theirs = median_seconds(15, || {
                let (q, k, v) = &grouped;
                drop(Tensor::scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, false, None, false));
            });
            let read = (2 * 2 * 4 * 256 * length) as f64;
            println!(
                "{length} tokens: {:.2} ms, {:.1} GB/s; libtorch's, on one thread, {:.2} ms",
                ours * 1e3,
                read / ours / 1e9,
                theirs * 1e3
            );
        }
    }
}

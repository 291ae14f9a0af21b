//! Attention of one new token over a sequence's keys and values, each of which is read from memory once.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::element::{Bf16, Element, STEP};
use super::exponential::exp;
use super::stored::{Plain, Rows};
use super::tensors::{Matrix, Output};
use super::tile::{self, TILE_COLUMNS, TILE_ROWS, add_to_tile};
use super::vector::{self, Loop, most, prefetch, sum};

/// Tokens of the past that one task reads. Partial results are joined in their order, so the numbers do not depend on the
/// threads.
const TOKENS_A_TASK: usize = 512;

/// Tokens whose values are added up at a time: they stay in the first cache until all tiles have read them.
const TOKENS_AT_A_TIME: usize = 16;

/// softmax(q k^T / sqrt(head_dim)) v for `queries` [heads, head_dim], of which neighbours share a head of `keys` and
/// `values` [kv_heads, length, head_dim], in fp32 and rounded once. Returns [1, heads * head_dim].
///
/// `None` where another operator must do it: on another device, in other precisions, where a head's keys or values do not lie
/// in one piece, and for heads whose size is no multiple of a tile's.
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
    if head_dim % TILE_COLUMNS != 0 {
        return None;
    }
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
    sums: Vec<f32>,    // [tiles of the group, head_dim]: the values, weighted alike
}

impl Partial {
    fn of<T: Element>((queries, keys, values): (&[T], &[T], &[T]), head_dim: usize) -> Partial {
        let (group, length) = (queries.len() / head_dim, keys.len() / head_dim);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let whole_tiles = group.next_multiple_of(TILE_ROWS);
        let mut scores = vec![0.0; whole_tiles * length];
        let queries = Rows::of(&Matrix { numbers: queries, columns: head_dim });
        queries.multiply(Plain { numbers: keys, inputs: head_dim }, &mut |query, token, sums| {
            let scores = &mut scores[query * length + token..][..sums.len()];
            scores.iter_mut().zip(sums).for_each(|(score, sum)| *score = sum * scale);
        });
        let sums = vec![0.0; whole_tiles * head_dim];
        let mut partial = Partial { largest: vec![0.0; group], weight: vec![0.0; group], sums };
        vector::run(Weigh { scores: &mut scores, values, head_dim, partial: &mut partial });
        partial
    }
}

/// From the scores of a block's tokens to a [`Partial`], in place: what does not fill a tile of queries is zeros.
struct Weigh<'a, T> {
    scores: &'a mut [f32], // [tiles of the group, length]
    values: &'a [T],       // [length, head_dim]
    head_dim: usize,
    partial: &'a mut Partial,
}

impl<T: Element> Loop for Weigh<'_, T> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Weigh { scores, values, head_dim, partial } = self;
        let length = values.len() / head_dim;
        let of_queries = scores.chunks_exact_mut(length).zip(partial.largest.iter_mut().zip(&mut partial.weight));
        for (scores, (largest, weight)) in of_queries {
            *largest = most(scores);
            scores.iter_mut().for_each(|score| *score = exp::<FMA>(*score - *largest));
            *weight = sum(scores);
        }
        let numbers = TOKENS_AT_A_TIME * head_dim;
        for (block, first) in values.chunks(numbers).zip((0..length).step_by(TOKENS_AT_A_TIME)) {
            let tokens = block.len() / head_dim;
            for column in (0..head_dim).step_by(TILE_COLUMNS) {
                // While this block is added up, the next one comes: as much of it with every column of tiles.
                let next = block.as_ptr().wrapping_add(numbers + column * TOKENS_AT_A_TIME);
                (0..TILE_COLUMNS * TOKENS_AT_A_TIME).step_by(STEP).for_each(|at| prefetch(next.wrapping_add(at)));
                for (index, sums) in partial.sums.chunks_exact_mut(TILE_ROWS * head_dim).enumerate() {
                    let weights = &scores[index * TILE_ROWS * length + first..];
                    let rows = [0, 1, 2, 3].map(|row| &weights[row * length..][..tokens]);
                    let mut tile = tile::load(&sums[column..], head_dim);
                    add_to_tile::<FMA, T>(&rows, &block[column..], head_dim, &mut tile);
                    tile::store(&tile, &mut sums[column..], head_dim);
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
        for (heads, kv_heads, dim) in [(4, 2, 64), (16, 4, 256), (3, 3, 48), (6, 1, 32)] {
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

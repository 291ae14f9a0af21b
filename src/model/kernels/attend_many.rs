//! Attention of many tokens over keys and values, block by block of the keys, so that memory never holds a score of every pair:
//! FlashAttention (Dao et al., 2022), over the GEMM's tiles.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::super::cpu;
use super::element::{Bf16, Element};
use super::exponential::exp;
use super::gemm::{self, PackedRows, Pairs, Tiles, Weight, Wide};
use super::keep_rows_apart;
use super::tensors::{Matrix, Output};
use super::vector::{self, Loop, most, sum};

/// Rows of queries in a task: whole tiles of every form. Their scores, weights and sums stay in the second cache.
const ROWS_A_TASK: usize = 192;

/// Keys that are looked at at a time. Blocks begin at the first key, so that a query's numbers do not depend on where its
/// prompt was cut.
const KEYS_A_BLOCK: usize = 256;

/// softmax(q k^T / sqrt(head_dim)) v for `queries` [tokens, heads, head_dim], of which neighbouring heads share a head of `keys`
/// and `values` [kv_heads, length, head_dim]; in fp32, but for the weights of the values, which are rounded to the type of
/// these. Where it `is_causal`, the queries are the sequence's last and see no key behind their own. Returns
/// [tokens, heads * head_dim]; a token's bits do not depend on the others of its kind.
///
/// `None` where another operator must do it: on another device or in other precisions, on a CPU that multiplies faster than
/// this, and where a head's keys or values do not lie in one piece.
pub(in super::super) fn attend_many(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    is_causal: bool,
) -> Option<Tensor> {
    if !keep_rows_apart(queries.kind()) {
        return None;
    }
    match queries.kind() {
        Kind::BFloat16 if cpu::has_avx512_bf16() => attend_by::<Bf16, Pairs>(queries, keys, values, is_causal),
        Kind::BFloat16 => attend_by::<Bf16, Wide>(queries, keys, values, is_causal),
        Kind::Float => attend_by::<f32, Wide>(queries, keys, values, is_causal),
        _ => None,
    }
}

/// In the GEMM's form `F`, which is one for this CPU.
fn attend_by<T: Element, F: Tiles<T>>(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    is_causal: bool,
) -> Option<Tensor> {
    let (tokens, heads, head_dim) = queries.size3().ok()?;
    let (tokens, heads, head_dim) = (tokens as usize, heads as usize, head_dim as usize);
    let queries = Matrix::<T>::of(queries)?.numbers;
    let kv_heads = keys.size()[0] as usize;
    let group = heads / kv_heads;
    let by_head = |tensor: &Tensor| (0..kv_heads as i64).map(|head| tensor.select(0, head)).collect::<Vec<_>>();
    let (keys, values) = (by_head(keys), by_head(values)); // [length, head_dim] each
    let tokens_a_task = (ROWS_A_TASK / group).max(1);
    let mut tasks = Vec::new();
    for (head, (keys, values)) in keys.iter().zip(&values).enumerate() {
        let (keys, values) = (Matrix::<T>::of(keys)?.numbers, Matrix::<T>::of(values)?.numbers);
        let past = keys.len() / head_dim - tokens * usize::from(is_causal);
        tasks.extend((0..tokens).step_by(tokens_a_task).map(|first| {
            let tokens = first..(first + tokens_a_task).min(tokens);
            let of_tokens = queries.chunks_exact(heads * head_dim).skip(tokens.start).take(tokens.len());
            let of_head: Vec<_> =
                of_tokens.map(|token| &token[head * group * head_dim..(head + 1) * group * head_dim]).collect();
            Task {
                queries: of_head.concat(),
                keys,
                values,
                head_dim,
                first_row: first * group,
                visible: is_causal.then_some(Visible { first: past + first + 1, group }),
                head,
            }
        }));
    }
    let attended = Output::<T>::new(tokens, heads * head_dim);
    // The last see the most keys: they begin first.
    tasks.into_par_iter().rev().with_max_len(1).for_each(|task| {
        for (row, numbers) in task.attend::<F>().chunks_exact(head_dim).enumerate() {
            let (token, head) = ((task.first_row + row) / group, task.head * group + row % group);
            // Safety: a task writes its own rows, and all are read after all are written.
            let place = unsafe { attended.place(token, head * head_dim, head_dim) };
            numbers.iter().enumerate().for_each(|(at, number)| unsafe { place.add(at).write(T::round(*number)) });
        }
    });
    Some(attended.into_tensor())
}

/// The keys that a row sees where it does not see all: rows come token by token, `group` of each.
#[derive(Clone, Copy)]
struct Visible {
    /// Those of the first token.
    first: usize,
    group: usize,
}

/// Some tokens' queries that share a head of keys and values.
struct Task<'t, T> {
    queries: Vec<T>, // [rows, head_dim]
    keys: &'t [T],   // [length, head_dim]
    values: &'t [T], // [length, head_dim]
    head_dim: usize,
    /// The first row's place among all tokens' rows of this head.
    first_row: usize,
    visible: Option<Visible>,
    head: usize,
}

impl<T: Element> Task<'_, T> {
    /// [rows, head_dim]
    fn attend<F: Tiles<T>>(&self) -> Vec<f32> {
        let (head_dim, rows) = (self.head_dim, self.queries.len() / self.head_dim);
        // Safety: the form is one for this CPU, here and below.
        let queries = unsafe { PackedRows::new::<T, F>(&self.queries, head_dim) };
        let mut softmax = Softmax::new(rows, head_dim);
        let end = self.num_visible(rows - 1);
        let (mut scores, mut weights) = (vec![0.0; rows * KEYS_A_BLOCK], vec![T::round(0.0); rows * KEYS_A_BLOCK]);
        for first in (0..end).step_by(KEYS_A_BLOCK) {
            let len = KEYS_A_BLOCK.min(end - first);
            let block = first * head_dim..(first + len) * head_dim;
            let (keys, values) = (&self.keys[block.clone()], &self.values[block]);
            let (scores, weights) = (&mut scores[..rows * len], &mut weights[..rows * len]);
            unsafe {
                gemm::multiply::<T, F>(&queries, &Weight::ByOutput(keys), &mut |row, key, sums| {
                    scores[row * len + key..][..sums.len()].copy_from_slice(sums);
                });
            }
            let visible = |row| self.num_visible(row).saturating_sub(first).min(len);
            vector::run(Weigh { scores, visible, weights, softmax: &mut softmax });
            unsafe {
                let weights = PackedRows::new::<T, F>(weights, len);
                gemm::multiply::<T, F>(&weights, &Weight::ByInput(values), &mut |row, column, sums| {
                    let of_row = &mut softmax.sums[row * head_dim + column..][..sums.len()];
                    of_row.iter_mut().zip(sums).for_each(|(sum, more)| *sum += more);
                });
            }
        }
        softmax.finish()
    }

    /// Keys that a row sees.
    fn num_visible(&self, row: usize) -> usize {
        self.visible.map_or(self.keys.len() / self.head_dim, |visible| visible.first + row / visible.group)
    }
}

/// The softmax over the keys so far, not divided yet.
struct Softmax {
    largest: Vec<f32>, // [rows]: the largest score
    weight: Vec<f32>,  // [rows]: the sum of all exp(score - largest)
    sums: Vec<f32>,    // [rows, head_dim]: the values, weighted alike
    scale: f32,
    head_dim: usize,
}

impl Softmax {
    fn new(rows: usize, head_dim: usize) -> Softmax {
        let scale = 1.0 / (head_dim as f32).sqrt();
        let (largest, weight, sums) = (vec![f32::NEG_INFINITY; rows], vec![0.0; rows], vec![0.0; rows * head_dim]);
        Softmax { largest, weight, sums, scale, head_dim }
    }

    fn finish(mut self) -> Vec<f32> {
        for (sums, weight) in self.sums.chunks_exact_mut(self.head_dim).zip(self.weight) {
            sums.iter_mut().for_each(|sum| *sum /= weight);
        }
        self.sums
    }
}

/// Scores of a block of keys, [rows, keys], to the values' weights, of the same shape; what was added up before is brought to
/// the new scale. A row sees the first `visible(row)` of these keys, the others weigh nothing.
struct Weigh<'a, T, V> {
    scores: &'a mut [f32],
    visible: V,
    weights: &'a mut [T],
    softmax: &'a mut Softmax,
}

impl<T: Element, V: Fn(usize) -> usize> Loop for Weigh<'_, T, V> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Softmax { largest, weight, sums, scale, head_dim } = self.softmax;
        let rows = largest.len();
        let len = self.scores.len() / rows;
        let rows = self.scores.chunks_exact_mut(len).zip(self.weights.chunks_exact_mut(len)).enumerate();
        for (row, (scores, weights)) in rows {
            let visible = (self.visible)(row);
            let scores = &mut scores[..visible];
            let (weights, unseen) = weights.split_at_mut(visible);
            unseen.fill(T::round(0.0));
            if visible == 0 {
                continue;
            }
            let most = (most(scores) * *scale).max(largest[row]);
            scores.iter_mut().for_each(|score| *score = exp::<FMA>(*score * *scale - most));
            weights.iter_mut().zip(&*scores).for_each(|(weight, score)| *weight = T::round(*score));
            let before = exp::<FMA>(largest[row] - most); // 0 where there was nothing before
            weight[row] = weight[row] * before + sum(scores);
            largest[row] = most;
            if before != 1.0 {
                sums[row * *head_dim..(row + 1) * *head_dim].iter_mut().for_each(|sum| *sum *= before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::super::super::cpu::{has_avx2_and_fma, has_avx512_bf16};
    use super::super::element::{Bf16, Element};
    use super::super::gemm::{Pairs, Tiles, Wide};
    use super::super::testing::{median_seconds, numbers};
    use super::attend_by;

    /// Numbers from -1 to 1, the same in every run: so is what rounding makes of them.
    fn random(shape: &[i64], seed: u32) -> Tensor {
        let len: i64 = shape.iter().product();
        Tensor::from_slice(&numbers(len as usize, seed)).view(shape)
    }

    /// In double precision: [tokens, heads * head_dim] of `q` [tokens, heads, head_dim], `k` and `v` [kv_heads, length, head_dim].
    fn exactly(q: &Tensor, k: &Tensor, v: &Tensor, is_causal: bool) -> Tensor {
        let [q, k, v] = [q, k, v].map(|x| x.to_kind(Kind::Double));
        let (tokens, heads, head_dim) = q.size3().unwrap();
        let (kv_heads, length) = (k.size()[0], k.size()[1]);
        let by_head = |x: &Tensor| x.repeat_interleave_self_int(heads / kv_heads, 0, None); // [heads, length, head_dim]
        let scores = q.transpose(0, 1).matmul(&by_head(&k).transpose(1, 2)) / (head_dim as f64).sqrt();
        let seen = Tensor::ones([tokens, length], (Kind::Bool, Device::Cpu)).tril(length - tokens);
        let scores = if is_causal { scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY) } else { scores };
        scores.softmax(-1, Kind::Double).matmul(&by_head(&v)).transpose(0, 1).reshape([tokens, heads * head_dim])
    }

    fn agrees<T: Element, F: Tiles<T>>(tolerance: f64) {
        for (heads, kv_heads, dim) in [(4, 2, 64), (16, 4, 256), (3, 3, 20)] {
            for (tokens, length) in [(1, 1), (2, 7), (5, 256), (70, 300), (200, 513), (7, 1030)] {
                let q = random(&[tokens, heads, dim], 1).to_kind(T::KIND);
                let [k, v] = [2, 3].map(|seed| random(&[kv_heads, length, dim], seed).to_kind(T::KIND));
                for is_causal in [false, true] {
                    let ours = attend_by::<T, F>(&q, &k, &v, is_causal).unwrap();
                    let worst = (ours - exactly(&q, &k, &v, is_causal)).abs().max().double_value(&[]);
                    assert!(worst < tolerance, "{tokens} of {length}, {heads} heads of {dim}: off by {worst}");
                }
            }
        }
    }

    #[test]
    fn agrees_with_double_precision_at_any_length() {
        if has_avx2_and_fma() {
            agrees::<f32, Wide>(2e-6);
            agrees::<Bf16, Wide>(3e-2);
        }
        if has_avx512_bf16() {
            agrees::<Bf16, Pairs>(3e-2);
        }
    }

    fn keeps_its_bits<T: Element, F: Tiles<T>>() {
        let (tokens, heads, kv_heads, dim, length) = (300, 4, 2, 64, 700);
        let q = random(&[tokens, heads, dim], 1).to_kind(T::KIND);
        let [k, v] = [2, 3].map(|seed| random(&[kv_heads, length, dim], seed).to_kind(T::KIND));
        let whole = attend_by::<T, F>(&q, &k, &v, true).unwrap();
        for cut in [1, 17, 48, 150, 299] {
            let first = attend_by::<T, F>(
                &q.narrow(0, 0, cut),
                &k.narrow(1, 0, length - tokens + cut),
                &v.narrow(1, 0, length - tokens + cut),
                true,
            );
            let second = attend_by::<T, F>(&q.narrow(0, cut, tokens - cut).contiguous(), &k, &v, true);
            assert!(Tensor::cat(&[first.unwrap(), second.unwrap()], 0).equal(&whole), "cut at {cut}");
        }
    }

    #[test]
    fn a_prompt_gives_the_same_bits_wherever_it_is_cut() {
        if has_avx2_and_fma() {
            keeps_its_bits::<f32, Wide>();
        }
        if has_avx512_bf16() {
            keeps_its_bits::<Bf16, Pairs>();
        }
    }

    /// A layer of the 4B's, and one of its vision tower's.
    #[test]
    #[ignore = "prints, for people to read"]
    fn speed_beside_libtorch() {
        tch::set_num_threads(1); // or its threads would spin beside ours
        for (tokens, heads, kv_heads, dim, length) in
            [(512, 16, 4, 256, 512), (512, 16, 4, 256, 8192), (1024, 16, 16, 64, 1024)]
        {
            let q = random(&[tokens, heads, dim], 1).to_kind(Kind::BFloat16);
            let [k, v] = [2, 3].map(|seed| random(&[kv_heads, length, dim], seed).to_kind(Kind::BFloat16));
            let is_causal = kv_heads != heads;
            let ours = median_seconds(9, || drop(super::attend_many(&q, &k, &v, is_causal)));
            let theirs = median_seconds(9, || {
                let (q, k, v) = (q.transpose(0, 1).unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0));
                let mask = Tensor::ones([tokens, length], (Kind::Bool, Device::Cpu)).tril(length - tokens);
                let mask = is_causal.then_some(mask);
                drop(Tensor::scaled_dot_product_attention(&q, &k, &v, mask.as_ref(), 0.0, false, None, true));
            });
            let pairs = if is_causal { tokens * length - tokens * tokens / 2 } else { tokens * length };
            let flops = (4 * pairs * heads * dim) as f64;
            println!(
                "{tokens} of {length}: {:.2} ms, {:.0} GFLOP/s; libtorch's, on one thread, {:.2} ms",
                ours * 1e3,
                flops / ours / 1e9,
                theirs * 1e3
            );
        }
    }
}

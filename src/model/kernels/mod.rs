//! Operators of our own, where those of libtorch are slow or do not keep a promise of ours; on the CPU only.
//!
//! All threads that compute are those of one rayon pool: libtorch's own would wait for work by spinning, and take the cores
//! from ours.

#[cfg(test)]
pub(super) mod agreement;
mod attend;
#[cfg(target_arch = "x86_64")]
mod attend_many;
mod convolve;
mod delta_chunks;
mod delta_step;
mod element;
mod exponential;
mod few_rows;
#[cfg(target_arch = "x86_64")]
mod few_rows_bf16;
mod fixed_point;
mod gated;
mod gated_rms_norm;
mod gates;
mod gelu;
#[cfg(target_arch = "x86_64")]
mod gemm;
mod quantize;
mod quantized;
mod rms_norm;
mod rotate;
mod stored;
mod tensors;
mod tile;
mod vector;
mod whole_numbers;

use rayon::prelude::*;
use tch::{Kind, Tensor};

#[cfg(target_arch = "x86_64")]
use super::cpu;
use super::weight::Weight;
pub(super) use attend::attend_one;
#[cfg(target_arch = "x86_64")]
pub(super) use attend_many::attend_many;
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn attend_many(_: &Tensor, _: &Tensor, _: &Tensor, _: bool) -> Option<Tensor> {
    None
}
pub(super) use convolve::convolve;
pub(super) use delta_chunks::delta_chunks;
pub(super) use delta_step::delta_step;
use element::{Bf16, Element};
pub(super) use gated::{Gate, gated};
pub(super) use gated_rms_norm::gated_rms_norm;
pub(super) use gates::gates;
pub(super) use gelu::gelu_tanh;
pub(super) use quantize::quantize;
pub(super) use quantized::{BLOCK, GROUP, PANEL, SCALE_BYTES, quantized_bytes};
pub(super) use rms_norm::rms_norm;
pub(super) use rotate::rotate;
use stored::{Arranged, Stored};
use tensors::{Matrix, Output};

/// Most rows that are multiplied row by row, weight by weight: from there on a GEMM, which reads weights into the cache once
/// for many rows, is faster.
pub(super) const MAX_FEW_ROWS: i64 = 16;

/// Weights that one task multiplies at least: less is not worth another thread.
const WEIGHTS_A_TASK: usize = 1 << 16;

/// `x W^T + b` [rows, outputs] for `x` [rows, inputs] and each of `weights` [outputs, inputs], summed in fp32 and rounded
/// once. Among up to [`MAX_FEW_ROWS`] rows, and among more, a row's result is the same bits however many rows there are.
///
/// `None` where another operator must do it: on another device or in other precisions, on a CPU that multiplies bf16 faster
/// than this, and where tensors do not lie in one piece.
pub(super) fn linear<const N: usize>(x: &Tensor, weights: [(&Weight, Option<&Tensor>); N]) -> Option<[Tensor; N]> {
    match x.kind() {
        Kind::BFloat16 => linear_of::<Bf16, N>(x, weights),
        Kind::Float => linear_of::<f32, N>(x, weights),
        _ => None,
    }
}

fn linear_of<T: Element, const N: usize>(x: &Tensor, weights: [(&Weight, Option<&Tensor>); N]) -> Option<[Tensor; N]> {
    let x = Matrix::<T>::of(x)?;
    let mut layers = Vec::with_capacity(N);
    for (weight, bias) in weights {
        let bias = match bias {
            Some(bias) => Some(Matrix::of(bias)?.numbers),
            None => None,
        };
        let weight = Stored::of(weight)?;
        layers.push(Layer { output: Output::new(x.rows(), weight.outputs()), weight, bias });
    }
    if !is_at_its_best_here(x.rows(), &layers) {
        return None;
    }
    let arranged = Arranged::new(&x, layers.iter().map(|layer| &layer.weight));
    each_part(&layers, outputs_a_task(&x, &layers), |part| {
        part.weight.multiply(&arranged, &mut |row, output, sums| part.put(row, output, sums));
    });
    let mut outputs = layers.into_iter().map(|layer| layer.output.into_tensor());
    Some(std::array::from_fn(|_| outputs.next().expect("Invariant: as many outputs as weights")))
}

/// Whether a row of `kind` among more than [`MAX_FEW_ROWS`], too, is the same bits however many there are: not where libtorch
/// multiplies them.
pub(super) fn keep_rows_apart(kind: Kind) -> bool {
    #[cfg(target_arch = "x86_64")]
    return cpu::has_avx2_and_fma() && !cpu::libtorch_multiplies_best(kind);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = kind;
        false
    }
}

/// Whether libtorch's own products are no better: they may be for many rows of plain weights. Weights in fewer bits it cannot
/// multiply at all.
fn is_at_its_best_here<T: Element>(rows: usize, layers: &[Layer<T>]) -> bool {
    let num_plain = layers.iter().filter(|layer| layer.weight.is_plain()).count();
    if rows <= MAX_FEW_ROWS as usize || num_plain == 0 {
        return true;
    }
    #[cfg(target_arch = "x86_64")]
    return keep_rows_apart(T::KIND) || cpu::has_avx2_and_fma() && num_plain < layers.len();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whole panels of outputs for one task.
fn outputs_a_task<T: Element>(x: &Matrix<T>, layers: &[Layer<T>]) -> usize {
    #[cfg(target_arch = "x86_64")]
    if x.rows() > MAX_FEW_ROWS as usize {
        return gemm::outputs_a_task();
    }
    let num_weights = layers.iter().map(|layer| layer.weight.outputs()).sum::<usize>() * x.columns;
    // Many tasks a thread: on a busy machine one thread may be slower than another.
    let weights_a_task = (num_weights / (32 * rayon::current_num_threads())).max(WEIGHTS_A_TASK);
    weights_a_task.div_ceil(x.columns).next_multiple_of(PANEL)
}

struct Layer<'t, T> {
    weight: Stored<'t, T>,
    bias: Option<&'t [T]>,
    output: Output<T>,
}

/// Some outputs of a layer: what one task computes.
struct Part<'l, T> {
    weight: Stored<'l, T>,
    bias: Option<&'l [T]>,
    output: &'l Output<T>,
    first: usize,
}

impl<T: Element> Part<'_, T> {
    /// Rounds the sums of some neighbouring outputs, `column` the first of them in this part. Each is put once.
    #[inline]
    fn put(&self, row: usize, column: usize, sums: &[f32]) {
        // Safety: parts are apart, and each belongs to one task.
        let place = unsafe { self.output.place(row, self.first + column, sums.len()) };
        // Safety: so many numbers have their place there.
        let write = |offset: usize, sum: f32| unsafe { place.add(offset).write(T::round(sum)) };
        match self.bias {
            None => sums.iter().enumerate().for_each(|(offset, sum)| write(offset, *sum)),
            Some(bias) => {
                let bias = &bias[column..column + sums.len()];
                sums.iter().zip(bias).enumerate().for_each(|(offset, (sum, bias))| write(offset, sum + bias.widen()));
            }
        }
    }
}

/// Cuts layers that read the same rows into parts of so many outputs, and has the threads compute them.
fn each_part<T: Element>(layers: &[Layer<T>], outputs_a_part: usize, compute: impl Fn(&Part<T>) + Sync + Send) {
    let parts = layers.iter().flat_map(|layer| {
        let outputs = layer.weight.outputs();
        (0..outputs).step_by(outputs_a_part).map(move |first| {
            let len = outputs_a_part.min(outputs - first);
            let bias = layer.bias.map(|bias| &bias[first..first + len]);
            Part { weight: layer.weight.part(first, len), bias, output: &layer.output, first }
        })
    });
    let parts: Vec<Part<T>> = parts.collect();
    parts.par_iter().with_max_len(1).for_each(compute);
}

#[cfg(test)]
mod testing {
    use std::time::Instant;

    use super::element::Element;

    /// Numbers from -1 to 1 that look random.
    pub fn numbers(len: usize, seed: u32) -> Vec<f32> {
        let mix = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed).wrapping_mul(2_246_822_519);
        (0..len).map(|i| mix(i) as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
    }

    /// The same, rounded to numbers of a kind.
    pub fn random<T: Element>(len: usize, seed: u32) -> Vec<T> {
        numbers(len, seed).into_iter().map(T::round).collect()
    }

    /// The seconds that `work` takes, the median of so many runs.
    pub fn median_seconds(runs: usize, mut work: impl FnMut()) -> f64 {
        let mut seconds: Vec<f64> = (0..runs)
            .map(|_| {
                let begun = Instant::now();
                work();
                begun.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        seconds[runs / 2]
    }
}

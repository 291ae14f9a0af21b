//! What this machine's CPU can do at most, measured: the limits that speeds are compared with.

use std::time::Instant;

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::cpu::multiplies_bf16;
use super::kernels;
use super::weight::Weight;

/// Bytes that are read: far more than any cache holds.
const BUFFER_BYTES: usize = 512 << 20;

/// The limits of the CPU, with the threads that compute.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct MachineLimits {
    /// Bytes a second that all threads read together.
    pub read_bandwidth: f64,
    /// Operations a second of a large product, the faster of bf16 and fp32.
    pub gemm_flops: f64,
}

/// Measures both, each the median of some runs: a machine that is shared does not give its best for as long as an answer takes.
/// Takes a few seconds.
pub fn measure() -> MachineLimits {
    MachineLimits { read_bandwidth: read_bandwidth(), gemm_flops: gemm(Kind::Float).max(gemm(Kind::BFloat16)) }
}

fn read_bandwidth() -> f64 {
    let buffer: Vec<u64> = (0..BUFFER_BYTES / 8).into_par_iter().map(|i| i as u64).collect();
    let piece = buffer.len() / rayon::current_num_threads();
    median_of(31, || {
        let sum: u64 = buffer.par_chunks(piece).map(read).sum();
        std::hint::black_box(sum);
        BUFFER_BYTES as f64
    })
}

/// From four places at once: one after the other a CPU waits at the end of every page.
fn read(words: &[u64]) -> u64 {
    let mut quarters = words.chunks_exact(words.len() / 4).map(|quarter| quarter.chunks_exact(8));
    let [mut a, mut b, mut c, mut d] = std::array::from_fn(|_| quarters.next().expect("Invariant: four quarters"));
    let mut sums = [0; 8];
    while let (Some(a), Some(b), Some(c), Some(d)) = (a.next(), b.next(), c.next(), d.next()) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum ^= a[lane] ^ b[lane] ^ c[lane] ^ d[lane];
        }
    }
    sums.into_iter().fold(0, |sum, lane| sum ^ lane)
}

/// 512 rows with a weight of 2560 x 9216, the largest of the 4B, by libtorch, each thread with a part of the outputs, or by our
/// own kernels: the faster of both.
fn gemm(kind: Kind) -> f64 {
    // A CPU without instructions for bf16 would take seconds for libtorch's form, to no end.
    let rows = if kind == Kind::BFloat16 && !multiplies_bf16() { 32 } else { 512 };
    let threads = rayon::current_num_threads() as i64;
    let ones = |shape: [i64; 2]| Tensor::ones(shape, (kind, Device::Cpu));
    let outputs = 9216 / threads * threads;
    let flops = 2.0 * rows as f64 * 2560.0 * outputs as f64;
    let mut parts: Vec<_> = (0..threads).map(|_| (ones([rows, 2560]), ones([outputs / threads, 2560]))).collect();
    let by_libtorch = median_of(5, || {
        parts.par_iter_mut().for_each(|(x, weight)| drop(x.linear(weight, None::<&Tensor>)));
        flops
    });
    let (x, weight) = (ones([rows, 2560]), Weight::Plain(ones([outputs, 2560])));
    let by_ours = median_of(5, || kernels::linear(&x, [(&weight, None)]).map_or(0.0, |_| flops));
    by_libtorch.max(by_ours)
}

/// The amount of work a second, after a run that is not counted.
fn median_of(runs: usize, mut work: impl FnMut() -> f64) -> f64 {
    let mut rate = |_| {
        let begun = Instant::now();
        work() / begun.elapsed().as_secs_f64()
    };
    rate(0);
    let mut rates: Vec<f64> = (0..runs).map(&mut rate).collect();
    rates.sort_by(f64::total_cmp);
    rates[runs / 2]
}

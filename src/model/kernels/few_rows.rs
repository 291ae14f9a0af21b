//! `x W^T` for a few rows of `x`: every weight is read from memory once, and each sum is added in one fixed order.
//!
//! The order of additions depends on the number of inputs alone, not on how many rows, outputs or threads there are: a row's
//! result is the same bits alone and among others. A GEMM promises no such thing.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Sums of a dot product that are added up side by side, then in a tree: the lanes of an AVX2 register.
const LANES: usize = 8;

/// Bytes ahead of the one being read that the CPU is told to fetch.
#[cfg(target_arch = "x86_64")]
const PREFETCH: usize = 1024;

/// A number as weights are stored.
pub(in super::super) trait Element: Copy + Send + Sync + 'static {
    fn widen(self) -> f32;

    /// Eight of them as fp32.
    ///
    /// # Safety
    /// `from` points to eight elements, and the CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load(from: *const Self) -> __m256;
}

/// bf16: the upper half of an fp32.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(transparent)]
pub(in super::super) struct Bf16(pub u16);

impl Element for Bf16 {
    #[inline]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(from: *const Bf16) -> __m256 {
        // Safety: the caller's.
        let halves = unsafe { _mm_loadu_si128(from.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))
    }
}

impl Element for f32 {
    #[inline]
    fn widen(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(from: *const f32) -> __m256 {
        // Safety: the caller's.
        unsafe { _mm256_loadu_ps(from) }
    }
}

/// The products of `x` [rows, inputs] with `weight` [outputs, inputs], as [rows, outputs].
pub(super) fn multiply<W: Element>(x: &[f32], weight: &[W], inputs: usize) -> Vec<f32> {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    let mut products = vec![0.0; rows * outputs];
    let mut put = |row: usize, output: usize, sum: f32| products[row * outputs + output] = sum;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // Safety: the CPU was asked.
        unsafe { multiply_avx2(x, weight, inputs, &mut put) };
        return products;
    }
    multiply_portable(x, weight, inputs, &mut put);
    products
}

/// Rows by outputs that are multiplied at a time: what they add up stays in registers, and so many weights are read side by
/// side that the memory is kept busy.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_avx2<W: Element>(x: &[f32], weight: &[W], inputs: usize, put: &mut impl FnMut(usize, usize, f32)) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    let mut output = 0;
    while output < outputs {
        let together = if outputs - output >= 2 { 2 } else { 1 };
        let mut row = 0;
        while row < rows {
            let at = (row, output);
            let (x, weight) = (&x[row * inputs..], &weight[output * inputs..]);
            // Safety: the CPU has AVX2 and FMA, and both slices hold as many rows as the tile has.
            row += unsafe {
                match (rows - row, together) {
                    (4.., 2) => tile::<W, 4, 2>(x, weight, inputs, at, put),
                    (3, 2) => tile::<W, 3, 2>(x, weight, inputs, at, put),
                    (2, 2) => tile::<W, 2, 2>(x, weight, inputs, at, put),
                    (_, 2) => tile::<W, 1, 2>(x, weight, inputs, at, put),
                    (4.., _) => tile::<W, 4, 1>(x, weight, inputs, at, put),
                    (3, _) => tile::<W, 3, 1>(x, weight, inputs, at, put),
                    (2, _) => tile::<W, 2, 1>(x, weight, inputs, at, put),
                    (_, _) => tile::<W, 1, 1>(x, weight, inputs, at, put),
                }
            };
        }
        output += together;
    }
}

/// The products of `ROWS` rows with `OUTPUTS` outputs, which stand at (row, output) of the whole. Returns `ROWS`.
///
/// # Safety
/// The CPU has AVX2 and FMA; `x` has `ROWS` and `weight` has `OUTPUTS` rows of `inputs` at least.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<W: Element, const ROWS: usize, const OUTPUTS: usize>(
    x: &[f32],
    weight: &[W],
    inputs: usize,
    (row, output): (usize, usize),
    put: &mut impl FnMut(usize, usize, f32),
) -> usize {
    debug_assert!(x.len() >= ROWS * inputs && weight.len() >= OUTPUTS * inputs);
    let mut sums = [[_mm256_setzero_ps(); ROWS]; OUTPUTS];
    let whole = inputs - inputs % LANES;
    for k in (0..whole).step_by(LANES) {
        for (o, sums) in sums.iter_mut().enumerate() {
            // Safety: k + 7 < inputs, so every pointer is within its row; what is prefetched need not exist.
            unsafe {
                let at = weight.as_ptr().add(o * inputs + k);
                _mm_prefetch::<_MM_HINT_T0>(at.cast::<i8>().wrapping_add(PREFETCH));
                let weights = W::load(at);
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_fmadd_ps(weights, _mm256_loadu_ps(x.as_ptr().add(r * inputs + k)), *sum);
                }
            }
        }
    }
    for (o, sums) in sums.iter().enumerate() {
        for (r, sum) in sums.iter().enumerate() {
            let mut lanes = [0.0; LANES];
            // Safety: there is room for eight.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), *sum) };
            let tail = (whole..inputs).map(|k| weight[o * inputs + k].widen() * x[r * inputs + k]);
            put(row + r, output + o, tree(lanes) + tail.sum::<f32>());
        }
    }
    ROWS
}

/// The plain form, for any CPU and as the reference of the other; without fused multiplication the last bits differ.
fn multiply_portable<W: Element>(x: &[f32], weight: &[W], inputs: usize, put: &mut impl FnMut(usize, usize, f32)) {
    for (output, weight) in weight.chunks_exact(inputs).enumerate() {
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            put(row, output, dot(x, weight));
        }
    }
}

fn dot<W: Element>(x: &[f32], weight: &[W]) -> f32 {
    let mut sums = [0.0; LANES];
    let (x, weight) = (x.chunks_exact(LANES), weight.chunks_exact(LANES));
    let tail: f32 = x.remainder().iter().zip(weight.remainder()).map(|(x, w)| w.widen() * x).sum();
    for (x, weight) in x.zip(weight) {
        for (sum, (x, w)) in sums.iter_mut().zip(x.iter().zip(weight)) {
            *sum += w.widen() * x;
        }
    }
    tree(sums) + tail
}

fn tree(lanes: [f32; LANES]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(test)]
mod tests {
    use super::{Bf16, Element, multiply, multiply_portable};

    /// Numbers from -1 to 1 that look random.
    fn numbers(len: usize, seed: u32) -> Vec<f32> {
        let mix = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed).wrapping_mul(2_246_822_519);
        (0..len).map(|i| mix(i) as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
    }

    fn as_bf16(numbers: &[f32]) -> Vec<Bf16> {
        numbers.iter().map(|x| Bf16((x.to_bits() >> 16) as u16)).collect()
    }

    fn portable<W: Element>(x: &[f32], weight: &[W], inputs: usize) -> Vec<f32> {
        let outputs = weight.len() / inputs;
        let mut products = vec![0.0; x.len() / inputs * outputs];
        multiply_portable(x, weight, inputs, &mut |row, output, sum| products[row * outputs + output] = sum);
        products
    }

    #[test]
    fn both_forms_give_the_products_in_double_precision() {
        for (rows, inputs, outputs) in [(1, 8, 1), (3, 100, 5), (7, 64, 6), (16, 333, 3)] {
            let (x, weight) = (numbers(rows * inputs, 1), as_bf16(&numbers(outputs * inputs, 2)));
            let exact = |row: usize, output: usize| -> f64 {
                (0..inputs)
                    .map(|k| f64::from(x[row * inputs + k]) * f64::from(weight[output * inputs + k].widen()))
                    .sum()
            };
            for products in [multiply(&x, &weight, inputs), portable(&x, &weight, inputs)] {
                for (at, product) in products.iter().enumerate() {
                    let error = (f64::from(*product) - exact(at / outputs, at % outputs)).abs();
                    assert!(error < 1e-4, "{rows} x {inputs} x {outputs} at {at}: off by {error}");
                }
            }
        }
    }

    #[test]
    fn a_row_is_the_same_bits_alone_and_among_others() {
        let (inputs, outputs) = (203, 9);
        let (x, weight) = (numbers(16 * inputs, 3), numbers(outputs * inputs, 4));
        let together = multiply(&x, &weight, inputs);
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            assert_eq!(multiply(x, &weight, inputs), together[row * outputs..(row + 1) * outputs], "row {row}");
        }
        for (output, weight) in weight.chunks_exact(inputs).enumerate() {
            assert_eq!(multiply(&x[..inputs], weight, inputs), together[output..=output], "output {output}");
        }
    }
}

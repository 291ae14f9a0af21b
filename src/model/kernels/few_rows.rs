//! `x W^T` for a few rows of `x`: every weight is read from memory once, and each sum is added in one fixed order.
//!
//! The order of additions depends on the number of inputs alone, not on how many rows, outputs or threads there are: a row's
//! result is the same bits alone and among others. A GEMM of a library promises no such thing.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use super::super::cpu::has_avx2_and_fma;
use super::element::{Element, LANES, Lanes};
#[cfg(target_arch = "x86_64")]
use super::weights::Prefetch;
use super::weights::WeightRows;

/// Most inputs that a step of any weight has.
const LONGEST_STEP: usize = 64;

/// Rows of activations, widened, as a weight's steps are multiplied with them.
pub(super) struct Activations<const V: usize> {
    steps: Vec<[Lanes; V]>, // [rows, steps]
    tails: Vec<f32>,        // [rows, inputs that do not fill a step]
    rows: usize,
    inputs: usize,
}

impl<const V: usize> Activations<V> {
    /// Of `x` [rows, inputs], for weights `W`.
    pub fn new<W: WeightRows<V>, X: Element>(x: &[X], inputs: usize) -> Activations<V> {
        let rows = x.len() / inputs;
        let mut steps = Vec::with_capacity(rows * (inputs / W::STEP));
        let mut tails = Vec::with_capacity(rows * (inputs % W::STEP));
        let mut wide = vec![0.0; inputs];
        for row in x.chunks_exact(inputs) {
            wide.iter_mut().zip(row).for_each(|(wide, x)| *wide = x.widen());
            let whole = wide.chunks_exact(W::STEP);
            tails.extend_from_slice(whole.remainder());
            steps.extend(whole.map(W::arrange));
        }
        Activations { steps, tails, rows, inputs }
    }

    fn steps_a_row(&self) -> usize {
        self.steps.len() / self.rows
    }

    /// What the inputs that do not fill a step add to a product.
    fn tail<W: WeightRows<V>>(&self, row: usize, weight: W, output: usize) -> f32 {
        let len = self.inputs % W::STEP;
        if len == 0 {
            return 0.0;
        }
        let wide = &mut [0.0; LONGEST_STEP][..len];
        weight.widen(output, self.inputs - len, wide);
        self.tails[row * len..].iter().zip(wide).map(|(x, w)| x * *w).sum()
    }
}

/// The products of all rows of `x` with `weight`: `put(row, output, sum)` gets each.
pub(super) fn multiply<W: WeightRows<V>, const V: usize>(
    x: &Activations<V>,
    weight: W,
    put: &mut impl FnMut(usize, usize, f32),
) {
    debug_assert!(weight.inputs() == x.inputs);
    #[cfg(target_arch = "x86_64")]
    if has_avx2_and_fma() {
        // Safety: the CPU was asked.
        return unsafe { multiply_avx2(x, weight, put) };
    }
    multiply_portable(x, weight, put);
}

/// Rows by outputs that are multiplied at a time: what they add up fills the registers, and a weight that was read is used
/// for four rows. A single row reads four outputs side by side, to keep the memory busy.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_avx2<W: WeightRows<V>, const V: usize>(
    x: &Activations<V>,
    weight: W,
    put: &mut impl FnMut(usize, usize, f32),
) {
    let outputs = weight.outputs();
    let widest = if x.rows == 1 { 4 } else { W::OUTPUTS_AT_ONCE };
    let mut output = 0;
    while output < outputs {
        let together = widest.min(outputs - output);
        let mut row = 0;
        while row < x.rows {
            let at = (row, output);
            // Safety: the CPU has AVX2 and FMA, and there are so many rows and outputs.
            row += unsafe {
                match (x.rows - row, together) {
                    (1, 4) => tile::<W, V, 1, 4>(x, weight, at, put),
                    (1, 3) => tile::<W, V, 1, 3>(x, weight, at, put),
                    (1, 2) => tile::<W, V, 1, 2>(x, weight, at, put),
                    (1, _) => tile::<W, V, 1, 1>(x, weight, at, put),
                    (2, 3) => tile::<W, V, 2, 3>(x, weight, at, put),
                    (2, 2) => tile::<W, V, 2, 2>(x, weight, at, put),
                    (2, _) => tile::<W, V, 2, 1>(x, weight, at, put),
                    (3, 3) => tile::<W, V, 3, 3>(x, weight, at, put),
                    (3, 2) => tile::<W, V, 3, 2>(x, weight, at, put),
                    (3, _) => tile::<W, V, 3, 1>(x, weight, at, put),
                    (_, 3) => tile::<W, V, 4, 3>(x, weight, at, put),
                    (_, 2) => tile::<W, V, 4, 2>(x, weight, at, put),
                    (_, _) => tile::<W, V, 4, 1>(x, weight, at, put),
                }
            };
        }
        output += together;
    }
}

/// The products of `ROWS` rows with `OUTPUTS` outputs from (row, output) on. Returns `ROWS`.
///
/// # Safety
/// The CPU has AVX2 and FMA; there are so many rows and outputs.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<W: WeightRows<V>, const V: usize, const ROWS: usize, const OUTPUTS: usize>(
    x: &Activations<V>,
    weight: W,
    (row, output): (usize, usize),
    put: &mut impl FnMut(usize, usize, f32),
) -> usize {
    let steps = x.steps_a_row();
    let rows = &x.steps[row * steps..(row + ROWS) * steps];
    debug_assert!(output + OUTPUTS <= weight.outputs());
    let prefetch = Prefetch::new(steps, W::BYTES, OUTPUTS, row > 0 && row + ROWS == x.rows);
    // Safety: there are so many outputs, and `ROWS` rows of so many steps.
    let sums: [[__m256; ROWS]; OUTPUTS] = unsafe { weight.multiply(output, steps, rows.as_ptr(), prefetch) };
    for (o, sums) in sums.iter().enumerate() {
        for (r, sum) in sums.iter().enumerate() {
            put(row + r, output + o, tree_avx2(*sum) + x.tail(row + r, weight, output + o));
        }
    }
    ROWS
}

/// The plain form, for any CPU and as the reference of the other; without fused multiplication the last bits differ.
fn multiply_portable<W: WeightRows<V>, const V: usize>(
    x: &Activations<V>,
    weight: W,
    put: &mut impl FnMut(usize, usize, f32),
) {
    let steps = x.steps_a_row();
    for output in 0..weight.outputs() {
        for row in 0..x.rows {
            let mut sums = [0.0; LANES];
            for (step, x) in x.steps[row * steps..(row + 1) * steps].iter().enumerate() {
                weight.add(output, step, x, &mut sums);
            }
            put(row, output, tree(sums) + x.tail(row, weight, output));
        }
    }
}

/// [`tree`] in a register.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tree_avx2(lanes: __m256) -> f32 {
    let fours = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1)); // a + e, b + f, c + g, d + h
    let pairs = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
    _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)))
}

fn tree(lanes: [f32; LANES]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(test)]
mod tests {
    use super::super::element::{Bf16, Element};
    use super::super::testing::numbers;
    use super::super::weights::Plain;
    use super::{Activations, multiply, multiply_portable};

    /// [rows, outputs]
    fn products<W: Element>(x: &[f32], weight: &[W], inputs: usize, is_portable: bool) -> Vec<f32> {
        let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
        let activations = Activations::new::<Plain<W>, f32>(x, inputs);
        let weight = Plain { numbers: weight, inputs };
        let mut products = vec![f32::NAN; rows * outputs];
        let mut put = |row: usize, output: usize, sum: f32| products[row * outputs + output] = sum;
        match is_portable {
            true => multiply_portable(&activations, weight, &mut put),
            false => multiply(&activations, weight, &mut put),
        }
        products
    }

    fn gives_the_products_in_double_precision<W: Element>(convert: impl Fn(f32) -> W) {
        for (rows, inputs, outputs) in [(1, 8, 1), (1, 64, 7), (3, 100, 5), (6, 64, 6), (7, 48, 4), (16, 333, 3)] {
            let x = numbers(rows * inputs, 1);
            let weight: Vec<W> = numbers(outputs * inputs, 2).into_iter().map(&convert).collect();
            let exact = |row: usize, output: usize| -> f64 {
                (0..inputs)
                    .map(|k| f64::from(x[row * inputs + k]) * f64::from(weight[output * inputs + k].widen()))
                    .sum()
            };
            for is_portable in [false, true] {
                for (at, product) in products(&x, &weight, inputs, is_portable).iter().enumerate() {
                    let error = (f64::from(*product) - exact(at / outputs, at % outputs)).abs();
                    assert!(error < 1e-4, "{rows} x {inputs} x {outputs} at {at}: off by {error}");
                }
            }
        }
    }

    #[test]
    fn both_forms_give_the_products_in_double_precision() {
        gives_the_products_in_double_precision(Bf16::round);
        gives_the_products_in_double_precision(|x| x);
    }

    #[test]
    fn a_row_is_the_same_bits_alone_and_among_others() {
        let (inputs, outputs) = (203, 9);
        let (x, weight) = (numbers(16 * inputs, 3), numbers(outputs * inputs, 4));
        let together = products(&x, &weight, inputs, false);
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            let alone = products(x, &weight, inputs, false);
            assert_eq!(alone, together[row * outputs..(row + 1) * outputs], "row {row}");
        }
        for (output, weight) in weight.chunks_exact(inputs).enumerate() {
            assert_eq!(products(&x[..inputs], weight, inputs, false), together[output..=output], "output {output}");
        }
    }
}

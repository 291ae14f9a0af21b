//! `x W^T` for a few rows of `x`: every weight is read from memory once, and each sum is added in one fixed order.
//!
//! The order of additions depends on the number of inputs alone, not on how many rows, outputs or threads there are: a row's
//! result is the same bits alone and among others. A GEMM of a library promises no such thing.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use super::super::cpu::has_avx2_and_fma;
use super::element::{Element, LANES, Line, STEP};

/// Rows of activations, widened, in the order in which weights `W` come out of memory.
pub(super) struct Activations {
    lines: Vec<Line>,
    rows: usize,
    inputs: usize,
}

impl Activations {
    /// Of `x` [rows, inputs], for weights `W`.
    pub fn new<W: Element, X: Element>(x: &[X], inputs: usize) -> Activations {
        let mut lines = Vec::with_capacity(x.len().div_ceil(STEP));
        for row in x.chunks_exact(inputs) {
            let (steps, tail) = row.as_chunks::<STEP>();
            lines.extend(steps.iter().map(|step| Line(W::ORDER.map(|lane| step[lane].widen()))));
            if !tail.is_empty() {
                let mut line = [0.0; STEP];
                line.iter_mut().zip(tail).for_each(|(wide, x)| *wide = x.widen());
                lines.push(Line(line));
            }
        }
        Activations { lines, rows: x.len() / inputs, inputs }
    }

    fn lines_a_row(&self) -> usize {
        self.inputs.div_ceil(STEP)
    }
}

/// The products of all rows of `x` with `weight` [outputs, inputs]: `put(row, first output, sums)` gets some
/// neighbours at a time.
pub(super) fn multiply<W: Element>(x: &Activations, weight: &[W], put: &mut impl FnMut(usize, usize, &[f32])) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2_and_fma() {
        // Safety: the CPU was asked.
        return unsafe { multiply_avx2(x, weight, put) };
    }
    multiply_portable(x, weight, put);
}

/// Rows by outputs that are multiplied at a time: what they add up fills the registers, a weight that was read is used for
/// four rows, and a number of a row for three weights. Fewer rows read more weights side by side, to keep the memory busy.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_avx2<W: Element>(x: &Activations, weight: &[W], put: &mut impl FnMut(usize, usize, &[f32])) {
    let outputs = weight.len() / x.inputs;
    let widest = match x.rows {
        1 => 8,
        2 => 4,
        _ => 3,
    };
    let mut output = 0;
    while output < outputs {
        let together = if outputs - output < widest { 1 } else { widest };
        let mut row = 0;
        while row < x.rows {
            let at = (row, output);
            // Safety: the CPU has AVX2 and FMA, and there are so many rows and outputs.
            row += unsafe {
                match (x.rows - row, together) {
                    (1, 8) => tile::<W, 1, 8>(x, weight, at, put),
                    (2, 4) => tile::<W, 2, 4>(x, weight, at, put),
                    (1, 3) => tile::<W, 1, 3>(x, weight, at, put),
                    (2, 3) => tile::<W, 2, 3>(x, weight, at, put),
                    (3, 3) => tile::<W, 3, 3>(x, weight, at, put),
                    (_, 3) => tile::<W, 4, 3>(x, weight, at, put),
                    (1, _) => tile::<W, 1, 1>(x, weight, at, put),
                    (2, _) => tile::<W, 2, 1>(x, weight, at, put),
                    (3, _) => tile::<W, 3, 1>(x, weight, at, put),
                    (_, _) => tile::<W, 4, 1>(x, weight, at, put),
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
unsafe fn tile<W: Element, const ROWS: usize, const OUTPUTS: usize>(
    x: &Activations,
    weight: &[W],
    (row, output): (usize, usize),
    put: &mut impl FnMut(usize, usize, &[f32]),
) -> usize {
    let (inputs, stride, steps) = (x.inputs, x.lines_a_row(), x.inputs / STEP);
    let (weight, lines) = (&weight[output * inputs..], &x.lines[row * stride..]);
    assert!(lines.len() >= ROWS * stride && weight.len() >= OUTPUTS * inputs);
    let prefetch = Prefetch::new::<W>(inputs, OUTPUTS, row > 0 && row + ROWS == x.rows);
    // Safety: the CPU is of that kind, and there are so many numbers.
    let sums = unsafe { add_up::<W, ROWS, OUTPUTS>(lines.as_ptr(), stride, weight.as_ptr(), inputs, &prefetch) };
    for r in 0..ROWS {
        let mut of_row = [0.0; OUTPUTS];
        for o in 0..OUTPUTS {
            of_row[o] = tree_avx2(sums[o][r]);
            let tail_weights = &weight[o * inputs + steps * STEP..(o + 1) * inputs];
            if !tail_weights.is_empty() {
                of_row[o] += tail(&lines[r * stride + steps], tail_weights);
            }
        }
        put(row + r, output, &of_row);
    }
    ROWS
}

/// What the whole steps of `ROWS` rows, `stride` lines apart, and `OUTPUTS` outputs, `inputs` weights apart, add up to. A function
/// of its own: as a part of others the compiler keeps what they need in the registers, and sums in memory.
///
/// # Safety
/// The CPU has AVX2 and FMA; there are so many rows and outputs.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_up<W: Element, const ROWS: usize, const OUTPUTS: usize>(
    lines: *const Line,
    stride: usize,
    weight: *const W,
    inputs: usize,
    prefetch: &Prefetch,
) -> [[__m256; ROWS]; OUTPUTS] {
    let mut sums = [[_mm256_setzero_ps(); ROWS]; OUTPUTS];
    for step in 0..inputs / STEP {
        let ahead = if step < prefetch.turn { prefetch.before } else { prefetch.after };
        let mut weights = [[_mm256_setzero_ps(); 2]; OUTPUTS];
        for (o, weights) in weights.iter_mut().enumerate() {
            // Safety: all sixteen are within the output's row; what is prefetched need not exist.
            unsafe {
                let at = weight.add(o * inputs + step * STEP);
                _mm_prefetch::<_MM_HINT_T0>(at.cast::<i8>().wrapping_add(ahead));
                *weights = W::load(at);
            }
        }
        for half in 0..2 {
            for r in 0..ROWS {
                // Safety: a line is two vectors.
                let x = unsafe { _mm256_load_ps(lines.add(r * stride + step).cast::<f32>().add(half * LANES)) };
                for (sums, weights) in sums.iter_mut().zip(&weights) {
                    sums[r] = _mm256_fmadd_ps(weights[half], x, sums[r]);
                }
            }
        }
    }
    sums
}

/// How many bytes ahead of those being read a tile fetches.
///
/// Weights come from memory for the first rows: towards the end of an output's weights those of the next tile's output are
/// fetched. They come from the cache for the other rows, the last of whom fetch all of the next tile's.
#[cfg(target_arch = "x86_64")]
struct Prefetch {
    before: usize,
    /// The step from which on `after` counts.
    turn: usize,
    after: usize,
}

#[cfg(target_arch = "x86_64")]
impl Prefetch {
    const BYTES: usize = 512;

    fn new<W>(inputs: usize, outputs: usize, is_last_of_many: bool) -> Prefetch {
        let (steps, bytes) = (inputs / STEP, inputs * size_of::<W>());
        if is_last_of_many {
            return Prefetch { before: outputs * bytes, turn: steps, after: 0 };
        }
        let turn = steps.saturating_sub(Prefetch::BYTES / (STEP * size_of::<W>()));
        Prefetch { before: Prefetch::BYTES, turn, after: Prefetch::BYTES + (outputs - 1) * bytes }
    }
}

/// The plain form, for any CPU and as the reference of the other; without fused multiplication the last bits differ.
fn multiply_portable<W: Element>(x: &Activations, weight: &[W], put: &mut impl FnMut(usize, usize, &[f32])) {
    for (output, weight) in weight.chunks_exact(x.inputs).enumerate() {
        for (row, lines) in x.lines.chunks_exact(x.lines_a_row()).enumerate() {
            put(row, output, &[dot(lines, weight)]);
        }
    }
}

fn dot<W: Element>(lines: &[Line], weight: &[W]) -> f32 {
    let mut sums = [0.0; LANES];
    let (steps, tail_weights) = weight.as_chunks::<STEP>();
    for (line, step) in lines.iter().zip(steps) {
        for (lane, x) in line.0.iter().enumerate() {
            sums[lane % LANES] += step[W::ORDER[lane]].widen() * x;
        }
    }
    tree(sums) + lines.get(steps.len()).map_or(0.0, |line| tail(line, tail_weights))
}

/// What does not fill a step.
fn tail<W: Element>(line: &Line, weights: &[W]) -> f32 {
    line.0.iter().zip(weights).map(|(x, w)| w.widen() * x).sum()
}

/// [`tree`] in a register.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn tree_avx2(lanes: __m256) -> f32 {
    let fours = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1)); // a + e, b + f, c + g, d + h
    let pairs = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
    _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)))
}

/// Adds lanes up in pairs.
#[inline]
pub(super) fn tree([a, b, c, d, e, f, g, h]: [f32; LANES]) -> f32 {
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(test)]
mod tests {
    use super::super::super::cpu::has_avx512_bf16;
    use super::super::element::{Bf16, Element};
    use super::super::few_rows_bf16;
    use super::super::testing::{median_seconds, random};
    use super::{Activations, multiply, multiply_portable};

    /// A form of the product: rows, weights, inputs and where each sum is put.
    type Form<T> = fn(&[T], &[T], usize, &mut dyn FnMut(usize, usize, &[f32]));

    fn portable<T: Element>(x: &[T], weight: &[T], inputs: usize, mut put: &mut dyn FnMut(usize, usize, &[f32])) {
        multiply_portable(&Activations::new::<T, T>(x, inputs), weight, &mut put);
    }

    fn widened<T: Element>(x: &[T], weight: &[T], inputs: usize, mut put: &mut dyn FnMut(usize, usize, &[f32])) {
        multiply(&Activations::new::<T, T>(x, inputs), weight, &mut put);
    }

    fn pairs(x: &[Bf16], weight: &[Bf16], inputs: usize, mut put: &mut dyn FnMut(usize, usize, &[f32])) {
        // Safety: the tests ask the CPU.
        unsafe { few_rows_bf16::multiply(x, weight, inputs, &mut put) };
    }

    /// Layers of the 4B model, on one thread: as many weights as do not fit the caches.
    #[test]
    #[ignore = "prints, for people to read"]
    fn speed_by_rows() {
        for (inputs, outputs) in [(2560, 9216), (9216, 2560)] {
            let weights: Vec<Vec<Bf16>> = (0..4).map(|seed| random(inputs * outputs, seed)).collect();
            for rows in [1, 2, 3, 4, 6, 8, 12, 16] {
                let x = random::<Bf16>(rows * inputs, 9);
                let mut sums = vec![0.0; rows * outputs];
                let mut turn = 0;
                let seconds = median_seconds(15, || {
                    turn = (turn + 1) % weights.len();
                    widened(&x, &weights[turn], inputs, &mut |row, output, some| {
                        sums[row * outputs + output..][..some.len()].copy_from_slice(some);
                    });
                });
                let weights = (inputs * outputs) as f64;
                let (gb, gflop) = (2.0 * weights / 1e9, 2.0 * weights * rows as f64 / 1e9);
                println!(
                    "{inputs} -> {outputs}, {rows} rows: {:.2} ms, {:.1} GB/s, {:.1} GFLOP/s",
                    seconds * 1e3,
                    gb / seconds,
                    gflop / seconds
                );
            }
        }
    }

    fn forms_of_bf16() -> Vec<Form<Bf16>> {
        let mut forms: Vec<Form<Bf16>> = vec![portable, widened];
        if has_avx512_bf16() {
            forms.push(pairs);
        }
        forms
    }

    const FORMS_OF_FP32: [Form<f32>; 2] = [portable, widened];

    /// [rows, outputs]
    fn products<T: Element>(x: &[T], weight: &[T], inputs: usize, form: Form<T>) -> Vec<f32> {
        let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
        let mut products = vec![f32::NAN; rows * outputs];
        form(x, weight, inputs, &mut |row, output, sums| {
            products[row * outputs + output..][..sums.len()].copy_from_slice(sums);
        });
        products
    }

    fn gives_the_products_in_double_precision<T: Element>(form: Form<T>) {
        for (rows, inputs, outputs) in [(1, 8, 1), (1, 64, 7), (3, 100, 5), (6, 64, 6), (7, 48, 4), (16, 333, 3)] {
            let (x, weight) = (random::<T>(rows * inputs, 1), random::<T>(outputs * inputs, 2));
            let exact = |row: usize, output: usize| -> f64 {
                (0..inputs)
                    .map(|k| f64::from(x[row * inputs + k].widen()) * f64::from(weight[output * inputs + k].widen()))
                    .sum()
            };
            for (at, product) in products(&x, &weight, inputs, form).iter().enumerate() {
                let error = (f64::from(*product) - exact(at / outputs, at % outputs)).abs();
                assert!(error < 1e-4, "{rows} x {inputs} x {outputs} at {at}: off by {error}");
            }
        }
    }

    #[test]
    fn all_forms_give_the_products_in_double_precision() {
        forms_of_bf16().into_iter().for_each(gives_the_products_in_double_precision);
        FORMS_OF_FP32.into_iter().for_each(gives_the_products_in_double_precision);
    }

    fn a_row_is_the_same_bits<T: Element>(form: Form<T>) {
        let (inputs, outputs) = (203, 9);
        let (x, weight) = (random::<T>(16 * inputs, 3), random::<T>(outputs * inputs, 4));
        let together = products(&x, &weight, inputs, form);
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            let alone = products(x, &weight, inputs, form);
            assert_eq!(alone, together[row * outputs..(row + 1) * outputs], "row {row}");
        }
        for (output, weight) in weight.chunks_exact(inputs).enumerate() {
            assert_eq!(products(&x[..inputs], weight, inputs, form), together[output..=output], "output {output}");
        }
    }

    #[test]
    fn a_row_is_the_same_bits_alone_and_among_others() {
        forms_of_bf16().into_iter().for_each(a_row_is_the_same_bits);
        FORMS_OF_FP32.into_iter().for_each(a_row_is_the_same_bits);
    }
}

//! `x W^T` for many rows of `x`, at the speed of the arithmetic: a GEMM for CPUs that multiply in fp32 with AVX2.
//!
//! Blocked as in Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): a panel of weights stays
//! in the first cache while a block of rows streams past it from the second. Weights are widened while they are packed, so
//! that a wide copy of them never exists. The order of additions depends on the number of inputs alone.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::element::{Element, LANES, Line, STEP};

/// Rows by outputs whose sums are held in registers: twelve of the sixteen.
const TILE_ROWS: usize = 6;
const PANEL_OUTPUTS: usize = STEP;

/// Inputs that are added up at a time: a panel of them is 16 KiB, half of a first cache.
const DEPTH: usize = 256;

/// Tiles of rows that panels are multiplied with in turn: 96 KiB.
const TILES_A_BLOCK: usize = 16;

/// Rows whose sums are kept while a thread goes through the inputs; for more the weights are packed again.
const ROWS_AT_ONCE: usize = 86 * TILE_ROWS;

/// Outputs of one task: 96 KiB of panels, and 200 KiB of sums.
pub(super) const OUTPUTS_A_TASK: usize = 6 * PANEL_OUTPUTS;

/// Rows of activations, widened, by blocks of [`DEPTH`] inputs, and in each by tiles of rows: [inputs of the block, 6].
/// Rows that are missing in the last tile are zeros.
pub(super) struct PackedRows {
    numbers: Vec<f32>,
    rows: usize,
    inputs: usize,
}

impl PackedRows {
    /// Of `x` [rows, inputs].
    pub fn new<X: Element>(x: &[X], inputs: usize) -> PackedRows {
        let rows = x.len() / inputs;
        let tiled_rows = rows.next_multiple_of(TILE_ROWS);
        let mut numbers = vec![0.0; tiled_rows * inputs];
        numbers.par_chunks_mut(DEPTH * tiled_rows).enumerate().for_each(|(block, numbers)| {
            let depth = numbers.len() / tiled_rows;
            for (tile, numbers) in numbers.chunks_exact_mut(TILE_ROWS * depth).enumerate() {
                for (row, x) in x.chunks_exact(inputs).skip(tile * TILE_ROWS).take(TILE_ROWS).enumerate() {
                    let x = &x[block * DEPTH..block * DEPTH + depth];
                    numbers[row..].iter_mut().step_by(TILE_ROWS).zip(x).for_each(|(wide, x)| *wide = x.widen());
                }
            }
        });
        PackedRows { numbers, rows, inputs }
    }

    /// The tiles from `first` on of the block of inputs that begins at `input`, `depth` of them.
    fn tiles(&self, input: usize, depth: usize, first: usize) -> &[f32] {
        let tiled_rows = self.rows.next_multiple_of(TILE_ROWS);
        &self.numbers[input * tiled_rows + first * TILE_ROWS * depth..]
    }
}

/// The products of all rows of `x` with `weight` [outputs, inputs], at most [`OUTPUTS_A_TASK`] outputs:
/// `put(row, first output, sums)` gets up to sixteen neighbours at a time.
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply<W: Element>(x: &PackedRows, weight: &[W], put: &mut impl FnMut(usize, usize, &[f32])) {
    let outputs = weight.len() / x.inputs;
    let num_panels = outputs.div_ceil(PANEL_OUTPUTS);
    let mut panels = vec![Line([0.0; STEP]); num_panels * DEPTH.min(x.inputs)];
    for first_row in (0..x.rows).step_by(ROWS_AT_ONCE) {
        let rows = ROWS_AT_ONCE.min(x.rows - first_row);
        let num_tiles = rows.div_ceil(TILE_ROWS);
        let mut sums = vec![Line([0.0; STEP]); num_panels * num_tiles * TILE_ROWS]; // [panels, tiled rows, 16]
        for input in (0..x.inputs).step_by(DEPTH) {
            let depth = DEPTH.min(x.inputs - input);
            for (panel, lines) in panels.chunks_exact_mut(depth).take(num_panels).enumerate() {
                let weight = &weight[panel * PANEL_OUTPUTS * x.inputs..];
                // Safety: the caller's.
                unsafe { pack(weight, x.inputs, input, lines) };
            }
            for first in (0..num_tiles).step_by(TILES_A_BLOCK) {
                let count = TILES_A_BLOCK.min(num_tiles - first);
                let tiles = x.tiles(input, depth, first_row / TILE_ROWS + first);
                for (panel, lines) in panels.chunks_exact(depth).take(num_panels).enumerate() {
                    let sums = &mut sums[(panel * num_tiles + first) * TILE_ROWS..][..count * TILE_ROWS];
                    for (tile, sums) in tiles.chunks_exact(TILE_ROWS * depth).zip(sums.chunks_exact_mut(TILE_ROWS)) {
                        // Safety: the caller's.
                        unsafe { add_products(tile, lines, sums) };
                    }
                }
            }
        }
        for (panel, sums) in sums.chunks_exact(num_tiles * TILE_ROWS).enumerate() {
            let output = panel * PANEL_OUTPUTS;
            for (row, sums) in sums.iter().take(rows).enumerate() {
                put(first_row + row, output, &sums.0[..PANEL_OUTPUTS.min(outputs - output)]);
            }
        }
    }
}

/// Sixteen rows of `weight` [outputs, inputs], or what there is, from `input` on, as `lines` [depth, 16].
///
/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2,fma")]
unsafe fn pack<W: Element>(weight: &[W], inputs: usize, input: usize, lines: &mut [Line]) {
    let outputs = (weight.len() / inputs).min(PANEL_OUTPUTS);
    let vector_depth = lines.len() - lines.len() % STEP;
    for half in 0..2 {
        let first = half * LANES;
        let is_whole = outputs >= first + LANES;
        let scalar_from = if is_whole { vector_depth } else { 0 };
        for step in (0..scalar_from).step_by(STEP) {
            let mut even = [_mm256_setzero_ps(); LANES];
            let mut odd = even;
            for output in 0..LANES {
                // Safety: sixteen inputs of an output that is there.
                let loaded = unsafe { W::load(weight.as_ptr().add((first + output) * inputs + input + step)) };
                (even[output], odd[output]) = (loaded[0], loaded[1]);
            }
            for (lanes, vectors) in W::ORDER.chunks_exact(LANES).zip([transpose(even), transpose(odd)]) {
                for (lane, vector) in lanes.iter().zip(vectors) {
                    // Safety: a line has room for two vectors.
                    unsafe { _mm256_store_ps(lines[step + lane].0.as_mut_ptr().add(first), vector) };
                }
            }
        }
        for (depth, line) in lines.iter_mut().enumerate().skip(scalar_from) {
            for (output, place) in line.0[first..first + LANES].iter_mut().enumerate() {
                let is_there = first + output < outputs;
                *place = if is_there { weight[(first + output) * inputs + input + depth].widen() } else { 0.0 };
            }
        }
    }
}

/// Eight vectors of eight: columns for rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn transpose(rows: [__m256; 8]) -> [__m256; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let pairs = |a, b| (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let ((ab0, ab1), (cd0, cd1)) = (pairs(a, b), pairs(c, d));
    let ((ef0, ef1), (gh0, gh1)) = (pairs(e, f), pairs(g, h));
    let fours = |a, b| (_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
    let ((p0, p1), (p2, p3)) = (fours(ab0, cd0), fours(ab1, cd1));
    let ((q0, q1), (q2, q3)) = (fours(ef0, gh0), fours(ef1, gh1));
    let low = |p, q| _mm256_permute2f128_ps(p, q, 0x20);
    let high = |p, q| _mm256_permute2f128_ps(p, q, 0x31);
    [low(p0, q0), low(p1, q1), low(p2, q2), low(p3, q3), high(p0, q0), high(p1, q1), high(p2, q2), high(p3, q3)]
}

/// Adds a tile's products: `tile` [depth, 6], `panel` [depth, 16], `sums` [6, 16].
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_products(tile: &[f32], panel: &[Line], sums: &mut [Line]) {
    let (tile, _) = tile.as_chunks::<TILE_ROWS>();
    debug_assert!(tile.len() == panel.len() && sums.len() == TILE_ROWS);
    let mut held = [[_mm256_setzero_ps(); 2]; TILE_ROWS];
    for (x, weights) in tile.iter().zip(panel) {
        // Safety: a line holds two vectors.
        let (low, high) =
            unsafe { (_mm256_load_ps(weights.0.as_ptr()), _mm256_load_ps(weights.0.as_ptr().add(LANES))) };
        for (held, x) in held.iter_mut().zip(x) {
            let x = _mm256_set1_ps(*x);
            held[0] = _mm256_fmadd_ps(x, low, held[0]);
            held[1] = _mm256_fmadd_ps(x, high, held[1]);
        }
    }
    for (sums, held) in sums.iter_mut().zip(held) {
        let sums = sums.0.as_mut_ptr();
        // Safety: a line holds two vectors.
        unsafe {
            _mm256_store_ps(sums, _mm256_add_ps(_mm256_load_ps(sums), held[0]));
            _mm256_store_ps(sums.add(LANES), _mm256_add_ps(_mm256_load_ps(sums.add(LANES)), held[1]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::cpu::has_avx2_and_fma;
    use super::super::element::{Bf16, Element};
    use super::super::testing::numbers;
    use super::{OUTPUTS_A_TASK, PackedRows, multiply};

    /// [rows, outputs]
    fn products<W: Element>(x: &[f32], weight: &[W], inputs: usize) -> Vec<f32> {
        let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
        let mut products = vec![f32::NAN; rows * outputs];
        let mut put = |row: usize, output: usize, sums: &[f32]| {
            products[row * outputs + output..][..sums.len()].copy_from_slice(sums);
        };
        // Safety: the caller asked the CPU.
        unsafe { multiply(&PackedRows::new(x, inputs), weight, &mut put) };
        products
    }

    fn gives_the_products_in_double_precision<W: Element>(convert: impl Fn(f32) -> W) {
        for (rows, inputs, outputs) in [(1, 1, 1), (6, 16, 16), (7, 300, 17), (40, 513, 30), (530, 64, OUTPUTS_A_TASK)]
        {
            let x = numbers(rows * inputs, 1);
            let weight: Vec<W> = numbers(outputs * inputs, 2).into_iter().map(&convert).collect();
            for (at, product) in products(&x, &weight, inputs).iter().enumerate() {
                let (x, weight) = (&x[at / outputs * inputs..], &weight[at % outputs * inputs..]);
                let exact: f64 = (0..inputs).map(|k| f64::from(x[k]) * f64::from(weight[k].widen())).sum();
                let error = (f64::from(*product) - exact).abs();
                assert!(error < 1e-4, "{rows} x {inputs} x {outputs} at {at}: off by {error}");
            }
        }
    }

    #[test]
    fn gives_the_products_of_any_shape() {
        if has_avx2_and_fma() {
            gives_the_products_in_double_precision(Bf16::round);
            gives_the_products_in_double_precision(|x| x);
        }
    }

    #[test]
    fn a_row_is_the_same_bits_whatever_its_place_and_company() {
        if !has_avx2_and_fma() {
            return;
        }
        let (rows, inputs, outputs) = (45, 600, 33);
        let (x, weight) = (numbers(rows * inputs, 3), numbers(outputs * inputs, 4));
        let together = products(&x, &weight, inputs);
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            assert_eq!(products(x, &weight, inputs), together[row * outputs..(row + 1) * outputs], "row {row}");
        }
    }
}

//! `x W^T` for many rows of `x`, at the speed of the arithmetic: a GEMM for CPUs with AVX2, and with AVX-512's products of bf16.
//!
//! Blocked as in Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): a panel of weights stays
//! in the first cache while a block of rows streams past it from the second. Weights are packed on the way, so that a second
//! copy of them never exists. The order of additions depends on the number of inputs alone.

mod bf16;
mod codes;
mod wide;

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::super::cpu::has_avx512_bf16;
use super::element::{Line, STEP};
pub(super) use bf16::Pairs;
pub(super) use wide::Wide;

/// Inputs that are added up at a time: a panel of them is 16 KiB, half of a first cache.
const DEPTH: usize = 256;

/// Tiles of rows that panels are multiplied with in turn: 96 KiB.
const TILES_A_BLOCK: usize = 16;

/// Rows whose sums are kept while a thread goes through the inputs; for more the weights are packed again. Whole tiles of
/// every form.
const ROWS_AT_ONCE: usize = 516;

/// Outputs of one task, whole panels of every form: with a block of rows their panels and sums are 390 KiB, of a second cache of
/// 512. CPUs that multiply bf16 have one of 1 MiB at least; there a block of rows is read from the third for more of them.
pub(super) fn outputs_a_task() -> usize {
    if has_avx512_bf16() { 128 } else { 96 }
}

/// The innermost loop on some kind of CPU: how rows and weights of `T` are packed for it, and multiplied.
pub(super) trait Tiles<T> {
    /// Rows by outputs whose sums are held in registers. Outputs are whole lines.
    const ROWS: usize;
    const OUTPUTS: usize;

    /// What a row brings to a multiplication: neighbouring inputs, and how many.
    type Unit: Copy + Default + Send + Sync;
    const INPUTS: usize;

    /// Packs up to `ROWS` rows of `x`, which lie `inputs` apart, `depth` numbers of each: [units, ROWS].
    ///
    /// # Safety
    /// The CPU is of that kind. `x` begins with the first row's first number.
    unsafe fn pack_rows(x: &[T], inputs: usize, depth: usize, units: &mut [Self::Unit]);

    /// Packs up to `OUTPUTS` outputs of `weight`, which lie `inputs` apart, `depth` numbers of each: [units, OUTPUTS].
    /// Outputs that are missing are zeros.
    ///
    /// # Safety
    /// The CPU is of that kind. `weight` begins with the first output's first number.
    unsafe fn pack_outputs(weight: &[T], inputs: usize, depth: usize, lines: &mut [Line]);

    /// Packs up to `OUTPUTS` outputs of a weight that lies input by input, `outputs` apart, `depth` inputs of each, as
    /// [`Tiles::pack_outputs`] does.
    ///
    /// # Safety
    /// The CPU is of that kind. `weight` begins with the first output's first number and ends with the last output's last.
    unsafe fn pack_inputs(weight: &[T], outputs: usize, depth: usize, lines: &mut [Line]);

    /// Adds a tile's products: `tile` [units, ROWS], `panel` [units, OUTPUTS], `sums` [ROWS, OUTPUTS]. What these were does not
    /// count where the products are the first.
    ///
    /// # Safety
    /// The CPU is of that kind. Unless the products are the first, the sums were written before.
    unsafe fn add_products(tile: &[Self::Unit], panel: &[Line], sums: &mut [MaybeUninit<Line>], are_first: bool);

    fn units(depth: usize) -> usize {
        depth.div_ceil(Self::INPUTS)
    }

    fn panel_lines(depth: usize) -> usize {
        Self::units(depth) * Self::OUTPUTS / STEP
    }
}

/// Rows of activations by blocks of [`DEPTH`] inputs, and in each by tiles of rows: [units of the block, rows of a tile].
/// Rows that are missing in the last tile are zeros.
pub(super) struct PackedRows<U> {
    units: Vec<U>,
    rows: usize,
    inputs: usize,
}

impl<U: Copy + Default + Send + Sync> PackedRows<U> {
    /// Of `x` [rows, inputs].
    ///
    /// # Safety
    /// The CPU is of the form's kind.
    pub unsafe fn new<T: Sync, F: Tiles<T, Unit = U>>(x: &[T], inputs: usize) -> PackedRows<U> {
        let rows = x.len() / inputs;
        let tiled_rows = rows.next_multiple_of(F::ROWS);
        let mut units = vec![U::default(); tiled_rows * F::units(inputs)];
        units.par_chunks_mut(F::units(DEPTH) * tiled_rows).enumerate().for_each(|(block, units)| {
            let first = block * DEPTH;
            let depth = DEPTH.min(inputs - first);
            for (tile, units) in units.chunks_exact_mut(F::ROWS * F::units(depth)).enumerate() {
                // Safety: the caller's.
                unsafe { F::pack_rows(&x[tile * F::ROWS * inputs + first..], inputs, depth, units) };
            }
        });
        PackedRows { units, rows, inputs }
    }
}

/// A weight as it lies in memory.
pub(super) enum Weight<'w, T> {
    ByOutput(&'w [T]), // [outputs, inputs]
    ByInput(&'w [T]),  // [inputs, outputs]
}

/// A weight that can be packed for a form of the innermost loop.
pub(super) trait Pack<F> {
    /// How many there are, of so many inputs each.
    fn outputs(&self, inputs: usize) -> usize;

    /// Packs the panel of outputs from `output` on: `depth` inputs from `input` on, of `inputs`.
    ///
    /// # Safety
    /// The CPU is of the form's kind. `output` is a panel's first and `input` a block's.
    unsafe fn pack(&self, output: usize, inputs: usize, input: usize, depth: usize, lines: &mut [Line]);
}

impl<T, F: Tiles<T>> Pack<F> for Weight<'_, T> {
    fn outputs(&self, inputs: usize) -> usize {
        match self {
            Weight::ByOutput(weight) | Weight::ByInput(weight) => weight.len() / inputs,
        }
    }

    unsafe fn pack(&self, output: usize, inputs: usize, input: usize, depth: usize, lines: &mut [Line]) {
        // Safety: the caller's.
        match self {
            Weight::ByOutput(weight) => unsafe {
                F::pack_outputs(&weight[output * inputs + input..], inputs, depth, lines);
            },
            Weight::ByInput(weight) => unsafe {
                let outputs = weight.len() / inputs;
                let (first, end) = (input * outputs + output, (input + depth) * outputs);
                F::pack_inputs(
                    &weight[first..end.min(first + (depth - 1) * outputs + F::OUTPUTS)],
                    outputs,
                    depth,
                    lines,
                );
            },
        }
    }
}

/// The products of all rows of `x` with `weight`, about [`outputs_a_task`]:
/// `put(row, first output, sums)` gets up to a panel's neighbours at a time.
///
/// # Safety
/// The CPU is of the form's kind, and has AVX2 and FMA. Rows have inputs.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply<T, F: Tiles<T>>(
    x: &PackedRows<F::Unit>,
    weight: &impl Pack<F>,
    put: &mut impl FnMut(usize, usize, &[f32]),
) {
    let lines_a_row = F::OUTPUTS / STEP;
    let outputs = weight.outputs(x.inputs);
    let num_panels = outputs.div_ceil(F::OUTPUTS);
    let tiled_rows = x.rows.next_multiple_of(F::ROWS);
    let mut panels = vec![Line([0.0; STEP]); num_panels * F::panel_lines(DEPTH.min(x.inputs))];
    for first_row in (0..x.rows).step_by(ROWS_AT_ONCE) {
        let rows = ROWS_AT_ONCE.min(x.rows - first_row);
        let num_tiles = rows.div_ceil(F::ROWS);
        let lines_a_tile = F::ROWS * lines_a_row;
        let mut sums = Box::new_uninit_slice(num_panels * num_tiles * lines_a_tile); // [panels, tiled rows, outputs]
        for input in (0..x.inputs).step_by(DEPTH) {
            let depth = DEPTH.min(x.inputs - input);
            let panels = &mut panels[..num_panels * F::panel_lines(depth)];
            for (panel, lines) in panels.chunks_exact_mut(F::panel_lines(depth)).enumerate() {
                // Safety: the caller's.
                unsafe { weight.pack(panel * F::OUTPUTS, x.inputs, input, depth, lines) };
            }
            let units_a_tile = F::ROWS * F::units(depth);
            let tiles =
                &x.units[F::units(input) * tiled_rows + first_row * F::units(depth)..][..num_tiles * units_a_tile];
            for (block, tiles) in tiles.chunks(TILES_A_BLOCK * units_a_tile).enumerate() {
                for (panel, lines) in panels.chunks_exact(F::panel_lines(depth)).enumerate() {
                    let sums = &mut sums[(panel * num_tiles + block * TILES_A_BLOCK) * lines_a_tile..];
                    for (tile, sums) in tiles.chunks_exact(units_a_tile).zip(sums.chunks_exact_mut(lines_a_tile)) {
                        // Safety: the caller's; the first block of inputs writes all sums.
                        unsafe { F::add_products(tile, lines, sums, input == 0) };
                    }
                }
            }
        }
        // Safety: rows have inputs, so there was a first block.
        let sums: Box<[Line]> = unsafe { sums.assume_init() };
        // Row by row: what lies side by side is put side by side.
        for row in 0..rows {
            for (panel, sums) in sums.chunks_exact(num_tiles * lines_a_tile).enumerate() {
                let (sums, output) = (&sums[row * lines_a_row..][..lines_a_row], panel * F::OUTPUTS);
                put(first_row + row, output, &Line::numbers(sums)[..F::OUTPUTS.min(outputs - output)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::cpu::{has_avx2_and_fma, has_avx512_bf16};
    use super::super::element::{Bf16, Element};
    use super::super::testing::random;
    use super::{PackedRows, Pairs, Tiles, Weight, Wide, multiply};

    /// [rows, outputs]
    fn products<T: Element, F: Tiles<T>>(x: &[T], weight: &[T], inputs: usize) -> Vec<f32> {
        let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
        let mut products = vec![f32::NAN; rows * outputs];
        let mut put = |row: usize, output: usize, sums: &[f32]| {
            products[row * outputs + output..][..sums.len()].copy_from_slice(sums);
        };
        // Safety: the caller asked the CPU.
        unsafe { multiply::<T, F>(&PackedRows::new::<T, F>(x, inputs), &Weight::ByOutput(weight), &mut put) };
        let by_input: Vec<T> = (0..inputs * outputs).map(|at| weight[at % outputs * inputs + at / outputs]).collect();
        let mut put = |row: usize, output: usize, sums: &[f32]| {
            assert_eq!(products[row * outputs + output..][..sums.len()], *sums, "however the weight lies");
        };
        // Safety: the caller asked the CPU.
        unsafe { multiply::<T, F>(&PackedRows::new::<T, F>(x, inputs), &Weight::ByInput(&by_input), &mut put) };
        products
    }

    fn gives_the_products_in_double_precision<T: Element, F: Tiles<T>>() {
        for (rows, inputs, outputs) in
            [(1, 1, 1), (6, 16, 16), (7, 300, 17), (13, 33, 49), (40, 513, 30), (530, 64, 128)]
        {
            let (x, weight) = (random::<T>(rows * inputs, 1), random::<T>(outputs * inputs, 2));
            for (at, product) in products::<T, F>(&x, &weight, inputs).iter().enumerate() {
                let (x, weight) = (&x[at / outputs * inputs..], &weight[at % outputs * inputs..]);
                let exact: f64 = (0..inputs).map(|k| f64::from(x[k].widen()) * f64::from(weight[k].widen())).sum();
                let error = (f64::from(*product) - exact).abs();
                assert!(error < 1e-4, "{rows} x {inputs} x {outputs} at {at}: off by {error}");
            }
        }
    }

    #[test]
    fn gives_the_products_of_any_shape() {
        if has_avx2_and_fma() {
            gives_the_products_in_double_precision::<Bf16, Wide>();
            gives_the_products_in_double_precision::<f32, Wide>();
        }
        if has_avx512_bf16() {
            gives_the_products_in_double_precision::<Bf16, Pairs>();
        }
    }

    fn a_row_is_the_same_bits<T: Element, F: Tiles<T>>() {
        let (rows, inputs, outputs) = (45, 600, 33);
        let (x, weight) = (random::<T>(rows * inputs, 3), random::<T>(outputs * inputs, 4));
        let together = products::<T, F>(&x, &weight, inputs);
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            assert_eq!(products::<T, F>(x, &weight, inputs), together[row * outputs..(row + 1) * outputs], "row {row}");
        }
    }

    #[test]
    fn a_row_is_the_same_bits_whatever_its_place_and_company() {
        if has_avx2_and_fma() {
            a_row_is_the_same_bits::<f32, Wide>();
            a_row_is_the_same_bits::<Bf16, Wide>();
        }
        if has_avx512_bf16() {
            a_row_is_the_same_bits::<Bf16, Pairs>();
        }
    }
}

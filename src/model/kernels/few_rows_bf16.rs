//! [`super::few_rows`] in bf16, on CPUs with AVX-512's products of bf16: an instruction multiplies pairs of neighbouring inputs,
//! exactly, and adds them up in fp32. Rows and weights are read as they lie.

use std::arch::x86_64::*;

use super::MAX_FEW_ROWS;
use super::element::{Bf16, STEP, as_pairs};
use super::few_rows::tree_avx2;

/// Numbers in a register.
const NUMBERS: usize = 2 * STEP;

/// Outputs that are multiplied block by block of their inputs: whole tiles of every width.
const GROUP: usize = 24;

/// Numbers of all rows in a block of inputs: 20 KiB, which stay in the first cache while a group's weights pass by.
const NUMBERS_A_BLOCK: usize = 10 << 10;

/// Numbers of an output that are fetched ahead for a single row, which stays in the caches without blocks.
const AHEAD: usize = 256;

/// Sums, each over every sixteenth pair of inputs: [outputs of a group, rows].
type Sums = [__m512; GROUP * MAX_FEW_ROWS as usize];

/// The products of all rows of `x` with `weight` [outputs, inputs]: `put(row, first output, sums)` gets some neighbours at a
/// time.
///
/// # Safety
/// The CPU has AVX-512 with products of bf16. There are up to [`MAX_FEW_ROWS`] rows.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma")]
pub(super) unsafe fn multiply(x: &[Bf16], weight: &[Bf16], inputs: usize, put: &mut impl FnMut(usize, usize, &[f32])) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    assert!(rows <= MAX_FEW_ROWS as usize);
    let block = if rows == 1 { inputs } else { (NUMBERS_A_BLOCK / rows).next_multiple_of(NUMBERS) };
    let mut sums: Sums = [_mm512_setzero_ps(); GROUP * MAX_FEW_ROWS as usize];
    for first in (0..outputs).step_by(GROUP) {
        let group = &weight[first * inputs..(first + GROUP).min(outputs) * inputs];
        sums[..GROUP * rows].fill(_mm512_setzero_ps());
        for input in (0..inputs).step_by(block) {
            let depth = block.min(inputs - input);
            let ahead = if rows == 1 { AHEAD.min(depth) } else { depth };
            let part = Part { x: &x[input..], weight: &group[input..], inputs, depth, rows, ahead };
            // Safety: the CPU is of that kind. What a tile's sums are fills the registers, and few rows read many weights side
            // by side, to keep the memory busy.
            unsafe {
                match rows {
                    1 => part.add::<12>(&mut sums),
                    2 => part.add::<8>(&mut sums),
                    3..=4 => part.add::<6>(&mut sums),
                    5..=6 => part.add::<4>(&mut sums),
                    _ => part.add::<3>(&mut sums),
                }
            }
        }
        let len = group.len() / inputs;
        for row in 0..rows {
            let of_row: [f32; GROUP] = std::array::from_fn(|output| sum_of_lanes(sums[output * rows + row]));
            put(row, first, &of_row[..len]);
        }
    }
}

/// A group's weights and all rows, of each some neighbouring inputs: their first `depth` numbers, `inputs` apart.
struct Part<'a> {
    x: &'a [Bf16],
    weight: &'a [Bf16],
    inputs: usize,
    depth: usize,
    rows: usize,
    /// Numbers of an output that are fetched before they are multiplied, up to all: behind an output's come those of the output
    /// that takes its place.
    ahead: usize,
}

impl Part<'_> {
    /// Adds the products, `WIDTH` outputs at a time.
    ///
    /// # Safety
    /// The CPU has AVX-512 with products of bf16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn add<const WIDTH: usize>(&self, sums: &mut Sums) {
        let outputs = self.weight.len().div_ceil(self.inputs);
        let mut output = 0;
        while output < outputs {
            // Safety: the CPU is of that kind, and there are so many outputs.
            output += unsafe {
                match outputs - output >= WIDTH {
                    true => self.add_outputs::<WIDTH>(output, sums),
                    false => self.add_outputs::<1>(output, sums),
                }
            };
        }
    }

    /// Adds the products of all rows with some outputs, up to eight rows at a time. Returns how many outputs.
    ///
    /// # Safety
    /// The CPU has AVX-512 with products of bf16; there are so many outputs.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn add_outputs<const OUTPUTS: usize>(&self, output: usize, sums: &mut Sums) -> usize {
        let mut row = 0;
        while row < self.rows {
            // Safety: the caller's, and there are so many rows.
            row += unsafe {
                match self.rows - row {
                    1 => self.add_tile::<1, OUTPUTS>(row, output, sums),
                    2 => self.add_tile::<2, OUTPUTS>(row, output, sums),
                    3 => self.add_tile::<3, OUTPUTS>(row, output, sums),
                    4 => self.add_tile::<4, OUTPUTS>(row, output, sums),
                    5 => self.add_tile::<5, OUTPUTS>(row, output, sums),
                    6 => self.add_tile::<6, OUTPUTS>(row, output, sums),
                    7 => self.add_tile::<7, OUTPUTS>(row, output, sums),
                    _ => self.add_tile::<8, OUTPUTS>(row, output, sums),
                }
            };
        }
        OUTPUTS
    }

    /// Adds the products of `ROWS` rows with `OUTPUTS` outputs. Returns `ROWS`.
    ///
    /// # Safety
    /// The CPU has AVX-512 with products of bf16; there are so many rows and outputs.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn add_tile<const ROWS: usize, const OUTPUTS: usize>(
        &self,
        row: usize,
        output: usize,
        sums: &mut Sums,
    ) -> usize {
        let Part { inputs, depth, rows, .. } = *self;
        let (x, weight) = (&self.x[row * inputs..], &self.weight[output * inputs..]);
        assert!(x.len() >= (ROWS - 1) * inputs + depth && weight.len() >= (OUTPUTS - 1) * inputs + depth);
        // The first rows fetch weights into the second cache: of these outputs, then of those behind them.
        let ahead = if row == 0 { self.ahead } else { 0 };
        let of_these = (depth - ahead).next_multiple_of(NUMBERS).min(depth);
        let behind = ahead + OUTPUTS * inputs - depth;
        let sums = &mut sums[output * rows + row..];
        let mut held: [[__m512; ROWS]; OUTPUTS] = std::array::from_fn(|o| std::array::from_fn(|r| sums[o * rows + r]));
        for (numbers, next) in [(0..of_these, ahead), (of_these..depth, behind)] {
            for first in numbers.step_by(NUMBERS) {
                let left = depth - first;
                let there = if left < NUMBERS { (1 << left) - 1 } else { u32::MAX };
                let mut weights = [as_pairs(_mm512_setzero_si512()); OUTPUTS];
                for (o, weights) in weights.iter_mut().enumerate() {
                    // Safety: what is `there` is within the output's row; what is fetched need not exist.
                    unsafe {
                        let at = weight.as_ptr().add(o * inputs + first);
                        _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(next).cast());
                        *weights = as_pairs(_mm512_maskz_loadu_epi16(there, at.cast()));
                    }
                }
                for r in 0..ROWS {
                    // Safety: what is `there` is within the row.
                    let x = unsafe { _mm512_maskz_loadu_epi16(there, x.as_ptr().add(r * inputs + first).cast()) };
                    for (held, weights) in held.iter_mut().zip(weights) {
                        held[r] = _mm512_dpbf16_ps(held[r], weights, as_pairs(x));
                    }
                }
            }
        }
        for (o, held) in held.iter().enumerate() {
            sums[o * rows..o * rows + ROWS].copy_from_slice(held);
        }
        ROWS
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx2,fma")]
fn sum_of_lanes(lanes: __m512) -> f32 {
    let upper = _mm512_castpd_ps(_mm512_shuffle_f64x2(_mm512_castps_pd(lanes), _mm512_castps_pd(lanes), 0xee));
    tree_avx2(_mm512_castps512_ps256(_mm512_add_ps(lanes, upper)))
}

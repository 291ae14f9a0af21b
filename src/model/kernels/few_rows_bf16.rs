//! [`super::few_rows`] in bf16, on CPUs with AVX-512's products of bf16: an instruction multiplies pairs of neighbouring inputs,
//! exactly, and adds them up in fp32. Rows and weights are read as they lie.

use std::arch::x86_64::*;

use super::element::{Bf16, STEP, as_pairs};
use super::few_rows::{Prefetch, tree_avx2};

/// Numbers in a register.
const NUMBERS: usize = 2 * STEP;

/// How many bytes ahead weights are fetched into the second cache. With eight outputs side by side a Zen 4 then reads as fast
/// as its memory goes; into the first cache, or with four, at 60 to 85 % of that.
const AHEAD: usize = 1024;

/// The products of all rows of `x` with `weight` [outputs, inputs]: `put(row, first output, sums)` gets some
/// neighbours at a time.
///
/// # Safety
/// The CPU has AVX-512 with products of bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma")]
pub(super) unsafe fn multiply(x: &[Bf16], weight: &[Bf16], inputs: usize, put: &mut impl FnMut(usize, usize, &[f32])) {
    let problem = Problem { x, weight, inputs };
    let outputs = weight.len() / inputs;
    // What they add up fills the registers; few rows read many weights side by side, to keep the memory busy.
    let widest = match x.len() / inputs {
        1..=2 => 8,
        3..=4 => 6,
        5..=6 => 4,
        _ => 3,
    };
    let mut output = 0;
    while output < outputs {
        // Safety: the CPU is of that kind, and there are so many outputs.
        output += unsafe {
            match widest.min(outputs - output) {
                8 => problem.outputs::<8>(output, put),
                6.. => problem.outputs::<6>(output, put),
                4.. => problem.outputs::<4>(output, put),
                3 => problem.outputs::<3>(output, put),
                _ => problem.outputs::<1>(output, put),
            }
        };
    }
}

/// What is multiplied.
struct Problem<'a> {
    x: &'a [Bf16],      // [rows, inputs]
    weight: &'a [Bf16], // [outputs, inputs]
    inputs: usize,
}

impl Problem<'_> {
    /// The products of all rows with `OUTPUTS` outputs, up to eight rows at a time. Returns `OUTPUTS`.
    ///
    /// # Safety
    /// The CPU has AVX-512 with products of bf16; there are so many outputs.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma")]
    unsafe fn outputs<const OUTPUTS: usize>(&self, output: usize, put: &mut impl FnMut(usize, usize, &[f32])) -> usize {
        let rows = self.x.len() / self.inputs;
        let mut row = 0;
        while row < rows {
            let at = (row, output);
            // Safety: the caller's, and there are so many rows.
            row += unsafe {
                match rows - row {
                    1 => self.tile::<1, OUTPUTS>(at, put),
                    2 => self.tile::<2, OUTPUTS>(at, put),
                    3 => self.tile::<3, OUTPUTS>(at, put),
                    4 => self.tile::<4, OUTPUTS>(at, put),
                    5 => self.tile::<5, OUTPUTS>(at, put),
                    6 => self.tile::<6, OUTPUTS>(at, put),
                    7 => self.tile::<7, OUTPUTS>(at, put),
                    _ => self.tile::<8, OUTPUTS>(at, put),
                }
            };
        }
        OUTPUTS
    }

    /// The products of `ROWS` rows with `OUTPUTS` outputs from (row, output) on. Returns `ROWS`.
    ///
    /// # Safety
    /// The CPU has AVX-512 with products of bf16; there are so many rows and outputs.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma")]
    unsafe fn tile<const ROWS: usize, const OUTPUTS: usize>(
        &self,
        (row, output): (usize, usize),
        put: &mut impl FnMut(usize, usize, &[f32]),
    ) -> usize {
        let inputs = self.inputs;
        let (weight, x) = (&self.weight[output * inputs..], &self.x[row * inputs..]);
        assert!(x.len() >= ROWS * inputs && weight.len() >= OUTPUTS * inputs);
        let mut sums = [[_mm512_setzero_ps(); ROWS]; OUTPUTS];
        let is_last_of_many = row > 0 && x.len() == ROWS * inputs;
        let prefetch =
            Prefetch::new(AHEAD, inputs * size_of::<Bf16>(), NUMBERS * size_of::<Bf16>(), OUTPUTS, is_last_of_many);
        for (step, first) in (0..inputs).step_by(NUMBERS).enumerate() {
            let ahead = prefetch.ahead(step);
            let left = inputs - first;
            let there = if left < NUMBERS { (1 << left) - 1 } else { u32::MAX };
            let mut weights = [as_pairs(_mm512_setzero_si512()); OUTPUTS];
            for (o, weights) in weights.iter_mut().enumerate() {
                // Safety: what is `there` is within the output's row; what is prefetched need not exist.
                unsafe {
                    let at = weight.as_ptr().add(o * inputs + first);
                    _mm_prefetch::<_MM_HINT_T1>(at.cast::<i8>().wrapping_add(ahead));
                    *weights = as_pairs(_mm512_maskz_loadu_epi16(there, at.cast()));
                }
            }
            for r in 0..ROWS {
                // Safety: what is `there` is within the row.
                let x = as_pairs(unsafe { _mm512_maskz_loadu_epi16(there, x.as_ptr().add(r * inputs + first).cast()) });
                for (sums, weights) in sums.iter_mut().zip(weights) {
                    sums[r] = _mm512_dpbf16_ps(sums[r], weights, x);
                }
            }
        }
        for r in 0..ROWS {
            put(row + r, output, &std::array::from_fn::<f32, OUTPUTS, _>(|o| sum_of_lanes(sums[o][r])));
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

//! Twelve rows by 32 outputs, in bf16 with AVX-512: an instruction multiplies pairs of neighbouring inputs, exactly, and adds
//! them up in fp32.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::super::element::{Bf16, Line, STEP, as_pairs};
use super::{DEPTH, Tiles};

/// Rows by lines of outputs whose sums are held in registers: 24 of the 32.
const TILE_ROWS: usize = 12;
pub(super) const LINES: usize = 2;

/// Numbers in a register of bf16: as many pairs as a register of fp32 has lanes.
const NUMBERS: usize = 2 * STEP;

pub(in super::super) struct Pairs;

impl Tiles<Bf16> for Pairs {
    const ROWS: usize = TILE_ROWS;
    const OUTPUTS: usize = LINES * STEP;

    type Unit = u32;
    const INPUTS: usize = 2;

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn pack_rows(x: &[Bf16], inputs: usize, depth: usize, units: &mut [u32]) {
        const ALL_ROWS: u16 = (1 << TILE_ROWS) - 1;
        for (step, units) in units.chunks_mut(STEP * TILE_ROWS).enumerate() {
            // Safety: the CPU has AVX-512, and so many inputs are there.
            let pairs = unsafe { columns::<TILE_ROWS>(&x[step * NUMBERS..], inputs, depth - step * NUMBERS) };
            for (units, pairs) in units.chunks_exact_mut(TILE_ROWS).zip(pairs) {
                // Safety: as many as there are rows.
                unsafe { _mm512_mask_storeu_epi32(units.as_mut_ptr().cast(), ALL_ROWS, pairs) };
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn pack_outputs(weight: &[Bf16], inputs: usize, depth: usize, lines: &mut [Line]) {
        for (step, lines) in lines.chunks_mut(STEP * LINES).enumerate() {
            for half in 0..LINES {
                let weight = weight.get(half * STEP * inputs + step * NUMBERS..).unwrap_or_default();
                // Safety: the CPU has AVX-512, and so many inputs are there.
                let pairs = unsafe { columns::<STEP>(weight, inputs, depth - step * NUMBERS) };
                for (line, pairs) in lines.iter_mut().skip(half).step_by(LINES).zip(pairs) {
                    // Safety: a line is a register.
                    unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), pairs) };
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn pack_inputs(weight: &[Bf16], outputs: usize, depth: usize, lines: &mut [Line]) {
        // Interleaving goes on within each 128 bits: two of the one register, two of the other, and so on.
        let low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        let high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        let there = |row: &[Bf16]| if row.len() < NUMBERS { (1 << row.len()) - 1 } else { u32::MAX };
        let mut rows = weight.chunks(outputs).take(depth);
        for lines in lines.as_chunks_mut::<LINES>().0 {
            let [even, odd] = [rows.next(), rows.next()].map(Option::unwrap_or_default).map(|row| {
                // Safety: what is `there` is within the row.
                unsafe { _mm512_maskz_loadu_epi16(there(row), row.as_ptr().cast()) }
            });
            let (lower, upper) = (_mm512_unpacklo_epi16(even, odd), _mm512_unpackhi_epi16(even, odd));
            for (line, order) in lines.iter_mut().zip([low, high]) {
                // Safety: a line is a register.
                unsafe {
                    _mm512_store_si512(line.0.as_mut_ptr().cast(), _mm512_permutex2var_epi64(lower, order, upper))
                };
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn add_products(tile: &[u32], panel: &[Line], sums: &mut [MaybeUninit<Line>], are_first: bool) {
        let ((tile, _), (panel, _)) = (tile.as_chunks::<TILE_ROWS>(), panel.as_chunks::<LINES>());
        let (sums, _) = sums.as_chunks_mut::<LINES>();
        debug_assert!(tile.len() == panel.len() && sums.len() == TILE_ROWS);
        let mut held = [[_mm512_setzero_ps(); LINES]; TILE_ROWS];
        for (x, weights) in tile.iter().zip(panel) {
            // Safety: a line is a register.
            let weights = weights.each_ref().map(|line| unsafe { _mm512_load_si512(line.0.as_ptr().cast()) });
            for (held, x) in held.iter_mut().zip(x) {
                let x = as_pairs(_mm512_set1_epi32(*x as i32));
                for (held, weights) in held.iter_mut().zip(weights) {
                    *held = _mm512_dpbf16_ps(*held, as_pairs(weights), x);
                }
            }
        }
        for (sums, held) in sums.as_flattened_mut().iter_mut().zip(held.as_flattened()) {
            let sums = sums.as_mut_ptr().cast();
            // Safety: a line is a register, and was written before unless these products are the first.
            unsafe {
                let held = if are_first { *held } else { _mm512_add_ps(_mm512_load_ps(sums), *held) };
                _mm512_store_ps(sums, held);
            }
        }
    }
}

/// The first up to 32 numbers, and no more than `depth`, of up to `ROWS` rows that lie `inputs` apart: the n-th register has
/// every row's n-th pair. What is missing is zeros.
///
/// # Safety
/// The CPU has AVX-512. Every row has `depth` numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn columns<const ROWS: usize>(numbers: &[Bf16], inputs: usize, depth: usize) -> [__m512i; STEP] {
    let there = if depth < NUMBERS { (1 << depth) - 1 } else { u32::MAX };
    let rows = numbers.len().div_ceil(inputs).min(ROWS);
    transpose(std::array::from_fn(|row| match row < rows {
        // Safety: the caller's; what is fetched for the next block of inputs need not exist.
        true => unsafe {
            let at = numbers.as_ptr().add(row * inputs);
            _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(DEPTH).cast());
            _mm512_maskz_loadu_epi16(there, at.cast())
        },
        false => _mm512_setzero_si512(),
    }))
}

/// Sixteen registers of sixteen: columns for rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn transpose(rows: [__m512i; STEP]) -> [__m512i; STEP] {
    let mut fours = rows;
    for [a, b] in fours.as_chunks_mut().0 {
        (*a, *b) = (_mm512_unpacklo_epi32(*a, *b), _mm512_unpackhi_epi32(*a, *b));
    }
    for [a, b, c, d] in fours.as_chunks_mut().0 {
        let (first, second) = (_mm512_unpacklo_epi64(*a, *c), _mm512_unpackhi_epi64(*a, *c));
        (*c, *d) = (_mm512_unpacklo_epi64(*b, *d), _mm512_unpackhi_epi64(*b, *d));
        (*a, *b) = (first, second);
    }
    // Register 4 r + c has, of rows 4 r to 4 r + 3, the columns c, 4 + c, 8 + c and 12 + c.
    let mut columns = fours;
    for c in 0..4 {
        let [a, b, d, e] = [fours[c], fours[4 + c], fours[8 + c], fours[12 + c]];
        let (even_ab, odd_ab) = (_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
        let (even_de, odd_de) = (_mm512_shuffle_i32x4(d, e, 0x88), _mm512_shuffle_i32x4(d, e, 0xdd));
        columns[c] = _mm512_shuffle_i32x4(even_ab, even_de, 0x88);
        columns[8 + c] = _mm512_shuffle_i32x4(even_ab, even_de, 0xdd);
        columns[4 + c] = _mm512_shuffle_i32x4(odd_ab, odd_de, 0x88);
        columns[12 + c] = _mm512_shuffle_i32x4(odd_ab, odd_de, 0xdd);
    }
    columns
}

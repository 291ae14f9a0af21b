//! Six rows by sixteen outputs, in fp32 with AVX2: bf16 is widened while it is packed.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::super::element::{Element, LANES, Line, STEP};
use super::Tiles;

/// Rows by outputs whose sums are held in registers: twelve of the sixteen.
const TILE_ROWS: usize = 6;

pub(in super::super) struct Wide;

impl<T: Element> Tiles<T> for Wide {
    const ROWS: usize = TILE_ROWS;
    const OUTPUTS: usize = STEP;

    type Unit = f32;
    const INPUTS: usize = 1;

    unsafe fn pack_rows(x: &[T], inputs: usize, depth: usize, units: &mut [f32]) {
        for (row, x) in x.chunks(inputs).take(TILE_ROWS).enumerate() {
            units[row..].iter_mut().step_by(TILE_ROWS).zip(&x[..depth]).for_each(|(wide, x)| *wide = x.widen());
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn pack_outputs(weight: &[T], inputs: usize, _depth: usize, lines: &mut [Line]) {
        let outputs = weight.len().div_ceil(inputs).min(STEP);
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
                    let loaded = unsafe { T::load(weight.as_ptr().add((first + output) * inputs + step)) };
                    (even[output], odd[output]) = (loaded[0], loaded[1]);
                }
                for (lanes, vectors) in T::ORDER.chunks_exact(LANES).zip([transpose(even), transpose(odd)]) {
                    for (lane, vector) in lanes.iter().zip(vectors) {
                        // Safety: a line has room for two vectors.
                        unsafe { _mm256_store_ps(lines[step + lane].0.as_mut_ptr().add(first), vector) };
                    }
                }
            }
            for (depth, line) in lines.iter_mut().enumerate().skip(scalar_from) {
                for (output, place) in line.0[first..first + LANES].iter_mut().enumerate() {
                    let is_there = first + output < outputs;
                    *place = if is_there { weight[(first + output) * inputs + depth].widen() } else { 0.0 };
                }
            }
        }
    }

    unsafe fn pack_inputs(weight: &[T], outputs: usize, depth: usize, lines: &mut [Line]) {
        for (line, weight) in lines.iter_mut().zip(weight.chunks(outputs)).take(depth) {
            let there = weight.len().min(STEP);
            line.0[..there].iter_mut().zip(weight).for_each(|(wide, number)| *wide = number.widen());
            line.0[there..].fill(0.0);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn add_products(tile: &[f32], panel: &[Line], sums: &mut [MaybeUninit<Line>], are_first: bool) {
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
            let sums: *mut f32 = sums.as_mut_ptr().cast();
            for (half, held) in held.into_iter().enumerate() {
                // Safety: a line holds two vectors, and was written before unless these products are the first.
                unsafe {
                    let sums = sums.add(half * LANES);
                    let held = if are_first { held } else { _mm256_add_ps(_mm256_load_ps(sums), held) };
                    _mm256_store_ps(sums, held);
                }
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

//! Weights in 8 and 4 bits for many rows: unpacked to bf16 on the way, a panel at a time, and multiplied as weights in bf16 are.
//!
//! A code times its scale is rounded to bf16 here; few rows multiply with the exact product. That error is a two hundred and
//! fifty-sixth of the weight at most, where a code's own is up to half a step.

use std::arch::x86_64::*;

use super::super::element::{Bf16, LANES, Line, STEP};
use super::super::quantized::{BLOCK, Codes, PAIRS, PANEL, PanelBlock, Panels};
use super::bf16::{LINES, transpose};
use super::{DEPTH, Pack, Pairs, Tiles};

impl<C: Codes> Pack<Pairs> for Panels<'_, C> {
    fn outputs(&self, _: usize) -> usize {
        self.outputs
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2")]
    unsafe fn pack(&self, output: usize, _: usize, input: usize, _: usize, lines: &mut [Line]) {
        const { assert!(DEPTH == BLOCK && PANEL == STEP && <Pairs as Tiles<Bf16>>::OUTPUTS == LINES * PANEL) };
        let mut panels = self.blocks.chunks_exact(self.blocks_a_panel).skip(output / PANEL);
        for half in 0..LINES {
            let block = panels.next().map_or(PanelBlock::ZERO, |blocks| blocks[input / BLOCK]);
            // Safety: the CPU is of that kind.
            unsafe { unpack(&block, half, lines) };
        }
    }
}

/// Unpacks a block's outputs to one half of `lines` [units, outputs], as many inputs as there are units.
///
/// # Safety
/// The CPU has AVX-512 with products of bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2")]
unsafe fn unpack<C: Codes>(block: &PanelBlock<C>, half: usize, lines: &mut [Line]) {
    // Two neighbouring pairs of every group, which one register of codes holds.
    for pair in (0..PAIRS).step_by(2) {
        let (register, n) = (pair / C::PAIRS_A_REGISTER, pair % C::PAIRS_A_REGISTER);
        let of_outputs: [__m512i; PANEL] = std::array::from_fn(|output| {
            let codes = block.codes[output].register(register);
            // Safety: the CPU is of that kind, and both are whole registers.
            unsafe {
                let codes = _mm256_loadu_si256(codes.as_ptr().cast());
                let scales = _mm_loadu_si128(block.scales[output].as_ptr().cast());
                let scales = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(scales), 16));
                let codes = _mm512_inserti64x4(_mm512_castsi256_si512(C::pairs(codes, n)), C::pairs(codes, n + 1), 1);
                let codes = _mm512_sub_epi16(codes, _mm512_set1_epi16(C::OFFSET as i16));
                scaled(codes, _mm512_insertf32x8(_mm512_castps256_ps512(scales), scales, 1))
            }
        });
        for (column, of_unit) in transpose(of_outputs).into_iter().enumerate() {
            let (group, second) = (column % LANES, column / LANES);
            if let Some(line) = lines.get_mut((group * PAIRS + pair + second) * LINES + half) {
                // Safety: a line is a register.
                unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), of_unit) };
            }
        }
    }
}

/// Pairs of codes times their scale, as pairs of bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512bf16")]
fn scaled(pairs: __m512i, scales: __m512) -> __m512i {
    let first = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(pairs, 16), 16));
    let second = _mm512_cvtepi32_ps(_mm512_srai_epi32(pairs, 16));
    let [first, second] = [first, second].map(|codes| {
        // Safety: the same 256 bits.
        let rounded: __m256i = unsafe { std::mem::transmute(_mm512_cvtneps_pbh(_mm512_mul_ps(codes, scales))) };
        _mm512_cvtepu16_epi32(rounded)
    });
    _mm512_or_si512(first, _mm512_slli_epi32(second, 16))
}

#[cfg(test)]
mod tests {
    use super::super::super::super::cpu::has_avx512_bf16;
    use super::super::super::element::{Bf16, Element};
    use super::super::super::quantized::{Int4, Int8};
    use super::super::super::testing::random;
    use super::*;
    use crate::model::kernels::gemm::{PackedRows, Weight, multiply};

    /// Codes and scales that look random, and the weight [outputs, inputs] that they stand for, rounded.
    fn quantized<C: Codes>(outputs: usize, inputs: usize, most: i32) -> (Vec<PanelBlock<C>>, Vec<Bf16>) {
        let blocks_a_panel = inputs.div_ceil(BLOCK);
        let mut blocks = vec![PanelBlock::<C>::ZERO; outputs.div_ceil(PANEL) * blocks_a_panel];
        let mut weight = vec![Bf16(0); outputs * inputs];
        for output in 0..outputs {
            for first in (0..inputs).step_by(2 * PAIRS) {
                let block = &mut blocks[output / PANEL * blocks_a_panel + first / BLOCK];
                let (lane, scale) =
                    (first % BLOCK / (2 * PAIRS), Bf16::round(0.01 + (output * 7 + first) as f32 * 1e-4));
                let code = |input: usize| ((output * 31 + (first + input) * 17) as i32 % (2 * most + 1) - most) as i8;
                let codes = std::array::from_fn(|input| if first + input < inputs { code(input) } else { 0 });
                block.scales[output % PANEL][lane] = scale;
                block.codes[output % PANEL].put(lane, &codes);
                for (input, code) in codes.into_iter().enumerate().take(inputs - first) {
                    weight[output * inputs + first + input] = Bf16::round(f32::from(code) * scale.widen());
                }
            }
        }
        (blocks, weight)
    }

    fn multiplies_as_the_weight_that_they_stand_for<C: Codes>(most: i32) {
        for (rows, inputs, outputs) in [(17, 256, 32), (20, 300, 17), (33, 96, 49), (24, 515, 96)] {
            let (blocks, weight) = quantized::<C>(outputs, inputs, most);
            let panels = Panels { blocks: &blocks, blocks_a_panel: inputs.div_ceil(BLOCK), outputs };
            let x = random::<Bf16>(rows * inputs, 5);
            // Safety: the CPU was asked.
            unsafe {
                let x = PackedRows::new::<_, Pairs>(&x, inputs);
                let mut expected = Vec::new();
                multiply::<Bf16, Pairs>(&x, &Weight::ByOutput(&weight), &mut |row, output, sums| {
                    expected.push((row, output, sums.to_vec()));
                });
                let mut expected = expected.into_iter();
                multiply::<Bf16, Pairs>(&x, &panels, &mut |row, output, sums| {
                    assert_eq!(expected.next(), Some((row, output, sums.to_vec())), "{rows} x {inputs} x {outputs}");
                });
                assert_eq!(expected.next(), None);
            }
        }
    }

    #[test]
    fn codes_multiply_as_the_bf16_that_they_stand_for() {
        if has_avx512_bf16() {
            multiplies_as_the_weight_that_they_stand_for::<Int8>(127);
            multiplies_as_the_weight_that_they_stand_for::<Int4>(7);
        }
    }
}

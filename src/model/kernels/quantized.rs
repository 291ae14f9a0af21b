//! Weights in 8 and 4 bits: a code for each, and a scale for every [`GROUP`] of an output's inputs.
//!
//! Round to nearest, symmetric: a weight is its code times its group's scale, which is bf16. They lie in the order in which
//! [`super::whole_numbers`] reads them: panel by panel of outputs, and in a panel block by block of inputs. A register then
//! holds a pair of neighbours of each of a block's groups, and every lane adds up a group of its own.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::element::{Bf16, LANES};
use crate::model::options::Quantization;

/// Inputs that share a scale.
pub(in super::super) const GROUP: usize = 32;

/// Pairs of neighbours in a group.
pub(super) const PAIRS: usize = GROUP / 2;

/// Inputs whose codes lie together: as many groups as a register has lanes. An output's last block is filled up with zeros.
pub(in super::super) const BLOCK: usize = LANES * GROUP;

/// Outputs whose codes lie together. The last panel is filled up with zeros.
pub(in super::super) const PANEL: usize = 16;

/// The scales of an output's block, a group each, as bytes.
pub(in super::super) const SCALE_BYTES: usize = LANES * size_of::<Bf16>();

/// The codes of an output's block. Lanes are groups; a lane holds the same inputs of its group in every register.
pub(super) trait Codes: Copy + Send + Sync {
    /// Registers of codes, and how many pairs of neighbours a lane of one holds.
    const REGISTERS: usize;
    const PAIRS_A_REGISTER: usize = PAIRS / Self::REGISTERS;

    const ZERO: Self;

    /// What is stored more than the codes, so that none is below zero.
    const OFFSET: i32;

    /// Lays out a group's codes.
    fn put(&mut self, lane: usize, codes: &[i8; GROUP]);

    /// One of a group's codes.
    fn code(&self, lane: usize, input: usize) -> i8;

    /// A register of codes as it is stored.
    fn register(&self, index: usize) -> &[u32; LANES];

    /// A register's n-th pairs of neighbours, 16 bits each, [`Codes::OFFSET`] more than the codes.
    ///
    /// # Safety
    /// The CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn pairs(register: __m256i, n: usize) -> __m256i;
}

/// Codes from -127 to 127. A lane's four inputs are those of two pairs: the low bytes of both halves, and the high bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Int8([[u32; LANES]; 8]);

/// Codes from -8 to 7, stored as 0 to 15: no sign need be carried on when they are taken apart. A lane's eight inputs are those
/// of four pairs: the lowest four bits of both halves, the next four, and so on.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Int4([[u32; LANES]; 4]);

impl Codes for Int8 {
    const REGISTERS: usize = 8;
    const ZERO: Int8 = Int8([[0; LANES]; 8]);
    const OFFSET: i32 = 0;

    #[inline(always)]
    fn put(&mut self, lane: usize, codes: &[i8; GROUP]) {
        for (register, [a, b, c, d]) in self.0.iter_mut().zip(codes.as_chunks::<4>().0) {
            register[lane] = u32::from_le_bytes([*a as u8, *c as u8, *b as u8, *d as u8]);
        }
    }

    fn code(&self, lane: usize, input: usize) -> i8 {
        let (n, half) = (input / 2 % 2, input % 2);
        self.0[input / 4][lane].to_le_bytes()[2 * half + n] as i8
    }

    #[inline(always)]
    fn register(&self, index: usize) -> &[u32; LANES] {
        &self.0[index]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn pairs(register: __m256i, n: usize) -> __m256i {
        match n {
            0 => _mm256_srai_epi16(_mm256_slli_epi16(register, 8), 8),
            _ => _mm256_srai_epi16(register, 8),
        }
    }
}

impl Codes for Int4 {
    const REGISTERS: usize = 4;
    const ZERO: Int4 = Int4([[0x8888_8888; LANES]; 4]);
    const OFFSET: i32 = 8;

    #[inline(always)]
    fn put(&mut self, lane: usize, codes: &[i8; GROUP]) {
        for (register, eight) in self.0.iter_mut().zip(codes.as_chunks::<8>().0) {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(eight).for_each(|(byte, code)| *byte = *code as u8);
            // All eight move at once: of 16 bits, the low byte is a pair's first code and the high byte its second.
            let codes = u64::from_le_bytes(bytes) & 0x0f0f_0f0f_0f0f_0f0f ^ 0x0808_0808_0808_0808;
            let pairs = codes | codes >> 12; // two pairs in every other 16 bits
            let firsts = pairs & 0xff | pairs >> 24 & 0xff00;
            let seconds = pairs >> 8 & 0xff | pairs >> 32 & 0xff00;
            register[lane] = (firsts | seconds << 16) as u32;
        }
    }

    fn code(&self, lane: usize, input: usize) -> i8 {
        let (n, half) = (input / 2 % 4, input % 2);
        (self.0[input / 8][lane] >> (4 * n + 16 * half) & 0xf) as i8 - Int4::OFFSET as i8
    }

    #[inline(always)]
    fn register(&self, index: usize) -> &[u32; LANES] {
        &self.0[index]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn pairs(register: __m256i, n: usize) -> __m256i {
        let lowest = _mm256_set1_epi16(0xf);
        match n {
            0 => _mm256_and_si256(register, lowest),
            1 => _mm256_and_si256(_mm256_srli_epi16(register, 4), lowest),
            2 => _mm256_and_si256(_mm256_srli_epi16(register, 8), lowest),
            _ => _mm256_srli_epi16(register, 12),
        }
    }
}

/// A block of a panel's outputs.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct PanelBlock<C> {
    pub scales: [[Bf16; LANES]; PANEL],
    pub codes: [C; PANEL],
}

impl<C: Codes> PanelBlock<C> {
    pub const ZERO: PanelBlock<C> = PanelBlock { scales: [[Bf16(0); LANES]; PANEL], codes: [C::ZERO; PANEL] };

    /// All of them in some memory; `None` where it is not aligned as they are.
    pub fn all_in(bytes: &[u8]) -> Option<&[PanelBlock<C>]> {
        // Safety: they are whole numbers without gaps between them, and any bits are a number.
        match unsafe { bytes.align_to() } {
            ([], blocks, []) => Some(blocks),
            _ => None,
        }
    }

    /// As [`PanelBlock::all_in`], to be written.
    pub fn all_in_mut(bytes: &mut [u8]) -> Option<&mut [PanelBlock<C>]> {
        // Safety: as there.
        match unsafe { bytes.align_to_mut() } {
            ([], blocks, []) => Some(blocks),
            _ => None,
        }
    }
}

/// A weight [outputs, inputs].
#[derive(Clone, Copy)]
pub(super) struct Panels<'t, C> {
    pub blocks: &'t [PanelBlock<C>], // [panels, blocks]
    pub blocks_a_panel: usize,
    pub outputs: usize,
}

impl<'t, C> Panels<'t, C> {
    /// Neighbouring outputs, as a weight of their own. Parts begin at panels.
    pub fn part(self, first: usize, len: usize) -> Panels<'t, C> {
        debug_assert!(first.is_multiple_of(PANEL) && first + len <= self.outputs);
        let blocks = first / PANEL * self.blocks_a_panel..(first + len).div_ceil(PANEL) * self.blocks_a_panel;
        Panels { blocks: &self.blocks[blocks], outputs: len, ..self }
    }
}

/// What a weight takes in so many bits.
pub(in super::super) fn quantized_bytes(outputs: usize, inputs: usize, quantization: Quantization) -> usize {
    let blocks = outputs.div_ceil(PANEL) * inputs.div_ceil(BLOCK);
    match quantization {
        Quantization::Int8 => blocks * size_of::<PanelBlock<Int8>>(),
        Quantization::Int4 => blocks * size_of::<PanelBlock<Int4>>(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Codes, GROUP, Int4, Int8, LANES};

    fn keeps_every_code<C: Codes>(least: i8, most: i8) {
        let codes = |lane: usize| -> [i8; GROUP] {
            let range = i32::from(most) - i32::from(least) + 1;
            std::array::from_fn(|input| (i32::from(least) + (lane * 37 + input * 5) as i32 % range) as i8)
        };
        let mut block = C::ZERO;
        (0..LANES).for_each(|lane| block.put(lane, &codes(lane)));
        for lane in 0..LANES {
            for (input, code) in codes(lane).into_iter().enumerate() {
                assert_eq!(block.code(lane, input), code, "input {input} of group {lane}");
            }
        }
    }

    #[test]
    fn a_code_is_found_where_it_was_put() {
        keeps_every_code::<Int8>(-127, 127);
        keeps_every_code::<Int4>(-8, 7);
    }
}

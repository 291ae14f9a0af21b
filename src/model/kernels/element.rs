//! Numbers as weights are stored, and how sixteen of them are read at once.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use tch::Kind;

use super::tensors::Number;

/// Weights that a vector kernel reads at a time.
pub(super) const STEP: usize = 16;

/// Numbers in an AVX2 register: a step is two of them.
pub(super) const LANES: usize = STEP / 2;

/// As many numbers as a step. Aligned, so that no read of a vector touches two lines of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(pub [f32; STEP]);

impl Line {
    /// The numbers of neighbouring lines.
    pub fn numbers(lines: &[Line]) -> &[f32] {
        // Safety: a line is its numbers and nothing else.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * STEP) }
    }
}

/// A number as weights and activations are stored.
pub(super) trait Element: Number {
    /// Which of sixteen numbers in memory each lane of [`Element::load`] gets: splitting pairs is cheaper than keeping order.
    const ORDER: [usize; STEP];

    fn widen(self) -> f32;

    /// The same numbers where they are bf16: a kernel may be for these alone.
    fn as_bf16(_numbers: &[Self]) -> Option<&[Bf16]> {
        None
    }

    /// The nearest, ties to even.
    fn round(wide: f32) -> Self;

    /// Sixteen of them as fp32, in the order of [`Element::ORDER`].
    ///
    /// # Safety
    /// `from` points to sixteen elements, and the CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load(from: *const Self) -> [__m256; 2];
}

/// bf16: the upper half of an fp32.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(transparent)]
pub(super) struct Bf16(pub u16);

impl Number for Bf16 {
    const KIND: Kind = Kind::BFloat16;
}

impl Element for Bf16 {
    const ORDER: [usize; STEP] = [0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15];

    #[inline]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    fn as_bf16(numbers: &[Bf16]) -> Option<&[Bf16]> {
        Some(numbers)
    }

    #[inline]
    fn round(wide: f32) -> Bf16 {
        if wide.is_nan() {
            return Bf16(0x7fc0); // rounding its bits could make an infinity of it
        }
        let bits = wide.to_bits();
        Bf16(((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(from: *const Bf16) -> [__m256; 2] {
        // Safety: the caller's.
        let pairs = unsafe { _mm256_loadu_si256(from.cast()) };
        let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
        [_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), _mm256_castsi256_ps(_mm256_and_si256(pairs, upper))]
    }
}

impl Element for f32 {
    const ORDER: [usize; STEP] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    #[inline]
    fn widen(self) -> f32 {
        self
    }

    #[inline]
    fn round(wide: f32) -> f32 {
        wide
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(from: *const f32) -> [__m256; 2] {
        // Safety: the caller's.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }
}

/// A register's 32 bits a lane as pairs of bf16, which they are.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn as_pairs(register: __m512i) -> __m512bh {
    // Safety: both are 512 bits, any of which are numbers.
    unsafe { std::mem::transmute(register) }
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::{Bf16, Element};

    #[test]
    fn rounds_to_bf16_as_libtorch_does() {
        let odd =
            [0.0, -0.0, 1.0, 1.003_906_3, 1.011_718_8, -3.3e38, 1e-40, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE];
        let many = (0..10_000).map(|i| f32::from_bits((i * 429_493_u32).wrapping_mul(7)));
        let numbers: Vec<f32> = odd.into_iter().chain(many).filter(|x| !x.is_nan()).collect();
        let theirs = Tensor::from_slice(&numbers).to_kind(Kind::BFloat16).to_kind(Kind::Float);
        let theirs = Vec::<f32>::try_from(theirs).unwrap();
        for (x, theirs) in numbers.iter().zip(theirs) {
            assert_eq!(Bf16::round(*x).widen().to_bits(), theirs.to_bits(), "{x}");
        }
        assert!(Bf16::round(f32::NAN).widen().is_nan());
        assert!(Bf16::round(f32::from_bits(0x7f80_0001)).widen().is_nan());
    }
}

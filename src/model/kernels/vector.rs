//! Plain loops that the compiler makes vectors of, compiled three times: for CPUs with AVX-512, for those with AVX2 and FMA, and
//! for any. The first two compute the same bits.

#[cfg(target_arch = "x86_64")]
use super::super::cpu::{has_avx2_and_fma, has_avx512};
use super::element::LANES;

/// Numbers that one task computes at least: fewer are not worth another thread.
pub(super) const NUMBERS_A_TASK: usize = 1 << 15;

/// A loop over numbers.
pub(super) trait Loop {
    /// To be marked `#[inline(always)]`, as all that it calls, so that it is compiled for the CPU of its caller.
    fn run<const FMA: bool>(self);
}

/// Runs `work` in the form that this CPU is fastest with.
pub(super) fn run(work: impl Loop) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
        fn run_avx512(work: impl Loop) {
            work.run::<true>();
        }
        // Safety: the CPU was asked.
        return unsafe { run_avx512(work) };
    }
    #[cfg(target_arch = "x86_64")]
    if has_avx2_and_fma() {
        #[target_feature(enable = "avx2,fma")]
        fn run_avx2(work: impl Loop) {
            work.run::<true>();
        }
        // Safety: the CPU was asked.
        return unsafe { run_avx2(work) };
    }
    work.run::<false>();
}

/// `a * b + c`: rounded once where the CPU does so in one instruction, twice where it would have to call a function for it.
#[inline(always)]
pub(super) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Added to a number of less than 2^22 it leaves no bits for a fraction: the sum's lowest bits are the nearest whole number, ties
/// to even.
pub(super) const WHOLE: f32 = (3 << 22) as f32;

/// The whole number in such a sum.
#[inline(always)]
pub(super) fn whole(sum: f32) -> i32 {
    sum.to_bits().wrapping_sub(WHOLE.to_bits()) as i32
}

/// The largest. In lanes, whose number does not depend on the CPU, as in [`sum`].
#[inline(always)]
pub(super) fn most(numbers: &[f32]) -> f32 {
    let (lines, rest) = numbers.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for line in lines {
        lanes.iter_mut().zip(line).for_each(|(lane, number)| *lane = if *number > *lane { *number } else { *lane });
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[inline(always)]
pub(super) fn sum(numbers: &[f32]) -> f32 {
    let (lines, rest) = numbers.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for line in lines {
        lanes.iter_mut().zip(line).for_each(|(lane, number)| *lane += number);
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// Has the caches fetch the line at an address, which need not exist.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    // Safety: reads nothing; every x86-64 has the instruction.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

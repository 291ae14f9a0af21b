//! What this machine's CPU is good at.

use tch::Kind;

/// Whether it has the vectors and the fused multiplication that our kernels are written for.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx2_and_fma() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Whether it has registers of 512 bits for all kinds of numbers.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && has_avx2_and_fma()
}

/// Whether it multiplies pairs of bf16 in registers of 512 bits.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx512_bf16() -> bool {
    is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw") && has_avx2_and_fma()
}

/// Whether libtorch's products of many rows go faster than ours: in bf16 where the CPU multiplies whole tiles (AMX), or has
/// AVX-512 without products of bf16, which libtorch widens for and we do not.
#[cfg(target_arch = "x86_64")]
pub(super) fn libtorch_multiplies_best(kind: Kind) -> bool {
    kind == Kind::BFloat16 && multiplies_bf16() && (has_amx_bf16() || !has_avx512_bf16())
}

/// The standard library's macro does not know AMX yet.
#[cfg(target_arch = "x86_64")]
fn has_amx_bf16() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const AMX_BF16: u32 = 1 << 22;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & AMX_BF16 != 0
}

/// What oneDNN asks for before it takes a bf16 product.
#[cfg(target_arch = "x86_64")]
pub(super) fn multiplies_bf16() -> bool {
    has_avx512()
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn multiplies_bf16() -> bool {
    true
}

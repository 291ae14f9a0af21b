//! What this machine's CPU is good at.

use tch::{Device, Kind, Tensor};

/// Whether products with `x` go faster in fp32: `x` is bf16, on a CPU whose bf16 products libtorch falls back on a plain loop
/// for. Widening changes nothing but the order of additions: they are fp32 either way, and rounded once.
pub(super) fn is_worth_widening(x: &Tensor) -> bool {
    x.kind() == Kind::BFloat16 && x.device() == Device::Cpu && !multiplies_bf16()
}

/// Whether it has the vectors and the fused multiplication that our kernels are written for.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx2_and_fma() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// What oneDNN asks for before it takes a bf16 product.
#[cfg(target_arch = "x86_64")]
pub(super) fn multiplies_bf16() -> bool {
    is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512dq")
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn multiplies_bf16() -> bool {
    true
}

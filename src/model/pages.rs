//! Memory in huge pages, where the system gives them to those who ask.
//!
//! Weights and long pasts are read from end to end for every token. In pages of 4 KiB the CPU looks up a place in memory for
//! every 64 lines, in a virtual machine in two tables, and a thread read int4 a sixth more slowly.

use tch::{Device, Tensor};

/// Asks that a tensor to which nothing was written yet is put in huge pages. Refusing is no harm.
pub(super) fn ask_for_huge(tensor: &Tensor) {
    #[cfg(target_os = "linux")]
    if tensor.device() == Device::Cpu && tensor.is_contiguous() {
        const PAGE: usize = 4 << 10;
        let (first, len) = (tensor.data_ptr() as usize, tensor.numel() * tensor.kind().elt_size_in_bytes());
        let (first, end) = (first.next_multiple_of(PAGE), (first + len) / PAGE * PAGE);
        if first < end {
            // Safety: only how these pages are kept changes, and they are the tensor's alone.
            unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (tensor, Device::Cpu);
}

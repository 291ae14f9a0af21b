//! What goes wrong inside the model: its panics as text, whether it was memory that it lacked, and whether anything can go well
//! after it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what may panic inside the model (a libtorch failure is a panic); the panic becomes its text.
pub(super) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    // Unwind safety: after a panic only slots that begin anew are used again (`Row::start` is 0).
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| text(panic.as_ref()))
}

/// The first line of a panic's message: libtorch's own carry a C++ backtrace behind it.
fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("the model panicked");
    text.lines().next().unwrap_or(text).to_owned()
}

/// Whether a failure's text is an allocator's, of libtorch for CUDA and for the CPU, of the driver or of cuBLAS.
pub(super) fn is_out_of_memory(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let phrases = ["out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed"];
    phrases.iter().any(|phrase| message.contains(phrase))
}

/// Whether a failure's text is one of those after which CUDA answers nothing but errors for as long as the process lives.
pub(super) fn is_device_lost(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let phrases = [
        "illegal memory access",
        "illegal instruction",
        "misaligned address",
        "invalid program counter",
        "operation not supported on global/shared address space",
        "hardware stack error",
        "device-side assert",
        "unspecified launch failure",
        "launch timed out",
        "uncorrectable",
        "context is destroyed",
        "gpu is lost",
    ];
    message.contains("cuda error") && phrases.iter().any(|phrase| message.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::{caught, is_device_lost, is_out_of_memory};

    #[test]
    fn a_panic_becomes_its_first_line() {
        assert_eq!(caught(|| 3), Ok(3));
        assert_eq!(caught(|| panic!("{}\nat a place in C++", "broken")), Err::<(), _>("broken".to_owned()));
    }

    #[test]
    fn allocators_are_recognised_by_what_they_say() {
        // As libtorch 2.x words them.
        assert!(is_out_of_memory(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB"
        ));
        assert!(is_out_of_memory("CUDA error: out of memory"));
        assert!(is_out_of_memory(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
        ));
        assert!(is_out_of_memory("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"));
        assert!(!is_out_of_memory("CUDA error: an illegal memory access was encountered"));
    }

    #[test]
    fn a_device_is_lost_by_what_cuda_calls_sticky_and_by_nothing_else() {
        // As CUDA words them, behind libtorch's prefix.
        for sticky in [
            "CUDA error: an illegal memory access was encountered",
            "CUDA error: device-side assert triggered",
            "CUDA error: unspecified launch failure",
            "CUDA error: uncorrectable ECC error encountered",
        ] {
            assert!(is_device_lost(sticky), "{sticky}");
        }
        for passing in [
            "CUDA out of memory. Tried to allocate 2.00 GiB",
            "CUDA error: out of memory",
            "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`",
            "index 3 is out of bounds for dimension 0 with size 2",
        ] {
            assert!(!is_device_lost(passing), "{passing}");
        }
    }
}

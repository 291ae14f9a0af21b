//! Brings libtorch's CUDA side into the process, and finds the device to compute on.

use std::ffi::c_int;
use std::fmt;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};
use tch::{Cuda, Device};

use super::options::DeviceChoice;

/// Loads libtorch's CUDA library, before the first tensor is made: linkers drop it from the binary (`--as-needed`), as
/// nothing refers to it by name, and without it every machine looks as if it had no GPU. The library stays loaded.
/// "none" loads nothing. The error is what the dynamic linker says.
pub fn load_cuda_library(name: &str) -> Result<(), String> {
    if name == "none" {
        return Ok(());
    }
    // Safety: the library's initialisers only register libtorch's CUDA kernels and hooks.
    let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) }.map_err(|error| one_line(&error))?;
    std::mem::forget(library);
    Ok(())
}

/// The CUDA runtime that libtorch was made for, as 1000 * major + 10 * minor (13000), once its CUDA side is loaded.
pub fn cuda_runtime_version() -> Option<i64> {
    tch::utils::has_cudart().then(tch::utils::version_cudart)
}

/// The device that `choice` means on this machine.
pub(super) fn find_device(choice: DeviceChoice, cuda_library: &str) -> Result<Device, String> {
    if choice == DeviceChoice::Cpu {
        return Ok(Device::Cpu);
    }
    let loaded = load_cuda_library(cuda_library);
    let devices = Cuda::device_count().max(0) as usize;
    match choice {
        DeviceChoice::Cuda(index) if index < devices => Ok(Device::Cuda(index)),
        DeviceChoice::Cuda(_) if devices > 0 => {
            Err(format!("--device {choice}: this machine has {devices} CUDA device(s), counted from 0"))
        }
        DeviceChoice::Cuda(_) => {
            let reason =
                loaded.err().unwrap_or_else(|| "libtorch's CUDA side is loaded, but its driver finds none".to_owned());
            Err(format!("--device {choice}: no CUDA device answered: {reason}"))
        }
        _ if devices > 0 => Ok(Device::Cuda(0)),
        _ => {
            if loaded.is_ok() && cuda_library != "none" {
                warn_of_silent_gpus(cuda_library);
            }
            Ok(Device::Cpu)
        }
    }
}

/// Whoever brought CUDA along hardly wants to compute on the CPU.
fn warn_of_silent_gpus(cuda_library: &str) {
    let made_for = cuda_runtime_version().map_or_else(String::new, |version| {
        format!(" (it is made for CUDA {}.{}: an older driver does not answer it)", version / 1000, version % 1000 / 10)
    });
    tracing::warn!(
        "{cuda_library} is loaded, but no GPU answers it{made_for}: computing on the CPU; --device cuda would refuse to start, \
         --device cpu says nothing"
    );
}

/// Where a model computes, and so where its memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Cpu,
    /// `free_bytes`: what the device has left, where its driver can be asked.
    Cuda {
        index: usize,
        free_bytes: Option<u64>,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Cpu => write!(f, "cpu"),
            Place::Cuda { index, .. } => write!(f, "cuda:{index}"),
        }
    }
}

/// The place that `choice` means on this machine. Errors are one line for whoever starts the server.
pub fn find_place(choice: DeviceChoice, cuda_library: &str) -> Result<Place, String> {
    Ok(match find_device(choice, cuda_library)? {
        Device::Cuda(index) => Place::Cuda { index, free_bytes: free_bytes(index) },
        _ => Place::Cpu,
    })
}

/// What a CUDA device has left. tch does not tell, but the CUDA runtime that libtorch brought is in the process.
fn free_bytes(index: usize) -> Option<u64> {
    type SetDevice = unsafe extern "C" fn(c_int) -> c_int;
    type MemGetInfo = unsafe extern "C" fn(*mut usize, *mut usize) -> c_int;
    let process = Library::this();
    let (mut free, mut total) = (0, 0);
    // Safety: the signatures are those of cuda_runtime_api.h, unchanged since CUDA 2; which device is current is the calling
    // thread's alone, and tch sets it anew wherever it matters.
    let is_told = unsafe {
        let set_device: Symbol<SetDevice> = process.get(b"cudaSetDevice\0").ok()?;
        let mem_get_info: Symbol<MemGetInfo> = process.get(b"cudaMemGetInfo\0").ok()?;
        set_device(index as c_int) == 0 && mem_get_info(&mut free, &mut total) == 0
    };
    is_told.then_some(free as u64)
}

/// What the dynamic linker said is the source of the error; the error itself only says that it failed.
fn one_line(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string).replace('\n', " ")
}

//! How many CPU threads libtorch computes with.

use super::config::Config;

/// Up to this hidden size a layer's work is smaller than the barriers between threads that would share it.
const SMALL_HIDDEN_SIZE: usize = 512;

/// Sets the threads of libtorch's operators on the calling thread, the engine's: as many as were asked for, else one for a
/// small model and one a core for any other.
pub(super) fn set(wanted: Option<usize>, config: &Config) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let threads = match wanted {
        Some(threads) => threads,
        None if config.text.hidden_size <= SMALL_HIDDEN_SIZE => 1,
        None => cores,
    };
    tch::set_num_threads(threads as i32);
    // Our own kernels' threads. They sleep while there is nothing to do; a second model in one process shares them.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|n| format!("kernel-{n}")).build_global();
}

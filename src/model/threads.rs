//! The CPU threads that compute.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use super::config::Config;

/// Up to this hidden size a layer's work is smaller than the barriers between threads that would share it.
const SMALL_HIDDEN_SIZE: usize = 512;

/// Sets up the threads that compute: as many as were asked for, else one for a small model and one a core for any other.
///
/// They are those of rayon's pool, which sleep while there is nothing to do; a second model in one process shares them.
/// libtorch's operators run on the thread that calls them, the engine's or one of the pool: threads of their own would spin
/// for a while after each operator, on the cores that ours need.
pub(super) fn set(wanted: Option<usize>, config: &Config) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let is_small = config.text.hidden_size <= SMALL_HIDDEN_SIZE;
    if !is_small {
        keep_freed_memory();
    }
    let threads = match wanted {
        Some(threads) => threads,
        None if is_small => 1,
        None => cores,
    };
    tch::set_num_threads(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|n| format!("kernel-{n}"));
    let _ = pool.start_handler(|_| tch::set_num_threads(1)).build_global();
}

/// glibc asks the system anew for every tensor of a long prompt, and the system clears each page again: 4 % of such a prompt's
/// time. Up to 32 MiB, the most that glibc allows, memory is kept for the next tensor, 128 MiB of it.
fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    // Safety: glibc locks its own settings.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 20);
    }
}

/// Steps that run at this moment, of all models of the process.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Runs a step on one of the threads that compute: sharing some of it with the others then takes no detour.
///
/// A step wakes the others some hundred times, each time a twentieth of a millisecond: they stay awake until it ends, and do
/// whatever it shares. Where a second model's step begins they must not wait in the first one's: nobody stays awake then.
pub(super) fn run<R: Send>(step: impl FnOnce() -> R + Send) -> R {
    let ended = &AtomicBool::new(false);
    rayon::scope(|scope| {
        RUNNING.fetch_add(1, Relaxed);
        let here = rayon::current_thread_index();
        scope.spawn_broadcast(move |_, other| {
            while Some(other.index()) != here && !ended.load(Relaxed) && RUNNING.load(Relaxed) == 1 {
                if rayon::yield_now() != Some(rayon::Yield::Executed) {
                    std::thread::yield_now();
                }
            }
        });
        let _end = End(ended);
        step()
    })
}

/// The end of a step, of one that panics too.
struct End<'s>(&'s AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Relaxed);
        self.0.store(true, Relaxed);
    }
}

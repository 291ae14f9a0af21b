//! Functions of single elements and of rows, computed so that an element's bits do not depend on where it lies.

use rayon::prelude::*;
use tch::{Device, Tensor};

/// Rows that a thread takes at least: fewer are not worth another thread, nor copying its result.
const ROWS_A_THREAD: i64 = 32;

/// Elements that libtorch computes at a time on the CPU: two vectors of bf16.
const AT_A_TIME: i64 = 32;

/// Applies `f`, a function of each element, to `x` [..., width].
///
/// libtorch computes whole vectors with one implementation of `exp` and its like and what is left over at a tensor's end with
/// another, whose last bit may differ. In a tensor whose rows do not fill vectors (a number for each of four heads, say) a
/// row would so depend on how many others there are: such rows are padded. Rows of the big models are not: all of their
/// widths are multiples.
pub(super) fn elementwise(x: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let width = x.size().last().copied().unwrap_or(1);
    let missing = (-width).rem_euclid(AT_A_TIME);
    if missing == 0 || x.device() != Device::Cpu {
        return f(x);
    }
    f(&x.constant_pad_nd([0, missing])).narrow(-1, 0, width)
}

/// Applies `f`, a function of each row, to tensors of [rows, ...] each: on a CPU each thread takes some rows.
pub(super) fn by_rows<const N: usize>(x: [&Tensor; N], f: impl Fn([&Tensor; N]) -> Tensor + Sync) -> Tensor {
    let threads = (rayon::current_num_threads() as i64).min(x[0].size()[0] / ROWS_A_THREAD);
    if threads <= 1 || x[0].device() != Device::Cpu {
        return f(x);
    }
    let mut parts = x.map(|x| x.chunk(threads, 0).into_iter());
    let parts = std::iter::from_fn(|| {
        let part: Option<Vec<Tensor>> = parts.iter_mut().map(Iterator::next).collect();
        part.map(|part| <[Tensor; N]>::try_from(part).expect("Invariant: a part of each tensor"))
    });
    let results = parts.collect::<Vec<_>>().into_par_iter().map(|part| f(part.each_ref()));
    Tensor::cat(&results.collect::<Vec<_>>(), 0)
}

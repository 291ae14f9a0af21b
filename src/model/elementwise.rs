//! Functions of single elements, computed so that an element's bits do not depend on where it lies.

use tch::{Device, Tensor};

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

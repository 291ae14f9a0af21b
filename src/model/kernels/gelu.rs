//! GELU in its form with a hyperbolic tangent, in one pass.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::element::{Bf16, Element};
use super::exponential::sigmoid;
use super::tensors::{Matrix, Output};
use super::vector::{self, Loop, NUMBERS_A_TASK, multiply_add};

/// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))` of each number, in fp32 and rounded once; computed as `x` times a sigmoid,
/// which is the same and loses no digits where the tangent is nearly -1.
///
/// `None` where another operator must do it: on another device, in other precisions, and where the tensor does not lie in one
/// piece.
pub(in super::super) fn gelu_tanh(x: &Tensor) -> Option<Tensor> {
    match x.kind() {
        Kind::BFloat16 => gelu_tanh_of::<Bf16>(x),
        Kind::Float => gelu_tanh_of::<f32>(x),
        _ => None,
    }
}

fn gelu_tanh_of<T: Element>(x: &Tensor) -> Option<Tensor> {
    let numbers = Matrix::<T>::of(x)?;
    let mut gelus = Output::<T>::new(numbers.rows(), numbers.columns);
    let tasks = numbers.numbers.par_chunks(NUMBERS_A_TASK).zip(gelus.numbers_mut().par_chunks_mut(NUMBERS_A_TASK));
    tasks.for_each(|(x, gelus)| vector::run(Gelus { x, gelus }));
    Some(gelus.into_tensor().view(x.size().as_slice()))
}

struct Gelus<'a, T> {
    x: &'a [T],
    gelus: &'a mut [T],
}

impl<T: Element> Loop for Gelus<'_, T> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        const TWICE_ROOT: f32 = 1.595_769; // 2 sqrt(2 / pi)
        for (gelu, x) in self.gelus.iter_mut().zip(self.x) {
            let x = x.widen();
            let inner = x * multiply_add::<FMA>(0.044_715 * x, x, 1.0);
            *gelu = T::round(x * sigmoid::<FMA>(TWICE_ROOT * inner));
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::super::agreement::assert_agree;
    use super::gelu_tanh;

    #[test]
    fn agrees_with_double_precision() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let x = Tensor::randn([37, 1003], (Kind::Float, Device::Cpu)).to_kind(kind);
            assert_agree(&gelu_tanh(&x).unwrap(), &x.to_kind(Kind::Double).gelu("tanh").to_kind(kind));
        }
    }

    #[test]
    fn is_zero_and_itself_far_from_zero() {
        let x = Tensor::from_slice(&[-1e30_f32, -60.0, -0.0, 0.0, 60.0, 1e30]).view([1, 6]);
        let gelus: Vec<f32> = Vec::try_from(gelu_tanh(&x).unwrap().view(6)).unwrap();
        assert_eq!(gelus, [0.0, 0.0, 0.0, 0.0, 60.0, 1e30]);
    }
}

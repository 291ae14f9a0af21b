//! RMSNorm in one pass.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::element::{Bf16, Element};
use super::tensors::{Matrix, Output};
use super::vector::{self, Loop, NUMBERS_A_TASK};

/// Sums that are added up side by side.
const LANES: usize = 16;

/// `x / sqrt(mean(x^2) + eps) * scale` in fp32 and rounded once, for the first columns of each row of `x` [..., columns]: as
/// many as `scale` [width] has, which is fp32. Returns [..., width].
///
/// `None` where another operator must do it: on another device, and where tensors do not lie in one piece.
pub(in super::super) fn rms_norm(x: &Tensor, scale: &Tensor, eps: f64) -> Option<Tensor> {
    match x.kind() {
        Kind::BFloat16 => rms_norm_of::<Bf16>(x, scale, eps as f32),
        Kind::Float => rms_norm_of::<f32>(x, scale, eps as f32),
        _ => None,
    }
}

fn rms_norm_of<T: Element>(x: &Tensor, scale: &Tensor, eps: f32) -> Option<Tensor> {
    let (numbers, scale) = (Matrix::<T>::of(x)?, Matrix::<f32>::of(scale)?.numbers);
    let width = scale.len();
    let mut normed = Output::<T>::new(numbers.rows(), width);
    let rows = numbers.numbers.par_chunks_exact(numbers.columns).zip(normed.numbers_mut().par_chunks_exact_mut(width));
    rows.with_min_len(NUMBERS_A_TASK.div_ceil(width)).for_each(|(x, normed)| {
        vector::run(Row { x: &x[..width], scale, eps, normed });
    });
    let mut shape = x.size();
    *shape.last_mut()? = width as i64;
    Some(normed.into_tensor().view(shape.as_slice()))
}

struct Row<'a, T> {
    x: &'a [T],
    scale: &'a [f32],
    eps: f32,
    normed: &'a mut [T],
}

impl<T: Element> Loop for Row<'_, T> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let inverse = inverse_rms(self.x, self.eps);
        for ((normed, x), scale) in self.normed.iter_mut().zip(self.x).zip(self.scale) {
            *normed = T::round(x.widen() * inverse * scale);
        }
    }
}

/// `1 / sqrt(mean(x^2) + eps)`
#[inline(always)]
pub(super) fn inverse_rms<T: Element>(x: &[T], eps: f32) -> f32 {
    1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt()
}

#[inline(always)]
pub(super) fn sum_of_squares<T: Element>(x: &[T]) -> f32 {
    let mut sums = [0.0; LANES];
    let (steps, tail) = x.as_chunks::<LANES>();
    for step in steps {
        for (sum, x) in sums.iter_mut().zip(step) {
            *sum += x.widen() * x.widen();
        }
    }
    sums.iter().sum::<f32>() + tail.iter().map(|x| x.widen() * x.widen()).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::rms_norm;

    #[test]
    fn agrees_with_the_formula_in_double_precision() {
        for width in [1, 24, 256, 2560] {
            let x = Tensor::randn([37, width], (Kind::Float, Device::Cpu));
            let scale = Tensor::rand([width], (Kind::Float, Device::Cpu)) + 0.5;
            let wide = x.to_kind(Kind::Double);
            let mean = wide.square().mean_dim(-1, true, Kind::Double);
            let expected = wide / (mean + 1e-6).sqrt() * &scale;
            let normed = rms_norm(&x, &scale, 1e-6).unwrap();
            let worst = (&normed - &expected).abs().max().double_value(&[]);
            assert!(worst < 2e-6, "{width} wide: off by {worst}");
            let rounded = rms_norm(&x.to_kind(Kind::BFloat16), &scale, 1e-6).unwrap();
            assert_eq!((rounded.kind(), rounded.size()), (Kind::BFloat16, x.size()));
        }
    }

    #[test]
    fn takes_the_first_columns_of_wider_rows() {
        let x = Tensor::randn([3, 4, 90], (Kind::Float, Device::Cpu));
        let scale = Tensor::rand([64], (Kind::Float, Device::Cpu));
        let cut = x.narrow(2, 0, 64).contiguous();
        assert!(rms_norm(&x, &scale, 1e-6).unwrap().equal(&rms_norm(&cut, &scale, 1e-6).unwrap()));
    }
}

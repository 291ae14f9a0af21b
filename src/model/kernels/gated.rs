//! Numbers times a function of their gates, in one pass.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::element::{Bf16, Element};
use super::exponential::{sigmoid, silu};
use super::tensors::{Matrix, Output};
use super::vector::{self, Loop, NUMBERS_A_TASK};

/// What a gate becomes before it is multiplied with.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Gate {
    Silu,
    Sigmoid,
}

/// `gate(gates) * x`, the gate rounded and then the product. `gates` are the last columns of each row: as many as `x`
/// [..., width] has.
///
/// `None` where another operator must do it: on another device, in other precisions, and where tensors do not lie in one
/// piece.
pub(in super::super) fn gated(x: &Tensor, gates: &Tensor, gate: Gate) -> Option<Tensor> {
    match x.kind() {
        Kind::BFloat16 => gated_of::<Bf16>(x, gates, gate),
        Kind::Float => gated_of::<f32>(x, gates, gate),
        _ => None,
    }
}

fn gated_of<T: Element>(x: &Tensor, gates: &Tensor, gate: Gate) -> Option<Tensor> {
    let (numbers, gates) = (Matrix::<T>::of(x)?, Matrix::<T>::of(gates)?);
    let width = numbers.columns;
    let mut products = Output::<T>::new(numbers.rows(), width);
    let rows = numbers.numbers.par_chunks_exact(width).zip(gates.numbers.par_chunks_exact(gates.columns));
    let rows = rows.zip(products.numbers_mut().par_chunks_exact_mut(width));
    rows.with_min_len(NUMBERS_A_TASK.div_ceil(width)).for_each(|((x, gates), products)| {
        vector::run(Row { x, gates: &gates[gates.len() - width..], gate, products });
    });
    Some(products.into_tensor().view(x.size().as_slice()))
}

struct Row<'a, T> {
    x: &'a [T],
    gates: &'a [T],
    gate: Gate,
    products: &'a mut [T],
}

impl<T: Element> Row<'_, T> {
    #[inline(always)]
    fn multiply(self, gate: impl Fn(f32) -> f32) {
        for ((product, x), gated) in self.products.iter_mut().zip(self.x).zip(self.gates) {
            *product = T::round(T::round(gate(gated.widen())).widen() * x.widen());
        }
    }
}

impl<T: Element> Loop for Row<'_, T> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        match self.gate {
            Gate::Silu => self.multiply(silu::<FMA>),
            Gate::Sigmoid => self.multiply(sigmoid::<FMA>),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::super::agreement::assert_agree;
    use super::{Gate, gated};

    #[test]
    fn agrees_with_libtorch() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let random = |width: i64| (Tensor::randn([37, width], (Kind::Float, Device::Cpu)) * 4.0).to_kind(kind);
            let (x, gates, wide) = (random(203), random(203), random(300));
            assert_agree(&gated(&x, &gates, Gate::Silu).unwrap(), &(gates.silu() * &x));
            let expected = &x * wide.narrow(1, 97, 203).sigmoid();
            assert_agree(&gated(&x, &wide, Gate::Sigmoid).unwrap(), &expected);
        }
    }

    #[test]
    fn a_row_is_the_same_bits_alone_and_among_others() {
        let random = || Tensor::randn([40, 1003], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
        let (x, gates) = (random(), random());
        let together = gated(&x, &gates, Gate::Silu).unwrap();
        for row in 0..40 {
            let of = |x: &Tensor| x.narrow(0, row, 1);
            assert!(gated(&of(&x), &of(&gates), Gate::Silu).unwrap().equal(&of(&together)), "row {row}");
        }
    }
}

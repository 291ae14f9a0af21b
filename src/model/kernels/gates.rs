//! How much of each token the delta rule writes, and how much of its state it keeps.

use tch::{Kind, Tensor};

use super::element::{Bf16, Element};
use super::tensors::{Matrix, Output};

/// `sigmoid(written)`, rounded to the type of `written`, and `rate * softplus(step + bias)`, for `written` and `step`
/// [tokens, heads], and for `rate` and `bias` [heads] in fp32. Returns both in fp32, [tokens, heads] each.
///
/// There are only a few for each token: std's functions, whose results do not depend on the place either, are fast enough.
///
/// `None` where another operator must do it: on another device, in other precisions, and where tensors do not lie in one
/// piece.
pub(in super::super) fn gates(written: &Tensor, step: &Tensor, bias: &Tensor, rate: &Tensor) -> Option<[Tensor; 2]> {
    match written.kind() {
        Kind::BFloat16 => gates_of::<Bf16>(written, step, bias, rate),
        Kind::Float => gates_of::<f32>(written, step, bias, rate),
        _ => None,
    }
}

fn gates_of<T: Element>(written: &Tensor, step: &Tensor, bias: &Tensor, rate: &Tensor) -> Option<[Tensor; 2]> {
    let (written, step) = (Matrix::<T>::of(written)?, Matrix::<T>::of(step)?);
    let (bias, rate) = (Matrix::<f32>::of(bias)?.numbers, Matrix::<f32>::of(rate)?.numbers);
    let heads = written.columns;
    let mut beta = Output::<f32>::new(written.rows(), heads);
    for (beta, written) in beta.numbers_mut().iter_mut().zip(written.numbers) {
        *beta = T::round(1.0 / (1.0 + (-written.widen()).exp())).widen();
    }
    let mut decay = Output::<f32>::new(written.rows(), heads);
    for (decay, step) in decay.numbers_mut().chunks_exact_mut(heads).zip(step.numbers.chunks_exact(heads)) {
        for (((decay, step), bias), rate) in decay.iter_mut().zip(step).zip(bias).zip(rate) {
            *decay = rate * softplus(step.widen() + bias);
        }
    }
    Some([beta.into_tensor(), decay.into_tensor()])
}

/// `ln(1 + e^x)`, as libtorch computes it: `x` itself where the difference would be lost.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::super::agreement::assert_agree;
    use super::gates;

    #[test]
    fn agrees_with_libtorch() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
            let (written, step) = (random(&[7, 12]).to_kind(kind), (random(&[7, 12]) * 15.0).to_kind(kind));
            let (bias, rate) = (random(&[12]), -random(&[12]).exp());
            let [beta, decay] = gates(&written, &step, &bias, &rate).unwrap();
            assert_agree(&beta.to_kind(kind), &written.sigmoid());
            assert!(beta.to_kind(kind).to_kind(Kind::Float).equal(&beta), "beta is rounded");
            assert_agree(&decay, &(rate * (step.to_kind(Kind::Float) + bias).softplus()));
        }
    }
}

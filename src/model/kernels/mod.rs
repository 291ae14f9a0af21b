//! Operators of our own, where those of libtorch are slow or do not keep a promise of ours; on the CPU only.

mod few_rows;

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use few_rows::{Bf16, Element};

/// Most rows that [`linear`] takes. From there on a GEMM, which reads weights into the cache once for many rows, is faster.
pub(super) const MAX_ROWS: i64 = 16;

/// Weights that one task multiplies at least: less is not worth another thread.
const WEIGHTS_A_TASK: usize = 1 << 16;

/// `x W^T` [rows, outputs] for `x` [rows, inputs] and `weight` [outputs, inputs], summed in fp32 and rounded once. A row's
/// result is the same bits however many rows there are.
///
/// `None` where another operator must do it: more than [`MAX_ROWS`] rows, another device, other precisions, or tensors that
/// do not lie in one piece.
pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Option<Tensor> {
    let ([rows, inputs], [outputs, _]) = (size(x)?, size(weight)?);
    let is_here = |tensor: &Tensor| tensor.device() == Device::Cpu && tensor.is_contiguous();
    if rows > MAX_ROWS || x.kind() != weight.kind() || !is_here(x) || !is_here(weight) {
        return None;
    }
    let wide = x.to_kind(Kind::Float);
    // Safety: both are contiguous, on the CPU and of the type they are read as, and outlive the slices.
    let products = unsafe {
        let x = std::slice::from_raw_parts(wide.data_ptr().cast::<f32>(), (rows * inputs) as usize);
        let (weights, len) = (weight.data_ptr(), (outputs * inputs) as usize);
        match weight.kind() {
            Kind::BFloat16 => multiply(x, std::slice::from_raw_parts(weights.cast::<Bf16>(), len), inputs as usize),
            Kind::Float => multiply(x, std::slice::from_raw_parts(weights.cast::<f32>(), len), inputs as usize),
            _ => return None,
        }
    };
    Some(Tensor::from_slice(&products).view([rows, outputs]).to_kind(x.kind()))
}

fn size(tensor: &Tensor) -> Option<[i64; 2]> {
    tensor.size().try_into().ok()
}

/// Shares the outputs out among the threads.
fn multiply<W: Element>(x: &[f32], weight: &[W], inputs: usize) -> Vec<f32> {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    // A few tasks a thread: on a busy machine one thread may be slower than another.
    let outputs_a_task = (outputs / (4 * rayon::current_num_threads())).max(WEIGHTS_A_TASK.div_ceil(inputs)).max(1);
    if outputs_a_task >= outputs || rayon::current_num_threads() == 1 {
        return few_rows::multiply(x, weight, inputs);
    }
    let parts = weight.par_chunks(outputs_a_task * inputs).map(|weight| few_rows::multiply(x, weight, inputs));
    let parts: Vec<Vec<f32>> = parts.collect();
    let mut products = Vec::with_capacity(rows * outputs);
    for row in 0..rows {
        for part in &parts {
            let width = part.len() / rows;
            products.extend_from_slice(&part[row * width..(row + 1) * width]);
        }
    }
    products
}

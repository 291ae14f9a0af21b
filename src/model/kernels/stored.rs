//! A layer's weight in whichever form it is held, and the kernels over each.

use tch::Tensor;

use super::element::{Bf16, Element};
use super::few_rows::{self, Activations};
#[cfg(target_arch = "x86_64")]
use super::gemm::{self, PackedRows};
use super::quantized::{Int4, Int8};
use super::tensors::{Matrix, Number};
use super::weights::{Plain, WeightRows};
use crate::model::options::Quantization;
use crate::model::weight::{Quantized, Weight};

/// A weight [outputs, inputs] in memory.
#[derive(Clone, Copy)]
pub(super) enum Stored<'t, T> {
    Plain(Plain<'t, T>),
    Int8(Int8<'t>),
    Int4(Int4<'t>),
}

/// Does the same with whichever form it is.
macro_rules! each_form {
    ($stored:expr, $weight:ident => $work:expr) => {
        match $stored {
            Stored::Plain($weight) => $work,
            Stored::Int8($weight) => $work,
            Stored::Int4($weight) => $work,
        }
    };
}

impl<'t, T: Element> Stored<'t, T> {
    /// `None` for a weight on another device, of another type, or in pieces.
    pub fn of(weight: &'t Weight) -> Option<Stored<'t, T>> {
        let Quantized { quantization, codes, scales } = match weight {
            Weight::Plain(weight) => {
                let Matrix { numbers, columns } = Matrix::<T>::of(weight)?;
                return Some(Stored::Plain(Plain { numbers, inputs: columns }));
            }
            Weight::Quantized(quantized) => quantized,
        };
        let scales = Matrix::<Bf16>::of(scales)?;
        let inputs = scales.columns * super::GROUP;
        let scales = scales.numbers;
        Some(match quantization {
            Quantization::Int8 => Stored::Int8(Int8 { codes: steps(codes)?, scales, inputs }),
            Quantization::Int4 => Stored::Int4(Int4 { codes: steps(codes)?, scales, inputs }),
        })
    }

    pub fn outputs(&self) -> usize {
        each_form!(self, weight => weight.outputs())
    }

    /// Neighbouring outputs, as a weight of their own.
    pub fn part(&self, first: usize, len: usize) -> Stored<'t, T> {
        match self {
            Stored::Plain(weight) => Stored::Plain(weight.part(first, len)),
            Stored::Int8(weight) => Stored::Int8(weight.part(first, len)),
            Stored::Int4(weight) => Stored::Int4(weight.part(first, len)),
        }
    }

    /// See [`few_rows::multiply`].
    pub fn multiply_few(&self, x: &Arranged, put: &mut impl FnMut(usize, usize, f32)) {
        const ARRANGED: &str = "Invariant: rows are arranged for every form among the layers";
        match *self {
            Stored::Plain(weight) => few_rows::multiply(x.plain.as_ref().expect(ARRANGED), weight, put),
            Stored::Int8(weight) => few_rows::multiply(x.int8.as_ref().expect(ARRANGED), weight, put),
            Stored::Int4(weight) => few_rows::multiply(x.int4.as_ref().expect(ARRANGED), weight, put),
        }
    }

    /// See [`gemm::multiply`].
    ///
    /// # Safety
    /// The CPU has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn multiply_many(&self, x: &PackedRows, put: &mut impl FnMut(usize, usize, &[f32])) {
        // Safety: the caller's.
        unsafe { each_form!(*self, weight => gemm::multiply(x, weight, put)) }
    }
}

/// Codes, `N` of them a step.
fn steps<T: Number, const N: usize>(codes: &Tensor) -> Option<&[[T; N]]> {
    Some(Matrix::of(codes)?.numbers.as_chunks().0)
}

/// A few rows of activations, as the forms among some weights multiply them.
pub(super) struct Arranged {
    plain: Option<Activations<2>>,
    int8: Option<Activations<8>>,
    int4: Option<Activations<10>>,
}

impl Arranged {
    pub fn new<'s, 't: 's, T: Element>(x: &Matrix<T>, weights: impl Iterator<Item = &'s Stored<'t, T>>) -> Arranged {
        let mut arranged = Arranged { plain: None, int8: None, int4: None };
        let (numbers, inputs) = (x.numbers, x.columns);
        for weight in weights {
            match weight {
                Stored::Plain(_) => {
                    arranged.plain.get_or_insert_with(|| Activations::new::<Plain<T>, T>(numbers, inputs));
                }
                Stored::Int8(_) => {
                    arranged.int8.get_or_insert_with(|| Activations::new::<Int8, T>(numbers, inputs));
                }
                Stored::Int4(_) => {
                    arranged.int4.get_or_insert_with(|| Activations::new::<Int4, T>(numbers, inputs));
                }
            }
        }
        arranged
    }
}

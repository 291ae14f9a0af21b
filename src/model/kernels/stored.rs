//! A layer's weight in whichever form it is held, and the kernels over each.

use super::super::cpu;
use super::element::{Bf16, Element};
use super::few_rows::{self, Activations};
#[cfg(target_arch = "x86_64")]
use super::few_rows_bf16;
use super::fixed_point::FixedRows;
#[cfg(target_arch = "x86_64")]
use super::gemm::{self, PackedRows, Pairs, Wide};
use super::quantized::{BLOCK, Codes, Int4, Int8, PanelBlock, Panels};
use super::tensors::Matrix;
use super::whole_numbers;
use crate::model::options::Quantization;
use crate::model::weight::{Quantized, Weight};

/// A weight [outputs, inputs] in memory.
#[derive(Clone, Copy)]
pub(super) enum Stored<'t, T> {
    Plain(Plain<'t, T>),
    Int8(Panels<'t, Int8>),
    Int4(Panels<'t, Int4>),
}

/// A weight as numbers.
#[derive(Clone, Copy)]
pub(super) struct Plain<'t, T> {
    pub numbers: &'t [T], // [outputs, inputs]
    pub inputs: usize,
}

impl<'t, T: Element> Stored<'t, T> {
    /// `None` for a weight on another device, of another type, or in pieces.
    pub fn of(weight: &'t Weight) -> Option<Stored<'t, T>> {
        Some(match weight {
            Weight::Plain(weight) => {
                let Matrix { numbers, columns } = Matrix::<T>::of(weight)?;
                Stored::Plain(Plain { numbers, inputs: columns })
            }
            Weight::Quantized(weight) => match weight.quantization {
                Quantization::Int8 => Stored::Int8(panels(weight)?),
                Quantization::Int4 => Stored::Int4(panels(weight)?),
            },
        })
    }

    pub fn is_plain(&self) -> bool {
        matches!(self, Stored::Plain(_))
    }

    pub fn outputs(&self) -> usize {
        match self {
            Stored::Plain(weight) => weight.numbers.len() / weight.inputs,
            Stored::Int8(weight) => weight.outputs,
            Stored::Int4(weight) => weight.outputs,
        }
    }

    /// Neighbouring outputs, as a weight of their own. Parts begin at whole panels.
    pub fn part(&self, first: usize, len: usize) -> Stored<'t, T> {
        match self {
            Stored::Plain(Plain { numbers, inputs }) => {
                Stored::Plain(Plain { numbers: &numbers[first * inputs..(first + len) * inputs], inputs: *inputs })
            }
            Stored::Int8(weight) => Stored::Int8(weight.part(first, len)),
            Stored::Int4(weight) => Stored::Int4(weight.part(first, len)),
        }
    }

    /// The products with all rows of `x`: `put(row, first output, sums)` gets some neighbours at a time.
    pub fn multiply(&self, x: &Arranged, put: &mut impl FnMut(usize, usize, &[f32])) {
        match *self {
            Stored::Plain(weight) => x.plain.as_ref().expect(ARRANGED).multiply(weight, put),
            Stored::Int8(weight) => x.multiply_codes(weight, put),
            Stored::Int4(weight) => x.multiply_codes(weight, put),
        }
    }
}

fn panels<C: Codes>(weight: &Quantized) -> Option<Panels<'_, C>> {
    let blocks = PanelBlock::all_in(Matrix::of(&weight.panels)?.numbers)?;
    let (outputs, inputs) = (weight.outputs as usize, weight.inputs as usize);
    Some(Panels { blocks, blocks_a_panel: inputs.div_ceil(BLOCK), outputs })
}

const ARRANGED: &str = "Invariant: rows are arranged for every form among the layers";

/// Rows of activations, as the forms among some weights multiply them.
pub(super) struct Arranged<'x> {
    plain: Option<Rows<'x>>,
    fixed: Option<FixedRows>,
}

impl<'x> Arranged<'x> {
    /// Up to [`super::MAX_FEW_ROWS`] rows for any CPU, and more for one with AVX2 and FMA where a weight is plain.
    pub fn new<'s, 't: 's, T: Element>(
        x: &Matrix<'x, T>,
        weights: impl Iterator<Item = &'s Stored<'t, T>>,
    ) -> Arranged<'x> {
        let mut arranged = Arranged { plain: None, fixed: None };
        for weight in weights {
            match weight {
                Stored::Int8(_) | Stored::Int4(_) if !Rows::suit_codes(x) => {
                    arranged.fixed.get_or_insert_with(|| FixedRows::new(x.numbers, x.columns));
                }
                _ => {
                    arranged.plain.get_or_insert_with(|| Rows::of(x));
                }
            }
        }
        arranged
    }

    fn multiply_codes<C: Codes>(&self, weight: Panels<C>, put: &mut impl FnMut(usize, usize, &[f32])) {
        #[cfg(target_arch = "x86_64")]
        if let Some(Rows::ManyBf16(x)) = &self.plain {
            // Safety: rows take this form only where the CPU was asked.
            return unsafe { gemm::multiply::<Bf16, Pairs>(x, &weight, put) };
        }
        whole_numbers::multiply(self.fixed.as_ref().expect(ARRANGED), weight, put);
    }
}

/// Rows of activations, as this CPU multiplies so many of them with a plain weight.
pub(super) enum Rows<'x> {
    Few(Activations),
    #[cfg(target_arch = "x86_64")]
    FewBf16(&'x [Bf16]),
    #[cfg(target_arch = "x86_64")]
    Many(PackedRows<f32>),
    #[cfg(target_arch = "x86_64")]
    ManyBf16(PackedRows<u32>),
}

#[cfg(target_arch = "x86_64")]
fn are_many<T: Element>(x: &Matrix<T>) -> bool {
    x.rows() > super::MAX_FEW_ROWS as usize
}

/// Rows in bf16, where the CPU multiplies them as they are.
#[cfg(target_arch = "x86_64")]
fn as_bf16_rows<'x, T: Element>(x: &Matrix<'x, T>) -> Option<&'x [Bf16]> {
    T::as_bf16(x.numbers).filter(|_| cpu::has_avx512_bf16())
}

impl<'x> Rows<'x> {
    /// Whether weights in fewer bits, too, are fastest multiplied in bf16: where there are many rows and instructions for it.
    #[cfg(target_arch = "x86_64")]
    fn suit_codes<T: Element>(x: &Matrix<T>) -> bool {
        are_many(x) && as_bf16_rows(x).is_some()
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn suit_codes<T: Element>(_: &Matrix<T>) -> bool {
        false
    }

    #[cfg(target_arch = "x86_64")]
    pub fn of<T: Element>(x: &Matrix<'x, T>) -> Rows<'x> {
        match (as_bf16_rows(x), are_many(x)) {
            (Some(numbers), false) => Rows::FewBf16(numbers),
            // Safety: the CPU was asked.
            (Some(numbers), true) => Rows::ManyBf16(unsafe { PackedRows::new::<_, Pairs>(numbers, x.columns) }),
            (None, false) => Rows::Few(Activations::new::<T, T>(x.numbers, x.columns)),
            // Safety: whoever has many rows asked the CPU.
            (None, true) => Rows::Many(unsafe { PackedRows::new::<_, Wide>(x.numbers, x.columns) }),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub fn of<T: Element>(x: &Matrix<'x, T>) -> Rows<'x> {
        Rows::Few(Activations::new::<T, T>(x.numbers, x.columns))
    }

    /// The products of all rows with `weight`: `put(row, first output, sums)` gets some neighbours at a time.
    pub fn multiply<T: Element>(&self, weight: Plain<T>, put: &mut impl FnMut(usize, usize, &[f32])) {
        let Plain { numbers, inputs } = weight;
        #[cfg(target_arch = "x86_64")]
        let as_bf16 = || T::as_bf16(numbers).expect("Invariant: rows and weights are of one type");
        match self {
            Rows::Few(x) => few_rows::multiply(x, numbers, put),
            // Safety: rows take these forms only where the CPU was asked.
            #[cfg(target_arch = "x86_64")]
            Rows::FewBf16(x) => unsafe { few_rows_bf16::multiply(x, as_bf16(), inputs, put) },
            #[cfg(target_arch = "x86_64")]
            Rows::Many(x) => unsafe { gemm::multiply::<T, Wide>(x, &gemm::Weight::ByOutput(numbers), put) },
            #[cfg(target_arch = "x86_64")]
            Rows::ManyBf16(x) => unsafe { gemm::multiply::<Bf16, Pairs>(x, &gemm::Weight::ByOutput(as_bf16()), put) },
        }
    }
}

//! Weights in 8 and 4 bits: a code for each, and a scale for every [`GROUP`] of an output's inputs.
//!
//! Round to nearest, symmetric: a weight is its code times its group's scale. Scales are bf16, so that this product is exact in
//! fp32, and every kernel multiplies with the same numbers.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
#[cfg(target_arch = "x86_64")]
use std::sync::atomic::{Ordering, compiler_fence};

use super::element::{Bf16, Element, LANES, Lanes};
#[cfg(target_arch = "x86_64")]
use super::weights::Prefetch;
use super::weights::WeightRows;

/// Inputs that share a scale.
pub(in super::super) const GROUP: usize = 32;

/// Inputs of a step: their codes in 4 bits fill a register, and their two scales one of its lanes.
pub(in super::super) const STEP: usize = 2 * GROUP;

/// Vectors of a group, of eight inputs each.
const VECTORS: usize = GROUP / LANES;

/// A weight whose codes `C` are a step's.
#[derive(Clone, Copy)]
pub(super) struct Grouped<'t, C> {
    pub codes: &'t [C],     // [outputs, inputs / STEP]
    pub scales: &'t [Bf16], // [outputs, inputs / GROUP]
    pub inputs: usize,
}

/// Codes from -127 to 127, one byte each.
pub(super) type Int8<'t> = Grouped<'t, [i8; STEP]>;

/// Codes from -8 to 7, stored as 0 to 15: the lowest four bits of eight lanes are a step's first eight inputs, the next four
/// bits the next eight. So a mask and a conversion make a vector of them.
pub(super) type Int4<'t> = Grouped<'t, [i32; LANES]>;

/// What is added to a 4-bit code to be stored.
pub(super) const OFFSET: f32 = 8.0;

/// A step's codes: eight vectors of eight.
pub(super) trait Codes<const V: usize>: Copy + Sync {
    /// What the codes are multiplied with; see [`WeightRows::arrange`].
    fn arrange(x: &[f32]) -> [Lanes; V];

    /// Which of those vectors a group's sum begins with, that of the step's first group and that of its second.
    const BEGINS: Option<[usize; 2]>;

    /// A code as it is multiplied.
    fn as_stored(&self, vector: usize, lane: usize) -> f32;

    /// Eight of [`Codes::as_stored`].
    ///
    /// # Safety
    /// The CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load(&self, vector: usize) -> __m256;

    /// A code itself.
    fn code(&self, vector: usize, lane: usize) -> f32;
}

impl Codes<8> for [i8; STEP] {
    const BEGINS: Option<[usize; 2]> = None;

    fn arrange(x: &[f32]) -> [Lanes; 8] {
        std::array::from_fn(|v| Lanes(std::array::from_fn(|lane| x[v * LANES + lane])))
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(&self, vector: usize) -> __m256 {
        // Safety: there are eight vectors of eight.
        let codes = unsafe { _mm_loadl_epi64(self.as_ptr().add(vector * LANES).cast()) };
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes))
    }

    #[inline(always)]
    fn as_stored(&self, vector: usize, lane: usize) -> f32 {
        f32::from(self[vector * LANES + lane])
    }

    #[inline(always)]
    fn code(&self, vector: usize, lane: usize) -> f32 {
        self.as_stored(vector, lane)
    }
}

impl Codes<10> for [i32; LANES] {
    const BEGINS: Option<[usize; 2]> = Some([8, 9]);

    /// Codes are not shifted to the lowest bits, so those of the bits from 4 p on are 16^p times too large; that is undone here,
    /// where it costs nothing and rounds nothing. The last two vectors take back what stored codes are too large by, in each
    /// group.
    fn arrange(x: &[f32]) -> [Lanes; 10] {
        let at = |v: usize, lane: usize| x[v * LANES + lane];
        std::array::from_fn(|v| match v {
            0..7 => Lanes(std::array::from_fn(|lane| at(v, lane) / (1_u32 << (4 * v)) as f32)),
            7 => Lanes(std::array::from_fn(|lane| at(v, lane))),
            _ => {
                let first = (v - 8) * VECTORS;
                let sum = |lane| (first..first + VECTORS).map(|v| at(v, lane)).sum::<f32>();
                Lanes(std::array::from_fn(|lane| -OFFSET * sum(lane)))
            }
        })
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(&self, vector: usize) -> __m256 {
        // Safety: eight lanes fill a register.
        let lanes = unsafe { _mm256_loadu_si256(self.as_ptr().cast()) };
        _mm256_cvtepi32_ps(match vector {
            7 => _mm256_srli_epi32(lanes, 28), // behind a mask it could be a negative number
            _ => _mm256_and_si256(lanes, _mm256_set1_epi32(15 << (4 * vector))),
        })
    }

    #[inline(always)]
    fn as_stored(&self, vector: usize, lane: usize) -> f32 {
        match vector {
            7 => (self[lane] as u32 >> 28) as f32,
            _ => (self[lane] & (15 << (4 * vector))) as f32,
        }
    }

    #[inline(always)]
    fn code(&self, vector: usize, lane: usize) -> f32 {
        (self[lane] >> (4 * vector) & 15) as f32 - OFFSET // the mask drops copies of the sign
    }
}

impl<C> Grouped<'_, C> {
    fn steps(&self) -> usize {
        self.inputs / STEP
    }

    /// Adds one of a step's two groups to the sums of an output and some rows, `steps` steps apart: the codes are multiplied
    /// first, and their sums with the scale.
    ///
    /// # Safety
    /// There is such a step, there are so many rows, and the CPU has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn add_group<const V: usize, const HALF: usize, const ROWS: usize>(
        self,
        index: usize,
        x: *const [Lanes; V],
        sums: &mut [__m256; ROWS],
    ) where
        C: Codes<V>,
    {
        let steps = self.steps();
        // Safety: the caller's.
        let load = |r: usize, v: usize| unsafe { _mm256_load_ps((*x.add(r * steps))[v].0.as_ptr()) };
        let begin = |r: usize| C::BEGINS.map_or(_mm256_setzero_ps(), |begins| load(r, begins[HALF]));
        let mut products: [__m256; ROWS] = std::array::from_fn(begin);
        for v in VECTORS * HALF..VECTORS * (HALF + 1) {
            // Safety: the caller's.
            let codes = unsafe { self.codes.get_unchecked(index).load(v) };
            for (r, product) in products.iter_mut().enumerate() {
                *product = _mm256_fmadd_ps(codes, load(r, v), *product);
            }
        }
        // Safety: the caller's; a step has two scales.
        let scale = unsafe { load_scales(self.scales.as_ptr().add(2 * index))[HALF] };
        sums.iter_mut().zip(products).for_each(|(sum, product)| *sum = _mm256_fmadd_ps(scale, product, *sum));
    }
}

/// Both scales of a step, in every lane of two registers.
///
/// # Safety
/// There are two at `from`, and the CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_scales(from: *const Bf16) -> [__m256; 2] {
    // Safety: the caller's.
    let pairs = unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) };
    let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    [_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), _mm256_castsi256_ps(_mm256_and_si256(pairs, upper))]
}

impl<C: Codes<V>, const V: usize> WeightRows<V> for Grouped<'_, C> {
    const STEP: usize = STEP;
    const BYTES: usize = size_of::<C>();
    const OUTPUTS_AT_ONCE: usize = 2;

    fn outputs(self) -> usize {
        self.codes.len() / self.steps()
    }

    fn inputs(self) -> usize {
        self.inputs
    }

    fn part(self, first: usize, len: usize) -> Self {
        let (steps, groups) = (self.steps(), self.inputs / GROUP);
        Grouped {
            codes: &self.codes[first * steps..(first + len) * steps],
            scales: &self.scales[first * groups..(first + len) * groups],
            ..self
        }
    }

    fn arrange(x: &[f32]) -> [Lanes; V] {
        C::arrange(x)
    }

    /// One output after the other: there are registers for the sums of a group and of a row, not for several outputs'.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn multiply<const ROWS: usize, const OUTPUTS: usize>(
        self,
        output: usize,
        steps: usize,
        x: *const [Lanes; V],
        prefetch: Prefetch,
    ) -> [[__m256; ROWS]; OUTPUTS] {
        let mut sums = [[_mm256_setzero_ps(); ROWS]; OUTPUTS];
        for step in 0..steps {
            let ahead = prefetch.ahead(step);
            for (o, sums) in sums.iter_mut().enumerate() {
                compiler_fence(Ordering::SeqCst); // keeps outputs apart
                let index = (output + o) * steps + step;
                // Safety: the caller's; what is prefetched need not exist.
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(self.codes.as_ptr().add(index).cast::<i8>().wrapping_add(ahead));
                    self.add_group::<V, 0, ROWS>(index, x.add(step), sums);
                    self.add_group::<V, 1, ROWS>(index, x.add(step), sums);
                }
            }
        }
        sums
    }

    fn add(self, output: usize, step: usize, x: &[Lanes; V], sums: &mut [f32; LANES]) {
        let index = output * self.steps() + step;
        for group in 0..STEP / GROUP {
            let scale = self.scales[2 * index + group].widen();
            for (lane, sum) in sums.iter_mut().enumerate() {
                let vectors = VECTORS * group..VECTORS * (group + 1);
                let products: f32 = vectors.map(|v| self.codes[index].as_stored(v, lane) * x[v].0[lane]).sum();
                *sum += scale * (C::BEGINS.map_or(0.0, |begins| x[begins[group]].0[lane]) + products);
            }
        }
    }

    #[inline(always)]
    fn widen(self, output: usize, input: usize, wide: &mut [f32]) {
        let first = output * self.steps() + input / STEP;
        for (index, wide) in (first..).zip(wide.chunks_exact_mut(STEP)) {
            for (v, wide) in wide.chunks_exact_mut(LANES).enumerate() {
                let scale = self.scales[2 * index + v / VECTORS].widen();
                for (lane, wide) in wide.iter_mut().enumerate() {
                    *wide = self.codes[index].code(v, lane) * scale;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::super::stored::{Arranged, Stored};
    use super::super::tensors::Matrix;
    use super::super::{gemm, quantize};
    use crate::model::cpu::has_avx2_and_fma;
    use crate::model::options::Quantization;
    use crate::model::weight::Weight;

    const INPUTS: i64 = 320;
    const OUTPUTS: i64 = 21;

    fn quantized(quantization: Quantization) -> Weight {
        Weight::Quantized(quantize(&random(OUTPUTS), quantization))
    }

    fn random(rows: i64) -> Tensor {
        Tensor::randn([rows, INPUTS], (Kind::Float, Device::Cpu))
    }

    /// [rows, outputs]
    fn multiply_few(x: &Tensor, weight: &Weight) -> Tensor {
        let (rows, weight) = (Matrix::<f32>::of(x).unwrap(), Stored::<f32>::of(weight).unwrap());
        let mut products = vec![f32::NAN; rows.rows() * OUTPUTS as usize];
        let arranged = Arranged::new(&rows, [&weight].into_iter());
        weight.multiply_few(&arranged, &mut |row, output, sum| products[row * OUTPUTS as usize + output] = sum);
        Tensor::from_slice(&products).view([-1, OUTPUTS])
    }

    fn multiply_many(x: &Tensor, weight: &Weight) -> Tensor {
        let (rows, weight) = (Matrix::<f32>::of(x).unwrap(), Stored::<f32>::of(weight).unwrap());
        let mut products = vec![f32::NAN; rows.rows() * OUTPUTS as usize];
        let packed = gemm::PackedRows::new(rows.numbers, rows.columns);
        let mut put = |row: usize, output: usize, sums: &[f32]| {
            products[row * OUTPUTS as usize + output..][..sums.len()].copy_from_slice(sums);
        };
        // Safety: the caller asked the CPU.
        unsafe { weight.multiply_many(&packed, &mut put) };
        Tensor::from_slice(&products).view([-1, OUTPUTS])
    }

    #[test]
    fn products_are_those_of_the_dequantised_weight() {
        for quantization in [Quantization::Int8, Quantization::Int4] {
            let weight = quantized(quantization);
            let plain = weight.to_plain(Kind::Double);
            for rows in [1, 2, 3, 4, 7, 16] {
                let x = random(rows);
                let expected = x.to_kind(Kind::Double).matmul(&plain.tr());
                let mut both = vec![multiply_few(&x, &weight)];
                if has_avx2_and_fma() {
                    both.push(multiply_many(&x, &weight));
                }
                for products in both {
                    let worst = (products - &expected).abs().max().double_value(&[]);
                    assert!(worst < 1e-4, "{rows} rows in {quantization:?}: off by {worst}");
                }
            }
        }
    }

    #[test]
    fn a_row_is_the_same_bits_alone_and_among_others() {
        for quantization in [Quantization::Int8, Quantization::Int4] {
            let (weight, x) = (quantized(quantization), random(16));
            let together = multiply_few(&x, &weight);
            for row in 0..16 {
                let alone = multiply_few(&x.narrow(0, row, 1), &weight);
                assert!(alone.equal(&together.narrow(0, row, 1)), "row {row} in {quantization:?}");
            }
        }
    }

    #[test]
    fn the_form_for_any_cpu_gives_them_too() {
        use super::super::element::{LANES, Lanes};
        use super::super::weights::WeightRows;

        fn check<W: WeightRows<V>, const V: usize>(weight: W, plain: &Tensor) {
            let x: Vec<f32> = Vec::try_from(random(1).view([-1])).unwrap();
            let arranged: Vec<[Lanes; V]> = x.chunks_exact(W::STEP).map(W::arrange).collect();
            for output in 0..weight.outputs() {
                let mut sums = [0.0; LANES];
                for (step, x) in arranged.iter().enumerate() {
                    weight.add(output, step, x, &mut sums);
                }
                let expected = (plain.get(output as i64) * Tensor::from_slice(&x)).sum(Kind::Double).double_value(&[]);
                let sum: f32 = sums.iter().sum();
                assert!((f64::from(sum) - expected).abs() < 1e-4, "output {output}: {sum}, expected {expected}");
            }
        }

        for quantization in [Quantization::Int8, Quantization::Int4] {
            let weight = quantized(quantization);
            match Stored::<f32>::of(&weight).unwrap() {
                Stored::Int8(stored) => check(stored, &weight.to_plain(Kind::Double)),
                Stored::Int4(stored) => check(stored, &weight.to_plain(Kind::Double)),
                Stored::Plain(_) => unreachable!("it was quantised"),
            }
        }
    }
}

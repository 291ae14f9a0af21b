//! `x W^T` for weights in 8 and 4 bits, for a row as for many: whole numbers times whole numbers, which round nothing, and a
//! scale for the sum of each group.
//!
//! A panel of outputs is read from memory once, block by block, and each block is multiplied with all rows while it is in the
//! first cache. A row's result is the same bits alone and among others: groups add up exactly, and blocks in their order.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use super::super::cpu::has_avx2_and_fma;
use super::element::{Element, LANES};
use super::few_rows::tree;
use super::fixed_point::{FixedBlock, FixedRows};
use super::quantized::{Codes, GROUP, PANEL, PanelBlock, Panels};

/// What a row's products with a panel have added up to, a lane for every eighth group. Aligned, so that none lies in two lines of
/// the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Sums([[f32; LANES]; PANEL]);

impl Sums {
    const ZERO: Sums = Sums([[0.0; LANES]; PANEL]);
}

/// The products of all rows of `x` with `weight`: `put(row, first output, sums)` gets up to [`PANEL`] neighbours at a time.
pub(super) fn multiply<C: Codes>(x: &FixedRows, weight: Panels<C>, put: &mut impl FnMut(usize, usize, &[f32])) {
    multiply_with(add_block, x, weight, put);
}

/// [`multiply`] by a form of [`add_block`].
fn multiply_with<C: Codes>(
    add_block: fn(&PanelBlock<C>, &[FixedBlock], &mut [Sums]),
    x: &FixedRows,
    weight: Panels<C>,
    put: &mut impl FnMut(usize, usize, &[f32]),
) {
    let mut sums = vec![Sums::ZERO; x.rows()];
    for (panel, blocks) in weight.blocks.chunks_exact(weight.blocks_a_panel).enumerate() {
        sums.fill(Sums::ZERO);
        for (index, block) in blocks.iter().enumerate() {
            add_block(block, x.block(index), &mut sums);
        }
        let first = panel * PANEL;
        for (row, sums) in sums.iter().enumerate() {
            put(row, first, &sums.0.map(tree)[..PANEL.min(weight.outputs - first)]);
        }
    }
}

/// Adds the products of a panel's block with that block of all rows.
fn add_block<C: Codes>(block: &PanelBlock<C>, x: &[FixedBlock], sums: &mut [Sums]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2_and_fma() {
        // Safety: the CPU was asked.
        return unsafe { add_block_avx2(block, x, sums) };
    }
    add_block_portable(block, x, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_block_avx2<C: Codes>(block: &PanelBlock<C>, x: &[FixedBlock], sums: &mut [Sums]) {
    let mut row = 0;
    while row < x.len() {
        let (x, sums) = (&x[row..], &mut sums[row..]);
        // The next block's codes come from memory while the first rows are multiplied with this one's.
        let is_first = row == 0;
        // Safety: the CPU has AVX2 and FMA.
        row += unsafe {
            match x.len() {
                8.. => add_tile::<C, 8>(block, x, sums, is_first),
                2.. => add_tile::<C, 2>(block, x, sums, is_first),
                _ => add_tile::<C, 1>(block, x, sums, is_first),
            }
        };
    }
}

/// Adds the products of the first `ROWS` rows. Returns `ROWS`.
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_tile<C: Codes, const ROWS: usize>(
    block: &PanelBlock<C>,
    x: &[FixedBlock],
    sums: &mut [Sums],
    prefetches: bool,
) -> usize {
    const CACHE_LINE: usize = 64;
    let (x, sums) = (&x[..ROWS], &mut sums[..ROWS]);
    for (output, codes) in block.codes.iter().enumerate() {
        if prefetches {
            let next = std::ptr::from_ref(codes).cast::<i8>().wrapping_add(size_of::<PanelBlock<C>>());
            for at in (0..size_of::<C>()).step_by(CACHE_LINE) {
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(at)); // it need not exist
            }
        }
        let mut products = [_mm256_setzero_si256(); ROWS];
        for register in 0..C::REGISTERS {
            // Safety: a register is eight lanes, aligned.
            let codes = unsafe { _mm256_load_si256(codes.register(register).as_ptr().cast()) };
            for n in 0..C::PAIRS_A_REGISTER {
                // Safety: the CPU has AVX2.
                let weights = unsafe { C::pairs(codes, n) };
                for (products, x) in products.iter_mut().zip(x) {
                    let x = &x.numbers[register * C::PAIRS_A_REGISTER + n];
                    // Safety: as the codes.
                    let x = unsafe { _mm256_load_si256(x.as_ptr().cast()) };
                    *products = _mm256_add_epi32(*products, _mm256_madd_epi16(weights, x));
                }
            }
        }
        // Safety: eight scales of 16 bits, which are the upper halves of an fp32.
        let scales = unsafe { _mm256_cvtepu16_epi32(_mm_load_si128(block.scales[output].as_ptr().cast())) };
        let scales = _mm256_castsi256_ps(_mm256_slli_epi32(scales, 16));
        for ((products, x), sums) in products.iter().zip(x).zip(sums.iter_mut()) {
            let sums = sums.0[output].as_mut_ptr();
            // Safety: eight lanes each.
            unsafe {
                let products = match C::OFFSET {
                    0 => *products,
                    _ => _mm256_sub_epi32(*products, _mm256_load_si256(x.offsets.as_ptr().cast())),
                };
                let products = _mm256_mul_ps(_mm256_cvtepi32_ps(products), _mm256_load_ps(x.scales.as_ptr()));
                _mm256_store_ps(sums, _mm256_fmadd_ps(products, scales, _mm256_load_ps(sums)));
            }
        }
    }
    ROWS
}

/// The plain form, for any CPU and as the reference of the other; without fused multiplication the last bits differ.
fn add_block_portable<C: Codes>(block: &PanelBlock<C>, x: &[FixedBlock], sums: &mut [Sums]) {
    for (output, (codes, scales)) in block.codes.iter().zip(&block.scales).enumerate() {
        for lane in 0..LANES {
            let weights: [i32; GROUP] = std::array::from_fn(|input| codes.code(lane, input).into());
            for (x, sums) in x.iter().zip(sums.iter_mut()) {
                let numbers = x.numbers.iter().flat_map(|pair| pair[lane]);
                let products: i32 = weights.iter().zip(numbers).map(|(weight, x)| weight * i32::from(x)).sum();
                sums.0[output][lane] += products as f32 * x.scales[lane] * scales[lane].widen();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::super::stored::Stored;
    use super::super::tensors::Matrix;
    use super::super::testing::median_seconds;
    use super::super::{quantize, quantized_bytes};
    use super::{FixedRows, add_block_portable, multiply, multiply_with};
    use crate::model::options::Quantization;
    use crate::model::weight::Weight;

    const BOTH: [Quantization; 2] = [Quantization::Int8, Quantization::Int4];

    /// Neither whole blocks nor whole panels.
    const INPUTS: i64 = 320;
    const OUTPUTS: i64 = 21;

    fn random(rows: i64) -> Tensor {
        Tensor::randn([rows, INPUTS], (Kind::Float, Device::Cpu))
    }

    fn quantized(quantization: Quantization) -> Weight {
        Weight::Quantized(quantize(&random(OUTPUTS), quantization))
    }

    /// [rows, outputs]
    fn products(x: &Tensor, weight: &Weight, form: Form) -> Tensor {
        let x = Matrix::<f32>::of(x).unwrap();
        let x = FixedRows::new(x.numbers, x.columns);
        let mut products = vec![f32::NAN; x.rows() * OUTPUTS as usize];
        let mut put = |row: usize, output: usize, sums: &[f32]| {
            products[row * OUTPUTS as usize + output..][..sums.len()].copy_from_slice(sums);
        };
        match (Stored::<f32>::of(weight).unwrap(), form) {
            (Stored::Int8(weight), Form::Chosen) => multiply(&x, weight, &mut put),
            (Stored::Int4(weight), Form::Chosen) => multiply(&x, weight, &mut put),
            (Stored::Int8(weight), Form::Portable) => multiply_with(add_block_portable, &x, weight, &mut put),
            (Stored::Int4(weight), Form::Portable) => multiply_with(add_block_portable, &x, weight, &mut put),
            (Stored::Plain(_), _) => unreachable!("it was quantised"),
        }
        Tensor::from_slice(&products).view([-1, OUTPUTS])
    }

    #[derive(Clone, Copy)]
    enum Form {
        Chosen,
        Portable,
    }

    #[test]
    fn products_are_those_of_the_dequantised_weight() {
        for quantization in BOTH {
            let weight = quantized(quantization);
            let plain = weight.to_plain(Kind::Double);
            for rows in [1, 2, 3, 7, 8, 21] {
                // Multiples of 2^-12 up to 4: fixed point rounds none of them.
                let x = (random(rows) * 4096.0).round().clamp(-16384.0, 16384.0) / 4096.0;
                let expected = x.to_kind(Kind::Double).matmul(&plain.tr());
                for form in [Form::Chosen, Form::Portable] {
                    let worst = (products(&x, &weight, form) - &expected).abs().max().double_value(&[]);
                    assert!(worst < 1e-4, "{rows} rows in {quantization:?}: off by {worst}");
                }
            }
        }
    }

    /// A layer of the 4B model on one thread, in turn with three others: more weights than the caches hold.
    #[test]
    #[ignore = "prints, for people to read"]
    fn speed_by_rows() {
        let (inputs, outputs) = (2560, 9216);
        let plain = Tensor::randn([outputs, inputs], (Kind::Float, Device::Cpu));
        for quantization in BOTH {
            let weights: Vec<Weight> = (0..4).map(|_| Weight::Quantized(quantize(&plain, quantization))).collect();
            let bytes = quantized_bytes(outputs as usize, inputs as usize, quantization) as f64;
            for rows in [1, 2, 4, 8, 16] {
                let x = Tensor::randn([rows, inputs], (Kind::Float, Device::Cpu));
                let x = FixedRows::new(Matrix::<f32>::of(&x).unwrap().numbers, inputs as usize);
                let mut turns = weights.iter().cycle();
                let mut last = 0.0;
                let seconds = median_seconds(15, || {
                    let mut put = |_: usize, _: usize, sums: &[f32]| last = sums[0];
                    match Stored::<f32>::of(turns.next().unwrap()).unwrap() {
                        Stored::Int8(weight) => multiply(&x, weight, &mut put),
                        Stored::Int4(weight) => multiply(&x, weight, &mut put),
                        Stored::Plain(_) => unreachable!("it was quantised"),
                    }
                });
                assert!(last.is_finite());
                println!("{quantization:?}, {rows} rows: {:.2} ms, {:.1} GB/s", seconds * 1e3, bytes / seconds / 1e9);
            }
        }
    }

    #[test]
    fn a_row_is_the_same_bits_alone_and_among_others() {
        for quantization in BOTH {
            let (weight, x) = (quantized(quantization), random(37));
            let together = products(&x, &weight, Form::Chosen);
            for row in 0..37 {
                let alone = products(&x.narrow(0, row, 1), &weight, Form::Chosen);
                assert!(alone.equal(&together.narrow(0, row, 1)), "row {row} in {quantization:?}");
            }
        }
    }
}

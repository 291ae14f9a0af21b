//! Activations in 16-bit fixed point, as weights in 8 and 4 bits are multiplied with them: with whole numbers, twice as many at
//! a time as with fp32.
//!
//! Every [`GROUP`] of a row's inputs shares a power of two, the least that its largest number fits under with 15 bits. A bf16
//! has 8 significant bits, so it is exact where it is not under a 128th of its group's largest, and off by at most a 65536th of
//! that where it is: far less than the weights are rounded by, and than the next layer's bf16 rounds.

use rayon::prelude::*;

use super::element::{Element, LANES};
use super::quantized::{BLOCK, Codes, GROUP, Int4, PAIRS};
use super::vector::{self, Loop};

/// A row's inputs of a block: of each group a lane, which holds a pair of neighbours at a time.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct FixedBlock {
    pub numbers: [[[i16; 2]; LANES]; PAIRS],
    pub scales: [f32; LANES],
    /// What the offset of [`Int4`]'s codes adds to the sum of a group's products.
    pub offsets: [i32; LANES],
}

impl FixedBlock {
    const ZERO: FixedBlock =
        FixedBlock { numbers: [[[0; 2]; LANES]; PAIRS], scales: [0.0; LANES], offsets: [0; LANES] };
}

/// Rows of activations.
pub(super) struct FixedRows {
    blocks: Vec<FixedBlock>, // [blocks, rows]
    rows: usize,
}

impl FixedRows {
    /// Of `x` [rows, inputs]; inputs that the last block lacks are zeros.
    pub fn new<X: Element>(x: &[X], inputs: usize) -> FixedRows {
        let rows = x.len() / inputs;
        let mut blocks = vec![FixedBlock::ZERO; rows * inputs.div_ceil(BLOCK)];
        let round = |(index, blocks): (usize, &mut [FixedBlock])| {
            for (x, block) in x.chunks_exact(inputs).zip(blocks) {
                let end = inputs.min((index + 1) * BLOCK);
                vector::run(Rounding { x: &x[index * BLOCK..end], block });
            }
        };
        // A few rows are rounded before another thread would have woken up.
        match x.len() < vector::NUMBERS_A_TASK {
            true => blocks.chunks_exact_mut(rows).enumerate().for_each(round),
            false => blocks.par_chunks_exact_mut(rows).enumerate().for_each(round),
        }
        FixedRows { blocks, rows }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Of every row the block of that index.
    pub fn block(&self, index: usize) -> &[FixedBlock] {
        &self.blocks[index * self.rows..(index + 1) * self.rows]
    }
}

struct Rounding<'a, X> {
    x: &'a [X],
    block: &'a mut FixedBlock,
}

impl<X: Element> Loop for Rounding<'_, X> {
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (lane, group) in self.x.chunks(GROUP).enumerate() {
            let mut wide = [0.0; GROUP];
            wide.iter_mut().zip(group).for_each(|(wide, x)| *wide = x.widen());
            let (scale, inverse) = scale_of(&wide);
            self.block.scales[lane] = scale;
            let mut fixed = [0; GROUP];
            fixed.iter_mut().zip(wide).for_each(|(fixed, x)| *fixed = nearest(x * inverse));
            self.block.offsets[lane] = fixed.iter().map(|number| i32::from(*number)).sum::<i32>() * Int4::OFFSET;
            for (numbers, pair) in self.block.numbers.iter_mut().zip(fixed.as_chunks().0) {
                numbers[lane] = *pair;
            }
        }
    }
}

/// The nearest whole number that there is room for, ties to even.
#[inline(always)]
fn nearest(x: f32) -> i16 {
    vector::whole(x.min(f32::from(i16::MAX)) + vector::WHOLE) as i16
}

/// What the whole numbers of a group are multiplied with to be its numbers, and its inverse. For a group that holds an infinity
/// or no number at all: no number, which makes none of every sum.
#[inline(always)]
fn scale_of(group: &[f32; GROUP]) -> (f32, f32) {
    const MANTISSA_BITS: u32 = 23;
    const NOT_FINITE: u32 = 255;
    let largest = group.iter().fold(0, |largest, x| largest.max(x.to_bits() & (u32::MAX >> 1)));
    let exponent = largest >> MANTISSA_BITS;
    if exponent == NOT_FINITE {
        return (f32::NAN, 0.0);
    }
    let scale = exponent.saturating_sub(14).max(1); // 14: the largest is from 2^14 to 2^15 then
    (f32::from_bits(scale << MANTISSA_BITS), f32::from_bits((254 - scale) << MANTISSA_BITS))
}

#[cfg(test)]
mod tests {
    use super::super::element::{Bf16, Element};
    use super::super::testing::numbers;
    use super::{BLOCK, FixedRows, GROUP};

    /// A row as it is multiplied.
    fn as_multiplied<X: Element>(x: &[X], inputs: usize, row: usize) -> Vec<f32> {
        let rows = FixedRows::new(x, inputs);
        let number = |input: usize| {
            let (group, at) = (input % BLOCK / GROUP, input % GROUP);
            let block = &rows.block(input / BLOCK)[row];
            f32::from(block.numbers[at / 2][group][at % 2]) * block.scales[group]
        };
        (0..inputs).map(number).collect()
    }

    #[test]
    fn bf16_is_exact_down_to_a_128th_of_the_groups_largest() {
        let inputs = BLOCK + 3 * GROUP;
        let x: Vec<Bf16> = numbers(2 * inputs, 1).iter().map(|x| Bf16::round(x * 3e4)).collect();
        for row in 0..2 {
            let x = &x[row * inputs..(row + 1) * inputs];
            let fixed = as_multiplied(x, inputs, 0);
            for (x, fixed) in x.chunks(GROUP).zip(fixed.chunks(GROUP)) {
                let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.widen().abs()));
                for (x, fixed) in x.iter().map(|x| x.widen()).zip(fixed) {
                    match x.abs() >= largest / 128.0 {
                        true => assert_eq!(x, *fixed),
                        false => assert!((x - fixed).abs() <= largest / 65536.0, "{x} became {fixed}"),
                    }
                }
            }
        }
    }

    #[test]
    fn the_extremes_are_what_they_are() {
        let mut x = vec![0.0_f32; 6 * GROUP];
        x[0] = f32::MAX;
        x[GROUP] = f32::MIN_POSITIVE;
        x[2 * GROUP] = f32::INFINITY;
        x[3 * GROUP] = f32::NAN;
        x[4 * GROUP] = -1.999_999_9; // rounds to a whole number beyond the largest
        let fixed = as_multiplied(&x, x.len(), 0);
        assert!((fixed[0] / f32::MAX - 1.0).abs() < 1e-4, "{}", fixed[0]);
        assert!((fixed[GROUP] - f32::MIN_POSITIVE).abs() <= f32::MIN_POSITIVE);
        assert!(fixed[2 * GROUP].is_nan() && fixed[3 * GROUP].is_nan());
        assert!((fixed[4 * GROUP] + 2.0).abs() < 1e-4);
        assert!(fixed[5 * GROUP..].iter().all(|x| *x == 0.0));
    }
}

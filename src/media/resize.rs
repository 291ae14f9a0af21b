//! The bicubic resize with antialiasing of PyTorch on uint8, bit for bit, in integers.
//!
//! Pictures are resized here and not by libtorch because every blocking thread that calls libtorch starts a pool of
//! OpenMP threads of its own. Resizing in floating point, or as PIL does it, gives other bytes than the model was
//! trained on.

use super::Rgb;

/// Resizes as `torchvision.transforms.v2.functional.resize(uint8, BICUBIC, antialias=True)` does on a CPU: along the
/// rows, then along the columns, with a uint8 picture in between. A side that keeps its length is left as it is.
pub fn resize(picture: Rgb, height: usize, width: usize) -> Rgb {
    let narrowed = if picture.width == width { picture } else { resize_rows(&picture, width) };
    if narrowed.height == height { narrowed } else { resize_columns(&narrowed, height) }
}

fn resize_rows(picture: &Rgb, width: usize) -> Rgb {
    let filter = Filter::bicubic(picture.width, width);
    let mut pixels = vec![0; picture.height * width * 3];
    for (y, out_row) in pixels.chunks_exact_mut(width * 3).enumerate() {
        let row = picture.row(y);
        for (out, (first, weights)) in out_row.chunks_exact_mut(3).zip(filter.taps()) {
            let mut sums = [filter.half; 3];
            for (pixel, &weight) in row[first * 3..].chunks_exact(3).zip(weights) {
                for (sum, &sample) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(weight) * i32::from(sample);
                }
            }
            out.copy_from_slice(&sums.map(|sum| filter.to_byte(sum)));
        }
    }
    Rgb { height: picture.height, width, pixels }
}

fn resize_columns(picture: &Rgb, height: usize) -> Rgb {
    /// Samples summed at a time: few enough that their sums stay in registers.
    const BLOCK: usize = 32;
    let filter = Filter::bicubic(picture.height, height);
    let row_len = picture.width * 3;
    let mut pixels = vec![0; height * row_len];
    for (out_row, (first, weights)) in pixels.chunks_exact_mut(row_len).zip(filter.taps()) {
        for (block, out) in out_row.chunks_mut(BLOCK).enumerate() {
            let mut sums = [filter.half; BLOCK];
            for (tap, &weight) in weights.iter().enumerate() {
                let samples = &picture.row(first + tap)[block * BLOCK..][..out.len()];
                for (sum, &sample) in sums.iter_mut().zip(samples) {
                    *sum += i32::from(weight) * i32::from(sample);
                }
            }
            for (out, &sum) in out.iter_mut().zip(&sums) {
                *out = filter.to_byte(sum);
            }
        }
    }
    Rgb { height, width: picture.width, pixels }
}

/// For each sample of the output, the weights of the input samples around it, as fixed-point numbers.
///
/// PyTorch's `_compute_index_ranges_int16_weights` (aten/src/ATen/native/cpu/UpSampleKernel.cpp): weights in f64,
/// normalised to a sum of one, then as many fractional bits as the largest weight leaves room for in an int16.
struct Filter {
    /// The first input sample of each output sample.
    firsts: Vec<usize>,
    /// `[output_len, max_taps]`, zero beyond an output sample's own taps.
    weights: Vec<i16>,
    num_taps: Vec<usize>,
    max_taps: usize,
    precision: u32,
    /// One half in fixed point, where every sum begins so that the shift rounds.
    half: i32,
}

impl Filter {
    fn bicubic(input_len: usize, output_len: usize) -> Filter {
        let scale = input_len as f64 / output_len as f64;
        let stretch = scale.max(1.0);
        let support = 2.0 * stretch; // the cubic reaches two samples to either side
        let max_taps = support.ceil() as usize * 2 + 1;
        let mut firsts = Vec::with_capacity(output_len);
        let mut num_taps = Vec::with_capacity(output_len);
        let mut exact = vec![0.0; output_len * max_taps];
        for (index, weights) in exact.chunks_exact_mut(max_taps).enumerate() {
            let center = scale * (index as f64 + 0.5);
            // `as usize` cuts negative numbers to zero.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(input_len);
            let weights = &mut weights[..(end - first).min(max_taps)];
            for (tap, weight) in weights.iter_mut().enumerate() {
                *weight = cubic(((tap + first) as f64 - center + 0.5) * (1.0 / stretch));
            }
            let total: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= total);
            firsts.push(first);
            num_taps.push(weights.len());
        }
        let precision = precision(&exact);
        let weights = exact.iter().map(|weight| fixed_point(*weight, precision)).collect();
        Filter { firsts, weights, num_taps, max_taps, precision, half: 1 << (precision - 1) }
    }

    /// The first input sample and the weights of each output sample.
    fn taps(&self) -> impl Iterator<Item = (usize, &[i16])> {
        let weights = self.weights.chunks_exact(self.max_taps).zip(&self.num_taps);
        self.firsts.iter().copied().zip(weights.map(|(weights, num_taps)| &weights[..*num_taps]))
    }

    fn to_byte(&self, sum: i32) -> u8 {
        (sum >> self.precision).clamp(0, 255) as u8
    }
}

/// The convolution kernel of bicubic interpolation with a = -0.5 (Keys, 1981).
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    } else {
        0.0
    }
}

/// The most fractional bits with which every weight still fits in an int16.
fn precision(weights: &[f64]) -> u32 {
    const MAX: u32 = 22;
    let largest = weights.iter().copied().fold(f64::MIN, f64::max);
    (0..MAX).find(|bits| (0.5 + largest * f64::from(1 << (bits + 1))) as i32 >= 1 << 15).unwrap_or(MAX)
}

/// The nearest fixed-point number, halves away from zero.
fn fixed_point(weight: f64, precision: u32) -> i16 {
    (weight * f64::from(1 << precision) + 0.5_f64.copysign(weight)) as i16
}

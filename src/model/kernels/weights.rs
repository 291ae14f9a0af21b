//! Weights as they are stored, and how the kernels read them.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::element::{Element, LANES, Lanes, STEP};

/// A weight [outputs, inputs], of which a step of inputs is read at a time.
///
/// A row's inputs of a step are made `V` vectors of eight numbers, in the order in which the weights come out of memory cheaply
/// ([`WeightRows::arrange`]). Each lane of the products is added up by itself, and all lanes at the end.
pub(super) trait WeightRows<const V: usize>: Copy + Send + Sync {
    /// Inputs of a step, and the bytes that its weights take.
    const STEP: usize;
    const BYTES: usize;

    /// Outputs that several rows are multiplied with at a time, at most 3: as many as there are registers for.
    const OUTPUTS_AT_ONCE: usize;

    fn outputs(self) -> usize;

    fn inputs(self) -> usize;

    /// Neighbouring outputs, as a weight of their own.
    fn part(self, first: usize, len: usize) -> Self;

    /// What a step is multiplied with; `x` [STEP].
    fn arrange(x: &[f32]) -> [Lanes; V];

    /// The sums of `OUTPUTS` outputs, `output` the first of them, and `ROWS` rows over all their `steps`. `x` [rows, steps].
    ///
    /// # Safety
    /// There are so many outputs, steps and rows, and the CPU has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    unsafe fn multiply<const ROWS: usize, const OUTPUTS: usize>(
        self,
        output: usize,
        steps: usize,
        x: *const [Lanes; V],
        prefetch: Prefetch,
    ) -> [[__m256; ROWS]; OUTPUTS];

    /// Adds a step of an output and a row to their sums, on any CPU.
    fn add(self, output: usize, step: usize, x: &[Lanes; V], sums: &mut [f32; LANES]);

    /// The weights from `input` on, as many as there is room for, in their own order.
    fn widen(self, output: usize, input: usize, wide: &mut [f32]);
}

/// How many bytes ahead of those being read a tile of rows and outputs fetches.
///
/// Weights come from memory for the first rows: towards the end of an output's weights those of the next tile's output are
/// fetched. They come from the cache for the other rows, the last of whom fetch all of the next tile's.
#[cfg(target_arch = "x86_64")]
pub(super) struct Prefetch {
    before: usize,
    /// The step from which on `after` counts.
    turn: usize,
    after: usize,
}

#[cfg(target_arch = "x86_64")]
impl Prefetch {
    const BYTES: usize = 512;

    /// For `outputs` of so many steps, and bytes a step.
    pub fn new(steps: usize, bytes: usize, outputs: usize, is_last_of_many: bool) -> Prefetch {
        if is_last_of_many {
            return Prefetch { before: outputs * steps * bytes, turn: steps, after: 0 };
        }
        let turn = steps.saturating_sub(Prefetch::BYTES / bytes);
        Prefetch { before: Prefetch::BYTES, turn, after: Prefetch::BYTES + (outputs - 1) * steps * bytes }
    }

    #[inline]
    pub fn ahead(&self, step: usize) -> usize {
        if step < self.turn { self.before } else { self.after }
    }
}

/// Weights that are stored as numbers.
#[derive(Clone, Copy)]
pub(super) struct Plain<'t, T> {
    pub numbers: &'t [T], // [outputs, inputs]
    pub inputs: usize,
}

impl<T: Element> WeightRows<2> for Plain<'_, T> {
    const STEP: usize = STEP;
    const BYTES: usize = STEP * size_of::<T>();
    const OUTPUTS_AT_ONCE: usize = 2;

    fn outputs(self) -> usize {
        self.numbers.len() / self.inputs
    }

    fn inputs(self) -> usize {
        self.inputs
    }

    fn part(self, first: usize, len: usize) -> Self {
        Plain { numbers: &self.numbers[first * self.inputs..(first + len) * self.inputs], ..self }
    }

    fn arrange(x: &[f32]) -> [Lanes; 2] {
        [0, LANES].map(|first| Lanes(std::array::from_fn(|lane| x[T::ORDER[first + lane]])))
    }

    /// A number of a row is used for all outputs.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn multiply<const ROWS: usize, const OUTPUTS: usize>(
        self,
        output: usize,
        steps: usize,
        x: *const [Lanes; 2],
        prefetch: Prefetch,
    ) -> [[__m256; ROWS]; OUTPUTS] {
        let weight = &self.numbers[output * self.inputs..];
        let mut sums = [[_mm256_setzero_ps(); ROWS]; OUTPUTS];
        for step in 0..steps {
            let ahead = prefetch.ahead(step);
            let mut weights = [[_mm256_setzero_ps(); 2]; OUTPUTS];
            for (o, weights) in weights.iter_mut().enumerate() {
                // Safety: the caller's; what is prefetched need not exist.
                unsafe {
                    let at = weight.as_ptr().add(o * self.inputs + step * STEP);
                    _mm_prefetch::<_MM_HINT_T0>(at.cast::<i8>().wrapping_add(ahead));
                    *weights = T::load(at);
                }
            }
            for half in 0..2 {
                for r in 0..ROWS {
                    // Safety: the caller's.
                    let x = unsafe { _mm256_load_ps((*x.add(r * steps + step))[half].0.as_ptr()) };
                    for (sums, weights) in sums.iter_mut().zip(&weights) {
                        sums[r] = _mm256_fmadd_ps(weights[half], x, sums[r]);
                    }
                }
            }
        }
        sums
    }

    fn add(self, output: usize, step: usize, x: &[Lanes; 2], sums: &mut [f32; LANES]) {
        let mut wide = [0.0; STEP];
        self.widen(output, step * STEP, &mut wide);
        for (weights, x) in Self::arrange(&wide).iter().zip(x) {
            sums.iter_mut().zip(weights.0).zip(x.0).for_each(|((sum, w), x)| *sum += w * x);
        }
    }

    #[inline(always)]
    fn widen(self, output: usize, input: usize, wide: &mut [f32]) {
        let numbers = &self.numbers[output * self.inputs + input..][..wide.len()];
        wide.iter_mut().zip(numbers).for_each(|(wide, number)| *wide = number.widen());
    }
}

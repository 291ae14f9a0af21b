//! `exp` and what is made of it, as plain arithmetic that the compiler makes vectors of: std's is a call for each number.

use super::vector::{WHOLE, multiply_add, whole};

/// `e^x`, off by two units of the last place at most: infinity and zero beyond the range of fp32, denormal numbers before
/// that, and NaN for NaN.
///
/// `x = n ln 2 + r` with a whole `n` and `|r| <= ln 2 / 2`, and a polynomial for `e^r`: Cephes' `expf`.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    // ln 2 in two parts: `n` times the first, which has few bits, is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const POLYNOMIAL: [f32; 5] = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

    // Beyond these the results are zero and infinity; comparisons, unlike `clamp`'s, that a NaN passes through.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let shifted = multiply_add::<FMA>(x, std::f32::consts::LOG2_E, WHOLE);
    let n = shifted - WHOLE;
    let r = multiply_add::<FMA>(n, -LN_2[1], multiply_add::<FMA>(n, -LN_2[0], x));
    let mut sum = 1.987_569_2e-4;
    for coefficient in POLYNOMIAL {
        sum = multiply_add::<FMA>(sum, r, coefficient);
    }
    let power = multiply_add::<FMA>(sum * r, r, r) + 1.0; // e^r
    // In two steps: 2^n itself may be too large or too small for a number where the result is not.
    let n = whole(shifted);
    let half = n >> 1;
    power * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `2^n` for `n` from -126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

#[inline(always)]
pub(super) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// `x sigmoid(x)`, divided once, as libtorch does.
#[inline(always)]
pub(super) fn silu<const FMA: bool>(x: f32) -> f32 {
    x / (1.0 + exp::<FMA>(-x))
}

#[cfg(test)]
mod tests {
    use super::super::vector::{self, Loop};
    use super::exp;

    struct Exps<'a>(&'a mut [f32]);

    impl Loop for Exps<'_> {
        #[inline(always)]
        fn run<const FMA: bool>(self) {
            self.0.iter_mut().for_each(|x| *x = exp::<FMA>(*x));
        }
    }

    /// In the form for this CPU and in the one for any.
    fn both_forms(x: &[f32]) -> [Vec<f32>; 2] {
        let (mut fast, mut plain) = (x.to_vec(), x.to_vec());
        vector::run(Exps(&mut fast));
        Exps(&mut plain).run::<false>();
        [fast, plain]
    }

    #[test]
    fn is_off_by_two_units_of_the_last_place_at_most() {
        let x: Vec<f32> = (-1_040_000..890_000).map(|i| i as f32 * 1e-4).collect();
        for exps in both_forms(&x) {
            for (x, exp) in x.iter().zip(exps) {
                let exact = f64::from(*x).exp();
                let unit = f64::from(f32::EPSILON) * exact.max(f64::from(f32::MIN_POSITIVE));
                let error = (f64::from(exp) - exact).abs();
                let is_beyond = exact > f64::from(f32::MAX) && exp == f32::INFINITY;
                assert!(error <= 2.0 * unit || is_beyond, "exp({x}) is {exp}, not {exact}");
            }
        }
    }

    #[test]
    fn ends_where_fp32_does_and_keeps_what_is_no_number() {
        let x = [0.0, -0.0, 88.73, 1e9, f32::INFINITY, -104.0, -1e9, f32::NEG_INFINITY];
        for exps in both_forms(&x) {
            assert_eq!(exps, [1.0, 1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY, 0.0, 0.0, 0.0]);
        }
        for exps in both_forms(&[f32::NAN; 9]) {
            assert!(exps.iter().all(|x| x.is_nan()));
        }
    }
}

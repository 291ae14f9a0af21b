//! Random numbers that depend on a request's seed and on how many tokens it has, and on nothing else.

/// SplitMix64's increment: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The uniform number in [0, 1) for token `num_generated` of a request, in steps of 2^-53.
///
/// SplitMix64 (Steele, Lea and Flood, 2014) gives its n-th number from the start and n alone, so there is no state to
/// carry: a request draws the same numbers whatever shares its batch and whichever device computes. The seed is mixed
/// first, because the answers to one request have seeds in a row.
pub(super) fn uniform(seed: u64, num_generated: usize) -> f64 {
    let step = (num_generated as u64).wrapping_add(1).wrapping_mul(GOLDEN);
    let bits = mix(mix(seed).wrapping_add(step));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::{mix, uniform};

    #[test]
    fn mixing_is_splitmix64() {
        // The first output of the reference implementation for the state 1234567.
        assert_eq!(mix(1234567u64.wrapping_add(super::GOLDEN)), 6457827717110365317);
    }

    #[test]
    fn numbers_fill_the_unit_interval_evenly_along_a_sequence_and_across_seeds() {
        let along: Vec<f64> = (0..10_000).map(|token| uniform(7, token)).collect();
        let across: Vec<f64> = (0..10_000).map(|seed| uniform(seed, 3)).collect();
        for numbers in [along, across] {
            let mut counts = [0.0f64; 20];
            numbers.iter().for_each(|number| counts[(number * 20.0) as usize] += 1.0);
            let chi_square: f64 = counts.iter().map(|count| (count - 500.0).powi(2) / 500.0).sum();
            // 19 degrees of freedom: 43.8 is passed once in a thousand times.
            assert!(chi_square < 43.8, "{chi_square}");
        }
    }
}

//! Which sequences a step serves and with how many tokens: the policy, pure and on its own.

/// Tokens that each running sequence gets in the next step, in their order.
///
/// Every sequence that decodes gets its one token. Of those with a prompt to read, the one that has waited longest (the
/// first) gets a chunk of at most `prefill_chunk` tokens and the others none: a step's time is bounded, so the gap between
/// two tokens of a decoding sequence is too, and prompts finish one after the other rather than all late.
pub(super) fn share(num_to_prefill: &[usize], prefill_chunk: usize) -> Vec<usize> {
    let mut chunk_is_free = true;
    num_to_prefill
        .iter()
        .map(|&missing| match missing {
            0 => 1,
            _ if chunk_is_free => {
                chunk_is_free = false;
                missing.min(prefill_chunk)
            }
            _ => 0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn every_decoding_sequence_gets_a_token_in_every_step() {
        assert_eq!(share(&[0, 0, 900, 0], 512), [1, 1, 512, 1]);
    }

    #[test]
    fn the_oldest_prompt_is_read_first_and_alone() {
        assert_eq!(share(&[40, 900, 7], 512), [40, 0, 0]);
    }

    #[test]
    fn a_long_prompt_is_read_in_bounded_chunks_until_nothing_is_left() {
        let (mut missing, mut steps) = (1300, Vec::new());
        while missing > 0 {
            let [tokens] = share(&[missing], 512)[..] else { panic!("one sequence, one share") };
            missing -= tokens;
            steps.push(tokens);
        }
        assert_eq!(steps, [512, 512, 276]);
    }

    #[test]
    fn nobody_starves() {
        let mut missing = vec![1000, 1000, 1000];
        for _ in 0..6 {
            let shares = share(&missing, 512);
            for (missing, tokens) in missing.iter_mut().zip(shares) {
                *missing -= tokens.min(*missing);
            }
        }
        assert_eq!(missing, [0, 0, 0]);
    }
}

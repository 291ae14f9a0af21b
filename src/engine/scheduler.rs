//! Who starts, and which sequences a step serves with how many tokens: the policy, pure and on its own.

/// What is free for those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub num_slots: usize,
    /// Tokens whose keys and values nobody has reserved.
    pub num_kv_tokens: usize,
}

/// How many of those who wait may start now, `promised` being the tokens that each may grow to, in order of arrival.
///
/// Each needs a slot, and room for all that it may become: whoever runs can run to its end. Nobody overtakes: one that needs
/// much room waits until enough have ended, and those behind it wait with it. So it starts for certain, after at most those
/// that ran when it became the first, which letting small ones past would not promise.
pub(super) fn admit(promised: impl Iterator<Item = usize>, room: Room) -> usize {
    let mut free = room.num_kv_tokens;
    let fitting = promised.take(room.num_slots).take_while(|tokens| {
        let fits = *tokens <= free;
        free = free.saturating_sub(*tokens);
        fits
    });
    fitting.count()
}

/// What a running sequence would do in the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// One more token.
    Decode,
    /// The next `num_tokens` of its prompt. `cost` counts them, and the rest of a picture that begins among them: the tower sees
    /// it whole.
    Prefill { num_tokens: usize, cost: usize },
}

/// Tokens that each running sequence gets in the next step, in order of admission. `budget`: the cost of all prefill.
///
/// Every sequence that decodes gets its one token. Of those with a prompt to read, the one that has waited longest gets its
/// chunk, and others theirs while the whole stays within the budget: a step's time is bounded (but for one picture that costs
/// more), so the gap between two tokens of a decoding sequence is too, and prompts finish one after the other rather than all
/// late.
///
/// Invariant: a chunk is given whole or not at all, so that where a prompt is cut, and with it the rounding of its numbers,
/// does not depend on who else runs.
pub(super) fn share(work: &[Work], budget: usize) -> Vec<usize> {
    let mut spent = 0;
    let mut share = |work: &Work| match *work {
        Work::Decode => 1,
        Work::Prefill { num_tokens, cost } if spent == 0 || spent + cost <= budget => {
            spent += cost;
            num_tokens
        }
        Work::Prefill { .. } => 0,
    };
    work.iter().map(&mut share).collect()
}

#[cfg(test)]
mod tests {
    use super::Work::{self, Decode};
    use super::{Room, admit, share};

    fn prompt(num_tokens: usize) -> Work {
        Work::Prefill { num_tokens, cost: num_tokens }
    }

    fn room(num_slots: usize, num_kv_tokens: usize) -> Room {
        Room { num_slots, num_kv_tokens }
    }

    #[test]
    fn as_many_start_as_there_are_slots() {
        assert_eq!(admit([10, 10, 10].into_iter(), room(2, 1000)), 2);
        assert_eq!(admit([10, 10].into_iter(), room(5, 1000)), 2);
        assert_eq!(admit([].into_iter(), room(5, 1000)), 0);
    }

    #[test]
    fn nobody_starts_without_room_for_all_that_it_may_become() {
        assert_eq!(admit([600, 400, 1].into_iter(), room(5, 1000)), 2);
        assert_eq!(admit([1001].into_iter(), room(5, 1000)), 0);
    }

    #[test]
    fn a_small_one_does_not_overtake_a_big_one() {
        assert_eq!(admit([900, 10].into_iter(), room(5, 500)), 0);
    }

    #[test]
    fn every_decoding_sequence_gets_a_token_in_every_step() {
        assert_eq!(share(&[Decode, Decode, prompt(512), Decode], 512), [1, 1, 512, 1]);
    }

    #[test]
    fn short_prompts_share_a_step() {
        assert_eq!(share(&[prompt(200), prompt(300), prompt(12), prompt(1)], 512), [200, 300, 12, 0]);
    }

    #[test]
    fn the_oldest_prompt_is_read_first_and_no_chunk_is_cut_for_another() {
        assert_eq!(share(&[prompt(40), prompt(512), prompt(7)], 512), [40, 0, 7]);
    }

    #[test]
    fn a_picture_that_costs_more_than_a_step_has_it_to_itself() {
        let picture = Work::Prefill { num_tokens: 512, cost: 4000 };
        assert_eq!(share(&[picture, prompt(5), Decode], 512), [512, 0, 1]);
        assert_eq!(share(&[prompt(5), picture, Decode], 512), [5, 0, 1]);
    }
}

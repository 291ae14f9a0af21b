//! Who starts where, and which sequences a step serves with how many tokens: the policy, pure and on its own.

/// What a replica has free for those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Room {
    pub num_slots: usize,
    /// Tokens whose keys and values nobody has reserved.
    pub num_kv_tokens: usize,
}

/// On which replica the first of those who wait should start now, where it may grow to `promised` tokens and begins with
/// `prefix`, a digest. `None` where it has to wait.
///
/// It needs a slot, and room for all that it may become: whoever runs can run to its end. Nobody overtakes: one that needs
/// much room waits until enough have ended, and those behind it wait with it. So it starts for certain, after at most those
/// that ran when it became the first, which letting small ones past would not promise.
///
/// Of several replicas with room it is the least loaded. Of those equally loaded the prefix decides, so that prompts which
/// begin alike come together as far as that costs nothing.
pub(super) fn choose(promised: usize, prefix: u64, rooms: &[Room]) -> Option<usize> {
    let has_room = |room: &Room| room.num_slots > 0 && room.num_kv_tokens >= promised;
    let most_slots = rooms.iter().filter(|room| has_room(room)).map(|room| room.num_slots).max()?;
    let is_least_loaded = |index: &usize| has_room(&rooms[*index]) && rooms[*index].num_slots == most_slots;
    let mut least_loaded = (0..rooms.len()).filter(is_least_loaded);
    let num_least_loaded = least_loaded.clone().count() as u64;
    least_loaded.nth((prefix % num_least_loaded) as usize)
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
    use super::{Room, choose, share};

    fn prompt(num_tokens: usize) -> Work {
        Work::Prefill { num_tokens, cost: num_tokens }
    }

    fn room(num_slots: usize, num_kv_tokens: usize) -> Room {
        Room { num_slots, num_kv_tokens }
    }

    #[test]
    fn who_starts_needs_a_slot_and_room_for_all_that_it_may_become() {
        assert_eq!(choose(1000, 7, &[room(1, 1000)]), Some(0));
        assert_eq!(choose(1001, 7, &[room(1, 1000)]), None);
        assert_eq!(choose(1, 7, &[room(0, 1000)]), None);
    }

    #[test]
    fn it_starts_where_the_fewest_run() {
        assert_eq!(choose(10, 7, &[room(1, 1000), room(3, 1000), room(2, 1000)]), Some(1));
        assert_eq!(choose(10, 7, &[room(1, 1000), room(3, 5), room(0, 1000)]), Some(0));
    }

    #[test]
    fn among_the_equally_loaded_a_prefix_stays_where_it_is() {
        let even = [room(2, 1000), room(1, 1000), room(2, 900)];
        let chosen: Vec<_> = (0..4).map(|prefix| choose(10, prefix, &even)).collect();
        assert_eq!(chosen, [Some(0), Some(2), Some(0), Some(2)]);
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

//! The policy as a whole, on generated cases: sequences of any length come, run, are cancelled and end.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::scheduler::{Room, Work, choose, share};

/// A request, and when it comes and may be cancelled, counted in steps.
#[derive(Debug, Clone)]
struct Arrival {
    step: usize,
    num_prompt: usize,
    num_new: usize,
    /// The rest of a picture that begins in the first chunk.
    picture: usize,
    cancelled_at: Option<usize>,
}

#[derive(Debug)]
struct Running {
    arrival: Arrival,
    num_read: usize,
    num_generated: usize,
}

impl Running {
    fn num_missing(&self) -> usize {
        self.arrival.num_prompt - self.num_read
    }

    fn work(&self, chunk: usize) -> Work {
        match self.num_missing() {
            0 => Work::Decode,
            missing => {
                let num_tokens = missing.min(chunk);
                let picture = if self.num_read == 0 { self.arrival.picture } else { 0 };
                Work::Prefill { num_tokens, cost: num_tokens + picture }
            }
        }
    }

    /// As in the engine, the last chunk of the prompt brings the first token.
    fn advance(&mut self, share: usize) {
        if self.num_missing() > 0 {
            self.num_read += share;
            self.num_generated += usize::from(share > 0 && self.num_missing() == 0);
        } else {
            self.num_generated += share;
        }
    }
}

fn arrivals(longest: usize) -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0..60_usize, 1..longest, 1..longest, 0..300_usize, proptest::option::weighted(0.3, 0..120_usize));
    let arrival = arrival.prop_map(move |(step, num_prompt, num_new, picture, cancelled_at)| {
        let num_new = num_new.min(longest - num_prompt).max(1);
        Arrival { step, num_prompt, num_new, picture, cancelled_at }
    });
    proptest::collection::vec(arrival, 1..40).prop_map(|mut arrivals| {
        arrivals.sort_by_key(|arrival| arrival.step);
        arrivals
    })
}

proptest! {
    #[test]
    fn whoever_comes_is_served_within_every_budget(
        arrivals in arrivals(400),
        num_replicas in 1..4_usize,
        num_slots in 1..6_usize,
        num_kv_tokens in 400..1200_usize,
        chunk in 1..100_usize,
    ) {
        let num_arrivals = arrivals.len();
        let mut arrivals = arrivals.into_iter().enumerate().peekable();
        let mut waiting = VecDeque::<(usize, Arrival)>::new();
        let mut replicas: Vec<Vec<Running>> = (0..num_replicas).map(|_| Vec::new()).collect();
        let (mut num_ended, mut last_started) = (0, None);
        for step in 0.. {
            while let Some(arrival) = arrivals.next_if(|(_, arrival)| arrival.step <= step) {
                waiting.push_back(arrival);
            }
            let num_held = |waiting: &VecDeque<_>, replicas: &[Vec<Running>]| {
                waiting.len() + replicas.iter().map(Vec::len).sum::<usize>()
            };
            let before = num_held(&waiting, &replicas);
            let is_cancelled = |arrival: &Arrival| arrival.cancelled_at.is_some_and(|at| at <= step);
            waiting.retain(|(_, arrival)| !is_cancelled(arrival));
            replicas.iter_mut().for_each(|running| running.retain(|running| !is_cancelled(&running.arrival)));
            num_ended += before - num_held(&waiting, &replicas);

            let promised = |arrival: &Arrival| arrival.num_prompt + arrival.num_new;
            let reserved = |running: &[Running]| running.iter().map(|running| promised(&running.arrival)).sum::<usize>();
            let room = |running: &Vec<Running>| Room {
                num_slots: num_slots - running.len(),
                num_kv_tokens: num_kv_tokens - reserved(running),
            };
            while let Some((index, arrival)) = waiting.front() {
                let rooms: Vec<Room> = replicas.iter().map(room).collect();
                let prefix = arrival.num_prompt as u64;
                let Some(chosen) = choose(promised(arrival), prefix, &rooms) else { break };
                prop_assert!(last_started < Some(*index), "{index} started after {last_started:?}");
                last_started = Some(*index);
                let (_, arrival) = waiting.pop_front().unwrap();
                replicas[chosen].push(Running { arrival, num_read: 0, num_generated: 0 });
            }
            prop_assert!(waiting.is_empty() || replicas.iter().any(|running| !running.is_empty()), "somebody waits for nobody");

            for running in &mut replicas {
                let reserved = reserved(running);
                prop_assert!(running.len() <= num_slots && reserved <= num_kv_tokens, "{reserved} of {num_kv_tokens}");
                let work: Vec<Work> = running.iter().map(|running| running.work(chunk)).collect();
                let shares = share(&work, chunk);
                let mut num_tokens_of_prompts = 0;
                for (work, share) in work.iter().zip(&shares) {
                    match work {
                        Work::Decode => prop_assert_eq!(*share, 1),
                        Work::Prefill { num_tokens, .. } => {
                            prop_assert!(*share == 0 || share == num_tokens, "a chunk was cut");
                            num_tokens_of_prompts += share;
                        }
                    }
                }
                prop_assert!(num_tokens_of_prompts <= chunk, "{num_tokens_of_prompts} tokens of prompts in a step of {chunk}");
                let oldest = work.iter().position(|work| *work != Work::Decode);
                prop_assert!(oldest.is_none_or(|oldest| shares[oldest] > 0), "the oldest prompt was passed over");

                for (running, share) in running.iter_mut().zip(&shares) {
                    running.advance(*share);
                }
                let before = running.len();
                running.retain(|running| running.num_generated < running.arrival.num_new);
                num_ended += before - running.len();
            }
            if num_ended == num_arrivals {
                break;
            }
            prop_assert!(step < 60 + num_arrivals * (400 * 2), "somebody never ends");
        }
    }
}

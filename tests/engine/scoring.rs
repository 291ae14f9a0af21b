//! Prompts whose own tokens are scored.

use sardine::engine::{Ended, Event, Request, Sampled, TokenStream};

use crate::bench::{Bench, limits, request};

async fn all(mut stream: TokenStream) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = stream.recv().await {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn a_prompt_that_is_scored_is_told_whole_before_its_first_token() {
    let bench = Bench::free(limits()).await;
    let ids: Vec<u32> = (0..20).collect();
    let scored = Request { prompt_logprobs: Some(2), ..request(&ids, 1) };
    let events = all(bench.engine.submit(scored).unwrap()).await;
    let pieces: Vec<Vec<u32>> = events
        .iter()
        .filter_map(|event| match event {
            Event::Scored(tokens) => Some(tokens.iter().map(|token| token.id).collect()),
            _ => None,
        })
        .collect();
    // The last target of a chunk is the first id of the next; the prompt's last id predicts the answer.
    assert_eq!(pieces, [(1..9).collect::<Vec<_>>(), (9..17).collect(), (17..20).collect()]);
    let Event::Scored(first) = &events[1] else { panic!("{events:?}") };
    assert_eq!(first[0], Sampled { id: 1, logprob: -1.0, top: vec![(0, 0.0); 2] });
    assert!(matches!(&events[4..], [Event::Token(_), Event::Finished(Ended::Length)]), "{events:?}");
}

#[tokio::test]
async fn a_prompt_that_is_only_scored_ends_without_a_token() {
    let bench = Bench::free(limits()).await;
    for num_ids in [1, 8, 20] {
        let ids: Vec<u32> = (0..num_ids).collect();
        let scored = Request { prompt_logprobs: Some(0), ..request(&ids, 0) };
        let events = all(bench.engine.submit(scored).unwrap()).await;
        let num_scored: usize = events.iter().map(|event| if let Event::Scored(s) = event { s.len() } else { 0 }).sum();
        assert_eq!(num_scored, ids.len() - 1);
        assert_eq!(events.last(), Some(&Event::Finished(Ended::Length)));
        assert!(!events.iter().any(|event| matches!(event, Event::Token(_))), "{events:?}");
    }
}

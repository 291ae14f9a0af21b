//! Who gets tokens when, and what becomes of those who leave or fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sardine::engine::{
    Ended, Engine, EngineLimits, Event, Grid, Health, Picture, PlacedPicture, Request, Slot, TokenStream,
};
use sardine::error::{Error, Unavailable};

use crate::bench::{Bench, FAILS, PANICS, collect, limits, request};

#[tokio::test]
async fn a_sequence_ends_at_its_length_or_at_a_stop_token() {
    let bench = Bench::free(limits()).await;
    assert_eq!(collect(bench.submit(&[1, 2, 3], 4)).await, (vec![4, 5, 6, 7], Ok(Ended::Length)));
    assert_eq!(collect(bench.submit(&[47], 100)).await, (vec![48, 49, 50], Ok(Ended::Eos)));
}

#[tokio::test]
async fn a_long_prompt_does_not_stop_the_tokens_of_others() {
    let bench = Bench::held(limits()).await;
    let mut short = bench.submit(&[100], 50);
    bench.allow(1);
    bench.wait_until("the first step ran", |bench| bench.num_steps() == 1).await;
    let long = bench.submit(&(200..220).collect::<Vec<_>>(), 1);
    bench.allow(4);
    bench.wait_until("the prompt is read", |bench| bench.num_steps() == 5).await;
    let steps = bench.steps.lock().unwrap().clone();
    // The step after the submission may already have been waiting for its permit without it.
    let with_both: Vec<_> = steps.iter().filter(|step| step.rows.len() == 2).collect();
    assert!(with_both.iter().all(|step| step.rows[0].ids.len() == 1 && step.rows[1].ids.len() <= 8));
    assert_eq!(with_both.iter().map(|step| step.rows[1].ids.len()).sum::<usize>(), 20);
    assert_eq!(collect(long).await, (vec![220], Ok(Ended::Length)));
    assert!(matches!(short.recv().await, Some(Event::Started)));
}

#[tokio::test]
async fn only_the_last_chunk_of_a_prompt_asks_for_a_token() {
    let bench = Bench::free(limits()).await;
    collect(bench.submit(&(0..20).collect::<Vec<_>>(), 1)).await.1.unwrap();
    let steps = bench.steps.lock().unwrap();
    let chunks: Vec<_> =
        steps.iter().flat_map(|step| &step.rows).map(|row| (row.start, row.ids.len(), row.sample.is_some())).collect();
    assert_eq!(chunks, [(0, 8, false), (8, 8, false), (16, 4, true)]);
}

/// Of 20 tokens, eight of them a picture's.
fn request_with_picture() -> Request {
    let picture = Arc::new(Picture::new(vec![0.0; 4], Grid { height: 4, width: 8 }));
    let mut request = request(&(0..20).collect::<Vec<_>>(), 1);
    Arc::get_mut(&mut request.prompt).unwrap().pictures = vec![PlacedPicture { picture, placeholders: 6..14 }];
    request
}

#[tokio::test]
async fn who_shows_a_picture_is_told_once_that_it_was_seen_and_others_are_not() {
    let bench = Bench::held(limits()).await;
    let shows = bench.engine.submit(request_with_picture()).unwrap();
    let other = bench.submit(&[10], 9);
    bench.allow(20);
    let [shows, other] = [events(shows).await, events(other).await];
    let seen = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Seen(_))).count();
    assert_eq!((seen(&shows), seen(&other)), (1, 0), "{shows:?} {other:?}");
    assert!(matches!(shows[..2], [Event::Started, Event::Seen(_)]), "{shows:?}");
    let counts = bench.engine.pictures();
    assert_eq!((counts.computed, counts.reused, counts.kept_bytes), (2, 0, 7)); // the model counts each part
}

/// All that a sequence tells.
async fn events(mut stream: TokenStream) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = stream.recv().await {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn a_picture_is_cut_where_the_chunk_ends() {
    let bench = Bench::free(limits()).await;
    collect(bench.engine.submit(request_with_picture()).unwrap()).await.1.unwrap();
    let steps = bench.steps.lock().unwrap();
    let parts: Vec<_> = steps
        .iter()
        .flat_map(|step| &step.rows)
        .flat_map(|row| row.pictures.iter().map(|part| (part.rows.clone(), part.first_embedding)))
        .collect();
    assert_eq!(parts, [(6..8, 0), (0..6, 2)]);
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot_at_the_next_step() {
    let bench = Bench::held(EngineLimits { max_batch_size: 1, ..limits() }).await;
    let leaving = bench.submit(&[100], 900);
    let next = bench.submit(&[10], 1);
    bench.allow(1);
    bench.wait_until("the first step ran", |bench| bench.num_steps() == 1).await;
    drop(leaving);
    bench.allow(2);
    assert_eq!(collect(next).await, (vec![11], Ok(Ended::Length)));
    let steps = bench.steps.lock().unwrap();
    assert!(steps.len() <= 4, "the slot was freed after {} steps", steps.len());
    assert!(steps.iter().any(|step| step.released == [Slot(0)]));
}

#[tokio::test]
async fn memory_is_freed_when_the_last_sequence_ends() {
    let bench = Bench::free(limits()).await;
    collect(bench.submit(&[1], 1)).await.1.unwrap();
    bench
        .wait_until("the slot was released", |bench| {
            bench.steps.lock().unwrap().last().is_some_and(|step| step.rows.is_empty() && step.released == [Slot(0)])
        })
        .await;
    assert_eq!((bench.engine.num_running(), bench.engine.queue_len()), (0, 0));
}

#[tokio::test]
async fn a_panic_of_the_model_fails_its_step_and_the_next_request_works() {
    let bench = Bench::free(limits()).await;
    let (_, outcome) = collect(bench.submit(&[PANICS], 3)).await;
    assert_eq!(outcome, Err(Error::Generation { message: "the kernel is broken".to_owned(), deterministic: false }));
    assert_eq!(collect(bench.submit(&[1], 2)).await, (vec![2, 3], Ok(Ended::Length)));
}

#[tokio::test]
async fn one_sequence_that_fails_does_not_harm_the_others_of_its_step() {
    let bench = Bench::held(limits()).await;
    let (fine, failing) = (bench.submit(&[1], 3), bench.submit(&[FAILS], 3));
    bench.allow(8);
    assert!(matches!(collect(failing).await.1, Err(Error::Generation { deterministic: true, .. })));
    assert_eq!(collect(fine).await, (vec![2, 3, 4], Ok(Ended::Length)));
}

#[tokio::test]
async fn an_engine_that_drains_finishes_what_it_accepted_and_refuses_the_rest() {
    let bench = Bench::held(limits()).await;
    let accepted = bench.submit(&[1], 2);
    bench.engine.drain();
    let refused = bench.engine.submit(request(&[1], 1)).err().unwrap();
    assert_eq!(refused, Error::Unavailable(Unavailable::ShuttingDown));
    bench.allow(2);
    assert_eq!(collect(accepted).await, (vec![2, 3], Ok(Ended::Length)));
}

#[tokio::test]
async fn a_model_that_does_not_load_says_why_and_nobody_waits_for_it() {
    let (engine, loaded) = Engine::start(limits(), || Err("model.safetensors: the file is cut short".to_owned()));
    assert_eq!(loaded.await.unwrap(), Err("model.safetensors: the file is cut short".to_owned()));
    let begun = Instant::now();
    while engine.health() != Health::Unavailable(Unavailable::Unhealthy) {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(engine.submit(request(&[1], 1)).err().unwrap(), Error::Unavailable(Unavailable::Unhealthy));
}

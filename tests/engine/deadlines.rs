//! Time limits: the client's deadline, queue included, and `max_time`, from the start of the generation.

use std::time::{Duration, Instant};

use sardine::engine::{Ended, EngineLimits, Event, Request, TokenStream};
use sardine::error::{Error, Overload};

use crate::bench::{Bench, collect, limits, request};

fn submit_until(bench: &Bench, in_time: Duration, ids: &[u32], max_new_tokens: usize) -> TokenStream {
    let deadline = Some(Instant::now() + in_time);
    bench.engine.submit(Request { deadline, ..request(ids, max_new_tokens) }).unwrap()
}

#[tokio::test]
async fn max_time_ends_a_sequence_with_the_token_after_it_and_never_without_one() {
    let bench = Bench::free(limits()).await;
    let short = Request { max_time: Some(Duration::ZERO), ..request(&[1], 100) };
    assert_eq!(collect(bench.engine.submit(short).unwrap()).await, (vec![2], Ok(Ended::Deadline)));
}

#[tokio::test]
async fn max_time_does_not_count_the_time_in_the_queue() {
    let bench = Bench::held(EngineLimits { max_batch_size: 1, ..limits() }).await;
    let runs = bench.submit(&[1], 1);
    let max_time = Some(Duration::from_millis(500));
    let waits = bench.engine.submit(Request { max_time, ..request(&[10], 3) }).unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    bench.allow(4);
    collect(runs).await.1.unwrap();
    assert_eq!(collect(waits).await, (vec![11, 12, 13], Ok(Ended::Length)));
}

#[tokio::test]
async fn a_deadline_that_passes_in_the_queue_is_answered_at_once_although_a_step_runs() {
    let bench = Bench::held(EngineLimits { max_batch_size: 1, ..limits() }).await;
    let _runs = bench.submit(&[1], 900);
    bench.wait_until("the first runs", |bench| bench.engine.num_running() == 1).await;
    let begun = Instant::now();
    let mut waits = submit_until(&bench, Duration::from_millis(100), &[10], 1);
    let event = waits.recv().await.unwrap();
    let why = Overload::DeadlinePassed;
    assert_eq!(event, Event::Failed(Error::Overloaded { why, retry_after: Duration::from_secs(1) }));
    // 50 ms on a quiet machine.
    assert!((100..600).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!((bench.engine.queue_len(), waits.recv().await), (0, None));
}

#[tokio::test]
async fn a_request_that_would_wait_longer_than_its_client_is_refused_at_once() {
    let bench = Bench::held(EngineLimits { max_batch_size: 1, ..limits() }).await;
    let slow = bench.submit(&[1], 2);
    bench.allow(1);
    tokio::time::sleep(Duration::from_millis(500)).await;
    bench.allow(1);
    collect(slow).await.1.unwrap();
    bench.wait_until("the slot is free", |bench| bench.engine.num_running() == 0).await;
    let _runs = bench.submit(&[1], 900);
    bench.wait_until("the next one runs", |bench| bench.engine.num_running() == 1).await;
    let soon = Request { deadline: Some(Instant::now() + Duration::from_millis(200)), ..request(&[1], 1) };
    match bench.engine.submit(soon).err().unwrap() {
        Error::Overloaded { why: Overload::WaitTooLong { expected, left }, .. } => assert!(expected > left),
        other => panic!("{other:?}"),
    }
    submit_until(&bench, Duration::from_secs(60), &[1], 1);
}

#[tokio::test]
async fn a_deadline_that_has_passed_before_the_queue_is_a_timeout() {
    let bench = Bench::free(limits()).await;
    let late = Request { deadline: Some(Instant::now()), ..request(&[1], 1) };
    assert!(matches!(bench.engine.submit(late).err(), Some(Error::Timeout(_))));
}

#[tokio::test]
async fn a_running_sequence_ends_at_its_deadline_with_what_it_has() {
    let bench = Bench::held(limits()).await;
    let runs = submit_until(&bench, Duration::from_millis(300), &[1], 900);
    bench.allow(2);
    bench.wait_until("two steps ran", |bench| bench.num_steps() == 2).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    bench.allow(1);
    assert_eq!(collect(runs).await, (vec![2, 3, 4], Ok(Ended::Deadline)));
}

#[tokio::test]
async fn a_deadline_in_the_middle_of_a_prompt_ends_it_before_the_next_step() {
    let bench = Bench::held(limits()).await;
    let prompt: Vec<u32> = (100..140).collect();
    let reads = submit_until(&bench, Duration::from_millis(300), &prompt, 5);
    bench.allow(1);
    tokio::time::sleep(Duration::from_millis(400)).await;
    bench.allow(1);
    let (ids, outcome) = collect(reads).await;
    assert!(ids.is_empty() && matches!(outcome, Err(Error::Timeout(_))), "{outcome:?}");
    bench.wait_until("the slot is free", |bench| bench.engine.num_running() == 0).await;
    assert!(bench.steps.lock().unwrap().iter().filter(|step| !step.rows.is_empty()).count() <= 2);
}

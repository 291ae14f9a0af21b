//! Who may start: places in the queue, slots, and memory for keys and values.

use std::time::Duration;

use sardine::engine::{Ended, EngineLimits};
use sardine::error::{Error, Overload};

use crate::bench::{Bench, collect, limits, request};

#[tokio::test]
async fn a_full_queue_refuses_and_serves_again_when_a_place_is_free() {
    let bench = Bench::held(EngineLimits { max_batch_size: 1, max_queue: 1, ..limits() }).await;
    let first = bench.submit(&[1], 1);
    bench.wait_until("the first left the queue", |bench| bench.engine.queue_len() == 0).await;
    let second = bench.submit(&[1], 1);
    let refused = bench.engine.submit(request(&[1], 1)).err().unwrap();
    let why = Overload::QueueFull { places: 1 };
    assert_eq!(refused, Error::Overloaded { why, retry_after: Duration::from_secs(1) });
    bench.allow(2);
    collect(first).await.1.unwrap();
    collect(second).await.1.unwrap();
    bench.wait_until("the queue is empty", |bench| bench.engine.queue_len() == 0).await;
    bench.allow(1);
    collect(bench.submit(&[1], 1)).await.1.unwrap();
}

#[tokio::test]
async fn a_sequence_waits_until_there_is_memory_for_all_that_it_may_become() {
    let bench = Bench::held(EngineLimits { max_kv_tokens: 1000, ..limits() }).await;
    let first = bench.submit(&[1], 599);
    bench.wait_until("the first runs", |bench| bench.engine.num_running() == 1).await;
    assert_eq!(bench.engine.num_reserved_tokens(), 600);
    let big = bench.submit(&[10], 499);
    let small = bench.submit(&[20], 3);
    bench.allow(3);
    bench.wait_until("three steps ran", |bench| bench.num_steps() == 3).await;
    assert_eq!((bench.engine.num_running(), bench.engine.queue_len()), (1, 2), "nobody overtakes");
    drop(first);
    bench.allow(2);
    bench.wait_until("both run", |bench| bench.engine.num_running() == 2).await;
    assert_eq!(bench.engine.num_reserved_tokens(), 504);
    bench.allow(4);
    assert_eq!(collect(small).await, (vec![21, 22, 23], Ok(Ended::Length)));
    drop(big);
    bench.allow(1);
    bench.wait_until("nothing is reserved", |bench| bench.engine.num_reserved_tokens() == 0).await;
}

#[tokio::test]
async fn a_request_that_could_never_start_is_refused_at_once() {
    let bench = Bench::free(EngineLimits { max_kv_tokens: 100, ..limits() }).await;
    let refused = bench.engine.submit(request(&[1, 2], 99)).err().unwrap();
    assert_eq!(refused, Error::TooLong { tokens: 2, new_tokens: 99, limit: 100 });
    collect(bench.submit(&[1, 2], 98)).await.1.unwrap();
}

#[tokio::test]
async fn who_leaves_the_queue_frees_its_place_at_once_also_while_a_step_runs() {
    let bench = Bench::held(EngineLimits { max_batch_size: 1, max_queue: 1, ..limits() }).await;
    let _runs = bench.submit(&[1], 900);
    bench.wait_until("the first runs", |bench| bench.engine.num_running() == 1).await;
    let waits = bench.submit(&[1], 1);
    assert!(bench.engine.submit(request(&[1], 1)).is_err());
    drop(waits); // the first step has no permit: it still runs
    assert_eq!(bench.engine.queue_len(), 0);
    bench.submit(&[1], 1);
}

#[tokio::test]
async fn who_is_refused_hears_when_to_come_again_as_measured() {
    let bench = Bench::held(EngineLimits { max_batch_size: 1, max_queue: 2, ..limits() }).await;
    let slow = bench.submit(&[1], 2);
    bench.allow(1);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    bench.allow(1);
    collect(slow).await.1.unwrap();
    bench.wait_until("the slot is free", |bench| bench.engine.num_running() == 0).await;
    let _runs = bench.submit(&[1], 900);
    bench.wait_until("the next one runs", |bench| bench.engine.num_running() == 1).await;
    let _wait = (bench.submit(&[1], 1), bench.submit(&[1], 1));
    match bench.engine.submit(request(&[1], 1)).err().unwrap() {
        // Two wait, and the one slot is held for 1.2 s each time.
        Error::Overloaded { retry_after, .. } => {
            assert!((3.5..9.0).contains(&retry_after.as_secs_f64()), "{retry_after:?}");
        }
        other => panic!("{other:?}"),
    }
}

//! What is left when nobody is there: nothing, or the engine says so.

use std::sync::Arc;

use sardine::engine::{EngineLimits, Held, Request, Slot};

use crate::bench::{Bench, PANICS, collect, limits, request};

#[tokio::test]
async fn an_idle_engine_holds_nothing_however_its_sequences_ended() {
    let bench = Bench::held(limits()).await;
    let fine = bench.submit(&[1], 3);
    let cancelled = bench.submit(&[10], 900);
    bench.allow(1);
    bench.wait_until("a step ran", |bench| bench.num_steps() >= 1).await;
    let checks = bench.engine.num_checks(); // none comes as long as somebody runs
    drop(cancelled);
    let panics = bench.submit(&[PANICS], 3);
    bench.allow(20);
    let _ = (collect(fine).await, collect(panics).await);
    bench.wait_until("it is idle and has looked", |bench| bench.engine.num_checks() > checks).await;
    let engine = &bench.engine;
    let held = (engine.num_leaks(), engine.num_reserved_tokens(), engine.num_running(), engine.queue_len());
    assert_eq!(held, (0, 0, 0, 0));
}

#[tokio::test]
async fn memory_that_is_held_for_nobody_is_counted_and_freed() {
    let bench = Bench::held(limits()).await;
    *bench.held.lock().unwrap() = Held { sequences: 1, kv_tokens: 256, pictures: 0 };
    bench.allow(1);
    collect(bench.submit(&[1], 1)).await.1.unwrap();
    bench.wait_until("the leak is counted", |bench| bench.engine.num_leaks() == 1).await;
    bench
        .wait_until("every slot is released", |bench| {
            let steps = bench.steps.lock().unwrap();
            steps.last().is_some_and(|step| step.released.contains(&Slot(0)) && step.released.contains(&Slot(1)))
        })
        .await;
}

#[tokio::test]
async fn a_sequence_keeps_its_share_of_memory_until_it_is_gone() {
    let bench = Bench::held(EngineLimits { max_batch_size: 1, ..limits() }).await;
    let submit = || {
        let share = Arc::new(());
        let request = Request { share: Some(share.clone()), ..request(&[1], 2) };
        (bench.engine.submit(request).unwrap(), Arc::downgrade(&share))
    };
    let (running, share_of_running) = submit();
    bench.wait_until("it runs", |bench| bench.engine.num_running() == 1).await;
    let (waiting, share_of_waiting) = submit();
    assert_eq!((share_of_running.strong_count(), share_of_waiting.strong_count()), (1, 1));
    drop(waiting);
    assert_eq!(share_of_waiting.strong_count(), 0, "nobody waits for the engine's thread");
    drop(running);
    assert_eq!(share_of_running.strong_count(), 1, "a step may still read its pictures");
    bench.allow(1);
    bench.wait_until("it is gone", |_| share_of_running.strong_count() == 0).await;
}

//! Several replicas of the model behind one handle, and one whose memory is too small.

use sardine::engine::{Ended, Engine, EngineLimits, Event, Health, Loader};
use sardine::error::{Error, Unavailable};

use crate::bench::{Bench, LOSES_THE_DEVICE, PANICS, collect, limits, request};

#[tokio::test]
async fn requests_start_on_the_least_loaded_replica() {
    let bench = Bench::replicas(3, EngineLimits { max_batch_size: 4, ..limits() }).await;
    let mut streams = Vec::new();
    for number in 100..106 {
        streams.push(bench.submit(&[number], 300));
        // A replica takes somebody in between two steps.
        let runs = |bench: &Bench| {
            bench.engine.num_running() == streams.len() || {
                bench.allow(1);
                false
            }
        };
        bench.wait_until("it runs", runs).await;
    }
    assert_eq!(bench.engine.num_running_each(), [2, 2, 2]);
    bench.allow(6 * 300);
    for (number, stream) in (100..106).zip(streams) {
        assert_eq!(collect(stream).await, ((number + 1..number + 301).collect(), Ok(Ended::Length)));
    }
}

#[tokio::test]
async fn all_replicas_are_filled_before_anybody_waits_and_whoever_is_free_goes_on() {
    let bench = Bench::replicas(2, EngineLimits { max_batch_size: 1, max_queue: 8, ..limits() }).await;
    let streams: Vec<_> = (0..5).map(|number| bench.submit(&[number], 2)).collect();
    bench.wait_until("two run", |bench| bench.engine.num_running_each() == [1, 1]).await;
    assert_eq!(bench.engine.queue_len(), 3);
    bench.allow(10);
    for (number, stream) in (0..5).zip(streams) {
        assert_eq!(collect(stream).await, (vec![number + 1, number + 2], Ok(Ended::Length)));
    }
    bench.wait_until("nobody runs", |bench| bench.engine.num_running() == 0).await;
}

#[tokio::test]
async fn what_the_handle_says_is_of_all_replicas() {
    let bench = Bench::replicas(3, limits()).await;
    let total = bench.engine.limits();
    assert_eq!((total.max_batch_size, total.max_kv_tokens, total.max_model_len, total.max_queue), (6, 6000, 1000, 4));
    // One sequence is on one replica, and cannot have what all have together.
    let too_long = bench.engine.submit(request(&[1], 1000)).err().unwrap();
    assert_eq!(too_long, Error::TooLong { tokens: 1, new_tokens: 1000, limit: 1000 });
    bench.wait_until("each has looked that nothing is held", |bench| bench.engine.num_checks() >= 3).await;
    assert_eq!((bench.engine.num_slots(), bench.engine.num_leaks()), (6, 0));
}

#[tokio::test]
async fn a_replica_that_fails_a_step_takes_the_next_request() {
    let bench = Bench::replicas(2, EngineLimits { max_batch_size: 1, ..limits() }).await;
    bench.allow(100);
    for _ in 0..4 {
        assert!(matches!(collect(bench.submit(&[PANICS], 3)).await.1, Err(Error::Generation { .. })));
        assert_eq!(collect(bench.submit(&[1], 2)).await, (vec![2, 3], Ok(Ended::Length)));
    }
}

#[tokio::test]
async fn a_replica_whose_device_is_lost_dies_and_the_others_finish_what_they_have() {
    let bench = Bench::replicas(2, EngineLimits { max_batch_size: 1, ..limits() }).await;
    let streams = [bench.submit(&[1], 3), bench.submit(&[LOSES_THE_DEVICE], 3)];
    bench.wait_until("both run", |bench| bench.engine.num_running_each() == [1, 1]).await;
    bench.allow(3 + 1 + 2);
    let [finishes, dies] = streams.map(collect);
    let (finishes, dies) = tokio::join!(finishes, dies);
    assert_eq!(finishes, (vec![2, 3, 4], Ok(Ended::Length)));
    assert!(matches!(&dies.1, Err(Error::Generation { message, .. }) if message.contains("illegal memory access")));
    assert!(bench.engine.died().await.contains("illegal memory access"));
    bench.wait_until("it says so", |bench| bench.engine.health() == Health::Unavailable(Unavailable::Unhealthy)).await;
    assert_eq!(collect(bench.submit(&[5], 2)).await, (vec![6, 7], Ok(Ended::Length)));
}

#[tokio::test]
async fn the_load_fails_with_the_first_replica_that_fails() {
    let loaders: Vec<Loader> = (0..2).map(|n| Box::new(move || Err(format!("no device {n}"))) as Loader).collect();
    let (engine, loaded) = Engine::start_replicas(limits(), loaders);
    assert!(loaded.await.unwrap().unwrap_err().starts_with("no device"));
    let begun = std::time::Instant::now();
    while engine.health() != Health::Unavailable(Unavailable::Unhealthy) {
        assert!(begun.elapsed().as_secs() < 5);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn where_the_memory_is_short_the_step_fails_and_fewer_run_from_then_on() {
    let bench = Bench::narrow(2, EngineLimits { max_batch_size: 4, max_queue: 8, ..limits() }).await;
    let failing: Vec<_> = (0..3).map(|number| bench.submit(&[number], 3)).collect();
    // The step that waits for its permit may have begun with fewer.
    bench.allow(2);
    for stream in failing {
        let (_, outcome) = collect(stream).await;
        let Err(Error::Generation { message, deterministic }) = outcome else { panic!("{outcome:?}") };
        assert!(message.contains("out of memory") && !deterministic, "{message}");
    }
    bench.wait_until("it says so", |bench| bench.engine.num_slots() == 2).await;

    let mut next: Vec<_> = (10..15).map(|number| bench.submit(&[number], 30)).collect();
    bench.allow(1); // for a step that began before the second came
    for stream in &mut next[..2] {
        assert_eq!(stream.recv().await, Some(Event::Started));
    }
    assert_eq!((bench.engine.num_running(), bench.engine.queue_len()), (2, 3));
    bench.allow(5 * 30);
    for (number, stream) in (10..15).zip(next) {
        assert_eq!(collect(stream).await, ((number + 1..number + 31).collect(), Ok(Ended::Length)));
    }
}

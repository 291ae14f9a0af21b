//! How the process ends: told once it finishes what it has, told twice it ends at once, and killed it is up again as before.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Barrier;

use crate::server::Server;

const CLIENTS: usize = 16;

/// For those tests in which nobody waits.
const AT_ONCE: [&str; 2] = ["--max-batch-size", "16"];

/// So many streams, of which each has begun, and `then`. Returns what arrived of each.
async fn streams(server: &Server, num_tokens: usize, then: impl AsyncFnOnce()) -> Vec<(usize, bool)> {
    let begun = Barrier::new(CLIENTS + 1);
    let streams = join_all((0..CLIENTS as u32).map(|seed| server.complete(seed, num_tokens, &begun)));
    let (streams, ()) = tokio::join!(streams, async {
        begun.wait().await;
        then().await;
    });
    streams
}

#[tokio::test]
async fn told_to_end_under_load_it_takes_no_more_and_loses_no_answer() {
    const TOKENS: usize = 300;
    let mut server = Server::start(&[]).await;
    let arrived = streams(&server, TOKENS, async || {
        server.signal(libc::SIGTERM);
        let told = Instant::now();
        while server.get("health").await == "Ok" {
            assert!(told.elapsed() < Duration::from_secs(10), "it still says that it is ready");
        }
    });
    assert_eq!(arrived.await, [(TOKENS, true); CLIENTS]);
    assert_eq!(server.ended().await, Some(0));
}

#[tokio::test]
async fn probes_answer_within_50_ms_while_the_model_computes_for_all_it_can() {
    let server = Server::start(&AT_ONCE).await;
    let mut times = Vec::new();
    let arrived = streams(&server, 600, async || {
        for _ in 0..50 {
            for path in ["health", "livez", "readyz", "startupz"] {
                let asked = Instant::now();
                assert_eq!(server.get(path).await, "Ok", "{path}");
                times.push(asked.elapsed());
            }
        }
    });
    assert_eq!(arrived.await, [(600, true); CLIENTS]);
    times.sort();
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    println!("probes with {CLIENTS} streams: {median:?} in the median, {most:?} at most");
    // Not the most: whatever else this machine does may come in between.
    assert!(median < Duration::from_millis(50), "{times:?}");
}

#[tokio::test]
async fn told_twice_it_ends_at_once() {
    let mut server = Server::start(&AT_ONCE).await;
    let told = std::cell::Cell::new(Instant::now());
    let arrived = streams(&server, 4_000, async || {
        server.signal(libc::SIGINT);
        while server.get("health").await == "Ok" {}
        server.signal(libc::SIGINT);
        told.set(Instant::now());
    });
    assert!(arrived.await.iter().all(|(tokens, is_whole)| *tokens < 4_000 && !is_whole));
    assert_eq!(server.ended().await, Some(1));
    assert!(told.get().elapsed() < Duration::from_secs(5), "it took {:?}", told.get().elapsed());
}

#[tokio::test]
async fn killed_under_load_it_serves_again_once_it_is_started_again() {
    let mut server = Server::start(&AT_ONCE).await;
    let arrived = streams(&server, 4_000, async || server.signal(libc::SIGKILL)).await;
    assert!(arrived.iter().all(|(_, is_whole)| !is_whole));
    assert_eq!(server.ended().await, None, "a signal ended it");

    let server = Server::start(&[]).await;
    assert_eq!(streams(&server, 20, async || {}).await, [(20, true); CLIENTS]);
}

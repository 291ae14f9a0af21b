//! Time limits: the client's own, the server's, and how long a stream goes without a status.

use std::time::{Duration, Instant};

use reqwest::Method;
use sardine::http::HttpSettings;
use serde_json::json;

use crate::bench::{Bench, Reply, settings};
use crate::script::Mode;

/// The script's token for an answer that never ends.
const TOKEN: u32 = 100;

/// A chat whose client waits for so many seconds.
async fn chat_until(bench: &Bench, seconds: &str, max_tokens: usize) -> Reply {
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": max_tokens});
    let request = bench.request(Method::POST, "/v1/chat/completions").header("x-request-timeout", seconds);
    bench.send(request.json(&body)).await
}

#[tokio::test]
async fn a_whole_answer_that_takes_too_long_is_a_504_and_is_cancelled() {
    let bench = Bench::with_request_timeout(Duration::from_millis(300)).await;
    bench.script.set(Mode::Endless(TOKEN));
    let reply = bench.post(json!({"inputs": "Hi", "parameters": {"max_new_tokens": 1900}})).await;
    assert_eq!(reply.status, 504, "{}", reply.text);
    assert_eq!(reply.json()["error_type"], "timeout");
    assert!(reply.text.contains("--request-timeout-s"), "{}", reply.text);
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1900});
    assert_eq!(bench.post_to("/v1/chat/completions", body.clone()).await.status, 504);
    let body = json!({"prompt": "Hi", "max_tokens": 1900});
    assert_eq!(bench.post_to("/v1/completions", body).await.status, 504);
    bench.wait_until("the slots are free", |bench| bench.service.num_running() == 0).await;
}

#[tokio::test]
async fn a_stream_is_not_cut_by_the_time_limit_of_whole_answers() {
    let bench = Bench::with_request_timeout(Duration::from_millis(200)).await;
    bench.script.set(Mode::Endless(TOKEN));
    let body = json!({"inputs": "Hi", "stream": true, "parameters": {"max_new_tokens": 200}});
    let begun = Instant::now();
    let reply = bench.post(body).await;
    assert!(begun.elapsed() > Duration::from_millis(200));
    assert!(reply.text.contains("\"index\":200,"), "{}", reply.text);
}

#[tokio::test]
async fn a_client_whose_turn_does_not_come_in_time_gets_a_429_at_its_deadline() {
    let (bench, taken) = Bench::busy(settings()).await;
    let begun = Instant::now();
    let reply = chat_until(&bench, "0.3", 5).await;
    assert_eq!(reply.status, 429, "{}", reply.text);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(reply.text.contains("deadline"), "{}", reply.text);
    assert_eq!(bench.service.queue_len(), 0);
    taken.abort();
}

#[tokio::test]
async fn a_client_that_could_not_wait_for_its_answer_gets_a_504() {
    let bench = Bench::start().await;
    bench.script.set(Mode::Endless(TOKEN));
    let reply = chat_until(&bench, "0.3", 1900).await;
    assert_eq!(reply.status, 504, "{}", reply.text);
    bench.wait_until("the slot is free", |bench| bench.service.num_running() == 0).await;
}

#[tokio::test]
async fn on_hugging_faces_routes_a_deadline_keeps_the_text_so_far() {
    let bench = Bench::start().await;
    bench.script.set(Mode::Endless(TOKEN));
    for path in ["/", "/generate"] {
        let body = json!({"inputs": "Hi", "parameters": {"max_new_tokens": 1900, "details": true}});
        let request = bench.request(Method::POST, path).header("x-request-timeout", "0.3").json(&body);
        let reply = bench.send(request).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        assert!(reply.text.contains("\"finish_reason\":\"length\""), "{path}: {}", reply.text);
        let request = bench.request(Method::POST, path).header("x-request-timeout", "soon").json(&body);
        assert!([400, 422].contains(&bench.send(request).await.status.as_u16()), "{path}");
    }
}

#[tokio::test]
async fn a_stream_that_waits_for_its_turn_gets_its_status_after_the_hold() {
    let (bench, taken) = Bench::busy(HttpSettings { status_hold: Duration::from_millis(300), ..settings() }).await;
    for (path, body) in
        [("/", json!({"inputs": "Hi", "stream": true})), ("/v1/completions", json!({"prompt": "Hi", "stream": true}))]
    {
        let begun = Instant::now();
        let response = bench.request(Method::POST, path).json(&body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(begun.elapsed() >= Duration::from_millis(300), "{path}: {:?}", begun.elapsed());
    }
    taken.abort();
}

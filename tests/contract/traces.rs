//! Traces, as a collector gets them: `cargo test --features otel`.

use reqwest::Method;
use sardine::telemetry::Traces;
use serde_json::json;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::bench::Bench;
use crate::pictures::png_data_url;

/// The id of the client's trace, and of its span in it.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_the_stages_of_a_request_in_the_clients_trace() {
    let collector = MockServer::start().await;
    let is_batch =
        Mock::given(method("POST")).and(path("/v1/traces")).and(header("content-type", "application/x-protobuf"));
    is_batch.respond_with(ResponseTemplate::new(200)).mount(&collector).await;
    let uri = collector.uri();
    let traces = tokio::task::spawn_blocking(move || Traces::start(Some(&uri)).unwrap()).await.unwrap();

    let bench = Bench::start().await;
    let request = bench.request(Method::POST, "/").header("x-request-id", "traced-request");
    let request = request.header("traceparent", format!("00-{TRACE}-{SPAN}-01"));
    let body = json!({"inputs": {"text": "a private question", "image": png_data_url()}});
    assert_eq!(bench.send(request.json(&body)).await.status, 200);
    bench.get("/health").await;
    // The exchange ends when its last byte is handed over, which the client may see first.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    tokio::task::spawn_blocking(|| traces.finish()).await.unwrap();

    let batches: Vec<Vec<u8>> =
        collector.received_requests().await.unwrap().into_iter().map(|batch| batch.body).collect();
    let all = batches.concat();
    for part in
        ["sardine", "POST /", "media", "queue", "prefill", "decode", "traced-request", "gen_ai.usage.output_tokens"]
    {
        assert!(contains(&all, part.as_bytes()), "{part}");
    }
    assert!(contains(&all, &bytes(TRACE)) && contains(&all, &bytes(SPAN)), "the client's trace goes on");
    for hidden in ["a private question", "red rectangle", "GET /health"] {
        assert!(!contains(&all, hidden.as_bytes()), "{hidden}");
    }
}

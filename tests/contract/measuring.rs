//! `sardine bench --url` against a server: this one, and one that does not do what it is asked.

use sardine::bench::{Workload, over_http};
use serde_json::json;
use wiremock::matchers::{body_partial_json, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::bench::Bench;
use crate::script::Mode;

fn workload() -> Workload {
    Workload { sequences: vec![1, 2], tokens: 5, prefill: vec![40], intruder: None, shown: Vec::new(), side: 0 }
}

#[tokio::test]
async fn a_server_is_measured_with_prompts_that_it_never_saw() {
    let bench = Bench::start().await;
    bench.script.set(Mode::Endless(100));
    let url = format!("http://{}", bench.address);
    let mut prompts = Vec::new();
    for _ in 0..2 {
        let report = serde_json::to_value(over_http(&url, &workload()).await.unwrap()).unwrap();
        assert_eq!(
            (&report["decode"][1]["sequences"], &report["prefill"][0]["prompt_tokens"]),
            (&json!(2), &json!(40))
        );
        assert!(report["decode"][0]["tokens_per_s"].as_f64().unwrap() > 0.0, "{report}");
        prompts.extend(bench.script.take_seen().into_iter().map(|seen| seen.ids));
    }
    assert_eq!(prompts.len(), 2 * (1 + 1 + 2 + 1), "a first token, one answer, two at once, a long prompt");
    prompts.sort();
    prompts.dedup();
    assert_eq!(prompts.len(), 10, "the same prompt came twice");
}

#[tokio::test]
async fn a_server_that_stops_early_is_told_apart() {
    let server = MockServer::start().await;
    let models = ResponseTemplate::new(200).set_body_json(json!({"data": [{"id": "its-name"}]}));
    Mock::given(method("GET")).and(path("/v1/models")).respond_with(models).mount(&server).await;
    let events = "data: {\"choices\": [{\"text\": \"a\"}], \"usage\": {\"completion_tokens\": 1}}\n\ndata: [DONE]\n\n";
    let answer = ResponseTemplate::new(200).set_body_raw(events, "text/event-stream");
    let asked = Mock::given(path("/v1/completions")).and(body_partial_json(json!({"model": "its-name"})));
    asked.respond_with(answer).mount(&server).await;
    let error = over_http(&server.uri(), &workload()).await.unwrap_err();
    assert!(error.starts_with("an answer has 1 tokens where 5 were asked for"), "{error}");
}

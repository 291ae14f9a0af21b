//! What Prometheus reads: names, labels, and that they count what happened.

use std::path::Path;

use reqwest::Method;
use serde_json::json;

use crate::bench::{Bench, limits, settings};
use crate::pictures::png_data_url;
use crate::script::Mode;

/// A sample of Prometheus' text format, by its name and labels as they are written.
fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.parse().ok()
}

/// The metrics, once a sample has its value: a request is counted when its last byte was handed over, maybe after the client
/// has read it.
async fn metrics_with(bench: &Bench, name: &str, value: f64) -> String {
    for _ in 0..500 {
        let text = bench.get("/metrics").await.text;
        if sample(&text, name) == Some(value) {
            return text;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{name} never was {value}: {}", bench.get("/metrics").await.text)
}

#[tokio::test]
async fn requests_are_counted_by_route_status_and_error_type() {
    let bench = Bench::start().await;
    for _ in 0..2 {
        bench.post(json!({"inputs": "Hi"})).await;
    }
    bench.post_to("/generate", json!({"inputs": ""})).await;
    bench.get("/v1/models/a").await;
    bench.get("/v1/models/b/c").await;
    bench.get("/no/such/path/1").await;
    bench.get("/no/such/path/2").await;
    bench.get("/health").await;
    let requests = |route: &str, status: u16, error_type: &str| {
        format!("sardine_requests_total{{route=\"{route}\",status=\"{status}\",error_type=\"{error_type}\"}}")
    };
    metrics_with(&bench, &requests("/health", 200, ""), 1.0).await;
    let text = metrics_with(&bench, &requests("/", 200, ""), 2.0).await;
    assert_eq!(sample(&text, &requests("/generate", 422, "validation")), Some(1.0), "{text}");
    assert_eq!(sample(&text, &requests("/v1/models/{id}", 404, "not_found")), Some(2.0), "{text}");
    assert!(!text.contains("such") && !text.contains("/v1/models/a"), "a label is a pattern: {text}");
    assert_eq!(sample(&text, "sardine_request_seconds_count{route=\"/\"}"), Some(2.0), "{text}");
    assert!(text.contains("sardine_requests_total{route=\"unmatched\",status=\"404\""), "{text}");
}

#[tokio::test]
async fn answers_are_counted_with_their_tokens_and_times() {
    let bench = Bench::start().await;
    let begin = bench.get("/metrics").await.text;
    assert!(begin.starts_with("inf_batch_current_size 0\ninf_queue_size 0\n"), "{begin}");
    assert_eq!(sample(&begin, "sardine_generated_tokens_total"), Some(0.0), "{begin}");
    assert_eq!(sample(&begin, "tgi_request_count"), Some(0.0), "{begin}");
    let body = json!({"inputs": "Hi", "parameters": {"max_new_tokens": 5, "eos_token_id": 1}});
    bench.post(body).await;
    let streamed = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "stream": true});
    bench.post_to("/v1/chat/completions", streamed).await;
    bench.post_to("/tokenize", json!({"inputs": "Hi"})).await;
    let prompt_tokens: usize = bench.seen().iter().map(|seen| seen.ids.len()).sum();

    let text = metrics_with(&bench, "tgi_request_count", 2.0).await;
    for (name, value) in [
        ("sardine_generated_tokens_total", 6),
        ("sardine_prompt_tokens_total", prompt_tokens),
        ("sardine_queue_seconds_count", 2),
        ("sardine_time_to_first_token_seconds_count", 2),
        ("sardine_time_per_output_token_seconds_count", 1), // one token has no next
        ("tgi_request_success", 2),
        ("tgi_request_duration_count", 2),
        ("tgi_request_queue_duration_count", 2),
        ("tgi_request_mean_time_per_token_duration_count", 2),
        ("tgi_request_input_length_sum", prompt_tokens),
        ("tgi_request_generated_tokens_sum", 6),
        ("tgi_request_generated_tokens_bucket{le=\"4\"}", 1),
        ("tgi_request_max_new_tokens_count", 2),
    ] {
        assert_eq!(sample(&text, name), Some(value as f64), "{name}: {text}");
    }
    assert!(text.contains("sardine_queue_seconds_bucket{le=\"0.001\"}"), "histograms have buckets: {text}");
}

#[tokio::test]
async fn failures_have_tgis_counter_and_a_client_that_leaves_is_no_success() {
    let bench = Bench::start().await;
    bench.script.set(Mode::Fail("the logits are not numbers"));
    bench.post(json!({"inputs": "Hi"})).await;
    let text = metrics_with(&bench, "tgi_request_failure{err=\"generation\"}", 1.0).await;
    assert_eq!(sample(&text, "tgi_request_success"), Some(0.0), "{text}");
    // A stream that fails after its status was sent: the status stays, the error is counted.
    let name = "sardine_requests_total{route=\"/\",status=\"200\",error_type=\"generation\"}";
    bench.post(json!({"inputs": "Hi", "stream": true})).await;
    metrics_with(&bench, name, 1.0).await;

    bench.script.set(Mode::Endless(5));
    let body = json!({"inputs": "Hi", "parameters": {"max_new_tokens": 1900}});
    let request = bench.request(Method::POST, "/").json(&body);
    let left = tokio::spawn(request.send());
    bench.wait_until("the request runs", |bench| bench.service.num_running() == 1).await;
    left.abort();
    metrics_with(&bench, "sardine_requests_total{route=\"/\",status=\"499\",error_type=\"cancelled\"}", 1.0).await;
}

#[tokio::test]
async fn gauges_say_what_runs_and_waits_under_every_name() {
    let limits = sardine::engine::EngineLimits { max_batch_size: 1, ..limits() };
    let bench = Bench::with(settings(), limits).await;
    bench.script.set(Mode::Stall);
    let body = json!({"inputs": "Hi", "parameters": {"max_new_tokens": 1000}});
    let asked: Vec<_> = (0..3).map(|_| tokio::spawn(bench.request(Method::POST, "/").json(&body).send())).collect();
    bench.wait_until("one runs", |bench| bench.service.num_running() == 1 && bench.service.queue_len() == 2).await;
    let text = bench.get("/metrics").await.text;
    assert!(text.starts_with("inf_batch_current_size 1\ninf_queue_size 2\n"), "{text}");
    for (running, waiting) in [
        ("sardine_requests_running", "sardine_requests_waiting"),
        ("tgi_batch_current_size", "tgi_queue_size"),
        ("vllm:num_requests_running{model_name=\"the-model\"}", "vllm:num_requests_waiting{model_name=\"the-model\"}"),
    ] {
        assert_eq!((sample(&text, running), sample(&text, waiting)), (Some(1.0), Some(2.0)), "{text}");
    }
    let reserved = sample(&text, "sardine_kv_tokens_reserved").unwrap();
    for name in ["sardine_kv_usage_ratio", "vllm:kv_cache_usage_perc{model_name=\"the-model\"}"] {
        assert_eq!(sample(&text, name), Some(reserved / 8000.0), "{text}");
    }
    asked.iter().for_each(|request| request.abort());
    bench.script.set(Mode::Endless(5));
}

#[tokio::test]
async fn the_stages_of_a_picture_are_timed() {
    let bench = Bench::start().await;
    bench.post(json!({"inputs": {"text": "What?", "image": png_data_url()}})).await;
    let text = bench.get("/metrics").await.text;
    for stage in ["decode", "prepare", "see"] {
        assert_eq!(sample(&text, &format!("sardine_media_seconds_count{{stage=\"{stage}\"}}")), Some(1.0), "{text}");
    }
    assert!(!text.contains("stage=\"fetch\""), "it was sent, not fetched: {text}");
    assert_eq!(sample(&text, "sardine_pictures_computed_total"), Some(1.0), "{text}");
}

#[tokio::test]
async fn dashboards_scalers_and_the_readme_name_metrics_that_there_are() {
    let bench = Bench::start().await;
    bench.post(json!({"inputs": {"text": "What?", "image": png_data_url()}})).await;
    let text = metrics_with(&bench, "tgi_request_success", 1.0).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = [
        "deploy/grafana/dashboards/sardine.json",
        "deploy/kubernetes/base/scaling.yaml",
        "deploy/kubernetes/gateway/pool.yaml",
        "deploy/README.md",
        "README.md",
    ];
    let mut num_named = 0;
    for file in files {
        for name in metric_names(&std::fs::read_to_string(folder.join(file)).unwrap()) {
            let is_there =
                text.lines().any(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with([' ', '{', '_'])));
            assert!(is_there, "{file} names {name}, which is not in {text}");
            num_named += 1;
        }
    }
    assert!(num_named > 40, "only {num_named} names were found");
}

/// The words of `text` that are names of metrics; `tgi_*` and file names are none.
fn metric_names(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_part(c));
    words
        .filter(|word| ["sardine_", "inf_", "tgi_", "vllm:"].iter().any(|prefix| word.starts_with(prefix)))
        .map(|word| word.trim_end_matches(':').to_owned())
        .filter(|word| !word.ends_with('_') && word != "vllm")
        .collect()
}

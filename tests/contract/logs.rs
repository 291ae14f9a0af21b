//! The line that a request leaves in the log: what it cost, and nothing of what it said.

use std::io;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

use crate::bench::{ANSWER, Bench, api_keys, limits, settings};
use crate::script::Mode;

/// All that this process logs, in the JSON of `--log-format json`.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let written = log.0.clone();
    let filter = EnvFilter::new("sardine=debug");
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(move || Log(written.clone())).init();
    log
});

#[derive(Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// The lines of the request `id`, once there is one.
    async fn lines(&self, id: &str) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let text = self.text();
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let lines: Vec<Value> = lines.filter(|line| line["fields"]["request_id"] == id).collect();
            if !lines.is_empty() {
                return lines;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "no line of {id}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The only line of the request `id`: its level and its fields.
    async fn line(&self, id: &str) -> (String, Value) {
        let mut lines = self.lines(id).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = lines.remove(0);
        (line["level"].as_str().unwrap().to_owned(), line["fields"].clone())
    }
}

#[tokio::test]
async fn a_request_leaves_one_line_with_what_it_cost_and_nothing_of_what_it_said() {
    let log = &*LOG;
    let settings = sardine::http::HttpSettings { api_keys: api_keys(&["a-key-to-hide"]), ..settings() };
    let bench = Bench::with(settings, limits()).await;
    for (id, stream) in [("log-whole", false), ("log-stream", true)] {
        let body = json!({"inputs": "a private question", "stream": stream});
        let request = bench.request(Method::POST, "/").bearer_auth("a-key-to-hide").header("x-request-id", id);
        let reply = bench.send(request.json(&body)).await;
        assert_eq!((reply.status.as_u16(), reply.header("x-request-id")), (200, Some(id)));
        let (level, line) = log.line(id).await;
        let num_tokens = bench.chat.encode(ANSWER).unwrap().len() + 1;
        assert_eq!((level.as_str(), &line["method"], &line["route"]), ("INFO", &json!("POST"), &json!("/")));
        assert_eq!((&line["status"], line.get("error_type")), (&json!(200), None), "{line}");
        assert_eq!(line["prompt_tokens"], bench.seen()[0].ids.len());
        assert_eq!((&line["generated_tokens"], &line["finish"]), (&json!(num_tokens), &json!("eos_token")));
        for name in ["ms", "queue_ms", "first_token_ms"] {
            assert!(line[name].is_u64(), "{name}: {line}");
        }
        assert_eq!(line.get("media_ms"), None, "there were no pictures");
    }
    let wrong = bench.request(Method::POST, "/").bearer_auth("another-key").header("x-request-id", "log-wrong-key");
    bench.send(wrong.json(&json!({"inputs": "a private question"}))).await;
    let (_, line) = log.line("log-wrong-key").await;
    assert_eq!((&line["status"], &line["error_type"]), (&json!(401), &json!("unauthorized")));
    for hidden in ["a private question", "a-key-to-hide", "another-key", "red rectangle"] {
        assert!(!log.text().contains(hidden), "{hidden}");
    }
}

#[tokio::test]
async fn what_went_wrong_is_in_the_line() {
    let (log, bench) = (&*LOG, Bench::start().await);
    let send = async |id: &str, path: &str, body: Value| {
        bench.send(bench.request(Method::POST, path).header("x-request-id", id).json(&body)).await
    };
    send("log-invalid", "/v1/chat/completions", json!({"messages": "Hi"})).await;
    let (_, line) = log.line("log-invalid").await;
    assert_eq!((&line["status"], &line["error_type"]), (&json!(400), &json!("validation")));
    assert_eq!((&line["route"], line.get("generated_tokens")), (&json!("/v1/chat/completions"), None));

    bench.script.set(Mode::Fail("the logits are not numbers"));
    send("log-failed-stream", "/", json!({"inputs": "Hi", "stream": true})).await;
    let (_, line) = log.line("log-failed-stream").await;
    assert_eq!((&line["status"], &line["error_type"]), (&json!(200), &json!("generation")), "{line}");

    bench.script.set(Mode::Endless(5));
    for (id, stream, status) in [("log-left", false, 499), ("log-left-stream", true, 200)] {
        let body = json!({"inputs": "Hi", "stream": stream, "parameters": {"max_new_tokens": 1900}});
        let request = bench.request(Method::POST, "/").header("x-request-id", id).json(&body);
        let asked = tokio::spawn(async move {
            let mut response = request.send().await.unwrap();
            while let Ok(Some(_)) = response.chunk().await {}
        });
        bench.wait_until("it runs", |bench| bench.service.num_running() == 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        asked.abort();
        let (_, line) = log.line(id).await;
        assert_eq!((&line["status"], &line["error_type"]), (&json!(status), &json!("cancelled")), "{line}");
        assert!(line["generated_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{line}");
        bench.wait_until("it is gone", |bench| bench.service.num_running() == 0).await;
    }
}

#[tokio::test]
async fn probes_and_scrapes_are_for_debugging_and_other_requests_are_not() {
    let (log, bench) = (&*LOG, Bench::start().await);
    for (id, path, level) in [
        ("log-health", "/health", "DEBUG"),
        ("log-root", "/", "DEBUG"),
        ("log-livez", "/livez", "DEBUG"),
        ("log-metrics", "/metrics", "DEBUG"),
        ("log-models", "/v1/models", "INFO"),
        ("log-nowhere", "/nowhere", "INFO"),
    ] {
        bench.send(bench.request(Method::GET, path).header("x-request-id", id)).await;
        assert_eq!(log.line(id).await.0, level, "{path}");
    }
}

#[tokio::test]
async fn an_id_that_would_spoil_a_log_line_is_replaced() {
    let bench = Bench::start().await;
    let long = "x".repeat(201);
    for id in ["two words", "tab\tbed", "", long.as_str()] {
        let reply = bench.send(bench.request(Method::GET, "/info").header("x-request-id", id)).await;
        assert!(reply.header("x-request-id").is_some_and(|made| made != id && made.len() == 36), "{id:?}");
    }
}

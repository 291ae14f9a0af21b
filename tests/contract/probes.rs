//! Routes, readiness and the end of the process.

use std::time::{Duration, Instant};

use reqwest::Method;
use sardine::engine::{EngineLimits, Health};
use sardine::http::{HttpSettings, VertexRoutes};
use serde_json::json;

use crate::bench::{ANSWER, Bench, limits, settings};
use crate::script::Mode;

const READINESS: [&str; 4] = ["/", "/health", "/ping", "/readyz"];

#[tokio::test]
async fn readiness_follows_the_model() {
    let (bench, load) = Bench::loading(settings(), limits());
    for path in READINESS {
        let reply = bench.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.json()["error_type"].clone()), (503, json!("loading")), "{path}");
        assert!(reply.header("retry-after").is_some());
    }
    for path in ["/livez", "/health/live"] {
        assert_eq!(bench.get(path).await.status, 200, "{path}: who loads is alive");
    }
    assert_eq!(bench.get("/startupz").await.status, 503);
    assert_eq!(bench.post(json!({"inputs": "Hi"})).await.status, 503);

    load.send(()).unwrap();
    bench.wait_until("the engine is ready", |bench| bench.service.health() == Health::Ready).await;
    for path in READINESS.into_iter().chain(["/health/live", "/health/", "/livez", "/startupz"]) {
        let reply = bench.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.text.as_str()), (200, "Ok"), "{path}");
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        let head = bench.send(bench.request(Method::HEAD, path)).await;
        assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""), "{path}");
    }
}

#[tokio::test]
async fn a_model_that_does_not_load_is_unhealthy_and_says_so() {
    let (bench, load) = Bench::loading(settings(), limits());
    drop(load);
    bench
        .wait_until("the engine gave up", |bench| {
            bench.service.health() == Health::Unavailable(sardine::error::Unavailable::Unhealthy)
        })
        .await;
    for path in ["/health", "/startupz", "/livez", "/health/live"] {
        let reply = bench.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.json()["error_type"].clone()), (503, json!("unhealthy")), "{path}");
        assert_eq!(reply.json()["status"]["phase"], "failed", "{path}");
    }
    assert_eq!(bench.post(json!({"inputs": "Hi"})).await.json()["error_type"], "unhealthy");
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_in_flight_and_refuses_what_is_new() {
    let mut bench = Bench::start().await;
    bench.script.set(Mode::Endless(5));
    let body = json!({"inputs": "Hi", "parameters": {"max_new_tokens": 200}});
    let request = bench.request(Method::POST, "/").json(&body);
    let in_flight = tokio::spawn(request.send());
    bench.wait_until("the request runs", |bench| bench.service.num_running() == 1).await;
    bench.begin_shutdown();
    bench.wait_until("the server drains", |bench| bench.service.health() != Health::Ready).await;

    let draining = bench.get("/readyz").await.json();
    assert_eq!((&draining["error_type"], &draining["status"]["phase"]), (&json!("shutting_down"), &json!("draining")));
    for path in ["/livez", "/startupz"] {
        assert_eq!(bench.get(path).await.status, 200, "{path}: who drains must not be killed");
    }
    let refused = bench.post(body).await;
    assert_eq!((refused.status.as_u16(), refused.json()["error_type"].clone()), (503, json!("shutting_down")));
    assert_eq!(in_flight.await.unwrap().unwrap().status(), 200);
    assert_eq!(bench.ended().await, Ok(()));
}

#[tokio::test]
async fn a_shutdown_does_not_wait_longer_than_its_grace() {
    let settings = HttpSettings { shutdown_grace: Duration::from_millis(100), ..settings() };
    let mut bench = Bench::with(settings, limits()).await;
    bench.script.set(Mode::Endless(5));
    let body = json!({"inputs": "Hi", "parameters": {"max_new_tokens": 1900}});
    let in_flight = tokio::spawn(bench.request(Method::POST, "/").json(&body).send());
    bench.wait_until("the request runs", |bench| bench.service.num_running() == 1).await;
    let told = Instant::now();
    bench.begin_shutdown();
    assert_eq!(bench.ended().await, Ok(()));
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());
    assert!(in_flight.await.unwrap().is_err());
}

#[tokio::test]
async fn an_engine_that_dies_tells_everybody_and_ends_the_process() {
    let limits = EngineLimits { max_batch_size: 1, ..limits() };
    let mut bench = Bench::with(settings(), limits).await;
    bench.script.set(Mode::Stall);
    let ask = |stream: bool| {
        let body = json!({"inputs": "Hi", "stream": stream, "parameters": {"max_new_tokens": 5}});
        let request = bench.request(Method::POST, "/").json(&body);
        tokio::spawn(async move {
            let reply = request.send().await.unwrap();
            (reply.status().as_u16(), reply.text().await.unwrap())
        })
    };
    let running = ask(false);
    bench.wait_until("it runs", |bench| bench.service.num_running() == 1).await;
    let waiting = [ask(false), ask(true)];
    bench.wait_until("two wait", |bench| bench.service.queue_len() == 2).await;
    bench.script.set(Mode::Panic("CUDA error: an illegal memory access was encountered"));

    let (status, text) = running.await.unwrap();
    assert!(status == 500 && text.contains("illegal memory access"), "{status} {text}");
    for waiting in waiting {
        let (status, text) = waiting.await.unwrap();
        assert!(status == 503 && text.contains("\"unhealthy\""), "{status} {text}");
    }
    let ended = bench.ended().await.unwrap_err();
    assert!(ended.contains("the engine died") && ended.contains("illegal memory access"), "{ended}");
    assert_eq!(bench.service.num_running(), 0);
}

#[tokio::test]
async fn sigterm_ends_the_server() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = HttpSettings { port: free, ..settings() };
    let bench = Bench::start().await;
    let served = tokio::spawn(sardine::http::serve(bench.service.clone(), settings));
    let url = format!("http://127.0.0.1:{free}/health/live");
    // Once it answers, it listens to signals: before that, one would end the tests.
    let begun = Instant::now();
    while bench.client.get(&url).send().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the server never answered");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Safety: raising a signal that is handled.
    assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGTERM) }, 0);
    assert_eq!(served.await.unwrap(), Ok(()));
    assert!(bench.client.get(&url).send().await.is_err());
}

#[tokio::test]
async fn every_route_of_the_toolkit_answers_and_others_say_what_there_is() {
    let bench = Bench::start().await;
    for path in ["/", "/predict", "/invocations", "/predict/"] {
        let reply = bench.post_to(path, json!({"inputs": "Hi"})).await;
        assert_eq!(reply.json(), json!([{"generated_text": ANSWER}]), "{path}");
    }
    let metrics = bench.get("/metrics").await;
    assert!(metrics.text.starts_with("inf_batch_current_size 0\ninf_queue_size 0\n"), "{}", metrics.text);

    let missing = bench.post_to("/v2/chat", json!({})).await;
    assert_eq!((missing.status.as_u16(), missing.json()["error_type"].clone()), (404, json!("not_found")));
    assert!(missing.json()["routes"].as_array().unwrap().contains(&json!("POST /predict")), "{}", missing.text);
    for (method, path, allowed) in [
        (Method::GET, "/predict", "POST"),
        (Method::POST, "/health", "GET, HEAD"),
        (Method::PUT, "/", "GET, HEAD, POST"),
    ] {
        let refused = bench.send(bench.request(method.clone(), path)).await;
        assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, Some(allowed)), "{method} {path}");
        assert_eq!(refused.json()["error_type"], "method_not_allowed");
    }
}

#[tokio::test]
async fn the_metrics_tell_of_what_is_reserved_and_of_the_looks_at_the_idle_engine() {
    let bench = Bench::start().await;
    bench.script.set(Mode::Endless(5));
    let body = json!({"inputs": "Hi", "parameters": {"max_new_tokens": 1900}});
    let running = tokio::spawn(bench.request(Method::POST, "/").json(&body).send());
    bench.wait_until("the request runs", |bench| bench.service.num_running() == 1).await;
    let busy = bench.get("/metrics").await.text;
    let reserved = sample(&busy, "sardine_kv_tokens_reserved");
    assert!(reserved > 1900, "{busy}");
    assert_eq!(sample(&busy, "sardine_leaks_total"), 0);
    let checks = sample(&busy, "sardine_idle_checks_total");
    assert!(checks > 0, "the engine was idle before");
    assert!(busy.contains("# TYPE sardine_kv_tokens_reserved gauge\n") && busy.contains("_total counter\n"), "{busy}");
    running.abort();
    bench.wait_until("it is idle again", |bench| bench.service.engine().num_checks() > checks).await;
    let idle = bench.get("/metrics").await.text;
    assert_eq!(["sardine_kv_tokens_reserved", "sardine_leaks_total"].map(|name| sample(&idle, name)), [0, 0], "{idle}");
}

/// A sample of Prometheus' text format.
fn sample(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
}

#[tokio::test]
async fn vertex_and_proxies_have_their_own_paths() {
    let vertex = VertexRoutes { health: "/v1/health".to_owned(), predict: "/v1/models/sardine:predict".to_owned() };
    let settings = HttpSettings { vertex: Some(vertex), base_path: Some("/models/sardine/".to_owned()), ..settings() };
    let bench = Bench::with(settings, limits()).await;
    assert_eq!(bench.get("/v1/health").await.text, "Ok");
    let predictions = bench.post_to("/v1/models/sardine:predict", json!({"instances": ["Hi"]})).await;
    assert_eq!(predictions.json(), json!({"predictions": [[{"generated_text": ANSWER}]]}));
    for path in ["/models/sardine", "/models/sardine/health", "/health", "/"] {
        assert_eq!(bench.get(path).await.text, "Ok", "{path}");
    }
    assert_eq!(bench.post_to("/models/sardine/predict", json!({"inputs": "Hi"})).await.status, 200);
}

//! What the probes say of a server that is on its way, hangs, or has all hands full.

use std::time::{Duration, Instant};

use reqwest::Method;
use sardine::engine::EngineLimits;
use sardine::http::{HttpSettings, Server, WaitingRoom, listen};
use sardine::startup::{Phase, Startup};
use serde_json::json;

use crate::bench::{Bench, limits, settings};
use crate::script::Mode;

#[tokio::test]
async fn a_probe_that_fails_says_how_far_the_start_is() {
    let (bench, _load) = Bench::loading(settings(), limits());
    let status = bench.get("/health").await.json()["status"].clone();
    assert_eq!(
        (&status["phase"], &status["bytes_done"], &status["fraction"]),
        (&json!("loading"), &json!(null), &json!(null))
    );
    assert_eq!(status["remaining_s"], json!(null));
    assert!(status["elapsed_s"].as_f64().is_some_and(|seconds| (0.0..60.0).contains(&seconds)), "{status}");

    bench.startup.enter(Phase::Downloading);
    bench.startup.count(100, 1000);
    tokio::time::sleep(Duration::from_millis(200)).await;
    bench.startup.count(350, 1000);
    for path in ["/", "/health", "/ping", "/readyz", "/startupz"] {
        let body = bench.get(path).await.json();
        let status = &body["status"];
        assert_eq!((&body["error_type"], &status["phase"]), (&json!("loading"), &json!("downloading")), "{path}");
        assert_eq!((&status["bytes_done"], &status["bytes_total"]), (&json!(350), &json!(1000)), "{path}");
        assert_eq!(status["fraction"], json!(0.35), "{path}");
        // 250 bytes took 0.2 s and a little; 650 are to come.
        assert!(status["remaining_s"].as_f64().is_some_and(|seconds| (0.4..60.0).contains(&seconds)), "{status}");
    }
    bench.startup.enter(Phase::WarmingUp);
    let status = bench.get("/health").await.json()["status"].clone();
    assert_eq!((&status["phase"], &status["bytes_total"]), (&json!("warming up"), &json!(null)));
}

#[tokio::test]
async fn an_engine_that_hangs_is_not_alive_and_one_that_gets_on_is() {
    let bench = Bench::with(HttpSettings { stall_limit: Duration::from_millis(300), ..settings() }, limits()).await;
    bench.script.set(Mode::Stall);
    let body = json!({"inputs": "Hi", "parameters": {"max_new_tokens": 5}});
    let waiting = tokio::spawn(bench.request(Method::POST, "/").json(&body).send());
    bench.wait_until("the request runs", |bench| bench.service.num_running() == 1).await;
    assert_eq!(bench.get("/livez").await.status, 200, "it has only begun");
    tokio::time::sleep(Duration::from_millis(400)).await;
    for path in ["/livez", "/health"] {
        let reply = bench.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.json()["error_type"].clone()), (503, json!("unhealthy")), "{path}");
        assert!(reply.text.contains("--stall-limit-s"), "{}", reply.text);
    }
    assert_eq!(bench.get("/startupz").await.status, 200, "it has started");

    bench.script.set(Mode::Endless(5));
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    assert_eq!(bench.get("/livez").await.status, 200);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(bench.get("/livez").await.status, 200, "who has nothing to do does not hang");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_answer_at_once_however_full_the_server_is() {
    let limits = EngineLimits { max_batch_size: 1, max_queue: 200, ..limits() };
    let bench = Bench::with(settings(), limits).await;
    bench.script.set(Mode::Stall);
    let body = json!({"inputs": "Hi", "parameters": {"max_new_tokens": 5}});
    let waiting: Vec<_> = (0..150).map(|_| tokio::spawn(bench.request(Method::POST, "/").json(&body).send())).collect();
    bench.wait_until("149 wait", |bench| bench.service.queue_len() == 149).await;
    let mut times = Vec::new();
    for _ in 0..20 {
        for path in ["/health", "/livez", "/readyz", "/startupz"] {
            let asked = Instant::now();
            assert_eq!(bench.get(path).await.status, 200, "{path}");
            times.push(asked.elapsed());
        }
    }
    times.sort();
    assert!(times[times.len() / 2] < Duration::from_millis(50), "{:?}", times);
    waiting.iter().for_each(|request| request.abort());
    bench.script.set(Mode::Endless(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_answers_during_a_download_and_the_server_takes_it_over_without_a_gap() {
    let bench = Bench::start().await;
    let listener = listen("127.0.0.1", 0).unwrap();
    let (address, startup) = (listener.local_addr().unwrap(), Startup::new());
    startup.enter(Phase::Downloading);
    startup.count(1, 4);
    let waiting_room = WaitingRoom::open(&listener, startup).unwrap();
    let ask = async |path: &str| {
        let reply = bench.client.get(format!("http://{address}{path}")).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    };
    assert_eq!(ask("/livez").await, (200, "Ok".to_owned()));
    let (status, body) = ask("/health").await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &body["status"]["phase"], &body["status"]["fraction"]),
        (503, &json!("downloading"), &json!(0.25))
    );
    let (status, body) = ask("/v1/models").await;
    assert!(status == 503 && body.contains("\"type\":\"server_error\""), "{body}");

    let (done, told) = tokio::sync::oneshot::channel::<()>();
    let service = bench.service.clone();
    let handed_over = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        waiting_room.close().await;
        std::thread::spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let server = Server::on(listener, service, settings()).unwrap();
                server.run(async move { drop(told.await) }).await
            })
        })
    });
    let begun = Instant::now();
    while ask("/health").await.0 != 200 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the server never took over");
    }
    let server = handed_over.await.unwrap();
    done.send(()).unwrap();
    tokio::task::spawn_blocking(|| server.join().unwrap()).await.unwrap().unwrap();
}

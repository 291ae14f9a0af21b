//! Streams: TGI's events, as huggingface_hub reads them, and when the status of any stream is sent.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode};
use sardine::engine::EngineLimits;
use sardine::http::HttpSettings;
use serde_json::{Value, json};

use crate::bench::{ANSWER, Bench, Reply, events, limits, settings};
use crate::script::Mode;

async fn ask(bench: &Bench, parameters: Value) -> Reply {
    bench.post(json!({"inputs": "Hi", "parameters": parameters, "stream": true})).await
}

fn text(events: &[Value]) -> String {
    events.iter().map(|event| event["token"]["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_events_of_a_stream_are_the_whole_answer_in_pieces() {
    let bench = Bench::start().await;
    let reply = ask(&bench, json!({"details": true})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert_eq!(reply.header("cache-control"), Some("no-cache"));
    assert_eq!(reply.header("x-accel-buffering"), Some("no"));
    let num_prompt = bench.seen().remove(0).ids.len();

    let events = events(&reply);
    let ids = bench.chat.encode(ANSWER).unwrap();
    assert_eq!(events.len(), ids.len() + 1);
    assert_eq!(text(&events), ANSWER);
    for (index, (event, id)) in events.iter().zip(&ids).enumerate() {
        assert_eq!((&event["index"], &event["token"]["id"]), (&json!(index + 1), &json!(id)));
        assert_eq!((&event["generated_text"], &event["details"]), (&Value::Null, &Value::Null));
    }
    let last = &events[ids.len()];
    assert_eq!(last["token"], json!({"id": 1482, "text": "", "logprob": -0.25, "special": true}));
    assert_eq!(last["generated_text"], ANSWER);
    let details = json!({"finish_reason": "eos_token", "generated_tokens": ids.len() + 1, "input_length": num_prompt, "seed": null});
    assert_eq!(last["details"], details);
}

#[tokio::test]
async fn a_stream_ends_for_every_reason_that_an_answer_does() {
    let bench = Bench::start().await;
    for (parameters, text_so_far, reason) in
        [(json!({"max_new_tokens": 1}), "A", "length"), (json!({"stop": ["red", "red rec"]}), "A red", "stop_sequence")]
    {
        let mut parameters = parameters;
        parameters["details"] = json!(true);
        let events = events(&ask(&bench, parameters).await);
        let last = &events[events.len() - 1];
        assert_eq!(text(&events), text_so_far);
        assert_eq!((&last["generated_text"], &last["details"]["finish_reason"]), (&json!(text_so_far), &json!(reason)));
        assert_ne!(last["token"]["id"], 0, "the end is told with the last token");
    }
}

#[tokio::test]
async fn a_character_of_several_tokens_is_never_sent_in_halves() {
    let bench = Bench::start().await;
    let crab = "crab: 🦀!";
    let ids = bench.chat.encode(crab).unwrap();
    bench.script.set(Mode::Answer([&ids[..], &[1482]].concat()));
    let reply = ask(&bench, json!({})).await;
    assert!(!reply.text.contains('\u{fffd}'), "{}", reply.text);
    assert_eq!(text(&events(&reply)), crab);
    assert!(events(&reply).iter().all(|event| event["details"].is_null()), "details were not asked for");
}

/// A request for a stream of every route that streams.
fn requests() -> [(&'static str, Value); 4] {
    [
        ("/", json!({"inputs": "Hi", "stream": true})),
        ("/generate_stream", json!({"inputs": "Hi"})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "Hi"}], "stream": true})),
        ("/v1/completions", json!({"prompt": "Hi", "stream": true})),
    ]
}

#[tokio::test]
async fn the_status_comes_when_the_request_leaves_the_queue_and_not_with_the_first_token() {
    let bench = Bench::start().await;
    let answer = bench.script.mode();
    for (path, body) in requests() {
        bench.script.set(Mode::Stall);
        let begun = Instant::now();
        let response = bench.request(Method::POST, path).json(&body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert!(begun.elapsed() < bench_hold() / 4, "{path}: {:?}", begun.elapsed());
        assert_eq!((bench.service.num_running(), bench.seen().len()), (1, 0), "{path}: its prompt is still being read");
        bench.script.set(answer.clone());
        assert!(response.text().await.unwrap().contains(" red"), "{path}");
        bench.seen();
    }
}

#[tokio::test]
async fn a_stream_is_kept_alive_while_it_waits_and_while_its_prompt_is_read() {
    let settings = HttpSettings { status_hold: Duration::from_millis(100), ..settings() };
    let bench = Bench::with(settings, EngineLimits { max_batch_size: 1, ..limits() }).await;
    bench.script.set(Mode::Stall);
    // The first takes the only slot, the others wait.
    let streams = requests().map(|(path, body)| bench.request(Method::POST, path).json(&body).send());
    let alive = join_all(streams.map(async |stream| {
        let (mut response, mut text) = (stream.await.unwrap(), Vec::new());
        while !text.windows(3).any(|bytes| bytes == b":\n\n") {
            text.extend(response.chunk().await.unwrap().expect("the stream goes on"));
        }
    }));
    // Proxies cut what is silent for 15 seconds.
    tokio::time::timeout(Duration::from_secs(15), alive).await.expect("every stream shows that it is alive");
    bench.script.set(Mode::Endless(5));
}

/// How long the bench's server lets a stream wait for its turn.
fn bench_hold() -> Duration {
    settings().status_hold
}

#[tokio::test]
async fn a_failure_before_the_request_leaves_the_queue_has_its_status() {
    let bench = Bench::start().await;
    let reply = ask(&bench, json!({"top_p": 5})).await;
    assert_eq!((reply.status.as_u16(), reply.json()["error_type"].clone()), (400, json!("validation")));

    let (bench, taken) = Bench::busy(settings()).await;
    for (path, body) in requests() {
        let request = bench.request(Method::POST, path).header("x-request-timeout", "0.2").json(&body);
        let reply = bench.send(request).await;
        assert_eq!((reply.status.as_u16(), reply.json()["error_type"].clone()), (429, json!("overloaded")), "{path}");
        assert!(reply.header("retry-after").is_some(), "{path}");
    }
    taken.abort();
}

#[tokio::test]
async fn a_turn_that_does_not_come_after_the_status_was_sent_is_told_inside_the_stream() {
    let settings = HttpSettings { status_hold: Duration::from_millis(50), ..settings() };
    let (bench, taken) = Bench::busy(settings).await;
    for (path, body) in requests() {
        let request = bench.request(Method::POST, path).header("x-request-timeout", "0.3").json(&body);
        let reply = bench.send(request).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        assert_eq!(last_event(&reply.text)["error_type"], "overloaded", "{path}");
    }
    taken.abort();
}

#[tokio::test]
async fn a_failure_after_it_is_the_last_event() {
    let bench = Bench::start().await;
    for (path, body) in requests() {
        bench.script.set(Mode::Stall);
        let response = bench.request(Method::POST, path).json(&body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        bench.script.set(Mode::Panic("CUDA out of memory"));
        let (text, error) = (response.text().await.unwrap(), "generation failed: CUDA out of memory");
        let error = match path.starts_with("/v1") {
            false => json!({"error": error, "error_type": "generation"}),
            true => json!({
                "error": {"message": error, "type": "server_error", "param": null, "code": null},
                "error_type": "generation",
            }),
        };
        assert_eq!(last_event(&text), error, "{path}");
    }
}

#[tokio::test]
async fn a_failure_among_the_tokens_is_the_last_event_as_well() {
    let bench = Bench::start().await;
    for (path, mut body) in requests() {
        bench.script.set(Mode::Endless(5));
        match path.starts_with("/v1") {
            true => body["max_tokens"] = json!(1900),
            false => body["parameters"] = json!({"max_new_tokens": 1900}),
        }
        let mut response = bench.request(Method::POST, path).json(&body).send().await.unwrap();
        let mut text = Vec::new();
        while text.iter().filter(|byte| **byte == b'\n').count() < 6 {
            text.extend(response.chunk().await.unwrap().expect("the stream goes on"));
        }
        bench.script.set(Mode::Panic("CUDA out of memory"));
        let text = String::from_utf8(text).unwrap() + &response.text().await.unwrap();
        assert_eq!(last_event(&text)["error_type"], "generation", "{path}");
    }
}

fn last_event(text: &str) -> Value {
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    serde_json::from_str(last.strip_prefix("data: ").unwrap_or_else(|| panic!("no event: {text:?}"))).unwrap()
}

#[tokio::test]
async fn only_one_answer_can_be_streamed() {
    let bench = Bench::start().await;
    for body in [
        json!({"inputs": ["a", "b"]}),
        json!({"instances": ["a"]}),
        json!({"inputs": "a", "parameters": {"do_sample": true, "num_return_sequences": 2}}),
    ] {
        let mut body = body;
        body["stream"] = json!(true);
        let reply = bench.post(body.clone()).await;
        assert!(reply.status == 400 && reply.json()["error"].as_str().unwrap().starts_with("`stream`"), "{body}");
    }
}

#[tokio::test]
async fn a_client_that_takes_only_a_stream_gets_one() {
    let bench = Bench::start().await;
    let ask =
        |body: Value, accept: &str| bench.send(bench.request(Method::POST, "/").json(&body).header(ACCEPT, accept));
    let reply = ask(json!({"inputs": "Hi"}), "text/event-stream").await;
    assert_eq!(text(&events(&reply)), ANSWER);
    let reply = ask(json!({"inputs": "Hi"}), "text/event-stream, */*").await;
    assert_eq!(reply.json(), json!([{"generated_text": ANSWER}]));
    // OpenAI's client says so of streams too.
    let reply = ask(json!({"inputs": "Hi", "stream": true}), "application/json").await;
    assert_eq!(text(&events(&reply)), ANSWER);
    let reply = ask(json!({"inputs": "Hi", "stream": false}), "text/event-stream").await;
    assert_eq!(reply.status, 406);
}

#[tokio::test]
async fn a_client_that_leaves_its_stream_frees_the_slot() {
    let bench = Bench::start().await;
    bench.script.set(Mode::Endless(5));
    let body = json!({"inputs": "Hi", "parameters": {"max_new_tokens": 1900}, "stream": true}).to_string();
    let mut socket = TcpStream::connect(bench.address).unwrap();
    write!(socket, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut buffer = [0; 64];
    assert!(socket.read(&mut buffer).unwrap() > 0);
    bench.wait_until("the request runs", |bench| bench.service.num_running() == 1).await;
    let left = Instant::now();
    drop(socket);
    bench.wait_until("the slot is free", |bench| bench.service.num_running() == 0).await;
    assert!(left.elapsed() < Duration::from_millis(500), "{:?}", left.elapsed());
}

//! Every kind of failure over HTTP: its status, its type, its headers, and that the server answers the next request.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use reqwest::Method;
use sardine::engine::EngineLimits;
use sardine::http::HttpSettings;
use serde_json::{Value, json};

use crate::bench::{ANSWER, Bench, Reply, api_keys, limits, settings};
use crate::pictures::png_data_url;
use crate::script::Mode;

/// What a failure must look like: status, `error_type`, and a part of its text.
type Failure = (u16, &'static str, &'static str);

fn check(reply: &Reply, (status, error_type, part): Failure, about: &str) {
    assert_eq!(reply.status, status, "{about}: {}", reply.text);
    let body = reply.json();
    assert_eq!(body["error_type"], error_type, "{about}");
    assert!(body["error"].as_str().is_some_and(|error| error.contains(part)), "{about}: {body}");
    assert!(reply.header("x-request-id").is_some(), "{about}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{about}");
}

async fn still_answers(bench: &Bench) {
    assert_eq!(bench.post(json!({"inputs": "Hi"})).await.json(), json!([{"generated_text": ANSWER}]));
}

#[tokio::test]
async fn a_request_that_cannot_be_served_is_told_why() {
    let bench = Bench::start().await;
    let (invalid, fetch) = ("validation", "image_fetch");
    let picture = |source: &str| json!({"inputs": {"text": "What?", "image": source}});
    let user = |content: Value| json!({"inputs": [{"role": "user", "content": content}]});
    let long = "word ".repeat(3000);
    for (body, failure) in [
        (json!({"foo": 1}), (400, invalid, "Body needs to provide an `inputs` key (received foo)")),
        (json!({}), (400, invalid, "Body needs to provide an `inputs` key")),
        (json!([1]), (400, invalid, "received a list")),
        (json!("text"), (400, invalid, "received a string")),
        (json!({"inputs": null}), (400, invalid, "`inputs`")),
        (json!({"inputs": ""}), (400, invalid, "`inputs` is an empty text")),
        (json!({"inputs": []}), (400, invalid, "`inputs` is an empty list")),
        (json!({"inputs": 5}), (400, invalid, "`inputs` must be a string, a list or an object, not a number")),
        (json!({"inputs": {}}), (400, invalid, "`inputs` has nothing to answer")),
        (json!({"inputs": ["a", 5]}), (400, invalid, "`inputs[1]`")),
        (json!({"inputs": ["a", ""]}), (400, invalid, "`inputs[1]` is an empty text")),
        (json!({"inputs": [[5]]}), (400, invalid, "`inputs[0]`")),
        (json!({"inputs": {"text": "a", "prompt": "b"}}), (400, invalid, "`inputs.prompt` and `text`")),
        (json!({"inputs": {"text": 5}}), (400, invalid, "`inputs.text`")),
        (json!({"inputs": {"image": 5}}), (400, invalid, "`inputs.image`")),
        (json!({"inputs": {"images": ["a", 5]}}), (400, invalid, "`inputs.images[1]`")),
        (json!({"inputs": "a", "question": "b", "image": "c"}), (400, invalid, "`inputs` must be the same picture")),
        (json!({"inputs": "Hi", "stream": "yes"}), (400, invalid, "`stream`")),
        (json!({"inputs": "Hi", "options": {"gpu": true}}), (400, invalid, "`options.gpu`")),
        (json!({"inputs": "Hi", "model": 5}), (400, invalid, "`model`")),
        (json!({"instances": []}), (400, invalid, "`instances`")),
        (json!({"instances": [5]}), (400, invalid, "`instances[0]`")),
        (json!({"inputs": ["a", "b", "c", "d", "e"]}), (400, invalid, "5 answers, more than the 4")),
        (user(json!([{"type": "audio"}])), (400, invalid, "`inputs[0].content[0].type`")),
        (user(json!([{"type": "video", "video": "x"}])), (400, invalid, "a video is an http(s) URL")),
        (
            json!({"inputs": [{"role": "wizard", "content": "Hi"}, {"role": "user", "content": "x"}]}),
            (400, invalid, "role"),
        ),
        (json!({"inputs": [{"role": "system", "content": "Hi"}]}), (400, invalid, "No user query")),
        (json!({"inputs": long}), (400, invalid, "2000")),
        (json!({"inputs": "Hi", "parameters": {"max_new_tokens": 5000}}), (400, invalid, "5000 new ones")),
        (json!({"inputs": "Hi", "parameters": {"max_length": 3}}), (400, invalid, "max_length")),
        (picture("not base64!"), (400, invalid, "")),
        (picture("aGVsbG8gd29ybGQ="), (400, invalid, "")),
        (picture("/etc/passwd"), (400, invalid, "")),
        (picture("file:///etc/passwd"), (400, invalid, "")),
        (picture("http://127.0.0.1:9/a.png"), (400, fetch, "")),
        (json!({"inputs": ["Hi", {"text": "Hi", "image": "!"}]}), (400, invalid, "record 1: ")),
    ] {
        let reply = bench.post(body.clone()).await;
        check(&reply, failure, &body.to_string());
    }
    for text in ["{bad", "", "{\"inputs\": NaN}", "{\"inputs\": \"Hi\"} trailing", "{\"inputs\": \"\u{0}\"}"] {
        let request = bench.request(Method::POST, "/").header("content-type", "application/json").body(text);
        check(&bench.send(request).await, (400, invalid, "the body is not valid JSON"), text);
    }
    bench.seen();
    still_answers(&bench).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_the_limits_name() {
    let bench = Bench::start().await;
    let chunks = (0..20).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 16]));
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    for body in [vec![b' '; 20 << 16].into(), chunked] {
        let reply = bench.send(bench.request(Method::POST, "/").body(body)).await;
        check(&reply, (413, "payload_too_large", "SARDINE_MAX_BODY_BYTES"), "a large body");
    }
    still_answers(&bench).await;
}

/// Many clients write all of a body before they read: closing the connection on them hides why they were refused.
#[tokio::test]
async fn a_client_that_writes_before_it_reads_learns_why_it_was_refused() {
    let settings = HttpSettings { max_body_bytes: 16 << 20, api_keys: api_keys(&["secret"]), ..settings() };
    let bench = Bench::with(settings, limits()).await;
    // More than the sockets' buffers hold.
    for (len, key, status) in [(24 << 20, "secret", "413"), (12 << 20, "wrong", "401")] {
        let address = bench.address;
        let reply = tokio::task::spawn_blocking(move || {
            let mut socket = TcpStream::connect(address).unwrap();
            let head =
                format!("POST / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len}\r\n\r\n");
            socket.write_all(head.as_bytes()).unwrap();
            socket.write_all(&vec![b' '; len]).unwrap();
            let mut reply = [0; 1024];
            let len = socket.read(&mut reply).unwrap();
            String::from_utf8_lossy(&reply[..len]).into_owned()
        });
        let reply = reply.await.unwrap();
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{reply}");
    }
}

#[tokio::test]
async fn a_failure_of_the_model_fails_its_request_and_no_other() {
    let bench = Bench::start().await;
    let Mode::Answer(answer) = bench.script.mode() else { panic!("the bench begins with an answer") };
    bench.script.set(Mode::Panic("CUDA out of memory"));
    let reply = bench.post(json!({"inputs": "Hi"})).await;
    check(&reply, (500, "generation", "CUDA out of memory"), "a panic");
    assert_eq!(reply.header("x-should-retry"), None);

    bench.script.set(Mode::Fail("the logits are not numbers"));
    let reply = bench.post(json!({"inputs": "Hi"})).await;
    check(&reply, (500, "generation", "the logits are not numbers"), "a failed sequence");
    assert_eq!(reply.header("x-should-retry"), Some("false"));

    let reply = bench.post(json!({"inputs": ["Hi", "Hi"]})).await;
    check(&reply, (500, "generation", "record "), "a failed batch");

    bench.script.set(Mode::Answer(answer));
    still_answers(&bench).await;
}

#[tokio::test]
async fn a_full_queue_is_an_overload_that_says_when_to_come_back() {
    let narrow = EngineLimits { max_batch_size: 1, max_queue: 1, ..limits() };
    let bench = Bench::with(settings(), narrow).await;
    bench.script.set(Mode::Endless(5));
    let body = json!({"inputs": "Hi", "parameters": {"max_new_tokens": 1900}});
    let ask = || tokio::spawn(bench.request(Method::POST, "/").json(&body).send());
    let running = ask();
    bench.wait_until("the first runs", |bench| bench.service.num_running() == 1).await;
    let waiting = ask();
    bench.wait_until("the second waits", |bench| bench.service.queue_len() == 1).await;
    let metrics = bench.get("/metrics").await.text;
    assert!(metrics.starts_with("inf_batch_current_size 1\ninf_queue_size 1\n"), "{metrics}");

    let reply = bench.post(body.clone()).await;
    check(&reply, (429, "overloaded", "overloaded"), "a full queue");
    assert!(reply.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().unwrap() >= 1));
    assert_eq!(bench.get("/health").await.status, 200);
    running.abort();
    waiting.abort();
    bench.wait_until("both have left", |bench| bench.service.num_running() + bench.service.queue_len() == 0).await;
}

#[tokio::test]
async fn pictures_that_find_no_memory_left_are_an_overload_until_others_are_gone() {
    // The picture takes 9 tokens of 24 KiB.
    let bench = Bench::with_picture_memory(2 * 9 * (24 << 10) - 1).await;
    let url = png_data_url();
    let requests = [
        ("/", json!({"inputs": {"image": url, "text": "What?"}})),
        ("/generate", json!({"inputs": format!("![]({url})What?")})),
        ("/generate_stream", json!({"inputs": format!("![]({url})What?")})),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}),
        ),
    ];
    let answer = bench.script.mode();
    bench.script.set(Mode::Stall);
    let (path, body) = &requests[0];
    let running = tokio::spawn(bench.request(Method::POST, path).json(body).send());
    bench.wait_until("the first runs", |bench| bench.service.num_running() == 1).await;
    for (path, body) in &requests {
        let reply = bench.post_to(path, body.clone()).await;
        assert_eq!((reply.status.as_u16(), reply.json()["error_type"].clone()), (429, json!("overloaded")), "{path}");
        assert!(reply.text.contains("--picture-memory") && reply.header("retry-after").is_some(), "{}", reply.text);
    }
    bench.script.set(answer);
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
    bench.wait_until("its picture is gone", |bench| bench.service.held_picture_bytes() == 0).await;
    for (path, body) in &requests {
        let reply = bench.post_to(path, body.clone()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        bench.wait_until("its picture is gone", |bench| bench.service.held_picture_bytes() == 0).await;
    }
}

#[tokio::test]
async fn a_time_limit_ends_the_answer_and_keeps_its_text() {
    let bench = Bench::start().await;
    bench.script.set(Mode::Endless(bench.chat.encode("A").unwrap()[0]));
    let parameters = json!({"max_new_tokens": 1900, "max_time": 0.05, "details": true});
    let begun = std::time::Instant::now();
    let reply = bench.post(json!({"inputs": "Hi", "parameters": parameters})).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(reply.json()[0]["generated_text"].as_str().unwrap().starts_with("AA"), "{}", reply.text);
    assert_eq!(reply.json()[0]["details"]["finish_reason"], "length");
}

#[tokio::test]
async fn an_api_key_guards_the_model_and_not_the_probes() {
    let settings = HttpSettings { api_keys: api_keys(&["secret"]), ..settings() };
    let bench = Bench::with(settings, limits()).await;
    let ask = |key: Option<&str>| {
        let request = bench.request(Method::POST, "/").json(&json!({"inputs": "Hi"}));
        match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    };
    for key in [None, Some("wrong"), Some("")] {
        let reply = bench.send(ask(key)).await;
        check(&reply, (401, "unauthorized", ""), &format!("{key:?}"));
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        assert!(!reply.text.contains("secret"));
    }
    assert_eq!(bench.send(ask(Some("secret"))).await.status, 200);
    assert_eq!(bench.get("/health").await.status, 200);
}

#[tokio::test]
async fn the_strict_setting_answers_as_the_toolkit_does() {
    let settings = HttpSettings { strict_toolkit_status: true, ..settings() };
    let bench = Bench::with(settings, limits()).await;
    bench.script.set(Mode::Panic("CUDA out of memory"));
    for body in [json!({"inputs": "Hi"}), json!({"foo": 1})] {
        let reply = bench.post(body).await;
        let keys: Vec<String> = reply.json().as_object().unwrap().keys().cloned().collect();
        assert_eq!((reply.status.as_u16(), keys), (400, vec!["error".to_owned()]));
    }
    let request = bench.request(Method::POST, "/").header("content-type", "audio/wav").body("x");
    assert_eq!(bench.send(request).await.status, 400);
}

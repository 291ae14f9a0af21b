//! Pictures as files of a form, how large they may become, and that bad ones are nobody else's trouble.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use image::ImageFormat;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::bench::{ANSWER, Bench};
use crate::pictures::{file, png_data_url};
use crate::script::Mode;

const BOUNDARY: &str = "----a-boundary";

/// A part: its headers beside the name, and its content.
type Part<'a> = (&'a str, &'a str, &'a [u8]);

fn form(bench: &Bench, path: &str, parts: &[Part]) -> RequestBuilder {
    let mut body = Vec::new();
    for (name, headers, content) in parts {
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{headers}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    bench.request(Method::POST, path).header(CONTENT_TYPE, content_type).body(body)
}

const FILE: &str = "; filename=\"cat.png\"\r\nContent-Type: image/png";

/// Tokens of pictures in the only prompt that reached the model.
fn picture_tokens(bench: &Bench) -> usize {
    bench.prompt().matches("<|image_pad|>").count()
}

#[tokio::test]
async fn files_of_a_form_are_pictures_and_its_texts_are_fields() {
    let bench = Bench::start().await;
    let png = file(ImageFormat::Png);
    for path in ["/", "/predict"] {
        let parameters: Part = ("parameters", "", br#"{"max_new_tokens": 1}"#);
        let request = form(&bench, path, &[("image", FILE, &png), ("inputs", "", b"Why?"), parameters]);
        let reply = bench.send(request).await;
        assert_eq!(reply.json(), json!([{"generated_text": "A"}]), "{path}: {}", reply.text);
        let seen = bench.seen();
        assert_eq!(seen[0].num_pictures, 1);
        let text = bench.text(&seen[0]);
        assert!(text.contains("<|vision_end|>Why?"), "{text}");
    }
}

#[tokio::test]
async fn a_form_may_have_several_files_and_no_question() {
    let bench = Bench::start().await;
    let (png, jpeg) = (file(ImageFormat::Png), file(ImageFormat::Jpeg));
    let only_type = "\r\nContent-Type: image/jpeg";
    let parts: [Part; 3] = [("images[]", FILE, &png), ("images[]", only_type, &jpeg), ("max_new_tokens", "", b"1")];
    let reply = bench.send(form(&bench, "/", &parts)).await;
    assert_eq!(reply.json(), json!([{"generated_text": "A"}]), "{}", reply.text);
    let seen = bench.seen();
    assert_eq!(seen[0].num_pictures, 2);
    assert!(bench.text(&seen[0]).contains("What is shown?"));

    let messages = br#"[{"role": "user", "content": [{"type": "text", "text": "See "}, {"type": "image"}]}]"#;
    let reply = bench.send(form(&bench, "/", &[("messages", "", messages), ("file", FILE, &png)])).await;
    assert_eq!(reply.json(), json!([{"generated_text": ANSWER}]), "{}", reply.text);
    assert!(bench.prompt().contains("See <|vision_start|>"));

    let question: [Part; 2] = [("question", "", b"What?"), ("image", FILE, &png)];
    let record = bench.send(form(&bench, "/", &question)).await.json();
    assert_eq!(record[0]["answer"], ANSWER, "{record}");
}

#[tokio::test]
async fn a_form_that_cannot_be_read_is_the_clients_mistake_and_says_why() {
    let bench = Bench::start().await;
    let png = file(ImageFormat::Png);
    let instances = br#"[{"inputs": "a"}]"#;
    for (parts, what) in [
        (vec![("avatar", FILE, &png[..])], "`avatar` is no name for a file"),
        (vec![("inputs", "", b"a" as &[u8]), ("inputs", "", b"b")], "`inputs` stands twice"),
        (vec![("inputs", "", b"\xff")], "not UTF-8"),
        (vec![("image", FILE, &png), ("inputs", "", br#"["a", "b"]"#)], "one question"),
        (vec![("image", FILE, &png), ("instances", "", instances)], "`instances`"),
        (vec![("image", FILE, &png), ("temprature", "", b"1")], "temprature"),
        (vec![("image", FILE, b"no picture")], "not a picture"),
        (vec![], "`inputs`"),
    ] {
        let reply = bench.send(form(&bench, "/", &parts)).await;
        assert_eq!(reply.status, 400, "{what}: {}", reply.text);
        assert!(reply.text.contains(what), "{what}: {}", reply.text);
    }
    let whole = form(&bench, "/", &[("image", FILE, &png)]).build().unwrap();
    let body = whole.body().unwrap().as_bytes().unwrap();
    for (content_type, body) in [
        (format!("multipart/form-data; boundary={BOUNDARY}"), &body[..body.len() / 2]),
        ("multipart/form-data".to_owned(), body),
        ("multipart/form-data; boundary=another".to_owned(), body),
    ] {
        let request = bench.request(Method::POST, "/").header(CONTENT_TYPE, &content_type).body(body.to_vec());
        let reply = bench.send(request).await;
        assert_eq!(reply.status, 400, "{content_type}: {}", reply.text);
    }
    let many: Vec<Part> = vec![("image", FILE, b"x"); 300];
    assert!(bench.send(form(&bench, "/", &many)).await.text.contains("more than 256 parts"));
    assert!(bench.seen().is_empty());
    for path in ["/v1/chat/completions", "/generate"] {
        assert_eq!(bench.send(form(&bench, path, &[("image", FILE, &png)])).await.status, 415, "{path}");
    }
}

#[tokio::test]
async fn a_request_bounds_the_area_of_its_pictures_in_every_protocol() {
    let bench = Bench::start().await;
    let url = png_data_url();
    let chat = |picture: Value, more: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": picture}]}], "max_tokens": 1});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let kwargs = |max: usize| json!({"mm_processor_kwargs": {"max_pixels": max}});
    // 64 x 64 grows to the checkpoint's least: 96 x 96, which is 9 tokens of 32 x 32.
    for (path, body, tokens) in [
        ("/v1/chat/completions", chat(json!({"url": url}), json!({})), 9),
        ("/v1/chat/completions", chat(json!({"url": url, "detail": "low"}), json!({})), 9),
        ("/v1/chat/completions", chat(json!({"url": url, "max_pixels": 4096}), json!({})), 4),
        ("/v1/chat/completions", chat(json!({"url": url, "max_pixels": 1_000_000_000}), json!({})), 9),
        ("/v1/chat/completions", chat(json!({"url": url}), kwargs(4096)), 4),
        ("/v1/chat/completions", chat(json!({"url": url, "max_pixels": 1024}), kwargs(4096)), 1),
        ("/", json!({"image": {"url": url, "max_pixels": 4096}}), 4),
        ("/", json!({"image": url, "parameters": {"max_pixels": 4096}}), 4),
        ("/", json!({"image": url, "parameters": {"mm_processor_kwargs": {"min_pixels": 16_384}}}), 16),
        ("/generate", json!({"inputs": format!("![]({url})Hi"), "parameters": {"max_pixels": 4096}}), 4),
    ] {
        let reply = bench.post_to(path, body.clone()).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.text);
        assert_eq!(picture_tokens(&bench), tokens, "{path} {body}");
    }
    for (body, what) in [
        (chat(json!({"url": url, "min_pixels": 1_000_000}), json!({})), "--max-resized-pixels"),
        (chat(json!({"url": url, "detail": "huge"}), json!({})), "detail"),
        (chat(json!({"url": url}), json!({"mm_processor_kwargs": {"crop": true}})), "mm_processor_kwargs.crop"),
    ] {
        let reply = bench.post_to("/v1/chat/completions", body).await;
        assert_eq!(reply.status, 400, "{what}: {}", reply.text);
        assert!(reply.text.contains(what), "{what}: {}", reply.text);
    }
}

/// While pictures made to do harm are refused, a stream that was there before goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_pictures_do_not_hold_up_anybody_elses_tokens() {
    const LONGEST_PAUSE: Duration = Duration::from_millis(1500);
    let bench = Bench::start().await;
    bench.script.set(Mode::Endless(5));
    let body = json!({"inputs": "Hi", "stream": true, "parameters": {"max_new_tokens": 1900, "eos_token_id": 1}});
    let mut stream = bench.request(Method::POST, "/").json(&body).send().await.unwrap().bytes_stream();
    stream.next().await.unwrap().unwrap();
    // 30 megapixels of one colour in a few KB, within the limits: all of it is decoded before its end is missed.
    let bomb = {
        let mut file = std::io::Cursor::new(Vec::new());
        image::GrayImage::new(6000, 5000).write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner()
    };
    let hostile =
        [bomb[..bomb.len() - 30].to_vec(), bomb[..bomb.len() / 2].to_vec(), b"GIF89a\xff\xff\xff\xff\0\0\0;".to_vec()];
    let requests = (0..9).map(|index| {
        let request = bench.request(Method::POST, "/").header(CONTENT_TYPE, "image/png");
        request.body(hostile[index % hostile.len()].clone()).send()
    });
    let refused = tokio::spawn(futures_util::future::join_all(requests));
    let (mut longest, mut last, mut num_events) = (Duration::ZERO, Instant::now(), 0);
    while !refused.is_finished() {
        let Some(piece) = stream.next().await else { break };
        piece.unwrap();
        longest = longest.max(last.elapsed());
        last = Instant::now();
        num_events += 1;
    }
    for reply in refused.await.unwrap() {
        assert_eq!(reply.unwrap().status(), 400);
    }
    println!("{num_events} pieces of the stream, the longest pause {longest:?}");
    assert!(num_events > 3 && longest < LONGEST_PAUSE, "{num_events} pieces, {longest:?}");
}

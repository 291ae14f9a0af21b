//! Content types in both directions: what is read, what is refused, and when.

use image::ImageFormat;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::bench::{ANSWER, Bench};
use crate::pictures::file;

const JSON: &str = r#"{"inputs": "Hi"}"#;

fn post(bench: &Bench, content_type: Option<&str>, body: impl Into<Vec<u8>>) -> RequestBuilder {
    let request = bench.request(Method::POST, "/").body(body.into());
    match content_type {
        Some(content_type) => request.header(CONTENT_TYPE, content_type),
        None => request,
    }
}

#[tokio::test]
async fn json_is_read_under_every_type_that_clients_give_it() {
    let bench = Bench::start().await;
    for content_type in [
        Some("application/json"),
        Some("application/json; charset=UTF-8"),
        Some("application/json;charset=utf-8"),
        Some("Application/JSON"),
        Some("application/x-www-form-urlencoded"),
        Some("application/octet-stream"),
        Some("text/plain;charset=UTF-8"),
        None,
    ] {
        let reply = bench.send(post(&bench, content_type, JSON)).await;
        assert_eq!(reply.status, 200, "{content_type:?}: {}", reply.text);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.json(), json!([{"generated_text": ANSWER}]), "{content_type:?}");
    }
    let with_mark = [b"\xEF\xBB\xBF", JSON.as_bytes()].concat();
    assert_eq!(bench.send(post(&bench, Some("application/json"), with_mark)).await.status, 200);
}

#[tokio::test]
async fn a_picture_may_be_the_whole_body() {
    let bench = Bench::start().await;
    for (content_type, format) in [
        (Some("image/png"), ImageFormat::Png),
        (Some("image/jpeg"), ImageFormat::Jpeg),
        (Some("image/jpg"), ImageFormat::Jpeg),
        (Some("image/webp"), ImageFormat::WebP),
        (Some("image/gif"), ImageFormat::Gif),
        (Some("image/bmp"), ImageFormat::Bmp),
        (Some("image/tiff"), ImageFormat::Tiff),
        (Some("image/x-image"), ImageFormat::Png),
        // The name of the type need not be right.
        (Some("image/png"), ImageFormat::Jpeg),
        (Some("application/octet-stream"), ImageFormat::Tiff),
        (None, ImageFormat::Jpeg),
    ] {
        let reply = bench.send(post(&bench, content_type, file(format))).await;
        assert_eq!(reply.json(), json!([{"generated_text": ANSWER}]), "{content_type:?} {format:?}");
        let seen = bench.seen();
        assert_eq!((seen.len(), seen[0].num_pictures), (1, 1), "{content_type:?} {format:?}");
        assert!(bench.text(&seen[0]).contains("What is shown?"));
    }
}

#[tokio::test]
async fn a_picture_takes_its_parameters_from_the_query_string() {
    let bench = Bench::start().await;
    let request = bench.request(Method::POST, "/predict?max_new_tokens=1&do_sample=true&temperature=0.5");
    let reply = bench.send(request.header(CONTENT_TYPE, "image/png").body(file(ImageFormat::Png))).await;
    assert_eq!(reply.json(), json!([{"generated_text": "A"}]));
    assert_eq!(bench.seen()[0].sampling.temperature, 0.5);
}

#[tokio::test]
async fn huggingface_js_gets_one_record_about_a_picture() {
    let bench = Bench::start().await;
    let request =
        post(&bench, Some("image/png"), file(ImageFormat::Png)).header("user-agent", "@huggingface/inference/4.0");
    assert_eq!(bench.send(request).await.json(), json!({"generated_text": ANSWER}));
}

#[tokio::test]
async fn a_type_that_nothing_decodes_is_refused_with_those_that_are() {
    let bench = Bench::start().await;
    for (content_type, body) in [
        (Some("audio/wav"), "RIFF"),
        (Some("text/csv"), JSON),
        (Some("application/x-www-form-urlencoded"), "inputs=Hi"),
        (Some("application/octet-stream"), "Hi"),
        (None, "Hi"),
        (None, ""),
    ] {
        let reply = bench.send(post(&bench, content_type, body)).await;
        assert_eq!(reply.status, 415, "{content_type:?}: {}", reply.text);
        assert_eq!(reply.json()["error_type"], "validation");
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("application/json") && error.contains("image/png"), "{error}");
    }
}

#[tokio::test]
async fn what_a_client_cannot_accept_is_refused_before_the_model_runs() {
    let bench = Bench::start().await;
    for (accept, status) in [
        ("*/*", 200),
        ("application/json", 200),
        ("application/json, text/plain, */*", 200),
        ("text/html;q=0.9, application/*;q=0.1", 200),
        ("text/html", 406),
        ("application/json;q=0, text/event-stream;q=0", 406),
    ] {
        let reply = bench.send(post(&bench, None, JSON).header(ACCEPT, accept)).await;
        assert_eq!(reply.status, status, "{accept}");
        assert_eq!(bench.seen().len(), usize::from(status == 200), "{accept}");
    }
}

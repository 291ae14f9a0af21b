//! fry end to end: the real binary, the trained miniature inside it, real pictures, and answers that must be true.
//!
//! The server takes its device from the environment (`SARDINE_DEVICE`, `SARDINE_CUDA_LIBRARY`), so the same tests run on CUDA.

#[path = "../media/harmful.rs"]
mod harmful;
#[path = "../media/harmful_hosts.rs"]
mod harmful_hosts;
mod hostile;
mod idle;
mod lifecycle;
mod many;
mod samples;
mod server;
mod videos;

use std::process::Command;

use futures_util::future::join_all;
use serde_json::{Value, json};
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, ResponseTemplate};

use samples::{Sample, file, samples};
use server::Server;

#[tokio::test]
async fn every_sample_is_answered_truly() {
    let server = Server::start(&[]).await;
    let mut wrong = Vec::new();
    for sample in samples() {
        let answer = server.answer(sample.request()).await;
        if answer != sample.answer {
            wrong.push(format!("{}: {answer:?} instead of {:?}", sample.name, sample.answer));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn requests_that_share_the_model_get_the_answers_that_they_get_alone() {
    let server = Server::start(&["--dtype", "float32"]).await;
    let samples = samples();
    let together = join_all(samples.iter().map(|sample| server.answer(sample.request()))).await;
    for (sample, together) in samples.iter().zip(together) {
        assert_eq!(together, server.answer(sample.request()).await, "{}", sample.name);
    }
}

#[tokio::test]
async fn an_answer_streamed_is_the_answer_whole() {
    let server = Server::start(&[]).await;
    for sample in samples() {
        let streamed = server.streamed_answer(sample.request()).await;
        assert_eq!(streamed, server.answer(sample.request()).await, "{}", sample.name);
    }
}

#[tokio::test]
async fn a_picture_is_the_same_by_url_by_data_url_as_base64_and_as_the_body() {
    let pictures = MockServer::start().await;
    let described: Vec<Sample> = samples().into_iter().filter(|sample| sample.is_description()).collect();
    assert!(!described.is_empty(), "the samples hold no description");
    let server = Server::start(&["--allowed-networks", "127.0.0.0/8"]).await;
    for sample in described {
        let name = &sample.pictures()[0];
        let bytes = file(name);
        let served = ResponseTemplate::new(200).set_body_bytes(bytes.clone());
        Mock::given(path(format!("/{name}"))).respond_with(served).mount(&pictures).await;
        let ask = |image: String| {
            let content = json!([{"type": "image", "image": image}, {"type": "text", "text": sample.question()}]);
            json!({"inputs": [{"role": "user", "content": content}], "parameters": {"max_new_tokens": 256, "do_sample": false}})
        };
        let base64 = samples::base64(&bytes);
        for image in [format!("{}/{name}", pictures.uri()), samples::data_url(name), base64] {
            assert_eq!(server.answer(ask(image)).await, sample.answer, "{name}");
        }
        if sample.question() == "Describe this image." {
            assert_eq!(server.answer_to_body(bytes).await, sample.answer, "{name}");
        }
    }
}

#[tokio::test]
async fn a_picture_that_comes_again_is_remembered_and_answered_as_without_a_memory() {
    let described: Vec<Sample> = samples().into_iter().filter(|sample| sample.is_description()).collect();
    let num_pictures = described.len() as u64;
    for (flags, expected) in
        [(&[][..], (num_pictures, num_pictures)), (&["--picture-cache", "0"], (2 * num_pictures, 0))]
    {
        let server = Server::start(flags).await;
        for sample in described.iter().chain(&described) {
            assert_eq!(server.answer(sample.request()).await, sample.answer, "{} {flags:?}", sample.name);
        }
        let metrics = server.get("metrics").await;
        let [computed, reused] = ["computed", "reused"].map(|what| format!("sardine_pictures_{what}_total"));
        assert_eq!((idle::sample(&metrics, &computed), idle::sample(&metrics, &reused)), expected, "{flags:?}");
        assert_eq!(idle::sample(&metrics, "sardine_picture_cache_bytes") > 0, flags.is_empty());
    }
}

#[tokio::test]
async fn a_wrong_request_is_refused_and_the_next_is_answered() {
    let server = Server::start(&[]).await;
    let sample = &samples()[0];
    let wrong = json!({"inputs": [{"role": "user", "content": "Hello!"}], "parameters": {"temprature": 1}});
    let (status, body) = server.post(wrong).await;
    assert_eq!(status, 400);
    assert!(body["error"].as_str().is_some_and(|error| error.contains("temprature")), "{body}");
    assert_eq!(server.answer(sample.request()).await, sample.answer);
}

#[tokio::test]
async fn the_smoke_test_for_live_servers_finds_this_one_well_and_one_that_is_not_there_ill() {
    let server = Server::start(&[]).await;
    let smoke = |url: &str| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/smoke.sh");
        let output = Command::new(script).arg(url).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, told) = smoke(server.url());
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = smoke("http://127.0.0.1:1");
    assert!(code == Some(1) && told.contains("7 checks failed"), "{told}");
}

#[test]
fn the_terminal_gives_the_same_answer() {
    let samples = samples();
    let sample = samples.iter().find(|sample| sample.is_description()).expect("the samples hold a description");
    let output = Command::new(env!("CARGO_BIN_EXE_sardine"))
        .args(["generate", "--image", samples::path(&sample.pictures()[0]).to_str().unwrap(), &sample.question()])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        sample.answer,
        "{:?}",
        String::from_utf8(output.stderr)
    );
}

#[test]
fn a_model_that_is_not_there_is_one_line_and_exit_code_1() {
    let output = Command::new(env!("CARGO_BIN_EXE_sardine"))
        .args(["generate", "--model", "/no/such/folder", "Hi"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("/no/such/folder"), "{text}");
}

#[test]
fn where_cuda_was_brought_along_and_no_gpu_answers_the_log_warns() {
    let warnings = |flags: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sardine"))
            .args(["plan", "--cuda-library"])
            .args(flags)
            .env_remove("SARDINE_DEVICE")
            .output()
            .unwrap();
        assert!(output.status.success(), "{:?}", String::from_utf8(output.stderr));
        String::from_utf8(output.stderr).unwrap()
    };
    // A library that can be loaded and has no GPU behind it.
    let warning = warnings(&["libm.so.6"]);
    assert!(warning.contains("WARN") && warning.contains("no GPU answers"), "{warning}");
    for quiet in [&["none"][..], &["no-such-library.so"], &["libm.so.6", "--device", "cpu"]] {
        assert_eq!(warnings(quiet), "", "{quiet:?}");
    }
}

/// The text of a reply in the toolkit's form.
fn generated_text(body: &Value) -> String {
    body[0]["generated_text"].as_str().unwrap_or_else(|| panic!("no generated_text in {body}")).trim().to_owned()
}

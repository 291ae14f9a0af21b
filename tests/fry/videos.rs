//! Real video files, and lists of frames, about which fry must say what moves where.
//!
//! Tests of files need ffmpeg on PATH, and say so where it is missing.

use std::path::PathBuf;

use serde_json::{Value, json};
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::samples::base64;
use crate::server::Server;

/// A film of a shape that moves: its file is called `red-star-right.mp4`.
struct Film {
    name: String,
    bytes: Vec<u8>,
}

impl Film {
    fn answer(&self) -> String {
        let words: Vec<&str> = self.name.split(['-', '.']).collect();
        let article = if words[0].starts_with('o') { "An" } else { "A" };
        let way = match words[2] {
            side @ ("left" | "right") => format!("to the {side}"),
            other => other.to_owned(),
        };
        format!("{article} {} {} moves {way}.", words[0], words[1])
    }

    fn data_url(&self) -> String {
        let subtype = self.name.rsplit('.').next().unwrap();
        format!("data:video/{subtype};base64,{}", base64(&self.bytes))
    }
}

fn films() -> Vec<Film> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fry/clips");
    let mut films: Vec<Film> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| Film {
            name: entry.file_name().into_string().unwrap(),
            bytes: std::fs::read(entry.path()).unwrap(),
        })
        .collect();
    films.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(films.len(), 4, "one in each direction");
    films
}

fn has_ffmpeg() -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).any(|folder| folder.join("ffmpeg").is_file());
    if !found {
        eprintln!("skipped: there is no ffmpeg on PATH");
    }
    found
}

fn toolkit(part: Value) -> Value {
    let content = json!([part, {"type": "text", "text": "Describe the video."}]);
    json!({"inputs": [{"role": "user", "content": content}], "parameters": {"max_new_tokens": 40, "do_sample": false}})
}

fn openai(part: Value) -> Value {
    let content = json!([part, {"type": "text", "text": "Describe the video."}]);
    json!({"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 40})
}

#[tokio::test]
async fn a_film_is_understood_on_every_route_and_in_every_spelling() {
    if !has_ffmpeg() {
        return;
    }
    let server = Server::start(&["--allowed-networks", "127.0.0.0/8"]).await;
    let remote = MockServer::start().await;
    for film in films() {
        let url = format!("{}/{}", remote.uri(), film.name);
        let served = ResponseTemplate::new(200).set_body_bytes(film.bytes.clone());
        Mock::given(path(format!("/{}", film.name))).respond_with(served).mount(&remote).await;
        for part in [
            json!({"type": "video", "video": url}),
            json!({"type": "video", "video": film.data_url()}),
            json!({"type": "input_video", "base64": base64(&film.bytes)}),
            json!({"type": "video", "video": film.data_url(), "fps": 2}),
            json!({"type": "video", "video": film.data_url(), "video_start": 0, "video_end": 600}),
        ] {
            assert_eq!(server.answer(toolkit(part.clone())).await, film.answer(), "{}", film.name);
        }
        let part = json!({"type": "video_url", "video_url": {"url": film.data_url()}});
        let said = server.chat(openai(part)).await;
        assert_eq!(said["message"]["content"].as_str().map(str::trim), Some(&*film.answer()), "{}", film.name);
        let beside = json!({"inputs": {"text": "Describe the video.", "video": film.data_url()}, "parameters": {"do_sample": false}});
        assert_eq!(server.answer(beside).await, film.answer(), "{}", film.name);
        assert_eq!(server.answer_to_body(film.bytes.clone()).await, film.answer(), "{}", film.name);
    }
}

#[tokio::test]
async fn a_server_without_a_decoder_says_so_and_reads_lists_of_frames() {
    let server = Server::start(&["--ffmpeg", "/no/such/ffmpeg"]).await;
    let film = &films()[0];
    let (status, body) = server.post(toolkit(json!({"type": "video", "video": film.data_url()}))).await;
    let error = body["error"].as_str().unwrap_or_default();
    assert!(status == 400 && error.contains("--ffmpeg") && error.contains("list of pictures"), "{status} {body}");
    let picture = crate::samples::data_url("describe-one.png");
    let frames = json!({"type": "video", "video": [picture, picture, picture, picture], "fps": 2});
    assert!(server.answer(toolkit(frames)).await.contains(' '));
}

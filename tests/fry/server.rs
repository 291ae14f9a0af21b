//! The real binary, serving on a port of its own choice.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use crate::generated_text;

pub struct Server {
    process: Child,
    url: String,
    client: Client,
}

/// What a request consists of.
pub enum Body {
    Json(Value),
    Picture(Vec<u8>),
}

/// One connection to the server.
pub struct Connection(TcpStream);

impl Connection {
    /// Asks whether the server is ready.
    pub async fn is_ready(&mut self) -> bool {
        self.0.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let (mut reply, mut piece) = (Vec::new(), [0; 1024]);
        while !reply.ends_with(b"\r\n\r\nOk") {
            match self.0.read(&mut piece).await.unwrap() {
                0 => return false,
                length => reply.extend_from_slice(&piece[..length]),
            }
        }
        reply.starts_with(b"HTTP/1.1 200 ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts `sardine serve` on the embedded model and waits until it is ready.
    pub async fn start(flags: &[&str]) -> Server {
        let mut process = Command::new(env!("CARGO_BIN_EXE_sardine"))
            .args(["serve", "--port", "0", "--log", "info"])
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address =
            lines.find_map(|line| line.split_once("listening address=").map(|(_, address)| address.trim().to_owned()));
        let url = format!("http://{}/", address.expect("the server says where it listens"));
        // Whoever does not read a pipe stops its writer once it is full.
        std::thread::spawn(move || lines.for_each(|line| println!("{line}")));
        let server = Server { process, url, client: Client::builder().no_proxy().build().unwrap() };
        server.wait_until_ready().await;
        server
    }

    async fn wait_until_ready(&self) {
        let begun = Instant::now();
        while !self
            .client
            .get(format!("{}health", self.url))
            .send()
            .await
            .is_ok_and(|reply| reply.status().is_success())
        {
            assert!(begun.elapsed() < Duration::from_secs(120), "the server is not ready after two minutes");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// POST of JSON to a path below `/`.
    async fn post_to(&self, path: &str, request: &Value) -> Response {
        self.client.post(format!("{}{path}", self.url)).json(request).send().await.unwrap()
    }

    /// The JSON that answers a request that is served.
    async fn answer_of(&self, path: &str, request: &Value) -> Value {
        let reply = self.post_to(path, request).await;
        let (status, body) = (reply.status(), reply.json::<Value>().await.unwrap());
        assert_eq!(status, 200, "{body}");
        body
    }

    pub async fn post(&self, request: Value) -> (u16, Value) {
        let reply = self.post_to("", &request).await;
        (reply.status().as_u16(), reply.json().await.unwrap())
    }

    pub async fn answer(&self, request: Value) -> String {
        generated_text(&self.answer_of("", &request).await)
    }

    /// The texts of a stream's tokens, put together.
    pub async fn streamed_answer(&self, mut request: Value) -> String {
        request["stream"] = true.into();
        self.streamed_tokens("", &request).await
    }

    async fn streamed_tokens(&self, path: &str, request: &Value) -> String {
        let body = self.post_to(path, request).await.text().await.unwrap();
        let events = body.lines().filter_map(|line| line.strip_prefix("data: "));
        let texts = events.map(|event| {
            let event: Value = serde_json::from_str(event).unwrap();
            event["token"]["text"].as_str().unwrap_or_else(|| panic!("no token in {event}")).to_owned()
        });
        texts.collect::<String>().trim().to_owned()
    }

    /// The prompt that the chat template makes of a request of `/chat_tokenize`.
    pub async fn prompt(&self, request: Value) -> String {
        self.answer_of("chat_tokenize", &request).await["templated_text"].as_str().unwrap().to_owned()
    }

    /// The answer of `/generate`.
    pub async fn generate(&self, request: &Value) -> String {
        let body = self.answer_of("generate", request).await;
        body["generated_text"].as_str().unwrap_or_else(|| panic!("no text in {body}")).trim().to_owned()
    }

    /// The answer of `/generate_stream`, put together.
    pub async fn generate_stream(&self, request: &Value) -> String {
        self.streamed_tokens("generate_stream", request).await
    }

    /// What the assistant says to a request of `/v1/chat/completions`, and why it ended. Calls are without their ids.
    pub async fn chat(&self, request: Value) -> Value {
        let mut body = self.answer_of("v1/chat/completions", &request).await;
        let mut choice = body["choices"][0].take();
        let calls = choice["message"].get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten() {
            call.as_object_mut().unwrap().remove("id");
        }
        json!({"message": choice["message"], "finish_reason": choice["finish_reason"]})
    }

    /// As [`Server::chat`], put together from a stream.
    pub async fn streamed_chat(&self, mut request: Value) -> Value {
        request["stream"] = true.into();
        let body = self.post_to("v1/chat/completions", &request).await.text().await.unwrap();
        assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
        let events = body.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        let choices = events.map(|event| serde_json::from_str::<Value>(event).unwrap()["choices"][0].take());
        put_together(choices)
    }

    /// Asks for an answer at a path, and hangs up after `patience`.
    pub async fn give_up(&self, path: &str, request: &Value, patience: Duration) {
        let answer = async { self.post_to(path, request).await.text().await };
        let _ = tokio::time::timeout(patience, answer).await;
    }

    /// The tokens of a stream of `/v1/completions` that goes on for `num_tokens`: `begun` is told of the first, and the number
    /// that arrived is returned, with whether the stream came to its end.
    pub async fn complete(&self, seed: u32, num_tokens: usize, begun: &Barrier) -> (usize, bool) {
        let request = json!({
            "model": "fry", "prompt": [100 + seed, 101, 102], "max_tokens": num_tokens, "temperature": 0, "ignore_eos": true,
            "stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true},
        });
        let mut body = self.post_to("v1/completions", &request).await.bytes_stream();
        let mut text = String::new();
        while let Some(Ok(bytes)) = body.next().await {
            if text.is_empty() {
                begun.wait().await;
            }
            text += std::str::from_utf8(&bytes).unwrap();
        }
        let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut usages = events
            .filter_map(|event| serde_json::from_str::<Value>(event).ok()?["usage"]["completion_tokens"].as_u64());
        (usages.next_back().unwrap_or(0) as usize, text.ends_with("data: [DONE]\n\n"))
    }

    /// The text of a stream of `/v1/completions` that goes on for `num_tokens`, and when its pieces arrived.
    pub async fn long_answer(&self, num_tokens: usize) -> (String, Vec<Instant>) {
        let request = json!({
            "model": "any", "prompt": [100, 101, 102], "max_tokens": num_tokens, "temperature": 0, "ignore_eos": true,
            "stream": true,
        });
        let mut body = self.post_to("v1/completions", &request).await.bytes_stream();
        let (mut events, mut arrivals) = (String::new(), Vec::new());
        while let Some(bytes) = body.next().await {
            events += std::str::from_utf8(&bytes.unwrap()).unwrap();
            arrivals.push(Instant::now());
        }
        assert!(events.ends_with("data: [DONE]\n\n"), "{events}");
        let events = events.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        let texts = events.map(|event| {
            let event: Value = serde_json::from_str(event).unwrap();
            event["choices"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {event}")).to_owned()
        });
        (texts.collect(), arrivals)
    }

    /// POST of JSON, or of a picture's file, to a path below `/`: the status and the body.
    pub async fn send(&self, path: &str, body: Body) -> (u16, String) {
        let request = self.client.post(format!("{}{path}", self.url));
        let request = match body {
            Body::Json(value) => request.json(&value),
            Body::Picture(bytes) => request.header("content-type", "image/png").body(bytes),
        };
        let reply = request.send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }

    /// The memory that the process holds.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
    }

    /// A connection of its own, kept open.
    pub async fn connect(&self) -> Connection {
        let address = self.url.trim_start_matches("http://").trim_end_matches('/');
        Connection(TcpStream::connect(address).await.unwrap())
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: i32) {
        // Safety: the process is ours and not waited for yet, so its number is its own.
        assert_eq!(unsafe { libc::kill(self.process.id() as i32, signal) }, 0);
    }

    /// The exit code of the process, once it has ended by itself.
    pub async fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "the process did not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// GET of a path, as text.
    pub async fn get(&self, path: &str) -> String {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap().text().await.unwrap()
    }

    /// A picture's file as the whole body.
    pub async fn answer_to_body(&self, picture: Vec<u8>) -> String {
        let url = format!("{}?max_new_tokens=256&do_sample=false", self.url);
        let reply = self.client.post(url).body(picture).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        generated_text(&reply.json().await.unwrap())
    }
}

/// A whole choice made of the choices of a stream's chunks.
fn put_together(choices: impl Iterator<Item = Value>) -> Value {
    let mut message = json!({});
    let mut finish_reason = Value::Null;
    for mut choice in choices {
        if !choice["finish_reason"].is_null() {
            finish_reason = choice["finish_reason"].take();
        }
        let Value::Object(delta) = choice["delta"].take() else { panic!("a choice without a delta") };
        for (field, value) in delta {
            match value {
                Value::Array(calls) => calls.into_iter().for_each(|call| add_call(&mut message, call)),
                Value::String(more) => {
                    let text = message[&field].as_str().unwrap_or_default().to_owned() + &more;
                    message[field] = text.into();
                }
                other => panic!("{field} is {other}"),
            }
        }
    }
    if message["content"] == "" && message.get("tool_calls").is_some() {
        message["content"] = Value::Null;
    }
    json!({"message": message, "finish_reason": finish_reason})
}

fn add_call(message: &mut Value, mut call: Value) {
    if message.get("tool_calls").is_none() {
        message["tool_calls"] = json!([]);
    }
    let calls = message["tool_calls"].as_array_mut().unwrap();
    if call.get("id").is_some() {
        calls.push(json!({"type": call["type"], "function": {"name": call["function"]["name"], "arguments": ""}}));
    }
    let function = &mut calls.last_mut().expect("a call begins with its id")["function"];
    let arguments =
        function["arguments"].as_str().unwrap().to_owned() + call["function"]["arguments"].as_str().unwrap();
    function["arguments"] = arguments.into();
    call.take();
}

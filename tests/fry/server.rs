//! The real binary, serving on a port of its own choice.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::Value;

use crate::generated_text;

pub struct Server {
    process: Child,
    url: String,
    client: Client,
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

    pub async fn post(&self, request: Value) -> (u16, Value) {
        let reply = self.client.post(&self.url).json(&request).send().await.unwrap();
        (reply.status().as_u16(), reply.json().await.unwrap())
    }

    pub async fn answer(&self, request: Value) -> String {
        let (status, body) = self.post(request).await;
        assert_eq!(status, 200, "{body}");
        generated_text(&body)
    }

    /// The texts of a stream's tokens, put together.
    pub async fn streamed_answer(&self, mut request: Value) -> String {
        request["stream"] = true.into();
        let body = self.client.post(&self.url).json(&request).send().await.unwrap().text().await.unwrap();
        let events = body.lines().filter_map(|line| line.strip_prefix("data: "));
        let texts = events.map(|event| {
            let event: Value = serde_json::from_str(event).unwrap();
            event["token"]["text"].as_str().unwrap_or_else(|| panic!("no token in {event}")).to_owned()
        });
        texts.collect::<String>().trim().to_owned()
    }

    /// A picture's file as the whole body.
    pub async fn answer_to_body(&self, picture: Vec<u8>) -> String {
        let url = format!("{}?max_new_tokens=256&do_sample=false", self.url);
        let reply = self.client.post(url).body(picture).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        generated_text(&reply.json().await.unwrap())
    }
}

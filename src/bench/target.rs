//! Who is measured: the engine in this process, or any server that speaks OpenAI's API.

use std::pin::Pin;
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};

use super::Shown;
use crate::engine::Sampling;
use crate::generation::{
    ChatRequest, Conversation, Ending, Generation, Input, Ledger, Length, MaxLength, Service, Stop,
};
use crate::media::{Footage, Medium, Source, Video, VideoOptions};

/// What to answer to, always greedily and to the last token that is asked for.
#[derive(Debug, Clone)]
pub(super) enum Work {
    /// Continue these token ids.
    Tokens(Vec<u32>),
    /// Describe pictures or a clip, given by files.
    Shown { shown: Shown, files: Vec<Vec<u8>> },
}

pub(super) enum Target {
    InProcess(Service),
    Http { client: reqwest::Client, url: String, model: String },
}

/// The tokens of an answer as they arrive.
pub(super) enum Arrivals {
    /// An answer, and what it cost once it is over.
    InProcess(Option<Box<Generation>>, Ledger),
    Http(Events),
}

impl Target {
    /// A server whose OpenAI routes are below `url`.
    pub(super) async fn http(url: &str) -> Result<Target, String> {
        // Some servers close a connection when a stream ends, without saying so before: each request opens its own.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        let client = client.build().map_err(|error| error.to_string())?;
        let url = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let model = served_model(&client, &url).await.unwrap_or_else(|| "default".to_owned());
        Ok(Target::Http { client, url, model })
    }

    /// Asks for `num_tokens` tokens.
    pub(super) async fn start(&self, work: &Work, num_tokens: usize) -> Result<Arrivals, String> {
        match self {
            Target::InProcess(service) => {
                let ledger = Ledger::default();
                let generation = service.with_ledger(ledger.clone()).start(request(work, num_tokens)).await;
                generation
                    .map(|generation| Arrivals::InProcess(Some(Box::new(generation)), ledger))
                    .map_err(|error| error.to_string())
            }
            Target::Http { client, url, model } => {
                let (path, body) = post(model, work, num_tokens);
                let sent = client.post(format!("{url}{path}")).json(&body).send().await;
                let response = sent.map_err(|error| format!("{url}{path}: {error}"))?;
                if !response.status().is_success() {
                    let status = response.status();
                    return Err(format!("{url}{path}: {status} {}", response.text().await.unwrap_or_default()));
                }
                Ok(Arrivals::Http(Events::new(response)))
            }
        }
    }
}

impl Arrivals {
    /// When the next tokens came, and how many there are now. `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Result<(Instant, usize), String>> {
        match self {
            Arrivals::InProcess(generation, _) => {
                let generation = generation.as_mut()?;
                let delta = generation.next().await?;
                let now = Instant::now();
                Some(delta.map(|_| (now, generation.usage().generated_tokens)).map_err(|error| error.to_string()))
            }
            Arrivals::Http(events) => events.next().await,
        }
    }

    /// Whether the number of tokens is what the server says, and not how many events had text.
    pub(super) fn are_counted(&self) -> bool {
        match self {
            Arrivals::InProcess(..) => true,
            Arrivals::Http(events) => events.is_counted,
        }
    }

    /// The stages of the answer and their seconds, once it is over; nothing where a server does not tell.
    pub(super) fn stages(&mut self) -> Vec<(&'static str, f64)> {
        match self {
            Arrivals::InProcess(generation, ledger) => {
                *generation = None; // an answer's account is closed when it is dropped
                let stages = ledger.costs().stages.into_iter();
                stages.map(|stage| (stage.name, (stage.ended - stage.began).as_secs_f64())).collect()
            }
            Arrivals::Http(_) => Vec::new(),
        }
    }
}

fn request(work: &Work, num_tokens: usize) -> ChatRequest {
    let (input, media) = match work {
        Work::Tokens(ids) => (Input::Tokens(ids.clone()), Vec::new()),
        Work::Shown { shown, files } => {
            let media = media(*shown, files);
            let part = |medium: &Medium| match medium {
                Medium::Picture(_) => json!({"type": "image"}),
                Medium::Video(_) => json!({"type": "video"}),
            };
            let parts = media.iter().map(part).chain([json!({"type": "text", "text": QUESTION})]);
            let conversation = Conversation {
                messages: vec![json!({"role": "user", "content": parts.collect::<Vec<_>>()})],
                tools: Vec::new(),
                template_variables: serde_json::Map::new(),
                ending: Ending::GenerationPrompt,
            };
            (Input::Conversation(conversation), media)
        }
    };
    ChatRequest {
        input,
        media,
        sampling: Sampling::greedy(),
        length: Length { max: MaxLength::New(num_tokens), max_time: None, truncate: None },
        stop: Stop::default(),
        skip_special_tokens: false,
        prompt_logprobs: None,
        deadline: None,
    }
}

const QUESTION: &str = "Describe what you see.";

fn media(shown: Shown, files: &[Vec<u8>]) -> Vec<Medium> {
    let sources = files.iter().map(|file| Source::File(Bytes::from(file.clone())));
    match shown {
        Shown::Pictures(_) => sources.map(Medium::Picture).collect(),
        Shown::Clip(_) => {
            let footage = Footage::Frames(sources.collect());
            vec![Medium::Video(Video { footage, options: VideoOptions::default() })]
        }
    }
}

/// The first model that a server says it serves: some answer to no other name.
async fn served_model(client: &reqwest::Client, url: &str) -> Option<String> {
    let models: Value = client.get(format!("{url}/v1/models")).send().await.ok()?.json().await.ok()?;
    models["data"][0]["id"].as_str().map(str::to_owned)
}

fn post(model: &str, work: &Work, num_tokens: usize) -> (&'static str, Value) {
    let mut body = json!({
        "model": model, "max_tokens": num_tokens, "temperature": 0, "ignore_eos": true, "stream": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true},
    });
    match work {
        Work::Tokens(ids) => {
            body["prompt"] = json!(ids);
            ("/v1/completions", body)
        }
        Work::Shown { shown, files } => {
            let urls = files.iter().map(|file| format!("data:image/bmp;base64,{}", BASE64_STANDARD.encode(file)));
            let mut parts: Vec<Value> = match shown {
                Shown::Pictures(_) => urls.map(|url| json!({"type": "image_url", "image_url": {"url": url}})).collect(),
                Shown::Clip(_) => vec![json!({"type": "video", "video": urls.collect::<Vec<_>>()})],
            };
            parts.push(json!({"type": "text", "text": QUESTION}));
            body["messages"] = json!([{"role": "user", "content": parts}]);
            ("/v1/chat/completions", body)
        }
    }
}

/// A body of server-sent events, in which tokens are counted.
pub(super) struct Events {
    body: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    /// What came and is no whole line yet.
    text: Vec<u8>,
    num_tokens: usize,
    /// Whether the server counted them.
    is_counted: bool,
}

impl Events {
    fn new(response: reqwest::Response) -> Events {
        Events { body: Box::pin(response.bytes_stream()), text: Vec::new(), num_tokens: 0, is_counted: false }
    }

    async fn next(&mut self) -> Option<Result<(Instant, usize), String>> {
        loop {
            while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                match self.count(&line) {
                    Ok(false) => {}
                    Ok(true) => return Some(Ok((Instant::now(), self.num_tokens))),
                    Err(error) => return Some(Err(error)),
                }
            }
            match self.body.next().await? {
                Ok(bytes) => self.text.extend_from_slice(&bytes),
                Err(error) => return Some(Err(error.to_string())),
            }
        }
    }

    /// Whether a line brought tokens: so many as the usage in it says, or one where a server tells none.
    fn count(&mut self, line: &[u8]) -> Result<bool, String> {
        let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii).filter(|data| *data != b"[DONE]") else {
            return Ok(false);
        };
        let event: Value = serde_json::from_slice(data).map_err(|error| format!("an event is no JSON: {error}"))?;
        if !event["error"].is_null() {
            return Err(event["error"].to_string());
        }
        let choice = &event["choices"][0];
        let has_text = [&choice["text"], &choice["delta"]["content"], &choice["delta"]["reasoning_content"]]
            .iter()
            .any(|text| text.as_str().is_some_and(|text| !text.is_empty()));
        let counted = match event["usage"]["completion_tokens"].as_u64() {
            Some(counted) => {
                self.is_counted = true;
                counted as usize
            }
            None => self.num_tokens + usize::from(has_text),
        };
        let is_more = counted > self.num_tokens;
        self.num_tokens = counted;
        Ok(is_more)
    }
}

//! The real server on a free port, over a scripted model.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, StatusCode};
use sardine::chat::{Chat, SpecialText};
use sardine::checkpoint::Checkpoint;
use sardine::engine::{Engine, EngineLimits};
use sardine::generation::Service;
use sardine::http::{ApiKeys, HttpSettings, ServedModel, Server};
use sardine::media::{Media, MediaLimits};
use sardine::startup::Startup;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::script::{Mode, Script, ScriptedRunner, Seen};

/// What the scripted model says unless a test wants something else.
pub const ANSWER: &str = "A red rectangle.";

pub struct Bench {
    pub address: std::net::SocketAddr,
    pub script: Arc<Script>,
    pub service: Service,
    /// Where the start is told.
    pub startup: Startup,
    pub chat: Chat,
    pub client: reqwest::Client,
    shutdown: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<Result<(), String>>>,
}

/// A reply, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The events of a stream, each of them JSON.
pub fn events(reply: &Reply) -> Vec<Value> {
    let events = reply.text.split_terminator("\n\n").filter(|event| !event.starts_with(':'));
    events
        .map(|event| {
            let data = event.strip_prefix("data: ").unwrap_or_else(|| panic!("no event: {event:?}"));
            serde_json::from_str(data).unwrap()
        })
        .collect()
}

pub fn settings() -> HttpSettings {
    let model = ServedModel {
        name: "the-model".to_owned(),
        pipeline_tag: "image-text-to-text",
        dtype: "bfloat16",
        device: "cpu".to_owned(),
    };
    HttpSettings {
        model,
        host: "127.0.0.1".to_owned(),
        port: 0,
        max_body_bytes: 1 << 20,
        max_client_batch_size: 4,
        api_keys: ApiKeys::default(),
        cors_origins: Vec::new(),
        default_image_prompt: "What is shown?".to_owned(),
        default_video_prompt: "What happens?".to_owned(),
        strict_toolkit_status: false,
        base_path: None,
        vertex: None,
        stall_limit: Duration::from_secs(60),
        shutdown_grace: Duration::from_secs(5),
        status_hold: Duration::from_secs(10),
    }
}

/// API keys that may have any number of requests at once.
pub fn api_keys(keys: &[&str]) -> ApiKeys {
    ApiKeys::new(&keys.iter().map(|key| key.to_string()).collect::<Vec<_>>(), None)
}

pub fn limits() -> EngineLimits {
    EngineLimits { max_batch_size: 4, max_queue: 16, prefill_chunk: 4096, max_model_len: 2000, max_kv_tokens: 8000 }
}

fn checkpoint() -> Checkpoint {
    Checkpoint::Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("fry"))
}

impl Bench {
    /// A server that is ready.
    pub async fn start() -> Bench {
        Bench::with(settings(), limits()).await
    }

    pub async fn with(settings: HttpSettings, limits: EngineLimits) -> Bench {
        Bench::ready(Bench::loading(settings, limits)).await
    }

    /// A server that gives whole answers so much time.
    pub async fn with_request_timeout(timeout: Duration) -> Bench {
        Bench::ready(Bench::build(settings(), limits(), MediaLimits::default(), Some(timeout))).await
    }

    /// A server whose requests' pictures have so many bytes.
    pub async fn with_picture_memory(picture_memory: u64) -> Bench {
        let media_limits = MediaLimits { picture_memory, ..MediaLimits::default() };
        Bench::ready(Bench::build(settings(), limits(), media_limits, None)).await
    }

    /// A server whose only slot is taken by an answer that does not end.
    pub async fn busy(settings: HttpSettings) -> (Bench, tokio::task::JoinHandle<()>) {
        let bench = Bench::with(settings, EngineLimits { max_batch_size: 1, ..limits() }).await;
        bench.script.set(Mode::Endless(100));
        let endless = json!({"inputs": "Hi", "parameters": {"max_new_tokens": 1900, "eos_token_id": 1}});
        let request = bench.request(Method::POST, "/").json(&endless);
        let taken = tokio::spawn(async move { drop(request.send().await) });
        bench.wait_until("the slot is taken", |bench| bench.service.num_running() == 1).await;
        (bench, taken)
    }

    async fn ready((bench, load): (Bench, mpsc::Sender<()>)) -> Bench {
        load.send(()).unwrap();
        bench.wait_until("the engine is ready", |bench| bench.service.health() == sardine::engine::Health::Ready).await;
        bench
    }

    /// A server whose model loads until the sender is used (or dropped: then the load fails).
    pub fn loading(settings: HttpSettings, limits: EngineLimits) -> (Bench, mpsc::Sender<()>) {
        Bench::build(settings, limits, MediaLimits::default(), None)
    }

    fn build(
        settings: HttpSettings,
        limits: EngineLimits,
        media_limits: MediaLimits,
        request_timeout: Option<Duration>,
    ) -> (Bench, mpsc::Sender<()>) {
        let chat = || Chat::load(&checkpoint(), SpecialText::StaysText).unwrap();
        let answer = [chat().encode(ANSWER).unwrap(), vec![chat().defaults().eos_token_id[0]]].concat();
        let script = Script::new(Mode::Answer(answer));
        let runner = ScriptedRunner(script.clone());
        let (startup, (load, loads)) = (Startup::new(), mpsc::channel());
        let (engine, _loaded) = Engine::start(limits, move || match loads.recv() {
            Ok(()) => Ok(Box::new(runner)),
            Err(_) => Err("the test wants no model".to_owned()),
        });
        let media = Media::start(&checkpoint(), media_limits).unwrap();
        let service =
            Service::new(chat(), media, engine).with_request_timeout(request_timeout).with_startup(startup.clone());
        let (address, shutdown, server) = serve(service.clone(), settings);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (shutdown, server) = (Some(shutdown), Some(server));
        (Bench { address, script, service, startup, chat: chat(), client, shutdown, server }, load)
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address)).timeout(Duration::from_secs(20))
    }

    pub async fn send(&self, request: RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Reply { status, headers, text: response.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// POST of JSON to `/`.
    pub async fn post(&self, body: Value) -> Reply {
        self.post_to("/", body).await
    }

    pub async fn post_to(&self, path: &str, body: Value) -> Reply {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// The sequences that reached the model since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        self.script.take_seen()
    }

    /// The only sequence that reached the model since the last call, its prompt as text.
    pub fn prompt(&self) -> String {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "one sequence was expected");
        self.text(&seen[0])
    }

    pub fn text(&self, seen: &Seen) -> String {
        seen.ids.iter().map(|id| self.chat.token_text(*id)).collect()
    }

    pub async fn wait_until(&self, what: &str, condition: impl Fn(&Bench) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Tells the server to end, as SIGTERM does.
    pub fn begin_shutdown(&mut self) {
        let _ = self.shutdown.take().expect("the server is told once").send(());
    }

    /// Waits until the server has ended.
    pub async fn ended(&mut self) -> Result<(), String> {
        let server = self.server.take().expect("the server ends once");
        tokio::task::spawn_blocking(|| server.join().unwrap()).await.unwrap()
    }
}

/// Runs a server on a thread of its own, as a process would.
fn serve(service: Service, settings: HttpSettings) -> Served {
    let (shutdown, told) = oneshot::channel();
    let (bound, address) = mpsc::channel();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let server = Server::bind(service, settings)?;
            bound.send(server.address()).unwrap();
            server
                .run(async {
                    let _ = told.await;
                })
                .await
        })
    });
    (address.recv().expect("the server is bound"), shutdown, server)
}

type Served = (std::net::SocketAddr, oneshot::Sender<()>, JoinHandle<Result<(), String>>);

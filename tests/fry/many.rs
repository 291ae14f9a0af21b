//! Many clients at once: each gets what it would get alone, however the others ask, stream or hang up.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use crate::idle::{is_idle, metrics_once, sample};
use crate::samples::{Sample, samples};
use crate::server::{Connection, Server};

const CLIENTS: usize = 16;
const REQUESTS_EACH: usize = 4;

/// What a sample is answered alone, in three contracts.
struct Alone {
    sample: Sample,
    /// On the toolkit's route and on TGI's, which leave reasoning and calls in the text.
    text: String,
    chat: Value,
    /// The request in TGI's form.
    generate: Value,
}

/// How a client asks.
#[derive(Debug, Clone, Copy)]
enum Way {
    Whole,
    Streamed,
    ChatWhole,
    ChatStreamed,
    Generate,
    GenerateStreamed,
    HangUp(Route, Duration),
}

/// Where a client asks that hangs up.
#[derive(Debug, Clone, Copy)]
enum Route {
    Streamed,
    ChatStreamed,
    ChatWhole,
    GenerateStreamed,
    Generate,
}

/// A small generator: the same requests in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn way(&mut self) -> Way {
        match self.below(9) {
            0 => Way::Whole,
            1 => Way::Streamed,
            2 => Way::ChatWhole,
            3 => Way::ChatStreamed,
            4 => Way::Generate,
            5 => Way::GenerateStreamed,
            _ => Way::HangUp(self.route(), Duration::from_millis(self.below(400) as u64)),
        }
    }

    fn route(&mut self) -> Route {
        [Route::Streamed, Route::ChatStreamed, Route::ChatWhole, Route::GenerateStreamed, Route::Generate]
            [self.below(5)]
    }
}

impl Alone {
    /// Asks alone. TGI's route needs no run of its own: its request makes the toolkit's prompt.
    async fn ask(server: &Server, sample: Sample) -> Alone {
        let text = server.answer(sample.request()).await;
        let chat = server.chat(sample.chat_request()).await;
        let generate = sample.generate_request(&server.prompt(sample.template_request()).await);
        Alone { sample, text, chat, generate }
    }

    /// Asks among others, and checks what comes.
    async fn ask_again(&self, server: &Server, way: Way) {
        let Alone { sample, text, chat, generate } = self;
        let name = &sample.name;
        match way {
            Way::Whole => assert_eq!(server.answer(sample.request()).await, *text, "{name} {way:?}"),
            Way::Streamed => assert_eq!(server.streamed_answer(sample.request()).await, *text, "{name} {way:?}"),
            Way::ChatWhole => assert_eq!(server.chat(sample.chat_request()).await, *chat, "{name} {way:?}"),
            Way::ChatStreamed => assert_eq!(server.streamed_chat(sample.chat_request()).await, *chat, "{name} {way:?}"),
            Way::Generate => assert_eq!(server.generate(generate).await, *text, "{name} {way:?}"),
            Way::GenerateStreamed => assert_eq!(server.generate_stream(generate).await, *text, "{name} {way:?}"),
            Way::HangUp(route, patience) => self.hang_up(server, route, patience).await,
        }
    }

    async fn hang_up(&self, server: &Server, route: Route, patience: Duration) {
        let streamed = |mut request: Value| {
            request["stream"] = true.into();
            request
        };
        let (path, request) = match route {
            Route::Streamed => ("", streamed(self.sample.request())),
            Route::ChatStreamed => ("v1/chat/completions", streamed(self.sample.chat_request())),
            Route::ChatWhole => ("v1/chat/completions", self.sample.chat_request()),
            Route::GenerateStreamed => ("generate_stream", self.generate.clone()),
            Route::Generate => ("generate", self.generate.clone()),
        };
        server.give_up(path, &request, patience).await;
    }
}

#[tokio::test]
async fn sixteen_clients_get_what_each_would_get_alone() {
    let server = Server::start(&["--dtype", "float32", "--max-batch-size", "8", "--max-queue", "64"]).await;
    let mut alone = Vec::new();
    for sample in samples() {
        alone.push(Alone::ask(&server, sample).await);
    }
    let num_answers = clients(&server, &alone, REQUESTS_EACH, 0).await;
    assert!(num_answers > CLIENTS * REQUESTS_EACH / 2, "only {num_answers} requests were not given up");
    is_idle(&server, || alone[0].ask_again(&server, Way::Whole)).await;
}

/// By hand, as it takes a while: `cargo test --release --test fry soak -- --ignored --nocapture`
#[tokio::test]
#[ignore = "10,000 requests"]
async fn soak() {
    const ROUNDS: usize = 10;
    const EACH: usize = 1_000 / CLIENTS + 1;
    let server = Server::start(&["--max-batch-size", "8", "--max-queue", "64"]).await;
    let mut alone = Vec::new();
    for sample in samples() {
        alone.push(Alone::ask(&server, sample).await);
    }
    // A round fills what is kept for good: the threads' stacks, the allocator's arenas.
    clients(&server, &alone, EACH, ROUNDS).await;
    let mut memory = Vec::new();
    for round in 0..ROUNDS {
        let num_answers = clients(&server, &alone, EACH, round).await;
        is_idle(&server, || alone[0].ask_again(&server, Way::Whole)).await;
        memory.push(server.resident_bytes());
        println!("{} requests, {num_answers} waited for: {:.1} MB", CLIENTS * EACH, memory[round] as f64 / 1e6);
    }
    let growth = *memory.last().unwrap() as f64 / memory[0] as f64 - 1.0;
    assert!(growth < 0.02, "the memory grew by {:.1} % in {} rounds", 100.0 * growth, ROUNDS - 1);
}

#[tokio::test]
async fn two_devices_share_the_work_and_answer_as_one() {
    let one = Server::start(&["--dtype", "float32"]).await;
    let two = Server::start(&["--dtype", "float32", "--device", "cpu,cpu", "--max-queue", "64"]).await;
    let mut alone = Vec::new();
    for sample in samples() {
        alone.push(Alone::ask(&one, sample).await);
    }
    let is_shared = |metrics: &str| {
        let running = |replica| sample(metrics, &format!("sardine_replica_requests_running{{replica=\"{replica}\"}}"));
        running(0) > 0 && running(1) > 0
    };
    let (_, _) = tokio::join!(clients(&two, &alone, REQUESTS_EACH, 1), metrics_once(&two, is_shared));
    is_idle(&two, || alone[0].ask_again(&two, Way::Whole)).await;
}

#[tokio::test]
async fn five_hundred_open_connections_leave_everybody_served() {
    const CONNECTIONS: usize = 500;
    let server = Server::start(&[]).await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(server.connect().await);
    }
    let everyone = connections.iter_mut().map(Connection::is_ready);
    assert_eq!(join_all(everyone).await, [true; CONNECTIONS]);
    let asked = &samples()[0];
    assert_eq!(server.answer(asked.request()).await, asked.answer);
    let everyone = connections.iter_mut().map(Connection::is_ready);
    assert_eq!(join_all(everyone).await, [true; CONNECTIONS], "kept open, each is answered again");
}

/// All clients, each with `each` requests, other ones in every round; the number of those that were waited for.
async fn clients(server: &Server, alone: &[Alone], each: usize, round: usize) -> usize {
    let random = |number| Random((round * CLIENTS + number) as u64);
    let clients = (0..CLIENTS).map(|number| client(server, alone, each, random(number)));
    join_all(clients).await.into_iter().sum()
}

/// Asks one request after another; the number of those that were waited for.
async fn client(server: &Server, alone: &[Alone], each: usize, mut random: Random) -> usize {
    let mut num_answers = 0;
    for _ in 0..each {
        let asked = &alone[random.below(alone.len())];
        let way = random.way();
        asked.ask_again(server, way).await;
        num_answers += usize::from(!matches!(way, Way::HangUp(..)));
    }
    num_answers
}

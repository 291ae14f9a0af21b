//! Files, addresses and servers made to do harm, sent to a server whose model is busy with somebody else's answer: each is
//! refused in the decoder's own words, and nobody else notices.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use sardine::media::decode::{Bounds, decode};
use serde_json::json;
use wiremock::matchers::{any, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::harmful::{
    archive_behind_a_picture, claiming_the_most, cut, disguised, endless_scans, laden, lines, nothings, too_large,
};
use crate::harmful_hosts::{PRIVATE_HOSTS, dripping, endless, redirect, silent};
use crate::idle::is_idle;
use crate::samples::base64;
use crate::server::{Body, Server};

/// Longest time that any request may take, on a busy machine: far above every limit of [`FLAGS`].
const PATIENCE: Duration = Duration::from_secs(20);

/// Requests on their way at a time.
const ATTACKERS: usize = 6;

/// Limits that the files are made for, and the address that stands for the internet.
const FLAGS: [&str; 8] = [
    "--max-image-pixels",
    "1000000",
    "--allowed-networks",
    "127.0.0.2/32",
    "--image-timeout-ms",
    "500",
    "--max-queue",
    "64",
];

/// What [`FLAGS`] say of a file.
const BOUNDS: Bounds = Bounds { max_pixels: 1_000_000, max_ratio: 200.0, timeout: Duration::from_secs(10) };

/// A request that means no good.
struct Attack {
    name: String,
    sent: Sent,
    /// What the refusal says; `None` where there is nothing to refuse.
    refusal: Option<String>,
}

enum Sent {
    Picture(Vec<u8>),
    Video(Vec<u8>),
    Url(String),
}

/// Where pictures reach a server.
#[derive(Debug, Clone, Copy)]
enum Route {
    Body,
    Toolkit,
    Chat,
    Generate,
}

const ROUTES: [Route; 4] = [Route::Body, Route::Toolkit, Route::Chat, Route::Generate];

impl Attack {
    /// A file, of which the server must say what the decoder says here.
    fn picture((name, bytes): (String, Vec<u8>)) -> Attack {
        let refusal = decode(&bytes, BOUNDS).err().map(|error| error.to_string());
        Attack { name, sent: Sent::Picture(bytes), refusal }
    }

    fn url(url: String, refusal: &str) -> Attack {
        Attack { name: url.clone(), sent: Sent::Url(url), refusal: Some(refusal.to_owned()) }
    }

    fn request(&self, route: Route) -> (&'static str, Body, u16) {
        let question = json!({"type": "text", "text": "Describe this image."});
        let picture = match (&self.sent, route) {
            (Sent::Video(bytes), _) => {
                let part = json!({"type": "video", "video": format!("data:video/mp4;base64,{}", base64(bytes))});
                return ("", Body::Json(json!({"inputs": [{"role": "user", "content": [part, question]}]})), 400);
            }
            (Sent::Picture(bytes), Route::Body) => return ("?max_new_tokens=1", Body::Picture(bytes.clone()), 400),
            (Sent::Picture(bytes), _) => format!("data:image/png;base64,{}", base64(bytes)),
            (Sent::Url(url), _) => url.clone(),
        };
        match route {
            Route::Body | Route::Toolkit => {
                let content = json!([{"type": "image", "image": picture}, question]);
                let inputs = json!([{"role": "user", "content": content}]);
                ("", Body::Json(json!({"inputs": inputs, "parameters": {"max_new_tokens": 1}})), 400)
            }
            Route::Chat => {
                let content = json!([{"type": "image_url", "image_url": {"url": picture}}, question]);
                let messages = json!([{"role": "user", "content": content}]);
                ("v1/chat/completions", Body::Json(json!({"messages": messages, "max_tokens": 1})), 400)
            }
            Route::Generate => {
                let inputs = format!("![]({picture})Describe this image.");
                ("generate", Body::Json(json!({"inputs": inputs, "parameters": {"max_new_tokens": 1}})), 422)
            }
        }
    }

    async fn send(&self, server: &Server, route: Route) {
        let Attack { name, refusal, .. } = self;
        // TGI's Markdown names pictures by http(s) and data: alone, and leaves other text as it is.
        let is_text = |sent: &Sent| matches!(sent, Sent::Url(url) if !url.starts_with("http"));
        let route = if is_text(&self.sent) { Route::Toolkit } else { route };
        let (path, body, refused) = self.request(route);
        let begun = Instant::now();
        let (status, said) = server.send(path, body).await;
        assert!(begun.elapsed() < PATIENCE, "{name} by {route:?} took {:?}", begun.elapsed());
        match refusal {
            None => assert_eq!(status, 200, "{name} by {route:?}: {said}"),
            Some(refusal) => {
                // As JSON writes it.
                let words = json!(refusal).to_string();
                let says = said.contains(words.trim_matches('"'));
                assert!(status == refused && says, "{name} by {route:?}: {status} {said}, not {refusal}");
            }
        }
    }
}

/// The hosts behind the addresses among the attacks.
struct Hosts {
    public: MockServer,
    internal: MockServer,
}

impl Hosts {
    async fn start() -> Hosts {
        let public = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let (public, internal) = (MockServer::builder().listener(public).start().await, MockServer::start().await);
        Mock::given(any()).respond_with(ResponseTemplate::new(200)).mount(&internal).await;
        Hosts { public, internal }
    }

    /// Private addresses, given and redirected to, and servers that never come to an end.
    async fn attacks(&self) -> Vec<Attack> {
        let mut attacks = Vec::new();
        let port = self.internal.address().port();
        for (index, host) in PRIVATE_HOSTS.split_whitespace().enumerate() {
            let refusal = if host.contains('@') { "user name or password" } else { "is not a public address" };
            let url = format!("http://{host}:{port}/cat.png");
            attacks.push(Attack::url(self.redirecting(&format!("/to/{index}"), &url).await, refusal));
            attacks.push(Attack::url(url, refusal));
        }
        attacks.push(Attack::url(self.redirecting("/circle", "/circle").await, "more than 3 times"));
        attacks.push(Attack::url("file:///etc/passwd".to_owned(), "does not open files"));
        for slow in [silent().await, dripping().await] {
            attacks.push(Attack::url(format!("http://{slow}/"), "--image-timeout-ms"));
        }
        let endless = endless(Arc::new(AtomicUsize::new(0))).await;
        attacks.push(Attack::url(format!("http://{endless}/"), "--max-image-bytes"));
        attacks
    }

    async fn redirecting(&self, from: &str, to: &str) -> String {
        Mock::given(path(from)).respond_with(redirect(to)).mount(&self.public).await;
        format!("{}{from}", self.public.uri())
    }
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/media/fixtures").join(name)).unwrap()
}

/// Every file that is made to do harm.
fn files() -> Vec<Attack> {
    const WHOLE: [&str; 8] = [
        "rgb.png",
        "photo-420.jpg",
        "progressive.jpg",
        "lossy.webp",
        "lossless.webp",
        "animated.gif",
        "rgb.bmp",
        "lzw.tif",
    ];
    let cut = WHOLE.into_iter().flat_map(|name| {
        let parts: Vec<_> =
            cut(&fixture(name)).map(|(tenth, part)| (format!("{name}, {tenth}/10"), part.to_vec())).collect();
        // A body of nothing is no picture, on any route.
        parts.into_iter().filter(|(_, part)| !part.is_empty())
    });
    let single = [
        ("endless scans".to_owned(), endless_scans(&fixture("progressive.jpg"))),
        ("an archive behind a picture".to_owned(), archive_behind_a_picture()),
        ("a PNG bomb".to_owned(), fixture("bomb.png")),
    ];
    let pictures = [too_large(), claiming_the_most(), lines(), nothings(), disguised(), laden()].concat();
    let pictures = pictures.into_iter().chain(cut).chain(single).map(Attack::picture);
    let videos = ["sound-only.mp4", "truncated-before-its-index.mp4", "truncated.mp4"].map(|name| Attack {
        name: name.to_owned(),
        sent: Sent::Video(fixture(&format!("video/{name}"))),
        refusal: Some("video".to_owned()),
    });
    pictures.chain(videos).collect()
}

/// All attacks, a few at a time, each by another route than in the round before.
async fn attack(server: &Server, attacks: &[Attack], round: usize) {
    let sent = attacks.iter().enumerate().map(|(index, attack)| attack.send(server, ROUTES[(index + round) % 4]));
    stream::iter(sent).buffer_unordered(ATTACKERS).collect::<Vec<()>>().await;
}

/// Streams the same long answer again and again until `is_over`, and at least once: the text of each, and when its pieces came.
async fn keep_streaming(
    server: Arc<Server>,
    num_tokens: usize,
    is_over: Arc<AtomicBool>,
) -> Vec<(String, Vec<Instant>)> {
    let mut answers = Vec::new();
    while answers.is_empty() || !is_over.load(Ordering::Relaxed) {
        answers.push(server.long_answer(num_tokens).await);
    }
    answers
}

/// What somebody is streamed while all attacks are sent.
async fn stream_beside(
    server: &Arc<Server>,
    attacks: &[Attack],
    num_tokens: usize,
    round: usize,
) -> Vec<(String, Vec<Instant>)> {
    let is_over = Arc::new(AtomicBool::new(false));
    let answers = tokio::spawn(keep_streaming(server.clone(), num_tokens, is_over.clone()));
    attack(server, attacks, round).await;
    is_over.store(true, Ordering::Relaxed);
    answers.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_files_are_refused_and_nobody_else_notices() {
    const ROUNDS: usize = 8;
    const TOKENS: usize = 1_000;
    let server = Arc::new(Server::start(&[&FLAGS[..], &["--dtype", "float32"]].concat()).await);
    let hosts = Hosts::start().await;
    let attacks: Vec<Attack> = files().into_iter().chain(hosts.attacks().await).collect();
    assert!(attacks.len() > 150, "{}", attacks.len());
    let (alone, _) = server.long_answer(TOKENS).await;
    let mut resident = Vec::new();
    for round in 0..ROUNDS {
        for (text, _) in stream_beside(&server, &attacks, TOKENS, round).await {
            assert!(text == alone, "round {round}: {text}\n{alone}");
        }
        is_idle(&server, || server.long_answer(1)).await;
        resident.push(server.resident_bytes());
    }
    assert!(hosts.internal.received_requests().await.unwrap().is_empty(), "an internal server was reached");
    println!(
        "{} attacks a round; resident after each: {:?} MiB",
        attacks.len(),
        resident.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>()
    );
    // The first rounds fill what is kept for good: the threads' stacks, the allocator's two arenas.
    let (first, later) = resident.split_at(ROUNDS / 2);
    let most = |rounds: &[u64]| rounds.iter().copied().max().unwrap_or_default();
    assert!(most(later) < most(first) + (32 << 20), "{resident:?}");
}

/// By hand, as figures need a quiet machine: `cargo test --release --test fry longest_pause -- --ignored --nocapture`, with
/// `SARDINE_TEST_MODEL` for another model than fry and `SARDINE_TEST_TOKENS` for another length than 2,000 tokens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and asserts nothing about time"]
async fn longest_pause_beside_hostile_files() {
    let model = std::env::var("SARDINE_TEST_MODEL").ok();
    let num_tokens = std::env::var("SARDINE_TEST_TOKENS").map_or(2_000, |tokens| tokens.parse().unwrap());
    let flags = [&FLAGS[..], &model.iter().flat_map(|model| ["--model", model]).collect::<Vec<_>>()].concat();
    let server = Arc::new(Server::start(&flags).await);
    let hosts = Hosts::start().await;
    // What is read right is somebody's picture, whose prompt takes its turn in the engine.
    let attacks: Vec<Attack> =
        files().into_iter().chain(hosts.attacks().await).filter(|attack| attack.refusal.is_some()).collect();
    server.long_answer(num_tokens / 4).await;
    let before = server.resident_bytes();
    let (alone, arrivals) = server.long_answer(num_tokens).await;
    report("alone", &[arrivals]);
    let begun = Instant::now();
    let answers = stream_beside(&server, &attacks, num_tokens, 0).await;
    let (texts, arrivals): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    report(&format!("beside {} hostile requests in {:.1} s", attacks.len(), begun.elapsed().as_secs_f64()), &arrivals);
    is_idle(&server, || server.long_answer(1)).await;
    let same = texts.iter().filter(|text| **text == alone).count();
    println!("{same} of {} answers have the text of the one alone", texts.len());
    println!("resident: {} MiB before, {} MiB after", before >> 20, server.resident_bytes() >> 20);
}

/// The times between two pieces of an answer.
fn report(what: &str, answers: &[Vec<Instant>]) {
    let pauses = answers.iter().flat_map(|arrivals| arrivals.windows(2).map(|pair| pair[1] - pair[0]));
    let mut pauses: Vec<f64> = pauses.map(|pause| pause.as_secs_f64() * 1e3).collect();
    pauses.sort_by(f64::total_cmp);
    let at = |share: f64| pauses[((pauses.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: {} pauses, {:.2} ms in the median, {:.2} in 99 %, {:.2} at most",
        pauses.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

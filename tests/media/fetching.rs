//! Remote pictures: what is fetched, what is refused, and that an internal server never hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sardine::error::Error;
use sardine::media::{Media, MediaLimits, Source};
use tokio::io::AsyncWriteExt;
use wiremock::matchers::{any, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::fixtures::{file, media};
use crate::harmful_hosts::{PRIVATE_HOSTS, dripping, endless, raw_server, redirect, silent};

/// A server that may be fetched from, in the place of one on the internet, and one that may not.
struct Network {
    public: MockServer,
    internal: MockServer,
    media: Media,
}

impl Network {
    async fn start(limits: MediaLimits) -> Network {
        // All of 127/8 is this machine; one address of it is allowed.
        let public = MockServer::builder().listener(std::net::TcpListener::bind("127.0.0.2:0").unwrap()).start().await;
        let internal = MockServer::start().await;
        Mock::given(any())
            .respond_with(ResponseTemplate::new(200).set_body_bytes(file("rgb.png")))
            .mount(&internal)
            .await;
        let media = media(allowing_public(limits));
        Network { public, internal, media }
    }

    async fn serve(&self, at: &str, answer: ResponseTemplate) -> String {
        Mock::given(path(at)).respond_with(answer).mount(&self.public).await;
        format!("{}{at}", self.public.uri())
    }

    async fn fetch(&self, url: &str) -> Result<(), Error> {
        self.media.prepare(&[Source::Text(url.to_owned()).into()]).await.map(|_| ())
    }

    async fn refusal(&self, url: &str) -> String {
        match self.fetch(url).await {
            Err(Error::MediaFetch(message)) => message,
            other => panic!("{url}: not refused as a failed fetch: {other:?}"),
        }
    }

    async fn internal_requests(&self) -> usize {
        self.internal.received_requests().await.unwrap().len()
    }
}

fn allowing_public(limits: MediaLimits) -> MediaLimits {
    MediaLimits { allowed_networks: vec!["127.0.0.2/32".parse().unwrap()], ..limits }
}

fn png() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_bytes(file("rgb.png"))
}

#[tokio::test]
async fn a_picture_is_fetched_from_an_allowed_network_and_through_redirects() {
    let network = Network::start(MediaLimits::default()).await;
    let direct = network.serve("/cat", png()).await;
    network.serve("/1", redirect("/2")).await;
    network.serve("/2", redirect("/3")).await;
    network.serve("/3", redirect("/cat")).await;
    network.fetch(&direct).await.unwrap();
    network.fetch(&format!("{}/1", network.public.uri())).await.unwrap();
}

#[tokio::test]
async fn no_spelling_of_an_internal_address_reaches_it() {
    let network = Network::start(MediaLimits::default()).await;
    let port = network.internal.address().port();
    for (index, host) in PRIVATE_HOSTS.split_whitespace().enumerate() {
        let url = format!("http://{host}:{port}/cat.png");
        let message = network.refusal(&url).await;
        assert!(message.contains("not a public address") || message.contains("user name"), "{url}: {message}");
        let hop = network.serve(&format!("/to/{index}"), redirect(&url)).await;
        let message = network.refusal(&hop).await;
        assert!(
            message.contains("not a public address") || message.contains("user name"),
            "redirect to {url}: {message}"
        );
    }
    assert_eq!(network.internal_requests().await, 0);
}

#[tokio::test]
async fn redirects_to_other_schemes_are_refused() {
    let network = Network::start(MediaLimits::default()).await;
    for (index, target) in
        ["file:///etc/passwd", "ftp://example.com/cat.png", "data:image/png;base64,AAAA"].iter().enumerate()
    {
        let hop = network.serve(&format!("/{index}"), redirect(target)).await;
        let message = network.refusal(&hop).await;
        assert!(message.contains("302") || message.contains("only by http(s)"), "{target}: {message}");
    }
}

#[tokio::test]
async fn a_chain_of_redirects_ends_at_the_limit() {
    let network = Network::start(MediaLimits::default()).await;
    let circle = network.serve("/circle", redirect("/circle")).await;
    let message = network.refusal(&circle).await;
    assert!(message.contains("more than 3 times"), "{message}");
    assert_eq!(network.public.received_requests().await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_redirect_to_a_domain_or_port_that_is_not_allowed_is_refused() {
    let allowed_domains = vec!["example.com".to_owned()];
    let network = Network::start(MediaLimits { allowed_domains, ..MediaLimits::default() }).await;
    for (index, (target, what)) in [
        ("http://localhost/cat.png", "--allowed-domains"),
        ("http://notexample.com/cat.png", "--allowed-domains"),
        ("http://example.com:22/cat.png", "--allowed-ports"),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(network.refusal(target).await.contains(what), "{target}");
        let hop = network.serve(&format!("/{index}"), redirect(target)).await;
        assert!(network.refusal(&hop).await.contains(what), "redirect to {target}");
    }
}

#[tokio::test]
async fn through_a_proxy_the_rules_for_urls_stay() {
    // The proxy stands where pictures are never fetched from, and answers whatever it is asked for.
    let proxy = MockServer::start().await;
    Mock::given(any()).respond_with(png()).mount(&proxy).await;
    let limits = MediaLimits { proxy: Some(proxy.uri().parse().unwrap()), ..MediaLimits::default() };
    let media = media(limits);
    let fetch = async |url: &str| media.prepare(&[Source::Text(url.to_owned()).into()]).await.map(|_| ());
    fetch("http://example.invalid/cat.png").await.unwrap();
    assert_eq!(proxy.received_requests().await.unwrap().len(), 1);
    for url in [
        "http://127.0.0.1/cat.png",
        "http://169.254.169.254/latest",
        "http://example.invalid:22/",
        "http://a:b@example.invalid/",
    ] {
        assert!(matches!(fetch(url).await, Err(Error::MediaFetch(_))), "{url}");
    }
    assert_eq!(proxy.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn remote_pictures_can_be_switched_off() {
    let network = Network::start(MediaLimits { allow_remote_images: false, ..MediaLimits::default() }).await;
    let url = network.serve("/cat", png()).await;
    assert!(network.refusal(&url).await.contains("--allow-remote-images"));
    assert!(network.public.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_not_read() {
    let network = Network::start(MediaLimits { max_image_bytes: 1000, ..MediaLimits::default() }).await;
    let url = network.serve("/large", ResponseTemplate::new(200).set_body_bytes(vec![0; 1001])).await;
    assert!(network.refusal(&url).await.contains("--max-image-bytes"));
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_off_at_the_limit() {
    let sent = Arc::new(AtomicUsize::new(0));
    let address = endless(sent.clone()).await;
    let network = Network::start(MediaLimits { max_image_bytes: 1 << 20, ..MediaLimits::default() }).await;
    assert!(network.refusal(&format!("http://{address}/")).await.contains("--max-image-bytes"));
    // The sockets' buffers hold some more.
    assert!(sent.load(Ordering::Relaxed) < 32 << 20);
}

#[tokio::test]
async fn a_server_that_is_silent_or_slow_runs_into_the_time_limit() {
    let network =
        Network::start(MediaLimits { fetch_timeout: Duration::from_millis(300), ..MediaLimits::default() }).await;
    for address in [silent().await, dripping().await] {
        let start = Instant::now();
        let message = network.refusal(&format!("http://{address}/")).await;
        assert!(message.contains("within 300 ms") && message.contains("--image-timeout-ms"), "{message}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_failure_says_what_the_server_answered_without_the_urls_secrets() {
    let network = Network::start(MediaLimits::default()).await;
    let url = network.serve("/gone", ResponseTemplate::new(404)).await;
    let message = network.refusal(&format!("{url}?signature=secret")).await;
    assert!(message.contains("404 Not Found") && message.contains("/gone") && !message.contains("secret"), "{message}");
}

#[tokio::test]
async fn a_body_that_is_no_picture_is_the_clients_mistake() {
    let network = Network::start(MediaLimits::default()).await;
    let url = network.serve("/page", ResponseTemplate::new(200).set_body_string("<!doctype html><p>Log in</p>")).await;
    match network.fetch(&url).await {
        Err(Error::Invalid { message, .. }) => assert!(message.contains("HTML page"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_that_is_dropped_ends_its_download() {
    let closed = Arc::new(AtomicUsize::new(0));
    let counter = closed.clone();
    let address = raw_server(move |mut stream| {
        let counter = counter.clone();
        async move {
            let mut open = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await.is_ok();
            while open {
                tokio::time::sleep(Duration::from_millis(10)).await;
                open = stream.write_all(b"x").await.is_ok();
            }
            counter.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let network = Network::start(MediaLimits::default()).await;
    let url = format!("http://{address}/");
    tokio::time::timeout(Duration::from_millis(200), network.fetch(&url)).await.unwrap_err();
    for _ in 0..200 {
        if closed.load(Ordering::SeqCst) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the connection is still open two seconds after its request was dropped");
}

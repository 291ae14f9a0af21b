//! Servers that pictures should not be fetched from, and addresses that nobody outside may reach.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wiremock::ResponseTemplate;

/// Hosts that are not public, in every spelling, and two with credentials.
pub const PRIVATE_HOSTS: &str = "127.0.0.1 localhost LOCALHOST [::1] [::] 0.0.0.0 127.1 0x7f000001 2130706433 017700000001 0177.0.0.1 ①②⑦.⓪.⓪.① \
     [::ffff:127.0.0.1] [::ffff:7f00:1] [64:ff9b::7f00:1] [2002:7f00:1::] 169.254.169.254 [fd00:ec2::254] [fe80::1] 10.0.0.1 \
     172.16.0.1 192.168.0.1 100.64.0.1 user@127.0.0.2 user:word@127.0.0.2";

pub fn redirect(to: &str) -> ResponseTemplate {
    ResponseTemplate::new(302).insert_header("location", to)
}

/// Answers every connection's first request with `answer`, for what a well-behaved server cannot be made to do.
///
/// It listens at 127.0.0.2, which stands for the internet: all of 127/8 is this machine, and tests allow that address.
pub async fn raw_server<F, Answer>(answer: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Answer + Send + 'static,
    Answer: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _request = stream.read(&mut [0; 4096]).await;
            tokio::spawn(answer(stream));
        }
    });
    address
}

/// Takes a request and says nothing.
pub async fn silent() -> SocketAddr {
    raw_server(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await
}

/// Sends a byte now and then.
pub async fn dripping() -> SocketAddr {
    raw_server(|mut stream| async move {
        let mut open = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await.is_ok();
        while open {
            tokio::time::sleep(Duration::from_millis(50)).await;
            open = stream.write_all(b"x").await.is_ok();
        }
    })
    .await
}

/// Sends a body that never ends, and counts what it has sent in `sent`.
pub async fn endless(sent: Arc<AtomicUsize>) -> SocketAddr {
    raw_server(move |mut stream| {
        let sent = sent.clone();
        async move {
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let chunk = [b"10000\r\n".as_slice(), &[0; 65536], b"\r\n"].concat();
            let mut open = stream.write_all(head).await.is_ok();
            while open {
                open = stream.write_all(&chunk).await.is_ok();
                sent.fetch_add(chunk.len(), Ordering::Relaxed);
            }
        }
    })
    .await
}

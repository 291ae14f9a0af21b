//! A client that leaves frees its slot, whole answer or not: on real sockets, whichever way it leaves.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bench::Bench;
use crate::script::Mode;

/// A request whose answer never ends, on a socket of its own.
async fn ask_without_end(bench: &Bench) -> TcpStream {
    let body = json!({"inputs": "Hi", "parameters": {"max_new_tokens": 1900}});
    ask_for_long(bench, "/predict", body).await
}

/// A request for more than anybody waits for, on a socket of its own.
async fn ask_for_long(bench: &Bench, path: &str, body: Value) -> TcpStream {
    bench.script.set(Mode::Endless(5));
    let body = body.to_string();
    let mut socket = TcpStream::connect(bench.address).unwrap();
    write!(socket, "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    bench.wait_until("the request runs", |bench| bench.service.num_running() == 1).await;
    socket
}

async fn time_until_free(bench: &Bench) -> Duration {
    let left = Instant::now();
    bench.wait_until("the slot is free", |bench| bench.service.num_running() == 0).await;
    left.elapsed()
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot() {
    let bench = Bench::start().await;
    for leaving in [Leaving::Close, Leaving::CloseSendingHalf, Leaving::Reset] {
        let socket = ask_without_end(&bench).await;
        let _kept = leaving.leave(socket);
        let took = time_until_free(&bench).await;
        assert!(took < Duration::from_millis(500), "{leaving:?}: {took:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot_on_every_route_whole_or_streamed() {
    let bench = Bench::start().await;
    let hf = |stream: bool| json!({"inputs": "Hi", "parameters": {"max_new_tokens": 1900}, "stream": stream});
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let chat = |stream: bool| json!({"messages": messages, "max_tokens": 1900, "stream": stream});
    let completion = |stream: bool| json!({"prompt": "Hi", "max_tokens": 1900, "stream": stream});
    for (path, body) in [
        ("/", hf(true)),
        ("/generate", hf(false)),
        ("/generate_stream", hf(true)),
        ("/v1/chat/completions", chat(false)),
        ("/v1/chat/completions", chat(true)),
        ("/v1/completions", completion(false)),
        ("/v1/completions", completion(true)),
    ] {
        let socket = ask_for_long(&bench, path, body.clone()).await;
        drop(socket);
        let took = time_until_free(&bench).await;
        assert!(took < Duration::from_millis(500), "{path} {body}: {took:?}");
    }
}

#[derive(Debug, Clone, Copy)]
enum Leaving {
    Close,
    CloseSendingHalf,
    Reset,
}

impl Leaving {
    /// Leaves; returns the socket where it stays open on this side.
    fn leave(self, socket: TcpStream) -> Option<TcpStream> {
        match self {
            Leaving::Close => None,
            Leaving::CloseSendingHalf => {
                socket.shutdown(Shutdown::Write).unwrap();
                Some(socket)
            }
            Leaving::Reset => {
                reset(&socket);
                None
            }
        }
    }
}

/// Makes closing the socket a reset, as a client that is killed with data unread does.
fn reset(socket: &TcpStream) {
    use std::os::fd::AsRawFd;
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // Safety: the descriptor is open, and the option's value is a linger of its own size.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(outcome, 0);
}

#[tokio::test]
async fn a_batch_of_a_client_that_leaves_frees_all_its_slots() {
    let bench = Bench::start().await;
    bench.script.set(Mode::Endless(5));
    let body = json!({"inputs": ["a", "b", "c"], "parameters": {"max_new_tokens": 1900}}).to_string();
    let mut socket = TcpStream::connect(bench.address).unwrap();
    write!(socket, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    bench.wait_until("the batch runs", |bench| bench.service.num_running() == 3).await;
    drop(socket);
    time_until_free(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stays_gets_its_answer_and_may_ask_again_on_the_same_connection() {
    let bench = Bench::start().await;
    let mut socket = TcpStream::connect(bench.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for _ in 0..2 {
        let body = json!({"inputs": "Hi"}).to_string();
        write!(socket, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut buffer = [0; 4096];
        let len = tokio::task::block_in_place(|| socket.read(&mut buffer)).unwrap();
        let reply = String::from_utf8_lossy(&buffer[..len]).into_owned();
        assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("generated_text"), "{reply}");
    }
}

//! A body of server-sent events: kept alive while nothing comes.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt, unfold};
use serde::Serialize;
use tokio::time::timeout;

/// A comment is sent after so long without an event: proxies cut what is silent for 15 to 60 s.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// One event of JSON.
pub(super) fn event(data: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(data).expect("Invariant: events are plain data");
    Bytes::from(format!("data: {json}\n\n"))
}

/// A response of `events`, one after another. Dropped, and with it the work behind them, when the client leaves.
pub(super) fn respond(mut response: HttpResponseBuilder, events: impl Stream<Item = Bytes> + 'static) -> HttpResponse {
    let chunks = unfold(Box::pin(events), async |mut events| {
        let chunk = match timeout(HEARTBEAT, events.next()).await {
            Ok(event) => event?,
            Err(_silence) => Bytes::from_static(b":\n\n"),
        };
        Some((Ok::<_, Infallible>(chunk), events))
    });
    response
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        // nginx would collect the events.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(chunks)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use actix_web::{App, HttpResponse, HttpServer, web};
    use bytes::Bytes;
    use futures_util::stream::{StreamExt, iter, pending};
    use serde_json::json;

    use super::{event, respond};

    /// Tells when it is dropped.
    struct Tells(mpsc::Sender<Instant>);

    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(Instant::now());
        }
    }

    #[actix_web::test]
    async fn a_silent_stream_is_dropped_when_its_client_leaves() {
        let (teller, dropped) = mpsc::channel();
        let one_event_then_silence = move || {
            let tells = Tells(teller.clone());
            async move {
                let events = iter([event(&json!(1))]).chain(pending::<Bytes>());
                respond(HttpResponse::Ok(), events.inspect(move |_| _ = &tells))
            }
        };
        let server = HttpServer::new(move || App::new().route("/", web::get().to(one_event_then_silence.clone())))
            .h1_allow_half_closed(false)
            .workers(1)
            .bind(("127.0.0.1", 0))
            .unwrap();
        let address = server.addrs()[0];
        actix_web::rt::spawn(server.run());

        let took = tokio::task::spawn_blocking(move || {
            let mut socket = TcpStream::connect(address).unwrap();
            write!(socket, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            let mut reply = Vec::new();
            while !reply.ends_with(b"data: 1\n\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                reply.extend(byte);
            }
            let left = Instant::now();
            drop(socket);
            dropped.recv_timeout(Duration::from_secs(5)).expect("the stream is dropped") - left
        });
        let took = took.await.unwrap();
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
}

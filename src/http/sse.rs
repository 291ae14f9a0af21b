//! A body of server-sent events: kept alive while nothing comes, and dropped as soon as its client has left.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt, unfold};
use serde_json::Value;

use super::hangup::{self, Socket};

/// A comment is sent after so long without an event: proxies cut what is silent for 15 to 60 s.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// One event of JSON.
pub(super) fn event(data: &Value) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}

/// A response of `events`, one after another. Dropped, and with it the work behind them, when the client leaves.
pub(super) fn respond(
    mut response: HttpResponseBuilder,
    request: &HttpRequest,
    events: impl Stream<Item = Bytes> + 'static,
) -> HttpResponse {
    let body = Body { socket: Socket::of(request), events: Box::pin(events) };
    let chunks = unfold(body, async |mut body| body.next().await.map(|chunk| (Ok::<_, Infallible>(chunk), body)));
    response
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        // nginx would collect the events.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(chunks)
}

struct Body {
    socket: Option<Socket>,
    events: Pin<Box<dyn Stream<Item = Bytes>>>,
}

impl Body {
    async fn next(&mut self) -> Option<Bytes> {
        tokio::select! {
            event = self.events.next() => event,
            () = tokio::time::sleep(HEARTBEAT) => Some(Bytes::from_static(b":\n\n")),
            () = hangup::gone(self.socket.as_ref()) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
    use bytes::Bytes;
    use futures_util::stream::{StreamExt, iter, pending};
    use serde_json::json;

    use super::{event, hangup, respond};

    /// Reports when it is dropped.
    struct Reports(mpsc::Sender<Instant>);

    impl Drop for Reports {
        fn drop(&mut self) {
            let _ = self.0.send(Instant::now());
        }
    }

    #[actix_web::test]
    async fn a_silent_stream_is_dropped_when_its_client_leaves() {
        let (reporter, dropped) = mpsc::channel();
        let silent_after_one = move |request: HttpRequest| {
            let reports = Reports(reporter.clone());
            async move {
                let events = iter([event(&json!(1))]).chain(pending::<Bytes>()).map(move |event| {
                    let _alive = &reports;
                    event
                });
                respond(HttpResponse::Ok(), &request, events)
            }
        };
        let server = HttpServer::new(move || App::new().route("/", web::get().to(silent_after_one.clone())))
            .h1_allow_half_closed(false)
            .on_connect(hangup::watch)
            .workers(1)
            .bind(("127.0.0.1", 0))
            .unwrap();
        let address = server.addrs()[0];
        actix_web::rt::spawn(server.run());

        let left = tokio::task::spawn_blocking(move || {
            let mut socket = TcpStream::connect(address).unwrap();
            write!(socket, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            let mut reply = Vec::new();
            while !reply.ends_with(b"data: 1\n\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                reply.extend(byte);
            }
            Instant::now()
        });
        let left = left.await.unwrap();
        let dropped = tokio::task::spawn_blocking(move || dropped.recv_timeout(Duration::from_secs(5))).await.unwrap();
        let took = dropped.expect("the stream is dropped") - left;
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
}

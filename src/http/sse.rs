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

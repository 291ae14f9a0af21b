//! Notices that a client has hung up while its answer is being made, and drops the work: dropping it cancels it.
//!
//! actix-web reads the socket only while it waits for a request or a body, so a handler at work hears nothing of a client
//! that left; the socket itself knows.

use std::any::Any;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;

/// How often the socket is asked: a system call of under a microsecond.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// A second descriptor of a connection's socket, which lives as long as the work for its client.
#[derive(Clone)]
pub(super) struct Socket(Arc<OwnedFd>);

impl Socket {
    /// The socket on which `request` came in. `None` where it was not watched.
    pub(super) fn of(request: &HttpRequest) -> Option<Socket> {
        request.conn_data::<Socket>().cloned()
    }

    /// The client closed the connection, or its sending half: nobody who waits for an answer does the latter.
    fn is_hung_up(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
        // Safety: one pollfd is passed, it lives across the call, and a timeout of 0 never waits.
        let ready = unsafe { libc::poll(&mut poll, 1, 0) };
        ready > 0 && poll.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
    }
}

/// Remembers the socket of a new connection; for `HttpServer::on_connect`.
pub(super) fn watch(connection: &dyn Any, data: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<TcpStream>() else { return };
    if let Ok(descriptor) = stream.as_fd().try_clone_to_owned() {
        data.insert(Socket(Arc::new(descriptor)));
    }
}

/// Does `work` as long as the client of `request` is there. `None`: it left, and the work was dropped.
pub(super) async fn unless_gone<T>(request: &HttpRequest, work: impl Future<Output = T>) -> Option<T> {
    let socket = Socket::of(request);
    tokio::select! {
        done = work => Some(done),
        () = gone(socket.as_ref()) => None,
    }
}

/// Waits until the client at `socket` is gone; without a socket, forever.
pub(super) async fn gone(socket: Option<&Socket>) {
    let Some(socket) = socket else { return std::future::pending().await };
    while !socket.is_hung_up() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

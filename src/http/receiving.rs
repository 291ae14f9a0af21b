//! Takes a request in: what can be refused before its body is read, and the reading away from the threads that serve HTTP.

use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::http::header::{ACCEPT, HeaderName};

use crate::error::Error;
use crate::generation::Service;
use crate::http::deadline;
use crate::http::negotiation::Accepted;

/// What the headers of a request say.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Admitted {
    /// The forms of a reply that the client takes.
    pub(in crate::http) accepted: Accepted,
    /// When the client stops waiting.
    pub(in crate::http) deadline: Option<Instant>,
}

/// Refuses what can be refused without reading the body.
pub(in crate::http) fn admit(request: &HttpRequest, service: &Service) -> Result<Admitted, Error> {
    service.check_ready()?;
    let accepted = Accepted::read(header(request, ACCEPT).as_deref())?;
    Ok(Admitted { accepted, deadline: deadline::read(request.headers())? })
}

/// A header that is readable text.
pub(in crate::http) fn header(request: &HttpRequest, name: HeaderName) -> Option<String> {
    request.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// Runs `read` off the threads that serve HTTP: a body of megabytes takes its time.
pub(in crate::http) async fn understand<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|panic| {
        let message = format!("reading the request failed: {panic}");
        Err(Error::Generation { message, deterministic: true })
    })
}

//! Reads a request's body up to the server's limit.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::Payload;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::error::Error;

/// Longest time between two pieces of a body. A client that stalls holds memory.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// The whole body, refused where it is larger than `limit` bytes. actix-web reads and forgets what is left of a body that
/// was refused, so that a client which writes all of it before it reads still learns why.
pub(super) async fn read(request: &HttpRequest, mut payload: Payload, limit: usize) -> Result<Bytes, Error> {
    if announced_len(request).is_some_and(|len| len > limit) {
        return Err(Error::PayloadTooLarge { limit });
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = next(&mut payload).await? {
        if body.len() + chunk.len() > limit {
            return Err(Error::PayloadTooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

async fn next(payload: &mut Payload) -> Result<Option<Bytes>, Error> {
    let incomplete = |why: &dyn std::fmt::Display| Error::invalid(format!("the body did not arrive whole: {why}"));
    match timeout(MAX_SILENCE, payload.next()).await {
        Ok(chunk) => chunk.transpose().map_err(|error| incomplete(&error)),
        Err(_) => Err(incomplete(&format!("nothing came for {} s", MAX_SILENCE.as_secs()))),
    }
}

fn announced_len(request: &HttpRequest) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

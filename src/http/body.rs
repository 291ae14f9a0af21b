//! Reads a request's body up to the server's limit.

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::Payload;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::error::Error;

/// The whole body. One that is larger than `limit` bytes is refused, but read: a client that still writes when its
/// connection is closed never sees the refusal.
pub(super) async fn read(request: &HttpRequest, mut payload: Payload, limit: usize) -> Result<Bytes, Error> {
    if announced_len(request).is_some_and(|len| len > limit) {
        discard(payload, limit).await;
        return Err(Error::PayloadTooLarge { limit });
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| Error::invalid(format!("the body could not be read: {error}")))?;
        if body.len() + chunk.len() > limit {
            discard(payload, limit).await;
            return Err(Error::PayloadTooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Reads what is left of the body, up to `limit` bytes, and forgets it.
pub(super) async fn discard(mut payload: Payload, limit: usize) {
    let mut discarded = 0;
    while let Some(Ok(chunk)) = payload.next().await {
        discarded += chunk.len();
        if discarded > limit {
            return;
        }
    }
}

fn announced_len(request: &HttpRequest) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

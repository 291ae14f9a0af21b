//! What every response carries and every request leaves behind: a request id, `Cache-Control`, one log line.

use std::time::{Duration, Instant};

use actix_web::HttpResponseBuilder;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;

use crate::generation::Usage;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Sent by huggingface_hub.
const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// Longest id that is taken from a client.
const MAX_ID_LEN: usize = 200;

/// Middleware around every handler.
pub(super) async fn finish(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let started = Instant::now();
    let id = request_id(request.headers());
    let (method, path) = (request.method().clone(), request.path().to_owned());
    let mut response = next.call(request).await?;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.clone());
    if method == Method::POST && !headers.contains_key(CACHE_CONTROL) {
        // Endpoints can be set to cache replies; an answer is for one request.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    log(&method, &path, response.status().as_u16(), &id, started.elapsed());
    Ok(response)
}

/// One line per request; probes, which come every second, are for debugging only.
fn log(method: &Method, path: &str, status: u16, id: &HeaderValue, took: Duration) {
    let (request_id, ms) = (id.to_str().unwrap_or_default(), took.as_millis() as u64);
    if method == Method::POST {
        tracing::info!(%method, path, status, ms, request_id, "request");
    } else {
        tracing::debug!(%method, path, status, ms, request_id, "request");
    }
}

/// The client's id of the request, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = [REQUEST_ID, TRACE_ID].into_iter().filter_map(|name| headers.get(name)).find(|id| is_usable(id));
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().to_string();
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    })
}

fn is_usable(id: &HeaderValue) -> bool {
    !id.is_empty() && id.len() <= MAX_ID_LEN && id.to_str().is_ok()
}

/// Tells what the answers of one request cost, in TGI's headers: tokens summed, times of the slowest in milliseconds.
pub(super) fn usage_headers(response: &mut HttpResponseBuilder, usages: &[Usage], total: Duration) {
    let prompt_tokens: usize = usages.iter().map(|usage| usage.prompt_tokens).sum();
    let generated_tokens: usize = usages.iter().map(|usage| usage.generated_tokens).sum();
    let longest = |time: fn(&Usage) -> Duration| usages.iter().map(time).max().unwrap_or_default();
    let inference_time = longest(|usage| usage.inference_time);
    let most_tokens = usages.iter().map(|usage| usage.generated_tokens).max().unwrap_or_default().max(1);
    for (name, value) in [
        ("x-prompt-tokens", prompt_tokens as u128),
        ("x-generated-tokens", generated_tokens as u128),
        ("x-queue-time", longest(|usage| usage.queue_time).as_millis()),
        ("x-inference-time", inference_time.as_millis()),
        ("x-time-per-token", inference_time.as_millis() / most_tokens as u128),
        ("x-total-time", total.as_millis()),
    ] {
        response.insert_header((name, value.to_string()));
    }
}

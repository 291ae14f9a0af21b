//! What every response carries: a request id, and headers for caches and browsers. What every request leaves behind is in
//! `exchange`.

use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpRequest, HttpResponseBuilder, web};

use super::auth::Permit;
use super::error::ErrorType;
use super::exchange::{Body, Exchange, Outcome};
use super::routes::{Purpose, Routes};
use crate::generation::{Ledger, Service, Usage};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Sent by huggingface_hub.
const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// W3C's: the client's trace, and its span in it.
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// Longest id that is taken from a client.
const MAX_ID_LEN: usize = 200;

/// What stands for the route of a path that there is not.
const NO_ROUTE: &str = "unmatched";

/// Middleware around every handler.
pub(super) async fn finish(
    service: web::Data<Service>,
    routes: web::Data<Routes>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<Body>, actix_web::Error> {
    let mut exchange = begin(&request, &service, &routes);
    request.extensions_mut().insert(exchange.ledger.clone());
    let mut response = match next.call(request).await {
        Ok(response) => response,
        Err(error) => {
            exchange.outcome = Outcome::Whole(error.as_response_error().status_code(), None);
            return Err(error);
        }
    };
    exchange.permit = response.request().extensions_mut().remove::<Permit>();
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(&exchange.request_id) {
        headers.insert(REQUEST_ID, id);
    }
    // A browser must not take an answer for anything but what it says it is: models write scripts, too.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if exchange.method == Method::POST && !headers.contains_key(CACHE_CONTROL) {
        // Endpoints can be set to cache replies; an answer is for one request.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let status = response.status();
    let error = response.response().extensions().get::<ErrorType>().copied();
    Ok(response.map_body(|_, body| Body::new(body.boxed(), exchange, status, error)))
}

fn begin(request: &ServiceRequest, service: &Service, routes: &Routes) -> Exchange {
    let route = routes.route_of(request.request());
    Exchange {
        began: Instant::now(),
        request_id: request_id(request.headers()),
        traceparent: text(request.headers(), &TRACE_PARENT),
        method: request.method().clone(),
        route: route.map_or_else(|| NO_ROUTE.to_owned(), |route| route.label.clone()),
        purpose: route.map_or(Purpose::Other, |route| route.purpose(request.method())),
        ledger: Ledger::default(),
        metrics: service.metrics().clone(),
        outcome: Outcome::Nothing,
        permit: None,
    }
}

/// The service for one request, which writes what it costs into that request's ledger.
pub(super) fn accounted(service: &Service, request: &HttpRequest) -> Service {
    match request.extensions().get::<Ledger>() {
        Some(ledger) => service.with_ledger(ledger.clone()),
        None => service.clone(),
    }
}

/// The client's id of the request, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = text(headers, &REQUEST_ID).or_else(|| text(headers, &TRACE_ID));
    given.unwrap_or_else(|| uuid::Uuid::new_v4().to_string())
}

/// A header that can be told on.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().filter(|text| is_usable(text)).map(str::to_owned)
}

/// It goes into log lines: no blanks, nothing invisible, and not without end.
fn is_usable(id: &str) -> bool {
    (1..=MAX_ID_LEN).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
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

//! Which web pages may ask from a browser.

use actix_cors::Cors;
use actix_web::http::Method;
use actix_web::middleware::Condition;

/// Every origin.
pub(super) const ANY: &str = "*";

/// How long a browser may remember what it was told, in seconds. Browsers cap it anyway.
const MAX_AGE_S: usize = 3600;

/// Headers of an answer that a page's script may read.
const EXPOSED: [&str; 12] = [
    "x-request-id",
    "x-warning",
    "x-ignored-fields",
    "x-prompt-tokens",
    "x-generated-tokens",
    "x-queue-time",
    "x-inference-time",
    "x-time-per-token",
    "x-total-time",
    "x-compute-type",
    "x-compute-time",
    "retry-after",
];

/// Middleware that lets pages of `origins` ask; without any, it is not there, and browsers let no other page read an answer.
///
/// Credentials that a browser would add by itself (cookies) are not allowed: the server knows none, and a key stands in
/// `Authorization`, which a page sets itself.
pub(super) fn cors(origins: &[String]) -> Condition<Cors> {
    let cors = Cors::default()
        .allowed_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_any_header()
        .expose_headers(EXPOSED)
        .max_age(MAX_AGE_S);
    let cors = if origins.iter().any(|origin| origin == ANY) {
        cors.allow_any_origin().send_wildcard()
    } else {
        origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
    };
    Condition::new(!origins.is_empty(), cors)
}

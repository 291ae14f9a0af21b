//! The headers with which TGI tells what a request cost.

use std::time::Duration;

use actix_web::HttpResponseBuilder;

use crate::generation::Usage;
use crate::http::reply;

/// What is known before the model runs: on what it runs, and the length of the text.
pub(super) fn before(response: &mut HttpResponseBuilder, device: &str, inputs: &str) {
    response.insert_header(("x-compute-type", device));
    response.insert_header(("x-compute-characters", inputs.chars().count().to_string()));
}

/// Tokens and times of the answers to a request that took `total`.
pub(super) fn after(response: &mut HttpResponseBuilder, usages: &[Usage], total: Duration) {
    let longest = usages.iter().map(|usage| usage.queue_time + usage.inference_time).max().unwrap_or_default();
    response.insert_header(("x-compute-time", total.as_secs_f64().to_string()));
    response.insert_header(("x-validation-time", total.saturating_sub(longest).as_millis().to_string()));
    reply::usage_headers(response, usages, total);
}

//! The routes that say whether the server is there, and if not, why: readiness, startup and liveness.
//!
//! They read atomics and take no lock, so that they answer at once however busy the server is.

use std::time::Duration;

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{HttpSettings, error};
use crate::engine::Health;
use crate::error::{Error, Unavailable};
use crate::generation::Service;
use crate::startup::{Phase, Standing};

/// What a probe answers that fails.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct NotReady {
    error: String,
    /// loading, shutting_down or unhealthy.
    error_type: &'static str,
    status: Status,
}

/// How far the server is.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct Status {
    /// "downloading", "loading", "warming up", "ready", "draining" or "failed".
    phase: &'static str,
    /// Bytes of the phase that are done, and all of them; null where it counts none.
    bytes_done: Option<u64>,
    bytes_total: Option<u64>,
    /// The one by the other.
    fraction: Option<f64>,
    /// Seconds since the process began.
    elapsed_s: f64,
    /// Seconds until the phase ends, by how it went so far; null where nothing can be said.
    remaining_s: Option<f64>,
}

/// Whether requests are served: what a platform asks every second.
#[utoipa::path(
    get, path = "/", operation_id = "ready", tag = "Server",
    responses(
        (status = 200, description = "Ready.", body = String, content_type = "text/plain"),
        (status = 503, description = "Loading, shutting down, or broken.", body = NotReady),
    ),
)]
pub(super) async fn ready(service: web::Data<Service>, settings: web::Data<HttpSettings>) -> HttpResponse {
    match service.check_ready() {
        Ok(()) => unless_it_hangs(&service, settings.stall_limit),
        Err(error) => respond(&error, service.health(), service.startup().standing()),
    }
}

/// Whether the server has been ready: until then nobody should judge it by its readiness or liveness.
#[utoipa::path(
    get, path = "/startupz", tag = "Server",
    responses(
        (status = 200, description = "It has.", body = String, content_type = "text/plain"),
        (status = 503, description = "Not yet.", body = NotReady),
    ),
)]
pub(super) async fn started(service: web::Data<Service>) -> HttpResponse {
    match service.check_ready() {
        Err(error) if !service.engine().was_ready() => respond(&error, service.health(), service.startup().standing()),
        _ => ok(),
    }
}

/// Whether the process should be left alone: it answers, and its engine gets on with its work or has none.
#[utoipa::path(
    get, path = "/livez", tag = "Server",
    responses(
        (status = 200, description = "It should.", body = String, content_type = "text/plain"),
        (status = 503, description = "The engine is gone or hangs: start the process anew.", body = NotReady),
    ),
)]
pub(super) async fn live(service: web::Data<Service>, settings: web::Data<HttpSettings>) -> HttpResponse {
    let standing = service.startup().standing();
    let unhealthy = Health::Unavailable(Unavailable::Unhealthy);
    if service.health() == unhealthy {
        return respond(&Error::Unavailable(Unavailable::Unhealthy), unhealthy, standing);
    }
    unless_it_hangs(&service, settings.stall_limit)
}

/// Fine, unless the engine has been at one step for longer than `limit`.
fn unless_it_hangs(service: &Service, limit: Duration) -> HttpResponse {
    let Some(busy) = service.engine().busy_for().filter(|busy| *busy > limit) else { return ok() };
    let unavailable = Error::Unavailable(Unavailable::Unhealthy);
    let message = format!(
        "the engine has been at one step for {} s, longer than {} s (--stall-limit-s, SARDINE_STALL_LIMIT_S); \
         the server must be restarted",
        busy.as_secs(),
        limit.as_secs()
    );
    let error_type = error::error_type(&unavailable);
    let status = Status::new("failed", service.startup().standing());
    error::with_headers(error::status(&unavailable), &unavailable).json(NotReady { error: message, error_type, status })
}

/// The answer of a probe that fails because of `error`.
pub(super) fn respond(error: &Error, health: Health, standing: Standing) -> HttpResponse {
    let phase = match (health, standing.phase) {
        (Health::Ready, _) => "ready",
        (Health::Unavailable(Unavailable::ShuttingDown), _) => "draining",
        (Health::Unavailable(Unavailable::Unhealthy), _) => "failed",
        (Health::Unavailable(Unavailable::Loading), Phase::Downloading) => "downloading",
        (Health::Unavailable(Unavailable::Loading), Phase::Loading) => "loading",
        (Health::Unavailable(Unavailable::Loading), Phase::WarmingUp) => "warming up",
    };
    let status = Status::new(phase, standing);
    let body = NotReady { error: error.to_string(), error_type: error::error_type(error), status };
    error::with_headers(error::status(error), error).json(body)
}

impl Status {
    fn new(phase: &'static str, standing: Standing) -> Status {
        let is_on_its_way = matches!(phase, "downloading" | "loading" | "warming up");
        let bytes = standing.bytes.filter(|_| is_on_its_way);
        let left = standing.left.filter(|_| is_on_its_way);
        Status {
            phase,
            bytes_done: bytes.map(|(done, _)| done),
            bytes_total: bytes.map(|(_, total)| total),
            fraction: bytes.map(|(done, total)| done as f64 / total.max(1) as f64),
            elapsed_s: seconds(standing.elapsed),
            remaining_s: left.map(seconds),
        }
    }
}

/// To a tenth.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

pub(super) fn ok() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::plaintext()).body("Ok")
}

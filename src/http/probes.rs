//! The routes that say how the server is: readiness, liveness, and the toolkit's two numbers.

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};

use super::error;
use super::hf::error::ErrorBody;
use crate::generation::Service;

/// Whether requests are served: what a platform asks every second.
// It reads one atomic and takes no lock.
#[utoipa::path(
    get, path = "/", operation_id = "ready", tag = "Server",
    responses(
        (status = 200, description = "Ready.", body = String, content_type = "text/plain"),
        (status = 503, description = "Loading, shutting down, or broken.", body = ErrorBody),
    ),
)]
pub(super) async fn ready(service: web::Data<Service>) -> HttpResponse {
    match service.check_ready() {
        Ok(()) => ok(),
        Err(error) => error::respond(&error),
    }
}

/// Whether the process can answer HTTP at all.
#[utoipa::path(
    get, path = "/health/live", tag = "Server",
    responses((status = 200, description = "It can.", body = String, content_type = "text/plain")),
)]
pub(super) async fn live() -> HttpResponse {
    ok()
}

/// Sequences that run and requests that wait, in the toolkit's form.
#[utoipa::path(
    get, path = "/metrics", tag = "Server",
    responses((status = 200, description = "Two samples.", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(service: web::Data<Service>) -> HttpResponse {
    let (running, queued) = (service.num_running(), service.queue_len());
    let text = format!("inf_batch_current_size {running}\ninf_queue_size {queued}\n");
    HttpResponse::Ok().content_type(ContentType::plaintext()).body(text)
}

fn ok() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::plaintext()).body("Ok")
}

//! The routes that say whether the server is there: readiness and liveness.

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

fn ok() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::plaintext()).body("Ok")
}

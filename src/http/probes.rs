//! The routes that say how the server is: readiness, liveness, and the toolkit's two numbers.

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};

use super::error;
use crate::generation::Service;

/// 200 when requests are served, else 503: what a platform asks every second. It reads one atomic and takes no lock.
pub(super) async fn ready(service: web::Data<Service>) -> HttpResponse {
    match service.check_ready() {
        Ok(()) => ok(),
        Err(error) => error::respond(&error),
    }
}

/// 200 as long as the process can answer HTTP at all.
pub(super) async fn live() -> HttpResponse {
    ok()
}

/// The toolkit's two samples, in its form.
pub(super) async fn metrics(service: web::Data<Service>) -> HttpResponse {
    let (running, queued) = (service.num_running(), service.queue_len());
    let text = format!("inf_batch_current_size {running}\ninf_queue_size {queued}\n");
    HttpResponse::Ok().content_type(ContentType::plaintext()).body(text)
}

fn ok() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::plaintext()).body("Ok")
}

//! What the engine is busy with and whether it keeps its books, as Prometheus reads it.

use std::fmt::Write;

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};

use crate::generation::Service;

/// Numbers for Prometheus.
///
/// `inf_batch_current_size` and `inf_queue_size` are the toolkit's own, in its form: sequences that run, and requests that wait.
#[utoipa::path(
    get, path = "/metrics", tag = "Server",
    responses((status = 200, description = "Samples in Prometheus' text format.", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(service: web::Data<Service>) -> HttpResponse {
    // The toolkit says no more about its two, and whoever reads them line by line expects no more.
    let mut text =
        format!("inf_batch_current_size {}\ninf_queue_size {}\n", service.num_running(), service.queue_len());
    let engine = service.engine();
    for Metric { name, kind, help, value } in [
        Metric {
            name: "sardine_kv_tokens_reserved",
            kind: "gauge",
            help: "Tokens whose keys and values are reserved for the running sequences.",
            value: engine.num_reserved_tokens() as u64,
        },
        Metric {
            name: "sardine_picture_bytes",
            kind: "gauge",
            help: "Bytes of the prepared pictures of the requests that wait or run.",
            value: service.held_picture_bytes(),
        },
        Metric {
            name: "sardine_idle_checks_total",
            kind: "counter",
            help: "Looks at the idle engine for memory that is still held.",
            value: engine.num_checks(),
        },
        Metric {
            name: "sardine_leaks_total",
            kind: "counter",
            help: "Looks that found some: it is freed, and yet anything but 0 is a bug.",
            value: engine.num_leaks(),
        },
    ] {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    HttpResponse::Ok().content_type(ContentType::plaintext()).body(text)
}

/// A sample and what Prometheus wants to know about it.
struct Metric {
    name: &'static str,
    /// "gauge" or "counter".
    kind: &'static str,
    help: &'static str,
    value: u64,
}

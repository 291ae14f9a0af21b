//! What the server has done and is busy with, as Prometheus reads it.

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};

use super::HttpSettings;
use crate::generation::Service;
use crate::telemetry::Gauges;

/// Numbers for Prometheus.
///
/// `inf_batch_current_size` and `inf_queue_size` are the toolkit's own, in its form: sequences that run, and requests that wait.
/// Beside the `sardine_` numbers stand those of TGI's dashboards and those by which the Gateway API's inference extension routes.
#[utoipa::path(
    get, path = "/metrics", tag = "Server",
    responses((status = 200, description = "Samples in Prometheus' text format.", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(service: web::Data<Service>, settings: web::Data<HttpSettings>) -> HttpResponse {
    let gauges = gauges(&service, &settings.model.name);
    // The toolkit says no more about its two, and whoever reads them line by line expects no more.
    let toolkits = format!("inf_batch_current_size {}\ninf_queue_size {}\n", service.num_running(), gauges.num_waiting);
    let text = toolkits + &service.metrics().render(&gauges);
    HttpResponse::Ok().content_type(ContentType::plaintext()).body(text)
}

fn gauges(service: &Service, model: &str) -> Gauges {
    let engine = service.engine();
    let kv_tokens_reserved = engine.num_reserved_tokens();
    let pictures = engine.pictures();
    Gauges {
        model: model.to_owned(),
        num_running: engine.num_running_each(),
        num_slots: engine.num_slots(),
        num_waiting: engine.queue_len(),
        kv_tokens_reserved,
        kv_usage_ratio: kv_tokens_reserved as f64 / engine.limits().max_kv_tokens.max(1) as f64,
        picture_bytes: service.held_picture_bytes(),
        pictures_computed: pictures.computed,
        pictures_reused: pictures.reused,
        picture_cache_bytes: pictures.kept_bytes,
        num_idle_checks: engine.num_checks(),
        num_leaks: engine.num_leaks(),
    }
}

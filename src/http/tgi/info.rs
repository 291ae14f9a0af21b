//! What is served, and the limits of the server: TGI's `/info`.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::generation::Service;
use crate::http::hf::error::ErrorBody;
use crate::http::hf::parameters::TGI;
use crate::http::{HttpSettings, server};

/// TGI's fields. A field of which there is nothing to say is null.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(in crate::http) struct Info {
    model_id: String,
    model_sha: Option<String>,
    model_dtype: String,
    model_device_type: String,
    model_pipeline_tag: String,
    /// Requests that run and that wait; one more is answered 429.
    max_concurrent_requests: usize,
    max_best_of: usize,
    max_stop_sequences: usize,
    /// Tokens of a prompt: all that the context has room for but one.
    max_input_tokens: usize,
    /// Tokens of a prompt and its answer.
    max_total_tokens: usize,
    /// Sequences that run at the same time.
    max_batch_size: usize,
    /// Answers that one request may ask for.
    max_client_batch_size: usize,
    /// Threads that serve HTTP.
    validation_workers: usize,
    router: &'static str,
    version: &'static str,
    sha: Option<&'static str>,
    docker_label: Option<&'static str>,
}

/// What is served, and the limits of the server.
#[utoipa::path(
    get, path = "/info", tag = "Text Generation Inference",
    responses(
        (status = 200, description = "The model and the limits.", body = Info),
        (status = 401, description = "The server has API keys, and the request another or none.", body = ErrorBody),
    ),
)]
pub(in crate::http) async fn info(service: web::Data<Service>, settings: web::Data<HttpSettings>) -> HttpResponse {
    let (model, limits) = (&settings.model, service.limits());
    HttpResponse::Ok().json(Info {
        model_id: model.name.clone(),
        model_sha: None,
        model_dtype: format!("torch.{}", model.dtype),
        model_device_type: model.device_type().to_owned(),
        model_pipeline_tag: model.pipeline_tag.to_owned(),
        max_concurrent_requests: limits.max_batch_size + limits.max_queue,
        max_best_of: settings.max_client_batch_size,
        max_stop_sequences: TGI.max_stop_strings(),
        max_input_tokens: limits.max_model_len - 1,
        max_total_tokens: limits.max_model_len,
        max_batch_size: limits.max_batch_size,
        max_client_batch_size: settings.max_client_batch_size,
        validation_workers: server::num_workers(),
        router: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        sha: None,
        docker_label: None,
    })
}

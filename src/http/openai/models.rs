//! /v1/models: the one model that is served.

use actix_web::{HttpResponse, web};

use super::error::ErrorBody;
use super::reply::{Model, Models};
use super::{error, head};
use crate::error::Error;
use crate::generation::Service;
use crate::http::HttpSettings;

/// The one model that is served, as a list.
#[utoipa::path(
    get, path = "/v1/models", tag = "OpenAI",
    responses(
        (status = 200, description = "The list.", body = Models),
        (status = 401, description = "The server has an API key, and the request another or none.", body = ErrorBody),
    ),
)]
pub(in crate::http) async fn list_models(
    service: web::Data<Service>,
    settings: web::Data<HttpSettings>,
) -> HttpResponse {
    HttpResponse::Ok().json(Models { object: "list", data: vec![model(&service, &settings)] })
}

/// The model that is served, by its name.
#[utoipa::path(
    get, path = "/v1/models/{id}", tag = "OpenAI",
    params(("id" = String, Path, description = "The model's name; it may have slashes")),
    responses(
        (status = 200, description = "The model.", body = Model),
        (status = 401, description = "The server has an API key, and the request another or none.", body = ErrorBody),
        (status = 404, description = "No model of that name is served.", body = ErrorBody),
    ),
)]
pub(in crate::http) async fn get_model(
    id: web::Path<String>,
    service: web::Data<Service>,
    settings: web::Data<HttpSettings>,
) -> HttpResponse {
    let model = model(&service, &settings);
    if *id == model.id {
        return HttpResponse::Ok().json(model);
    }
    error::respond(&Error::NotFound(format!("model {:?}, but there is {:?},", *id, model.id)))
}

fn model(service: &Service, settings: &HttpSettings) -> Model {
    Model {
        id: settings.model.name.clone(),
        object: "model",
        created: *STARTED,
        owned_by: "sardine",
        max_model_len: service.limits().max_model_len,
    }
}

/// When the first was asked for: a model has no other age here.
static STARTED: std::sync::LazyLock<u64> = std::sync::LazyLock::new(head::now);

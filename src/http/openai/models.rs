//! /v1/models: the one model that is served.

use actix_web::{HttpRequest, HttpResponse, web};

use super::error::ErrorBody;
use super::reply::{Model, Models};
use super::{error, head};
use crate::error::Error;
use crate::generation::Service;
use crate::http::{HttpSettings, auth};

/// The one model that is served, as a list.
#[utoipa::path(
    get, path = "/v1/models", tag = "OpenAI",
    responses(
        (status = 200, description = "The list.", body = Models),
        (status = 401, description = "The server has an API key, and the request another or none.", body = ErrorBody),
    ),
)]
pub(in crate::http) async fn list_models(
    request: HttpRequest,
    service: web::Data<Service>,
    settings: web::Data<HttpSettings>,
) -> HttpResponse {
    match auth::check(&request, settings.api_key.as_deref()) {
        Ok(()) => HttpResponse::Ok().json(Models { object: "list", data: vec![model(&service, &settings)] }),
        Err(error) => error::respond(&error),
    }
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
    request: HttpRequest,
    id: web::Path<String>,
    service: web::Data<Service>,
    settings: web::Data<HttpSettings>,
) -> HttpResponse {
    let found = auth::check(&request, settings.api_key.as_deref()).and_then(|()| {
        let model = model(&service, &settings);
        let missing = || Error::NotFound(format!("model {:?}, but there is {:?},", *id, model.id));
        (*id == model.id).then_some(()).ok_or_else(missing).map(|()| model.clone())
    });
    match found {
        Ok(model) => HttpResponse::Ok().json(model),
        Err(error) => error::respond(&error),
    }
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

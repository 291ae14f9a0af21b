//! The OpenAPI document of every route, and the page that shows it.
//!
//! The document is made of the route table: a handler is described once, beside its code (`#[utoipa::path]`) under the first
//! of its paths, and listed in `api`; every other path that leads to it gets the same description.

mod api;
mod page;
mod shape;

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, Paths};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{OpenApi, PathItem, RefOr, ServerBuilder};

use super::HttpSettings;
use super::routes::{self, Entry, template};
pub(super) use page::{file, page};

/// The document, ready to be sent.
#[derive(Clone)]
pub(super) struct Document(Bytes);

impl Document {
    pub(super) fn new(settings: &HttpSettings) -> Document {
        let mut json = serde_json::to_value(document(settings)).expect("Invariant: the document is plain data");
        shape::first_that_fits(&mut json);
        shape::describe_events(&mut json);
        Document(json.to_string().into())
    }
}

/// The OpenAPI document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "Server",
    responses((status = 200, description = "This document.", body = Object)),
)]
pub(super) async fn openapi(document: web::Data<Document>) -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(document.0.clone())
}

/// Describes every route of the table.
fn document(settings: &HttpSettings) -> OpenApi {
    let mut document = api::Api::openapi();
    let described = std::mem::take(&mut document.paths);
    for entry in routes::table(settings) {
        let path = template(&entry.path);
        let item = item(&entry, &path, &described);
        document.paths.paths.insert(path, item);
    }
    let base = settings.base_path.as_deref().map_or("/", |base| base.trim_end_matches('/'));
    document.servers = Some(vec![ServerBuilder::new().url(base).build()]);
    if !settings.api_keys.is_empty() {
        demand_key(&mut document);
    }
    document
}

fn item(entry: &Entry, path: &str, described: &Paths) -> PathItem {
    let of = |first: &str| described.paths.get(&template(first)).cloned().unwrap_or_default();
    let get = entry.get.and_then(|get| of(routes::first_path_of_get(get)).get).map(|get| named(get, path));
    let post = entry.post.and_then(|post| of(routes::first_path_of_post(post)).post).map(|post| named(post, path));
    let head = get.clone().map(without_bodies);
    let mut item = PathItem::default();
    (item.get, item.head, item.post) = (get, head, post);
    item
}

/// An operation's id is its own in the whole document: the words of its path, or at the root, which has two, its handler's name.
fn named(mut operation: Operation, path: &str) -> Operation {
    let words = path.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect::<Vec<_>>();
    let handler = operation.operation_id.take().unwrap_or_default();
    operation.operation_id = Some(if words.is_empty() { format!("root_{handler}") } else { words.join("_") });
    operation
}

/// HEAD of what GET answers.
fn without_bodies(mut operation: Operation) -> Operation {
    operation.operation_id = operation.operation_id.map(|id| format!("{id}_head"));
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            response.content.clear();
        }
    }
    operation
}

/// Says that a bearer token is wanted, of which routes that answer 401.
fn demand_key(document: &mut OpenApi) {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("key", SecurityScheme::Http(scheme));
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.head, &mut item.post].into_iter().flatten() {
            if operation.responses.responses.contains_key("401") {
                operation.security = Some(vec![SecurityRequirement::new("key", [""; 0])]);
            }
        }
    }
}

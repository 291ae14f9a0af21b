//! Swagger's page, from files inside the binary: it works where nothing else can be reached.

use std::sync::{Arc, LazyLock};

use actix_web::http::header::{CONTENT_SECURITY_POLICY, ContentEncoding, LOCATION};
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa_swagger_ui::{Config, serve};

use crate::error::Error;
use crate::http::error;

/// The page asks for the document beside itself, so that both are found below any prefix.
static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from("../openapi.json")));

/// The page is from here and talks to here: nothing that slips into the document can call in a script from elsewhere, and no
/// other site can frame it. Swagger's script sets styles in its elements, and its style sheet has pictures in `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page for people.
///
/// Leads to its first file, next to which the browser looks for the others.
#[utoipa::path(
    get, path = "/docs", tag = "Server",
    responses((status = 302, description = "The page is at `/docs/index.html`.")),
)]
pub(in crate::http) async fn page(request: HttpRequest) -> HttpResponse {
    HttpResponse::Found().insert_header((LOCATION, format!("{}/index.html", request.path()))).finish()
}

/// A file of the page.
#[utoipa::path(
    get, path = "/docs/{file}", tag = "Server",
    params(("file" = String, Path, description = "A file of the page.", example = "index.html")),
    responses(
        (status = 200, description = "The file.", content(
            (String = "text/html"), (String = "text/css"), (String = "text/javascript"), (String = "image/png"),
        )),
        (status = 404, description = "There is no such file.", body = crate::http::hf::error::ErrorBody),
    ),
)]
pub(in crate::http) async fn file(name: web::Path<String>) -> HttpResponse {
    match serve(&name, CONFIG.clone()) {
        Ok(Some(file)) => {
            let mut response = HttpResponse::Ok();
            response.insert_header((CONTENT_SECURITY_POLICY, POLICY));
            if file.gzpipped {
                response.insert_header(ContentEncoding::Gzip);
            }
            response.content_type(file.content_type).body(file.bytes.into_owned())
        }
        _ => error::respond(&Error::NotFound(format!("file {name} of the page"))),
    }
}

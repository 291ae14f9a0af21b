//! The route table, and the answers to what is not in it.

use std::collections::HashMap;

use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Resource};
use serde_json::json;

use super::{HttpSettings, docs, error, metrics, openai, probes, tgi, toolkit};
use crate::error::Error;

/// Every path, with what answers its GET and HEAD, and what answers its POST.
const TABLE: [(&str, Option<Get>, Option<Post>); 24] = [
    ("/", Some(Get::Ready), Some(Post::Predict)),
    ("/predict", None, Some(Post::Predict)),
    ("/invocations", None, Some(Post::Predict)), // SageMaker's, as is /ping
    ("/generate", None, Some(Post::Generate)),
    ("/generate_stream", None, Some(Post::GenerateStream)),
    ("/tokenize", None, Some(Post::Tokenize)),
    ("/chat_tokenize", None, Some(Post::ChatTokenize)),
    ("/info", Some(Get::Info), None),
    ("/v1/chat/completions", None, Some(Post::ChatCompletions)),
    ("/predict/v1/chat/completions", None, Some(Post::ChatCompletions)), // huggingface_hub's, where its URL ends in /predict
    ("/v1/completions", None, Some(Post::Completions)),
    ("/v1/models", Some(Get::Models), None),
    ("/v1/models/{id:.+}", Some(Get::Model), None),
    ("/health", Some(Get::Ready), None),
    ("/ping", Some(Get::Ready), None),
    ("/readyz", Some(Get::Ready), None), // Kubernetes' three
    ("/startupz", Some(Get::Started), None),
    ("/livez", Some(Get::Live), None),
    ("/health/live", Some(Get::Live), None),
    ("/metrics", Some(Get::Metrics), None),
    ("/openapi.json", Some(Get::OpenApi), None),
    ("/api-doc/openapi.json", Some(Get::OpenApi), None), // TGI's
    ("/docs", Some(Get::Docs), None),
    ("/docs/{file}", Some(Get::DocsFile), None),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Get {
    Ready,
    Started,
    Live,
    Metrics,
    Info,
    OpenApi,
    Docs,
    DocsFile,
    Models,
    Model,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Post {
    Predict,
    Generate,
    GenerateStream,
    Tokenize,
    ChatTokenize,
    ChatCompletions,
    Completions,
}

/// One row of the table, with the settings' own paths.
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) get: Option<Get>,
    pub(super) post: Option<Post>,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// An answer of the model.
    Generation,
    Probe,
    Metrics,
    Docs,
    Other,
}

/// The table by the patterns that are registered: what log, metrics and guard need to know of a request.
pub(super) struct Routes(HashMap<String, Route>);

/// One of its routes.
pub(super) struct Route {
    /// The path without a base path, as the documentation writes it.
    pub(super) label: String,
    get: Option<Get>,
    post: Option<Post>,
}

impl Routes {
    pub(super) fn new(settings: &HttpSettings) -> Routes {
        let registered = registered(settings).into_iter();
        Routes(
            registered
                .map(|(path, Entry { path: own, get, post })| (path, Route { label: template(&own), get, post }))
                .collect(),
        )
    }

    /// The route of a request; `None` where there is no such path.
    pub(super) fn route_of(&self, request: &HttpRequest) -> Option<&Route> {
        self.0.get(&request.match_pattern()?)
    }
}

impl Route {
    pub(super) fn purpose(&self, method: &Method) -> Purpose {
        if *method == Method::POST {
            return match self.post {
                Some(Post::Tokenize | Post::ChatTokenize) | None => Purpose::Other,
                Some(_) => Purpose::Generation,
            };
        }
        match self.get {
            _ if !matches!(*method, Method::GET | Method::HEAD) => Purpose::Other,
            Some(Get::Ready | Get::Started | Get::Live) => Purpose::Probe,
            Some(Get::Metrics) => Purpose::Metrics,
            Some(Get::OpenApi | Get::Docs | Get::DocsFile) => Purpose::Docs,
            Some(Get::Info | Get::Models | Get::Model) | None => Purpose::Other,
        }
    }
}

/// Registers every path.
pub(super) fn configure(config: &mut ServiceConfig, settings: &HttpSettings) {
    for (path, entry) in registered(settings) {
        config.service(entry.resource(&path));
    }
}

/// Every path that is registered, with its row: below the base path where there is one, and at the root.
fn registered(settings: &HttpSettings) -> Vec<(String, Entry)> {
    let base = settings.base_path.as_deref().map(|base| base.trim_matches('/')).filter(|base| !base.is_empty());
    let below = base.into_iter().flat_map(|base| {
        table(settings).into_iter().map(move |entry| {
            let path = format!("/{base}{}", entry.path);
            (path.trim_end_matches('/').to_owned(), entry)
        })
    });
    below.chain(table(settings).into_iter().map(|entry| (entry.path.clone(), entry))).collect()
}

/// A path of the table in OpenAPI's form: `{id:.+}` is `{id}`.
pub(super) fn template(path: &str) -> String {
    match path.split_once(':') {
        Some((before, _)) if before.contains('{') => format!("{before}}}"),
        _ => path.to_owned(),
    }
}

/// The answer to any other path.
pub(super) async fn not_found(request: HttpRequest, settings: web::Data<HttpSettings>) -> HttpResponse {
    let table = table(&settings);
    let routes: Vec<String> = table.iter().map(|entry| format!("{} {}", entry.allowed(), entry.path)).collect();
    let missing = Error::NotFound(format!("{} {}", request.method(), request.path()));
    if is_openais(request.path()) {
        return openai::respond_error(&missing);
    }
    let body = json!({ "error": missing.to_string(), "error_type": error::error_type(&missing), "routes": routes });
    HttpResponse::build(error::status(&missing)).json(body)
}

/// Whether errors at `path` are read by OpenAI's clients, wherever a proxy or a client puts its `/v1`.
pub(super) fn is_openais(path: &str) -> bool {
    path.split('/').any(|segment| segment == "v1")
}

/// All rows.
pub(super) fn table(settings: &HttpSettings) -> Vec<Entry> {
    let entry = |(path, get, post): &(&str, Option<Get>, Option<Post>)| Entry {
        path: (*path).to_owned(),
        get: *get,
        post: *post,
    };
    let mut table: Vec<Entry> = TABLE.iter().map(entry).collect();
    if let Some(vertex) = &settings.vertex {
        add(&mut table, &vertex.health, Some(Get::Ready), None);
        add(&mut table, &vertex.predict, None, Some(Post::Predict));
    }
    // The first that fits answers: Vertex AI's paths lie below /v1/models.
    table.sort_by_key(|entry| entry.path.contains('{'));
    table
}

/// The path under which `get` is described.
pub(super) fn first_path_of_get(get: Get) -> &'static str {
    let first = TABLE.iter().find(|(_, other, _)| *other == Some(get));
    first.map_or("", |(path, _, _)| *path)
}

/// The path under which `post` is described.
pub(super) fn first_path_of_post(post: Post) -> &'static str {
    let first = TABLE.iter().find(|(_, _, other)| *other == Some(post));
    first.map_or("", |(path, _, _)| *path)
}

/// Adds a path, or what the path lacks where it is in the table already.
fn add(table: &mut Vec<Entry>, path: &str, get: Option<Get>, post: Option<Post>) {
    match table.iter_mut().find(|entry| entry.path == path) {
        Some(entry) => {
            entry.get = entry.get.or(get);
            entry.post = entry.post.or(post);
        }
        None => table.push(Entry { path: path.to_owned(), get, post }),
    }
}

impl Entry {
    fn resource(&self, path: &str) -> Resource {
        let mut resource = web::resource(path);
        for route in [web::get(), web::head()] {
            resource = match self.get {
                Some(Get::Ready) => resource.route(route.to(probes::ready)),
                Some(Get::Started) => resource.route(route.to(probes::started)),
                Some(Get::Live) => resource.route(route.to(probes::live)),
                Some(Get::Metrics) => resource.route(route.to(metrics::metrics)),
                Some(Get::Info) => resource.route(route.to(tgi::info)),
                Some(Get::OpenApi) => resource.route(route.to(docs::openapi)),
                Some(Get::Docs) => resource.route(route.to(docs::page)),
                Some(Get::DocsFile) => resource.route(route.to(docs::file)),
                Some(Get::Models) => resource.route(route.to(openai::list_models)),
                Some(Get::Model) => resource.route(route.to(openai::get_model)),
                None => resource,
            };
        }
        resource = match self.post {
            Some(Post::Predict) => resource.route(web::post().to(toolkit::predict)),
            Some(Post::Generate) => resource.route(web::post().to(tgi::generate)),
            Some(Post::GenerateStream) => resource.route(web::post().to(tgi::generate_stream)),
            Some(Post::Tokenize) => resource.route(web::post().to(tgi::tokenize)),
            Some(Post::ChatTokenize) => resource.route(web::post().to(tgi::chat_tokenize)),
            Some(Post::ChatCompletions) => resource.route(web::post().to(openai::chat_completions)),
            Some(Post::Completions) => resource.route(web::post().to(openai::completions)),
            None => resource,
        };
        let allowed = self.allowed();
        resource.default_service(web::to(move |request: HttpRequest| {
            let refused = Error::MethodNotAllowed { method: request.method().to_string(), allowed: allowed.to_owned() };
            let respond = if is_openais(request.path()) { openai::respond_error } else { error::respond };
            async move { respond(&refused) }
        }))
    }

    fn allowed(&self) -> &'static str {
        match (self.get, self.post) {
            (Some(_), Some(_)) => "GET, HEAD, POST",
            (Some(_), None) => "GET, HEAD",
            (None, _) => "POST",
        }
    }
}

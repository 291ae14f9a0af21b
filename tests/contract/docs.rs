//! The OpenAPI document and its page.

use std::collections::BTreeSet;

use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use sardine::http::{HttpSettings, VertexRoutes};
use serde_json::{Value, json};

use crate::bench::{Bench, api_keys, limits, settings};

async fn document(bench: &Bench) -> Value {
    bench.get("/openapi.json").await.json()
}

/// "GET /info" and so on, as the answer to an unknown path lists them.
async fn routes(bench: &Bench) -> BTreeSet<String> {
    let missing = bench.get("/no/such/path").await.json();
    let rows = missing["routes"].as_array().unwrap().iter().map(|row| row.as_str().unwrap().to_owned());
    rows.flat_map(|row| {
        let (methods, path) = row.rsplit_once(' ').unwrap();
        let path = path.replace(":.+}", "}");
        methods.split(", ").map(|method| format!("{method} {path}")).collect::<Vec<_>>()
    })
    .collect()
}

fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().unwrap().iter();
        item.map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
    });
    operations.collect()
}

#[tokio::test]
async fn every_route_is_described_and_nothing_else() {
    let vertex = VertexRoutes { health: "/v1/health".to_owned(), predict: "/v1/models/m:predict".to_owned() };
    for settings in [settings(), HttpSettings { vertex: Some(vertex), ..settings() }] {
        let bench = Bench::with(settings, limits()).await;
        let document = document(&bench).await;
        let described: BTreeSet<String> = operations(&document).into_iter().map(|(name, _)| name).collect();
        assert_eq!(described, routes(&bench).await);
    }
}

#[tokio::test]
async fn every_operation_has_an_id_words_and_answers() {
    let bench = Bench::start().await;
    let document = document(&bench).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut ids = BTreeSet::new();
    for (name, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{name} has no id"));
        assert!(ids.insert(id.to_owned()), "{name}: {id} is another's id");
        assert!(operation["summary"].is_string() && operation["tags"][0].is_string(), "{name}");
        let answers = operation["responses"].as_object().unwrap();
        assert!(answers.keys().any(|status| status.starts_with('2') || status.starts_with('3')), "{name}");
        if name.starts_with("POST") {
            for status in ["401", "413", "415", "503"] {
                assert!(answers.contains_key(status), "{name} {status}");
            }
            assert!(operation["requestBody"]["content"]["application/json"]["schema"].is_object(), "{name}");
        }
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere() {
    let bench = Bench::start().await;
    let document = document(&bench).await;
    let text = document.to_string();
    let mut num_references = 0;
    for part in text.split("\"$ref\":\"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
        num_references += 1;
    }
    assert!(num_references > 20);
}

#[tokio::test]
async fn the_document_says_what_the_settings_change() {
    let settings =
        HttpSettings { api_keys: api_keys(&["secret"]), base_path: Some("/models/sardine/".to_owned()), ..settings() };
    let bench = Bench::with(settings, limits()).await;
    let document = bench.get("/models/sardine/api-doc/openapi.json").await.json();
    assert_eq!(document["servers"], json!([{"url": "/models/sardine"}]));
    assert_eq!(document["paths"]["/generate"]["post"]["security"], json!([{"key": []}]));
    assert_eq!(document["paths"]["/health"]["get"]["security"], Value::Null);
    assert!(!document.to_string().contains("secret"));
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let bench = Bench::start().await;
    let client = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
    let url = |path: &str| format!("http://{}{path}", bench.address);
    let redirect = client.get(url("/docs")).send().await.unwrap();
    assert_eq!(
        (redirect.status().as_u16(), &redirect.headers()["location"]),
        (302, &"/docs/index.html".parse().unwrap())
    );
    let page = client.get(url("/docs/index.html")).send().await.unwrap().text().await.unwrap();
    let sources = page.split(['"', '\'']).filter(|word| word.ends_with(".js") || word.ends_with(".css"));
    let sources: Vec<String> = sources.map(|source| source.trim_start_matches("./").to_owned()).collect();
    assert!(sources.len() >= 3 && !page.contains("http://") && !page.contains("https://"), "{page}");
    for source in sources {
        assert_eq!(bench.get(&format!("/docs/{source}")).await.status, 200, "{source}");
    }
    assert!(bench.get("/docs/swagger-initializer.js").await.text.contains("../openapi.json"));
    assert_eq!(bench.get("/docs/missing.js").await.json()["error_type"], "not_found");
    let head = bench.send(bench.request(Method::HEAD, "/openapi.json")).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
}

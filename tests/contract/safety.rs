//! Who may ask, how much at once, from which pages, and what every answer tells a browser.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use sardine::http::{ApiKeys, HttpSettings};
use serde_json::json;

use crate::bench::{Bench, api_keys, limits, settings};
use crate::script::Mode;

#[tokio::test]
async fn a_key_is_wanted_on_every_route_but_probes_metrics_and_documentation() {
    let keys = api_keys(&["secret", "other"]);
    let settings = HttpSettings { api_keys: keys, base_path: Some("/models/sardine".to_owned()), ..settings() };
    let bench = Bench::with(settings, limits()).await;
    let open = [
        "/",
        "/health",
        "/ping",
        "/readyz",
        "/startupz",
        "/livez",
        "/health/live",
        "/metrics",
        "/openapi.json",
        "/api-doc/openapi.json",
        "/docs",
        "/docs/{file}",
    ];
    let missing = bench.get("/no/such/path").await;
    assert_eq!(missing.status, 404, "who asks for nothing needs no key");
    for row in missing.json()["routes"].as_array().unwrap() {
        let (methods, pattern) = row.as_str().unwrap().rsplit_once(' ').unwrap();
        let path = pattern.replace("{file}", "index.html").replace("{id:.+}", "the-model");
        for method in methods.split(", ").map(|method| method.parse::<Method>().unwrap()) {
            let is_open = method != Method::POST && open.contains(&pattern);
            for path in [path.clone(), format!("/models/sardine{path}")] {
                let request = || bench.request(method.clone(), &path).json(&json!({"inputs": "Hi"}));
                let status = bench.send(request()).await.status.as_u16();
                assert_eq!(status == 401, !is_open, "{method} {path}: {status}");
                for key in ["secret", "other"] {
                    let status = bench.send(request().bearer_auth(key)).await.status.as_u16();
                    assert_ne!(status, 401, "{method} {path} with {key}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_key_has_so_many_requests_at_once_and_the_next_is_told_to_come_again() {
    let keys = ApiKeys::new(&["secret".to_owned(), "other".to_owned()], Some(2));
    let bench = Bench::with(HttpSettings { api_keys: keys, ..settings() }, limits()).await;
    bench.script.set(Mode::Endless(5));
    let ask = |key: &str, stream: bool, tokens: usize| -> RequestBuilder {
        let body = json!({"inputs": "Hi", "stream": stream, "parameters": {"max_new_tokens": tokens}});
        bench.request(Method::POST, "/").bearer_auth(key).json(&body)
    };
    let whole = tokio::spawn(ask("secret", false, 1900).send());
    let stream = ask("secret", true, 1900).send().await.unwrap();
    bench.wait_until("both run", |bench| bench.service.num_running() == 2).await;

    let refused = bench.send(ask("secret", false, 1)).await;
    assert_eq!((refused.status.as_u16(), refused.json()["error_type"].clone()), (429, json!("overloaded")));
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().unwrap() >= 1));
    assert!(refused.text.contains("this API key has 2 requests in work"), "{}", refused.text);
    let openai = bench.request(Method::POST, "/v1/completions").bearer_auth("secret").json(&json!({"prompt": "Hi"}));
    assert_eq!(bench.send(openai).await.json()["error"]["type"], "rate_limit_error");
    assert_eq!(bench.send(bench.request(Method::GET, "/info").bearer_auth("secret")).await.status, 200);
    assert_eq!(bench.send(ask("other", false, 1)).await.status, 200, "another's places are its own");

    drop(stream); // a stream holds its place until its end, and gives it back
    let mut status = 429;
    for _ in 0..500 {
        status = bench.send(ask("secret", false, 1)).await.status.as_u16();
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(status, 200);
    whole.abort();
}

#[tokio::test]
async fn pages_of_the_origins_that_are_set_may_ask_and_no_others() {
    let origins = vec!["https://app.example.com".to_owned()];
    let settings = HttpSettings { cors_origins: origins, api_keys: api_keys(&["secret"]), ..settings() };
    let bench = Bench::with(settings, limits()).await;
    let preflight = |origin: &str| {
        let request = bench.request(Method::OPTIONS, "/v1/chat/completions").header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "authorization,content-type")
    };
    let allowed = bench.send(preflight("https://app.example.com")).await;
    assert_eq!(allowed.status, 200, "a preflight carries no key: {}", allowed.text);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example.com"));
    let headers = allowed.header("access-control-allow-headers").unwrap_or_default().to_ascii_lowercase();
    assert!(headers.contains("authorization") && headers.contains("content-type"), "{headers}");
    assert_eq!(allowed.header("access-control-allow-credentials"), None);
    let other = bench.send(preflight("https://evil.example.com")).await;
    assert_eq!(other.header("access-control-allow-origin"), None);

    let post = bench.request(Method::POST, "/").header("origin", "https://app.example.com");
    let reply = bench.send(post.json(&json!({"inputs": "Hi"}))).await;
    assert_eq!((reply.status.as_u16(), reply.json()["error_type"].clone()), (401, json!("unauthorized")));
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example.com"), "a page can read why");
}

#[tokio::test]
async fn without_origins_no_page_may_ask_and_with_a_star_every_page() {
    let bench = Bench::start().await;
    let get = |bench: &Bench| bench.request(Method::GET, "/info").header("origin", "https://app.example.com");
    assert_eq!(bench.send(get(&bench)).await.header("access-control-allow-origin"), None);
    let options = bench.request(Method::OPTIONS, "/info").header("origin", "https://app.example.com");
    let refused = bench.send(options.header("access-control-request-method", "GET")).await;
    assert_eq!((refused.status.as_u16(), refused.header("access-control-allow-origin")), (405, None));

    let settings = HttpSettings { cors_origins: vec!["*".to_owned()], ..settings() };
    let bench = Bench::with(settings, limits()).await;
    let reply = bench.send(get(&bench)).await;
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    let exposed = reply.header("access-control-expose-headers").unwrap_or_default().to_ascii_lowercase();
    assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"), "{exposed}");
}

#[tokio::test]
async fn every_answer_forbids_guessing_its_type_and_the_page_calls_in_nothing() {
    let bench = Bench::start().await;
    for path in ["/", "/metrics", "/info", "/v1/models", "/nowhere", "/docs/index.html", "/predict"] {
        assert_eq!(bench.get(path).await.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    for body in [json!({"inputs": "Hi"}), json!({"inputs": "Hi", "stream": true}), json!({})] {
        assert_eq!(bench.post(body.clone()).await.header("x-content-type-options"), Some("nosniff"), "{body}");
    }
    let page = bench.get("/docs/index.html").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    // The policy lets no script run that stands in the page itself: there must be none.
    for script in page.text.split("<script").skip(1) {
        let (tag, rest) = script.split_once('>').unwrap();
        assert!(tag.contains("src=") && rest.trim_start().starts_with("</script>"), "<script{tag}>");
    }
    assert!(!page.text.contains(" onload=") && !page.text.contains(" onclick="), "{}", page.text);
}

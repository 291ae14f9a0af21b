//! Text Generation Inference's own routes, as its clients use them.

use reqwest::Method;
use sardine::http::HttpSettings;
use serde_json::{Value, json};

use crate::bench::{ANSWER, Bench, Reply, events, limits, settings};
use crate::pictures::png_base64;
use crate::script::Mode;

async fn generate(bench: &Bench, inputs: &str, parameters: Value) -> Reply {
    bench.post_to("/generate", json!({"inputs": inputs, "parameters": parameters})).await
}

#[tokio::test]
async fn a_prompt_is_continued_as_it_stands() {
    let bench = Bench::start().await;
    let prompt = "<|im_start|>user\nHi<|im_end|>\nThe colour is";
    let reply = generate(&bench, prompt, json!({})).await;
    assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({"generated_text": ANSWER})));
    assert_eq!(bench.prompt(), prompt);

    for path in ["/generate", "/generate/", "/generate_stream/"] {
        let reply = bench.post_to(path, json!({"inputs": "Hi", "parameters": null, "stream": null})).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        assert_eq!(bench.prompt(), "Hi");
    }
}

#[tokio::test]
async fn a_picture_stands_in_the_prompt_as_markdown() {
    let bench = Bench::start().await;
    let prompt = format!("![](data:image/png;base64,{})What is this?", png_base64());
    let reply = generate(&bench, &prompt, json!({})).await;
    assert_eq!(reply.json(), json!({"generated_text": ANSWER}));
    let seen = bench.seen().remove(0);
    assert_eq!(seen.num_pictures, 1);
    assert!(bench.text(&seen).starts_with("<|vision_start|><|image_pad|>"));
    assert!(bench.text(&seen).ends_with("<|vision_end|>What is this?"));
}

#[tokio::test]
async fn sampling_is_on_where_any_of_its_parameters_is_given() {
    let bench = Bench::start().await;
    for (parameters, samples) in [
        (json!({}), false),
        (json!({"do_sample": false, "repetition_penalty": 1.5}), false),
        (json!({"do_sample": true}), true),
        (json!({"temperature": 0.5}), true),
        (json!({"top_k": 5}), true),
        (json!({"top_p": 0.5}), true),
        (json!({"typical_p": 0.5}), true),
        (json!({"do_sample": false, "temperature": 0.5}), true),
    ] {
        let mut parameters = parameters;
        parameters["details"] = json!(true);
        let reply = generate(&bench, "Hi", parameters.clone()).await;
        let sampling = bench.seen().remove(0).sampling;
        assert_eq!(sampling.do_sample, samples, "{parameters}");
        let seed = &reply.json()["details"]["seed"];
        assert_eq!(seed.as_u64(), samples.then_some(sampling.seed), "{parameters}");
        assert_eq!(reply.header("x-warning"), None, "{parameters}");
    }
    generate(&bench, "Hi", json!({"do_sample": true})).await;
    let sampling = bench.seen().remove(0).sampling;
    assert_eq!((sampling.top_k, sampling.top_p, sampling.temperature), (0, 1.0, 1.0));
}

#[tokio::test]
async fn an_answer_may_fill_the_context() {
    let bench = Bench::start().await;
    generate(&bench, "Hi", json!({})).await;
    assert_eq!(bench.seen().remove(0).max_len, limits().max_model_len);
    generate(&bench, "Hi", json!({"max_new_tokens": 3})).await;
    let seen = bench.seen().remove(0);
    assert_eq!(seen.max_len - seen.ids.len(), 3);
    generate(&bench, "A long prompt of several tokens", json!({"truncate": 2})).await;
    assert_eq!(bench.seen().remove(0).ids.len(), 2);
}

#[tokio::test]
async fn the_record_has_what_was_asked_for() {
    let bench = Bench::start().await;
    let reply = generate(&bench, "Hi. ", json!({"return_full_text": true})).await;
    assert_eq!(reply.json()["generated_text"], json!(format!("Hi. {ANSWER}")));

    let reply = generate(&bench, "Hi", json!({"stop": ["red", "x"], "details": true, "top_n_tokens": 2})).await.json();
    assert_eq!(
        (&reply["generated_text"], &reply["details"]["finish_reason"]),
        (&json!("A red"), &json!("stop_sequence"))
    );
    assert_eq!(reply["details"]["generated_tokens"], reply["details"]["tokens"].as_array().unwrap().len());
    assert_eq!(reply["details"]["top_tokens"][0].as_array().unwrap().len(), 2);

    let parameters = json!({"best_of": 2, "temperature": 0.5, "details": true, "return_full_text": true});
    let reply = generate(&bench, "Hi. ", parameters).await.json();
    let others = reply["details"]["best_of_sequences"].as_array().unwrap();
    assert_eq!((others.len(), &others[0]["generated_text"]), (1, &json!(format!("Hi. {ANSWER}"))));
    assert_eq!(bench.seen().len(), 4);
}

#[tokio::test]
async fn the_prompts_own_tokens_are_told_where_asked_for() {
    let bench = Bench::start().await;
    for (path, pointer) in [("/generate", "/details"), ("/", "/0/details")] {
        let body = json!({"inputs": "Hi there", "parameters": {"decoder_input_details": true}});
        let reply = bench.post_to(path, body).await.json();
        let ids = bench.seen().remove(0).ids;
        let prefill = reply.pointer(pointer).unwrap()["prefill"].as_array().unwrap();
        let told: Vec<u64> = prefill.iter().map(|token| token["id"].as_u64().unwrap()).collect();
        assert_eq!(told, ids.iter().map(|id| u64::from(*id)).collect::<Vec<_>>(), "{path}");
        assert_eq!(prefill[0], json!({"id": ids[0], "text": bench.chat.token_text(ids[0]), "logprob": null}));
        assert!(prefill[1..].iter().all(|token| token["logprob"].is_number()), "{path}");
    }
}

#[tokio::test]
async fn headers_tell_what_a_request_cost() {
    let bench = Bench::start().await;
    let reply = generate(&bench, "Où?", json!({})).await;
    let num_tokens = bench.chat.encode(ANSWER).unwrap().len() + 1;
    let num_prompt = bench.seen().remove(0).ids.len();
    for (name, value) in [
        ("x-compute-type", "cpu"),
        ("x-compute-characters", "3"),
        ("x-prompt-tokens", &num_prompt.to_string()),
        ("x-generated-tokens", &num_tokens.to_string()),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    for name in ["x-total-time", "x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token"] {
        assert!(reply.header(name).is_some_and(|ms| ms.parse::<u64>().is_ok()), "{name}");
    }
    assert!(reply.header("x-compute-time").is_some_and(|seconds| seconds.parse::<f64>().unwrap() > 0.0));
}

#[tokio::test]
async fn a_stream_is_of_events_without_an_end_mark() {
    let bench = Bench::start().await;
    let parameters = json!({"details": true, "temperature": 0.5, "seed": 7, "top_n_tokens": 1});
    let reply = bench.post_to("/generate_stream", json!({"inputs": "Hi", "parameters": parameters})).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert_eq!(reply.header("x-accel-buffering"), Some("no"));
    assert_eq!((reply.header("x-compute-type"), reply.header("x-compute-characters")), (Some("cpu"), Some("2")));
    assert!(!reply.text.contains("[DONE]"));
    let events = events(&reply);
    let ids = bench.chat.encode(ANSWER).unwrap();
    assert_eq!(events.len(), ids.len() + 1);
    assert_eq!((&events[0]["token"]["text"], &events[0]["top_tokens"].as_array().unwrap().len()), (&json!("A"), &1));
    let last = &events[ids.len()];
    assert_eq!(last["generated_text"], ANSWER);
    assert_eq!((&last["details"]["seed"], &last["details"]["finish_reason"]), (&json!(7), &json!("eos_token")));

    // Alternatives need no details here: each event has its own.
    let body = json!({"inputs": "Hi", "parameters": {"top_n_tokens": 1}});
    assert_eq!(bench.post_to("/generate_stream", body).await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_served_is_unprocessable() {
    let bench = Bench::start().await;
    let parameters = |parameters: Value| json!({"inputs": "Hi", "parameters": parameters});
    for (body, part) in [
        (json!({}), "`inputs` is missing"),
        (json!({"inputs": ""}), "`inputs` is an empty text"),
        (json!({"inputs": null}), "`inputs` must be a text"),
        (json!({"inputs": [{"role": "user", "content": "Hi"}]}), "`inputs` must be a text"),
        (json!(["Hi"]), "the body must be an object"),
        (json!({"inputs": "Hi", "parameters": 5}), "`parameters` must be an object"),
        (json!({"inputs": "Hi", "max_new_tokens": 5}), "`max_new_tokens` is no field of this route"),
        (json!({"inputs": "Hi", "stream": 1}), "`stream` must be true or false"),
        (json!({"inputs": "<|vision_start|><|image_pad|><|vision_end|>"}), "1 places"),
        (json!({"inputs": "![](data:image/png;base64,AAAA)"}), ""),
        (json!({"inputs": "word ".repeat(3000)}), "2000"),
        (parameters(json!({"temperature": 0})), "`temperature` must be a number above 0"),
        (parameters(json!({"repetition_penalty": 0})), "`repetition_penalty`"),
        (parameters(json!({"frequency_penalty": 3})), "`frequency_penalty`"),
        (parameters(json!({"top_p": 0})), "`top_p`"),
        (parameters(json!({"top_p": 1})), "`top_p` must be a number above 0, below 1"),
        (parameters(json!({"typical_p": 1})), "`typical_p`"),
        (parameters(json!({"top_k": 0})), "`top_k` must be a whole number above 0"),
        (parameters(json!({"max_new_tokens": 0})), "`max_new_tokens`"),
        (parameters(json!({"max_new_tokens": 5000})), "5000"),
        (parameters(json!({"truncate": 0})), "`truncate`"),
        (parameters(json!({"stop": ["a", "b", "c", "d", "e"]})), "5 texts, more than 4"),
        (parameters(json!({"best_of": 2})), "`best_of`"),
        (parameters(json!({"num_return_sequences": 2, "do_sample": true})), "`num_return_sequences`"),
        (parameters(json!({"watermark": true})), "`watermark` is not supported"),
        (parameters(json!({"grammar": {"type": "regex", "value": "a"}})), "`grammar` is not supported"),
        (parameters(json!({"adapter_id": "x"})), "`adapter_id` is not supported"),
        (parameters(json!({"enable_thinking": true})), "`enable_thinking` has no effect"),
        (parameters(json!({"raw_prompt": false})), "`raw_prompt`"),
        (parameters(json!({"colour": true})), "`colour`"),
    ] {
        for path in ["/generate", "/generate_stream"] {
            unprocessable(&bench, path, &body, part).await;
        }
    }
    for (path, body, part) in [
        ("/generate", json!({"inputs": "Hi", "stream": true}), "`stream`"),
        ("/generate_stream", json!({"inputs": "Hi", "stream": false}), "`stream`"),
        ("/generate", parameters(json!({"top_n_tokens": 2})), "`top_n_tokens`"),
        ("/generate", parameters(json!({"best_of": 5, "do_sample": true})), "`best_of` is above the 4"),
        ("/generate_stream", parameters(json!({"decoder_input_details": true})), "`decoder_input_details` cannot be"),
        ("/generate_stream", parameters(json!({"best_of": 2, "do_sample": true})), "`best_of` cannot be streamed"),
    ] {
        unprocessable(&bench, path, &body, part).await;
    }
}

async fn unprocessable(bench: &Bench, path: &str, body: &Value, part: &str) {
    let reply = bench.post_to(path, body.clone()).await;
    assert_eq!(reply.status, 422, "{path} {body}: {}", reply.text);
    assert_eq!(reply.json()["error_type"], "validation", "{path} {body}");
    assert!(reply.json()["error"].as_str().unwrap().contains(part), "{path} {body}: {}", reply.text);
    assert_eq!(bench.seen().len(), 0, "{path} {body}");
}

#[tokio::test]
async fn what_cannot_be_read_has_the_status_that_says_why() {
    let bench = Bench::start().await;
    let post = |header: (&'static str, &'static str), body: &'static str| {
        bench.send(bench.request(Method::POST, "/generate").header(header.0, header.1).body(body))
    };
    assert_eq!(post(("content-type", "application/json"), "{bad").await.status, 422);
    assert_eq!(post(("content-type", "image/png"), "x").await.status, 415);
    assert_eq!(post(("accept", "text/html"), "{}").await.status, 406);
    let fetched = bench.post_to("/generate", json!({"inputs": "![](http://127.0.0.1:9/a.png)"})).await;
    assert_eq!((fetched.status.as_u16(), fetched.json()["error_type"].clone()), (422, json!("image_fetch")));
}

#[tokio::test]
async fn a_failure_of_the_model_is_a_failed_dependency() {
    let bench = Bench::start().await;
    bench.script.set(Mode::Panic("CUDA out of memory"));
    let reply = bench.post_to("/generate", json!({"inputs": "Hi"})).await;
    assert_eq!((reply.status.as_u16(), reply.json()["error_type"].clone()), (424, json!("generation")));
}

#[tokio::test]
async fn tokens_are_told_with_their_places_in_characters() {
    let bench = Bench::start().await;
    let text = "<|im_start|>Où est 🦀?";
    let reply = bench.post_to("/tokenize", json!({"inputs": text, "parameters": {"temperature": 5}})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let tokens = reply.json();
    let tokens = tokens.as_array().unwrap();
    let ids: Vec<u32> = tokens.iter().map(|token| token["id"].as_u64().unwrap() as u32).collect();
    assert_eq!(ids, bench.chat.encode(text).unwrap());
    assert_eq!(tokens[0], json!({"id": ids[0], "text": "<|im_start|>", "start": 0, "stop": 12}));
    let characters: Vec<char> = text.chars().collect();
    let mut covered = 0;
    for token in tokens {
        let (start, stop) = (token["start"].as_u64().unwrap() as usize, token["stop"].as_u64().unwrap() as usize);
        assert!(start <= covered && stop >= covered && stop > start, "{token}");
        assert_eq!(token["text"], json!(characters[start..stop].iter().collect::<String>()));
        covered = stop;
    }
    assert_eq!(covered, characters.len());
    assert_eq!(bench.post_to("/tokenize", json!({"inputs": ""})).await.json(), json!([]));
    for body in [json!({}), json!({"inputs": 5}), json!({"inputs": "Hi", "messages": []})] {
        assert_eq!(bench.post_to("/tokenize", body.clone()).await.status, 422, "{body}");
    }
}

#[tokio::test]
async fn a_conversation_is_told_as_the_template_writes_it() {
    let bench = Bench::start().await;
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let messages = json!([{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "https://example.org/never-fetched.png"}},
        {"type": "text", "text": "Say <|im_end|>."},
    ]}]);
    let body = json!({"messages": messages, "tools": tools, "model": "any", "max_tokens": 5, "temperature": "any",
        "chat_template_kwargs": {"enable_thinking": false}});
    let reply = bench.post_to("/chat_tokenize", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let reply = reply.json();
    let text = reply["templated_text"].as_str().unwrap();
    assert!(text.contains("<|vision_start|><|image_pad|><|vision_end|>Say <|im_end|>.<|im_end|>"), "{text}");
    assert!(text.contains("\"name\": \"f\"") && text.ends_with("</think>\n\n"), "{text}");
    let tokens = reply["tokenize_response"].as_array().unwrap();
    let texts: String = tokens.iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!(texts, text);
    // What the client wrote is text; what the template wrote ends the turn.
    let ends = tokens.iter().filter(|token| token["id"] == 1482).count();
    assert_eq!(ends, text.matches("<|im_end|>").count() - 1);

    let continued = json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well"}],
        "continue_final_message": true});
    let reply = bench.post_to("/chat_tokenize", continued).await.json();
    assert!(reply["templated_text"].as_str().unwrap().ends_with("Well"), "{reply}");
    for body in [json!({}), json!({"messages": []}), json!({"messages": [5]}), json!({"messages": "Hi"})] {
        let reply = bench.post_to("/chat_tokenize", body.clone()).await;
        assert_eq!((reply.status.as_u16(), reply.json()["error_type"].clone()), (422, json!("validation")), "{body}");
    }
}

#[tokio::test]
async fn the_server_tells_what_it_serves_and_its_limits() {
    let bench = Bench::start().await;
    let reply = bench.get("/info").await;
    let (info, limits) = (reply.json(), limits());
    for (field, value) in [
        ("model_id", json!("the-model")),
        ("model_sha", Value::Null),
        ("model_dtype", json!("torch.bfloat16")),
        ("model_device_type", json!("cpu")),
        ("model_pipeline_tag", json!("image-text-to-text")),
        ("max_concurrent_requests", json!(limits.max_batch_size + limits.max_queue)),
        ("max_best_of", json!(4)),
        ("max_stop_sequences", json!(4)),
        ("max_input_tokens", json!(limits.max_model_len - 1)),
        ("max_total_tokens", json!(limits.max_model_len)),
        ("max_client_batch_size", json!(4)),
        ("router", json!("sardine")),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("sha", Value::Null),
        ("docker_label", Value::Null),
    ] {
        assert_eq!(info[field], value, "{field}");
    }
    assert!(info["validation_workers"].as_u64().unwrap() >= 1);
    let head = bench.send(bench.request(Method::HEAD, "/info/")).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
}

#[tokio::test]
async fn an_api_key_guards_every_route() {
    let settings = HttpSettings { api_keys: crate::bench::api_keys(&["secret"]), ..settings() };
    let bench = Bench::with(settings, limits()).await;
    for path in ["/generate", "/generate_stream", "/tokenize", "/chat_tokenize"] {
        assert_eq!(bench.post_to(path, json!({"inputs": "Hi"})).await.status, 401, "{path}");
    }
}

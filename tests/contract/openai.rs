//! OpenAI's routes: chat completions, completions and models, whole and streamed.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bench::{ANSWER, Bench, Reply, settings};
use crate::script::Mode;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

async fn chat(bench: &Bench, fields: Value) -> Reply {
    let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    bench.post_to(CHAT, body).await
}

/// The events of a stream, whose end is told apart.
fn chunks(reply: &Reply) -> Vec<Value> {
    let mut events: Vec<&str> = reply.text.split_terminator("\n\n").filter(|event| !event.starts_with(':')).collect();
    assert_eq!(events.pop(), Some("data: [DONE]"), "{}", reply.text);
    events.iter().map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

/// What the chunks of choice 0 say of `field`, put together.
fn joined(chunks: &[Value], field: &str) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][field].as_str()).collect()
}

/// Lets the model answer `text`.
fn answer(bench: &Bench, text: &str) {
    let end = bench.chat.defaults().eos_token_id[0];
    bench.script.set(Mode::Answer([bench.chat.encode(text).unwrap(), vec![end]].concat()));
}

fn weather() -> Value {
    json!([{"type": "function", "function": {"name": "get_weather", "description": "Get the weather.", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}}])
}

const CALL: &str = "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>";

#[tokio::test]
async fn a_chat_is_answered_as_openai_would() {
    let bench = Bench::start().await;
    let reply = chat(&bench, json!({"model": "whatever"})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert_eq!(reply.header("x-ignored-fields"), None);
    let body = reply.json();
    let num_prompt = bench.seen().remove(0).ids.len();
    let num_new = bench.chat.encode(ANSWER).unwrap().len() + 1;
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!((&body["object"], &body["model"]), (&json!("chat.completion"), &json!("whatever")));
    let message = json!({"role": "assistant", "content": ANSWER});
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"});
    assert_eq!(body["choices"], json!([choice]));
    let usage =
        json!({"prompt_tokens": num_prompt, "completion_tokens": num_new, "total_tokens": num_prompt + num_new});
    assert_eq!(body["usage"], usage);
    assert_eq!(chat(&bench, json!({"model": "dummy"})).await.json()["model"], "the-model");
}

#[tokio::test]
async fn a_streamed_chat_is_the_whole_one_in_pieces() {
    let bench = Bench::start().await;
    let head = chat(&bench, json!({"stream": true, "n": 2})).await;
    assert_eq!(head.header("x-prompt-tokens").unwrap(), bench.seen()[0].ids.len().to_string());
    let reply = chat(&bench, json!({"stream": true, "stream_options": {"include_usage": true}})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let chunks = chunks(&reply);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(joined(&chunks, "content"), ANSWER);
    let [.., last, usage] = &chunks[..] else { panic!("{chunks:?}") };
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], bench.chat.encode(ANSWER).unwrap().len() + 1);
    assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk.get("usage").is_none()));
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == chunks[0]["id"]));
}

#[tokio::test]
async fn reasoning_is_told_apart_from_the_answer() {
    let bench = Bench::start().await;
    answer(&bench, "Ones: 2.\n</think>\n\n42");
    let whole = chat(&bench, json!({"enable_thinking": true})).await.json();
    let message = &whole["choices"][0]["message"];
    assert_eq!((&message["content"], &message["reasoning_content"]), (&json!("42"), &json!("Ones: 2.")));
    assert_eq!(message["reasoning"], message["reasoning_content"]);

    let chunks = chunks(&chat(&bench, json!({"reasoning_effort": "low", "stream": true})).await);
    assert_eq!((joined(&chunks, "reasoning_content"), joined(&chunks, "content")), ("Ones: 2.".into(), "42".into()));

    let hidden = chat(&bench, json!({"enable_thinking": true, "include_reasoning": false})).await.json();
    assert_eq!(hidden["choices"][0]["message"], json!({"role": "assistant", "content": "42"}));
}

#[tokio::test]
async fn calls_are_parsed_where_tools_are_declared() {
    let bench = Bench::start().await;
    answer(&bench, &format!("I look.\n\n{CALL}\n{CALL}"));
    let whole = chat(&bench, json!({"tools": weather()})).await.json();
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "I look.");
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_") && calls[0]["id"] != calls[1]["id"]);
    assert_eq!((&calls[0]["type"], &calls[0]["function"]["name"]), (&json!("function"), &json!("get_weather")));
    let arguments: Value = serde_json::from_str(calls[0]["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"city": "Oslo", "days": 3}));

    let streamed = chunks(&chat(&bench, json!({"tools": weather(), "stream": true})).await);
    let of_call = |index: usize| {
        let deltas = streamed.iter().flat_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array()).flatten();
        let deltas: Vec<&Value> = deltas.filter(|call| call["index"] == index).collect();
        assert_eq!((&deltas[0]["type"], &deltas[0]["function"]["name"]), (&json!("function"), &json!("get_weather")));
        assert!(deltas.len() > 2 && deltas[1..].iter().all(|delta| delta.get("id").is_none()));
        deltas.iter().map(|delta| delta["function"]["arguments"].as_str().unwrap()).collect::<String>()
    };
    assert_eq!(of_call(0), calls[0]["function"]["arguments"].as_str().unwrap());
    assert_eq!(of_call(1), calls[1]["function"]["arguments"].as_str().unwrap());
    assert_eq!(streamed.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");

    let one = chat(&bench, json!({"tools": weather(), "parallel_tool_calls": false})).await.json();
    assert_eq!(one["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
    for no_tools in [json!({}), json!({"tools": weather(), "tool_choice": "none"})] {
        let text = chat(&bench, no_tools).await.json();
        assert_eq!(text["choices"][0]["message"]["content"], format!("I look.\n\n{CALL}\n{CALL}"));
    }
}

#[tokio::test]
async fn a_conversation_with_tools_and_late_system_messages_reaches_the_template() {
    let bench = Bench::start().await;
    let call = json!({"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Oslo\"}"}});
    let messages = json!([
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "sunny"},
        {"role": "developer", "content": "Be brief."}
    ]);
    let reply = bench.post_to(CHAT, json!({"messages": messages, "tools": weather()})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    let prompt = bench.prompt();
    assert!(prompt.contains("<parameter=city>\nOslo\n</parameter>"), "{prompt}");
    assert!(prompt.contains("<tool_response>\nsunny\n</tool_response>"), "{prompt}");
    assert!(prompt.find("Be brief.").unwrap() < prompt.find("Weather?").unwrap(), "{prompt}");
}

#[tokio::test]
async fn several_answers_differ_in_their_seed_only() {
    let bench = Bench::start().await;
    let fields = json!({"n": 3, "seed": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1});
    let body = chat(&bench, fields).await.json();
    let indices: Vec<&Value> = body["choices"].as_array().unwrap().iter().map(|choice| &choice["index"]).collect();
    assert_eq!(indices, [0, 1, 2]);
    let seen = bench.seen();
    let mut seeds: Vec<u64> = seen.iter().map(|seen| seen.sampling.seed).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, [7, 8, 9]);
    let sampling = &seen[0].sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p), (0.5, 0.9, 5, 0.1));
    assert_eq!(body["usage"]["prompt_tokens"], seen[0].ids.len(), "a prompt is counted once");

    let streamed = chunks(&chat(&bench, json!({"n": 2, "stream": true, "temperature": 1})).await);
    for index in 0..2 {
        let of_choice = streamed.iter().filter(|chunk| chunk["choices"][0]["index"] == index);
        let text: String = of_choice.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, ANSWER);
    }
}

#[tokio::test]
async fn sampling_follows_the_request_then_the_checkpoint() {
    let bench = Bench::start().await;
    chat(&bench, json!({})).await;
    assert!(!bench.seen()[0].sampling.do_sample, "fry's generation_config.json says do_sample: false");
    chat(&bench, json!({"temperature": 0, "logit_bias": {"5": -100}, "ignore_eos": true, "max_tokens": 3})).await;
    let greedy = bench.seen().remove(0);
    assert!(!greedy.sampling.do_sample && greedy.sampling.eos.is_empty());
    assert_eq!(greedy.sampling.sequence_bias, [(vec![5], -100.0)]);
    assert_eq!(greedy.max_len, greedy.ids.len() + 3);
    chat(&bench, json!({"stop_token_ids": [9], "min_tokens": 2, "max_completion_tokens": 5, "bad_words": ["red"]}))
        .await;
    let seen = bench.seen().remove(0);
    assert!(seen.sampling.eos.contains(&9) && seen.sampling.min_new_tokens == 2 && !seen.sampling.bad_words.is_empty());
}

#[tokio::test]
async fn a_stop_string_ends_the_text_before_it_unless_it_is_asked_for() {
    let bench = Bench::start().await;
    for (fields, text) in [
        (json!({"stop": " rect"}), "A red"),
        (json!({"stop": [" rect"], "include_stop_str_in_output": true}), "A red rect"),
        (json!({"max_tokens": 1}), "A"),
    ] {
        let choice = chat(&bench, fields.clone()).await.json()["choices"][0].clone();
        let content = choice["message"]["content"].as_str().unwrap();
        assert!(content.starts_with(text), "{fields}: {content}");
        assert_eq!(choice["finish_reason"], if fields.get("stop").is_some() { "stop" } else { "length" });
        let mut fields = fields;
        fields["stream"] = json!(true);
        assert_eq!(joined(&chunks(&chat(&bench, fields).await), "content"), content, "streamed as whole");
    }
}

#[tokio::test]
async fn log_probabilities_come_with_each_token_but_the_end() {
    let bench = Bench::start().await;
    let body = chat(&bench, json!({"logprobs": true, "top_logprobs": 2})).await.json();
    let content = body["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    let text: String = content.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(text, ANSWER);
    assert_eq!(content[0]["logprob"], -0.25);
    assert_eq!(content[0]["bytes"], json!("A".as_bytes()));
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 2);
    let streamed = chunks(&chat(&bench, json!({"logprobs": true, "top_logprobs": 2, "stream": true})).await);
    let streamed: Vec<Value> = streamed
        .iter()
        .flat_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array().cloned().unwrap_or_default())
        .collect();
    assert_eq!(streamed, content);
}

#[tokio::test]
async fn completions_go_on_from_texts_and_from_tokens() {
    let bench = Bench::start().await;
    let reply = bench.post_to(COMPLETIONS, json!({"prompt": "Once", "max_tokens": 50})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert_eq!(bench.prompt(), "Once");
    let body = reply.json();
    assert_eq!(body["object"], "text_completion");
    let choice = json!({"index": 0, "text": ANSWER, "logprobs": null, "finish_reason": "stop"});
    assert_eq!(body["choices"], json!([choice]));

    for prompt in [json!([[5, 6], [7]]), json!(["a", "b"])] {
        let body = bench
            .post_to(COMPLETIONS, json!({"prompt": prompt, "n": 2, "temperature": 1, "max_tokens": 50}))
            .await
            .json();
        assert_eq!(body["choices"].as_array().unwrap().len(), 4, "{body}");
        assert_eq!(bench.seen().len(), 4);
    }
    bench.post_to(COMPLETIONS, json!({"prompt": [5, 6, 7], "truncate_prompt_tokens": 2})).await;
    assert_eq!(bench.seen()[0].ids, [6, 7]);

    let echoed = bench.post_to(COMPLETIONS, json!({"prompt": "Once", "echo": true, "max_tokens": 50})).await.json();
    assert_eq!(echoed["choices"][0]["text"], format!("Once{ANSWER}"));
    let streamed =
        bench.post_to(COMPLETIONS, json!({"prompt": "Once", "echo": true, "max_tokens": 50, "stream": true})).await;
    let text: String = chunks(&streamed).iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, format!("Once{ANSWER}"));

    let fields = json!({"prompt": "Once more", "echo": true, "logprobs": 1, "max_tokens": 0});
    let read = bench.post_to(COMPLETIONS, fields).await.json();
    let choice = &read["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("Once more"), &json!("length")));
    let tokens = choice["logprobs"]["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), bench.chat.encode("Once more").unwrap().len());
    assert_eq!(choice["logprobs"]["token_logprobs"][0], Value::Null);
    assert!(choice["logprobs"]["token_logprobs"].as_array().unwrap()[1..].iter().all(Value::is_number), "{choice}");

    let scored = bench.post_to(COMPLETIONS, json!({"prompt": "Once", "logprobs": 2, "max_tokens": 50})).await.json();
    let logprobs = &scored["choices"][0]["logprobs"];
    let tokens: String = logprobs["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!((tokens.as_str(), &logprobs["text_offset"][1]), (ANSWER, &json!(1)));
    assert_eq!(logprobs["token_logprobs"][0], -0.25);
}

#[tokio::test]
async fn the_model_is_listed_and_found_by_its_name() {
    let mut settings = settings();
    settings.model.name = "org/model".to_owned();
    let bench = Bench::with(settings, crate::bench::limits()).await;
    let list = bench.get("/v1/models").await.json();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("org/model")));
    assert_eq!(bench.get("/v1/models/org/model").await.json(), list["data"][0]);
    let missing = bench.get("/v1/models/other").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.json()["error"]["code"], "not_found");
}

#[tokio::test]
async fn what_nobody_reads_is_named_in_a_header() {
    let bench = Bench::start().await;
    let reply = chat(&bench, json!({"temprature": 1, "user": "me", "möglich": 1})).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("x-ignored-fields"), Some("m?glich, temprature, user"));
}

#[tokio::test]
async fn an_echoed_answer_begins_with_what_the_assistant_had_said() {
    let bench = Bench::start().await;
    let begun = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is:"}]);
    let fields = json!({"messages": begun, "echo": true, "continue_final_message": true, "enable_thinking": false});
    let whole = chat(&bench, fields.clone()).await.json();
    assert_eq!(whole["choices"][0]["message"]["content"], format!("It is:{ANSWER}"));
    let mut streamed = fields;
    streamed["stream"] = true.into();
    assert_eq!(joined(&chunks(&chat(&bench, streamed).await), "content"), format!("It is:{ANSWER}"));
    // The last message is the user's: there is nothing of the assistant's to echo.
    let whole = chat(&bench, json!({"echo": true, "enable_thinking": false})).await.json();
    assert_eq!(whole["choices"][0]["message"]["content"], ANSWER);
}

#[tokio::test]
async fn the_ids_of_tokens_are_told_where_asked_for() {
    let bench = Bench::start().await;
    let Mode::Answer(ids) = bench.script.mode() else { panic!("the bench begins with an answer") };
    let fields = json!({"return_token_ids": true, "enable_thinking": false, "n": 2, "seed": 1, "temperature": 1});
    let whole = chat(&bench, fields.clone()).await.json();
    let prompt = json!(bench.seen()[0].ids);
    assert_eq!(whole["prompt_token_ids"], prompt);
    assert_eq!((&whole["choices"][0]["token_ids"], &whole["choices"][1]["token_ids"]), (&json!(ids), &json!(ids)));
    let mut streamed = fields;
    streamed["stream"] = true.into();
    let chunks_of_chat = chunks(&chat(&bench, streamed).await);
    assert_eq!(chunks_of_chat[0]["prompt_token_ids"], prompt);
    assert_eq!(ids_in(&chunks_of_chat), ids);

    let body = json!({"prompt": "Once", "return_token_ids": true, "max_tokens": 100});
    let whole = bench.post_to(COMPLETIONS, body.clone()).await.json();
    let prompt = json!(bench.chat.encode("Once").unwrap());
    let choice = &whole["choices"][0];
    assert_eq!((&choice["prompt_token_ids"], &choice["token_ids"]), (&prompt, &json!(ids)));
    let mut streamed = body;
    streamed["stream"] = true.into();
    let chunks_of_completion = chunks(&bench.post_to(COMPLETIONS, streamed).await);
    let prompts = chunks_of_completion.iter().map(|chunk| &chunk["choices"][0]["prompt_token_ids"]);
    assert_eq!(prompts.filter(|prompt| !prompt.is_null()).collect::<Vec<_>>(), [&prompt]);
    assert_eq!(ids_in(&chunks_of_completion), ids);
    assert_eq!(chat(&bench, json!({})).await.json().get("prompt_token_ids"), None, "nobody asked");
}

/// The ids of choice 0.
fn ids_in(chunks: &[Value]) -> Vec<u32> {
    let of_first = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == 0);
    let ids = of_first.filter_map(|choice| choice["token_ids"].as_array()).flatten();
    ids.map(|id| id.as_u64().unwrap() as u32).collect()
}

#[tokio::test]
async fn tokens_can_be_called_by_their_ids() {
    let bench = Bench::start().await;
    let first = bench.chat.encode(ANSWER).unwrap()[0];
    let name = json!(format!("token_id:{first}"));
    let fields =
        json!({"return_tokens_as_token_ids": true, "logprobs": true, "top_logprobs": 1, "enable_thinking": false});
    let logprobs = chat(&bench, fields).await.json()["choices"][0]["logprobs"]["content"][0].take();
    assert_eq!((&logprobs["token"], &logprobs["top_logprobs"][0]["token"]), (&name, &json!("token_id:0")));
    let body =
        json!({"prompt": "Once", "return_tokens_as_token_ids": true, "logprobs": 1, "echo": true, "max_tokens": 3});
    let logprobs = bench.post_to(COMPLETIONS, body).await.json()["choices"][0]["logprobs"].take();
    let once = bench.chat.encode("Once").unwrap();
    assert_eq!(logprobs["tokens"][0], format!("token_id:{}", once[0]));
    assert_eq!(logprobs["tokens"][once.len()], name);
    assert_eq!(logprobs["text_offset"][once.len()], 4, "places are of the text");
    assert!(logprobs["top_logprobs"][once.len()]["token_id:0"].is_number(), "{logprobs}");
}

#[tokio::test]
async fn a_reply_may_be_called_by_the_client() {
    let bench = Bench::start().await;
    let reply = chat(&bench, json!({"request_id": "mine", "add_special_tokens": true})).await;
    assert_eq!((reply.json()["id"].clone(), reply.header("x-ignored-fields")), (json!("chatcmpl-mine"), None));
    let completion = bench.post_to(COMPLETIONS, json!({"prompt": "Hi", "request_id": "mine"})).await;
    assert_eq!(completion.json()["id"], "cmpl-mine");
    assert_eq!(chat(&bench, json!({"request_id": "x".repeat(257)})).await.json()["error"]["param"], "request_id");
}

#[tokio::test]
async fn a_wrong_request_is_told_its_place() {
    let bench = Bench::start().await;
    for (fields, param) in [
        (json!({"temperature": -1}), "temperature"),
        (json!({"temperature": "warm"}), "temperature"),
        (json!({"structured_outputs": {"json": {}}}), "structured_outputs"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"n": 100}), "n"),
        (json!({"min_tokens": 9, "max_tokens": 8}), "min_tokens"),
        (json!({"stop": ""}), "stop"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"tool_choice": "required", "tools": weather()}), "tool_choice"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}), "messages[0].content[0].type"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"functions": []}), "functions"),
    ] {
        let reply = chat(&bench, fields.clone()).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{fields}: {}", reply.text);
        let body = reply.json();
        assert_eq!(body["error"]["param"], param, "{body}");
        assert_eq!(
            (&body["error"]["type"], &body["error_type"]),
            (&json!("invalid_request_error"), &json!("validation"))
        );
    }
    for body in [
        json!({}),
        json!({"prompt": ""}),
        json!({"prompt": []}),
        json!({"prompt": "a", "suffix": "b"}),
        json!({"prompt": [99999999]}),
    ] {
        assert_eq!(bench.post_to(COMPLETIONS, body.clone()).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
    let too_long = chat(&bench, json!({"max_tokens": 100_000})).await;
    assert_eq!(too_long.json()["error"]["code"], "context_length_exceeded");
    let wrong_method = bench.get(CHAT).await;
    assert_eq!((wrong_method.status, wrong_method.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, Some("POST")));
    for reply in [wrong_method, bench.post_to("/v1/embeddings", json!({})).await] {
        assert!(reply.json()["error"]["message"].is_string(), "OpenAI's clients show no other form: {}", reply.text);
    }
}

#[tokio::test]
async fn a_failure_inside_a_stream_ends_it_with_an_error() {
    let bench = Bench::start().await;
    bench.script.set(Mode::Fail("not a number"));
    let reply = chat(&bench, json!({"stream": true})).await;
    assert_eq!(reply.status, StatusCode::OK);
    let last = reply.text.trim_end().rsplit("\n\n").next().unwrap();
    let event: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((&event["error"]["type"], &event["error_type"]), (&json!("server_error"), &json!("generation")));
    let whole = chat(&bench, json!({})).await;
    assert_eq!(whole.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(whole.header("x-should-retry"), Some("false"));
}

#[tokio::test]
async fn the_key_is_wanted_here_as_well() {
    let settings = sardine::http::HttpSettings { api_keys: crate::bench::api_keys(&["secret"]), ..settings() };
    let bench = Bench::with(settings, crate::bench::limits()).await;
    for (method, path) in [(Method::GET, "/v1/models"), (Method::POST, CHAT), (Method::POST, COMPLETIONS)] {
        let reply = bench.send(bench.request(method, path).json(&json!({}))).await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (StatusCode::UNAUTHORIZED, &json!("invalid_api_key"))
        );
    }
}

#[tokio::test]
async fn a_picture_is_sent_as_a_part() {
    let bench = Bench::start().await;
    let png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
    let parts =
        json!([{"type": "image_url", "image_url": {"url": png, "detail": "low"}}, {"type": "text", "text": "What?"}]);
    let reply = bench.post_to(CHAT, json!({"messages": [{"role": "user", "content": parts}]})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert_eq!(bench.seen()[0].num_pictures, 1);
}

//! What a reply holds besides the text: details, several answers, the whole text, and headers.

use serde_json::{Value, json};

use crate::bench::{ANSWER, Bench};
use crate::pictures::png_base64;

async fn ask(bench: &Bench, inputs: Value, parameters: Value) -> Value {
    let reply = bench.post(json!({"inputs": inputs, "parameters": parameters})).await;
    assert_eq!(reply.status, 200, "{parameters}: {}", reply.text);
    reply.json()
}

#[tokio::test]
async fn details_have_tgis_shape() {
    let bench = Bench::start().await;
    let reply = ask(&bench, json!("Hi"), json!({"details": true, "top_n_tokens": 2})).await;
    let details = &reply[0]["details"];
    let num_tokens = bench.chat.encode(ANSWER).unwrap().len() + 1;
    assert_eq!(details["finish_reason"], "eos_token");
    assert_eq!(details["generated_tokens"], num_tokens);
    assert_eq!((&details["seed"], &details["prefill"]), (&Value::Null, &json!([])));
    let tokens = details["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), num_tokens);
    assert_eq!(tokens[0]["text"], "A");
    assert_eq!((&tokens[0]["logprob"], &tokens[0]["special"]), (&json!(-0.25), &json!(false)));
    assert_eq!(tokens[num_tokens - 1]["special"], true);
    assert_eq!(details["top_tokens"].as_array().unwrap().len(), num_tokens);
    assert_eq!(details["top_tokens"][0].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn details_say_why_the_answer_ended() {
    let bench = Bench::start().await;
    for (parameters, text, reason) in [
        (json!({}), ANSWER, "eos_token"),
        (json!({"max_new_tokens": 1}), "A", "length"),
        (json!({"stop": ["red"]}), "A red", "stop_sequence"),
    ] {
        let mut with_details = parameters.clone();
        with_details["details"] = json!(true);
        let reply = ask(&bench, json!("Hi"), with_details).await;
        assert_eq!(
            (&reply[0]["generated_text"], &reply[0]["details"]["finish_reason"]),
            (&json!(text), &json!(reason))
        );
    }
}

#[tokio::test]
async fn several_answers_have_seeds_that_follow_one_another() {
    let bench = Bench::start().await;
    let parameters = json!({"num_return_sequences": 3, "do_sample": true, "seed": 7, "details": true});
    let reply = ask(&bench, json!("Hi"), parameters).await;
    let seeds: Vec<&Value> = reply.as_array().unwrap().iter().map(|record| &record["details"]["seed"]).collect();
    assert_eq!(seeds, [&json!(7), &json!(8), &json!(9)]);
    let mut used: Vec<u64> = bench.seen().iter().map(|seen| seen.sampling.seed).collect();
    used.sort();
    assert_eq!(used, [7, 8, 9]);
}

#[tokio::test]
async fn a_seed_that_nobody_gave_is_reported_and_changes() {
    let bench = Bench::start().await;
    let mut seeds = Vec::new();
    for _ in 0..2 {
        let reply = ask(&bench, json!("Hi"), json!({"do_sample": true, "details": true})).await;
        seeds.push(reply[0]["details"]["seed"].as_u64().unwrap());
        assert_eq!(bench.seen()[0].sampling.seed, seeds[seeds.len() - 1]);
    }
    assert_ne!(seeds[0], seeds[1]);
}

#[tokio::test]
async fn best_of_returns_one_and_tells_of_the_others() {
    let bench = Bench::start().await;
    let parameters = json!({"best_of": 2, "do_sample": true, "details": true});
    let reply = ask(&bench, json!("Hi"), parameters).await;
    assert_eq!(reply.as_array().unwrap().len(), 1);
    let others = reply[0]["details"]["best_of_sequences"].as_array().unwrap();
    assert_eq!((others.len(), &others[0]["generated_text"]), (1, &json!(ANSWER)));
}

#[tokio::test]
async fn the_full_text_repeats_what_was_asked() {
    let bench = Bench::start().await;
    let parameters = json!({"return_full_text": true});
    let user = json!({"role": "user", "content": "Hi"});
    let assistant = |text: &str| json!({"role": "assistant", "content": text});
    for (inputs, expected) in [
        (json!("Hi. "), json!(format!("Hi. {ANSWER}"))),
        (json!([user]), json!([user, assistant(ANSWER)])),
        (json!([user, assistant("Well: ")]), json!([user, assistant(&format!("Well: {ANSWER}"))])),
        (
            json!([user, {"role": "assistant", "content": [{"type": "text", "text": "Well: "}]}]),
            json!([user, {"role": "assistant", "content": [{"type": "text", "text": format!("Well: {ANSWER}")}]}]),
        ),
    ] {
        let reply = ask(&bench, inputs.clone(), parameters.clone()).await;
        assert_eq!(reply[0]["generated_text"], expected, "{inputs}");
    }
}

#[tokio::test]
async fn visual_question_answering_gets_an_answer_and_a_score() {
    let bench = Bench::start().await;
    let base64 = png_base64();
    for body in [
        json!({"inputs": base64, "parameters": {}, "question": "What?", "image": base64}),
        json!({"inputs": {"question": "What?", "image": base64}}),
    ] {
        let record = bench.post(body).await.json()[0].clone();
        assert_eq!((&record["answer"], &record["generated_text"]), (&json!(ANSWER), &json!(ANSWER)));
        assert!(record["score"].as_f64().is_some_and(|score| score > 0.0 && score <= 1.0), "{record}");
    }
}

#[tokio::test]
async fn special_tokens_are_left_out_unless_wanted() {
    let bench = Bench::start().await;
    let reply = ask(&bench, json!("Hi"), json!({"skip_special_tokens": false})).await;
    assert_eq!(reply[0]["generated_text"], json!(format!("{ANSWER}<|im_end|>")));
}

#[tokio::test]
async fn headers_tell_the_cost_and_the_request() {
    let bench = Bench::start().await;
    let reply = bench.post(json!({"inputs": ["Hi", "Hi"]})).await;
    let num_tokens = 2 * (bench.chat.encode(ANSWER).unwrap().len() + 1);
    let num_prompt: usize = bench.seen().iter().map(|seen| seen.ids.len()).sum();
    assert_eq!(reply.header("x-generated-tokens"), Some(num_tokens.to_string().as_str()));
    assert_eq!(reply.header("x-prompt-tokens"), Some(num_prompt.to_string().as_str()));
    for name in ["x-queue-time", "x-inference-time", "x-time-per-token", "x-total-time"] {
        assert!(reply.header(name).is_some_and(|ms| ms.parse::<u64>().is_ok()), "{name}");
    }
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(reply.header("x-request-id").is_some_and(|id| id.len() == 36));
}

#[tokio::test]
async fn the_clients_request_id_comes_back_even_with_an_error() {
    let bench = Bench::start().await;
    for (headers, expected) in [
        (&[("x-request-id", "mine")][..], "mine"),
        (&[("x-amzn-trace-id", "trace")], "trace"),
        (&[("x-amzn-trace-id", "trace"), ("x-request-id", "mine")], "mine"),
    ] {
        for body in ["{\"inputs\": \"Hi\"}", "{bad"] {
            let mut request = bench.request(reqwest::Method::POST, "/").header("content-type", "application/json");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let reply = bench.send(request.body(body)).await;
            assert_eq!(reply.header("x-request-id"), Some(expected), "{headers:?} {body}");
        }
    }
}

#[tokio::test]
async fn what_has_no_effect_is_said_in_a_header() {
    let bench = Bench::start().await;
    let parameters = json!({"temperature": 0.5, "top_k": 3, "max_new_tokens": 2, "max_length": 100});
    let reply = bench.post(json!({"inputs": "Hi", "parameters": parameters})).await;
    let expected = "max_length has no effect beside max_new_tokens; temperature has no effect without do_sample; \
                    top_k has no effect without do_sample";
    assert_eq!(reply.header("x-warning"), Some(expected));
    assert_eq!(bench.post(json!({"inputs": "Hi"})).await.header("x-warning"), None);
}

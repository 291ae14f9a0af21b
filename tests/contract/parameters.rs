//! Every parameter: an accepted value reaches the model's settings, and a wrong one is refused by name.

use sardine::engine::Sampling;
use serde_json::{Value, json};

use crate::bench::Bench;

/// A parameter, a value, and what the settings must then be.
type Accepted = (Value, fn(&Sampling) -> bool);

#[tokio::test]
async fn an_accepted_value_reaches_the_sampler() {
    let bench = Bench::start().await;
    let accepted: &[Accepted] = &[
        (json!({"do_sample": true}), |s| s.do_sample && s.temperature == 1.0 && s.top_k == 50 && s.top_p == 1.0),
        (json!({}), |s| !s.do_sample && s.repetition_penalty == 1.0),
        (json!({"seed": u64::MAX}), |s| s.seed == u64::MAX),
        (json!({"do_sample": true, "temperature": 2}), |s| s.temperature == 2.0),
        (json!({"do_sample": true, "temperature": 0.25}), |s| s.temperature == 0.25),
        (json!({"temperature": 0}), |s| !s.do_sample && s.temperature == 1.0),
        (json!({"do_sample": true, "top_k": 0}), |s| s.top_k == 0),
        (json!({"do_sample": true, "top_k": 7}), |s| s.top_k == 7),
        (json!({"do_sample": true, "top_p": 0}), |s| s.top_p == 0.0),
        (json!({"do_sample": true, "top_p": 0.5}), |s| s.top_p == 0.5),
        (json!({"do_sample": true, "min_p": 0.5}), |s| s.min_p == 0.5),
        (json!({"do_sample": true, "typical_p": 0.5}), |s| s.typical_p == 0.5),
        (json!({"do_sample": true, "top_h": 0.5}), |s| s.top_h == Some(0.5)),
        (json!({"do_sample": true, "epsilon_cutoff": 0.5}), |s| s.epsilon_cutoff == 0.5),
        (json!({"do_sample": true, "eta_cutoff": 0.5}), |s| s.eta_cutoff == 0.5),
        (json!({"repetition_penalty": 2}), |s| s.repetition_penalty == 2.0),
        (json!({"frequency_penalty": -0.5}), |s| s.frequency_penalty == -0.5),
        (json!({"presence_penalty": 1.5}), |s| s.presence_penalty == 1.5),
        (json!({"no_repeat_ngram_size": 3}), |s| s.no_repeat_ngram_size == 3),
        (json!({"bad_words_ids": [[5], [6, 7]]}), |s| s.bad_words == [vec![5], vec![6, 7]]),
        (json!({"bad_words_ids": [[5], [9]], "eos_token_id": [9, 8]}), |s| s.bad_words == [vec![5]] && s.eos == [9, 8]),
        (json!({"sequence_bias": [[[5, 6], -1.5]]}), |s| s.sequence_bias == [(vec![5, 6], -1.5)]),
        (json!({"min_length": 30}), |s| s.min_length == 30),
        (json!({"min_new_tokens": 3}), |s| s.min_new_tokens == 3 && s.eos == [1482, 1480]),
        (json!({"eos_token_id": 9}), |s| s.eos == [9]),
        (json!({"forced_bos_token_id": 9}), |s| s.forced_bos == Some(9)),
        (json!({"suppress_tokens": [1, 2]}), |s| s.suppress_tokens == [1, 2]),
        (json!({"begin_suppress_tokens": [1]}), |s| s.begin_suppress_tokens == [1]),
        (json!({"exponential_decay_length_penalty": [2, 1.5]}), |s| {
            s.exponential_decay_length_penalty == Some((2, 1.5))
        }),
        (json!({"remove_invalid_values": true}), |s| s.remove_invalid_values),
        (json!({"renormalize_logits": true}), |s| s.renormalize_logits),
        (json!({"details": true, "top_n_tokens": 3}), |s| s.top_logprobs == 3),
        (json!({"generate_kwargs": {"no_repeat_ngram_size": 2}}), |s| s.no_repeat_ngram_size == 2),
        (json!({"generation_parameters": {"no_repeat_ngram_size": 2}}), |s| s.no_repeat_ngram_size == 2),
        (json!({"no_repeat_ngram_size": 2, "generate_kwargs": {"no_repeat_ngram_size": 2}}), |s| {
            s.no_repeat_ngram_size == 2
        }),
        // What asks for nothing is no reason to refuse.
        (json!({"temperature": null, "num_beams": 1, "guidance_scale": 1, "watermark": false}), |s| {
            s.temperature == 1.0
        }),
        (json!({"pad_token_id": 1480, "use_cache": true, "best_of": 1, "adapter_id": null}), |s| !s.do_sample),
    ];
    for (parameters, holds) in accepted {
        let reply = bench.post(json!({"inputs": "Hi", "parameters": parameters})).await;
        assert_eq!(reply.status, 200, "{parameters}: {}", reply.text);
        let sampling = bench.seen().remove(0).sampling;
        assert!(holds(&sampling), "{parameters}: {sampling:?}");
    }
}

#[tokio::test]
async fn lengths_are_of_new_tokens_or_of_all() {
    let bench = Bench::start().await;
    for (parameters, new_tokens) in [
        (json!({}), 256),
        (json!({"max_new_tokens": 40}), 40),
        (json!({"max_tokens": 40}), 40),
        (json!({"max_new_tokens": 40, "max_length": 1000}), 40),
    ] {
        bench.post(json!({"inputs": "Hi", "parameters": parameters})).await;
        let seen = bench.seen().remove(0);
        assert_eq!(seen.max_len - seen.ids.len(), new_tokens, "{parameters}");
    }
    bench.post(json!({"inputs": "Hi", "parameters": {"max_length": 100, "forced_eos_token_id": [9]}})).await;
    let seen = bench.seen().remove(0);
    assert_eq!((seen.max_len, seen.sampling.forced_eos), (100, Some((99, vec![9]))));

    bench.post(json!({"inputs": "A long question", "parameters": {"truncate": 4}})).await;
    assert_eq!(bench.seen().remove(0).ids.len(), 4);
}

#[tokio::test]
async fn stop_strings_may_be_one_or_many_and_stay_in_the_text() {
    let bench = Bench::start().await;
    for parameters in [
        json!({"stop": "red"}),
        json!({"stop": ["xyz", "red"]}),
        json!({"stop_strings": ["red"]}),
        json!({"stop_sequence": "red"}),
    ] {
        let reply = bench.post(json!({"inputs": "Hi", "parameters": parameters})).await;
        assert_eq!(reply.json()[0]["generated_text"], "A red", "{parameters}");
    }
}

#[tokio::test]
async fn parameters_are_found_wherever_clients_put_them() {
    let bench = Bench::start().await;
    for (path, body) in [
        ("/", json!({"inputs": "Hi", "parameters": {"max_new_tokens": 1}})),
        ("/", json!({"inputs": "Hi", "max_new_tokens": 1})),
        ("/", json!({"inputs": {"text": "Hi", "max_new_tokens": 1}})),
        ("/", json!({"inputs": {"text": "Hi", "max_tokens": 1}})),
        ("/", json!({"prompt": "Hi", "max_new_tokens": 1})),
        ("/", json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "model": "any"})),
        ("/?max_new_tokens=1", json!({"inputs": "Hi"})),
        ("/?max_new_tokens=1", json!({"inputs": "Hi", "parameters": {"do_sample": false}})),
        ("/", json!({"inputs": "Hi", "options": {"use_cache": false}, "parameters": {"max_new_tokens": 1}})),
    ] {
        let reply = bench.post_to(path, body.clone()).await;
        assert_eq!(reply.json(), json!([{"generated_text": "A"}]), "{path} {body}");
    }
}

#[tokio::test]
async fn a_wrong_value_is_refused_by_the_name_of_its_parameter() {
    let bench = Bench::start().await;
    let wrong = [
        ("do_sample", json!([1, "true"])),
        ("seed", json!([-1, 1.5, "1"])),
        ("temperature", json!([-1, "0.5", true, 1e39])),
        ("top_k", json!([-1, 1.5, "3"])),
        ("top_p", json!([-0.1, 1.1, "0.5"])),
        ("min_p", json!([-0.1, 1.1])),
        ("typical_p", json!([0, 1.1])),
        ("top_h", json!([0, 1.1])),
        ("epsilon_cutoff", json!([-0.1, 1])),
        ("eta_cutoff", json!([-0.1, 1])),
        ("repetition_penalty", json!([0, -1])),
        ("frequency_penalty", json!([-2.1, 2.1])),
        ("presence_penalty", json!([-2.1, 2.1])),
        ("no_repeat_ngram_size", json!([-1, 0.5])),
        ("bad_words_ids", json!([5, [5], [[]], [[-1]], [[1536]], vec![[5]; 10_001], [vec![5; 101]]])),
        ("sequence_bias", json!([5, [[5, 1]], [[[5]]], [[[5], "1"]], [[[9999], 1]]])),
        ("min_length", json!([-1])),
        ("min_new_tokens", json!([-1, "3"])),
        ("max_new_tokens", json!([0, -1, 1.5, "3"])),
        ("max_length", json!([0, 1])),
        ("max_time", json!([0, -1, "3"])),
        ("truncate", json!([0, -1])),
        ("eos_token_id", json!(["x", [1536], -1])),
        ("forced_bos_token_id", json!([[1, 2], 1536])),
        ("forced_eos_token_id", json!([1536])),
        ("pad_token_id", json!([1536])),
        ("suppress_tokens", json!([[1536], "x", vec![5; 2000]])),
        ("begin_suppress_tokens", json!([[1536]])),
        ("exponential_decay_length_penalty", json!([5, [1], [-1, 2], [1, 0]])),
        ("remove_invalid_values", json!([1])),
        ("renormalize_logits", json!([1])),
        ("stop_strings", json!([5, [""], [5], vec!["x"; 65], "x".repeat(1001)])),
        ("num_return_sequences", json!([0, 2])),
        ("best_of", json!([0, 2])),
        ("details", json!([1])),
        ("decoder_input_details", json!([1])),
        ("top_n_tokens", json!([3, 21])),
        ("return_full_text", json!(["no"])),
        ("skip_special_tokens", json!([0])),
        ("enable_thinking", json!(["no"])),
        ("chat_template_kwargs", json!([5, {"messages": []}])),
        ("tools", json!([5, ["x"]])),
        ("raw_prompt", json!([1])),
        ("add_generation_prompt", json!([1])),
        ("continue_final_message", json!([1])),
        // Known, and not supported.
        ("num_beams", json!([4])),
        ("guidance_scale", json!([1.5])),
        ("watermark", json!([true])),
        ("grammar", json!([{"type": "json"}])),
        ("adapter_id", json!(["x"])),
        ("prompt_lookup_num_tokens", json!([3])),
        ("return_tensors", json!([true])),
    ];
    for (name, values) in wrong {
        for value in values.as_array().unwrap() {
            let reply = bench.post(json!({"inputs": "Hi", "parameters": {name: value}})).await;
            assert_eq!(reply.status, 400, "{name} {value}: {}", reply.text);
            let error = reply.json()["error"].as_str().unwrap().to_owned();
            assert!(error.contains(&format!("`{name}")), "{name} {value}: {error}");
            assert_eq!(bench.seen().len(), 0, "{name} {value}");
        }
    }
}

#[tokio::test]
async fn parameters_that_contradict_each_other_are_refused() {
    let bench = Bench::start().await;
    for (body, part) in [
        (json!({"parameters": {"top_k": 5, "generate_kwargs": {"top_k": 6}}}), "given twice, as 5 and as 6"),
        (json!({"parameters": {"max_new_tokens": 5, "max_tokens": 6}}), "`max_new_tokens` is given twice"),
        (json!({"parameters": {"stop": ["a"], "stop_strings": ["b"]}}), "`stop_strings` is given twice"),
        (json!({"top_k": 5, "parameters": {"top_k": 6}}), "`top_k` is given twice"),
        (json!({"parameters": {"do_sample": true, "temperature": 0}}), "`temperature` must be above 0"),
        (
            json!({"parameters": {"add_generation_prompt": true, "continue_final_message": true}}),
            "cannot be true together",
        ),
        (
            json!({"parameters": {"enable_thinking": true, "chat_template_kwargs": {"enable_thinking": false}}}),
            "differs",
        ),
        (json!({"parameters": {"enable_thinking": true, "raw_prompt": true}}), "`enable_thinking` has no effect"),
        (json!({"parameters": {"do_sample": true, "num_return_sequences": 2, "best_of": 2}}), "`best_of`"),
        (json!({"parameters": {"do_sample": true, "num_return_sequences": 5}}), "more than the 4"),
        (json!({"parameters": "x"}), "`parameters` must be an object"),
        (json!({"parameters": {"generate_kwargs": 5}}), "`generate_kwargs` must be an object"),
    ] {
        let mut body = body;
        body["inputs"] = json!("Hi");
        let reply = bench.post(body.clone()).await;
        let error = reply.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(reply.status == 400 && error.contains(part), "{body}: {error}");
    }
}

#[tokio::test]
async fn what_nobody_knows_is_refused_with_a_guess() {
    let bench = Bench::start().await;
    let reply = bench.post(json!({"inputs": "Hi", "parameters": {"temprature": 1, "colour": 2}})).await;
    let error = reply.json()["error"].as_str().unwrap().to_owned();
    assert_eq!(error, "no parameters of this server: `temprature`, `colour`; did you mean `temperature`?");
    // huggingface_hub drops parameters and repeats the request where an error says so in these words.
    assert!(!error.contains("model_kwargs"));
    let reply = bench.post(json!({"inputs": "Hi", "date": "today"})).await;
    assert_eq!((reply.status.as_u16(), reply.json()["error"].as_str().unwrap().contains("`date`")), (400, true));
}

//! Every form of `inputs`: what reaches the model, and what comes back.

use serde_json::{Value, json};

use crate::bench::{ANSWER, Bench};
use crate::pictures::{png_base64, png_data_url};

/// The prompt of one user turn, as the checkpoint's template writes it without thinking.
fn turn(content: &str) -> String {
    format!("<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
}

/// `prompt` with the tokens of a picture written as one.
fn squeezed(prompt: &str) -> String {
    let mut squeezed = prompt.to_owned();
    while squeezed.contains("<|image_pad|><|image_pad|>") {
        squeezed = squeezed.replace("<|image_pad|><|image_pad|>", "<|image_pad|>");
    }
    squeezed.replace("<|vision_start|><|image_pad|><|vision_end|>", "[picture]")
}

#[tokio::test]
async fn every_form_of_one_question_reaches_the_model_as_its_prompt() {
    let bench = Bench::start().await;
    let (url, base64) = (png_data_url(), png_base64());
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let text = |text: &str| json!({"type": "text", "text": text});
    for (body, prompt) in [
        // 2: messages at the top
        (json!({"messages": user(json!("Hi"))}), turn("Hi")),
        (json!({"messages": user(json!("Hi")).to_string()}), turn("Hi")),
        // 4: an object's fields at the top
        (json!({"prompt": "Hi"}), turn("Hi")),
        (json!({"image_url": url, "text": "What?"}), turn("[picture]What?")),
        (json!({"image": base64}), turn("[picture]What is shown?")),
        // 5: a text
        (json!({"inputs": "Hi"}), turn("Hi")),
        (json!({"inputs": "<|im_start|>user\nHi<|im_end|>\n"}), "<|im_start|>user\nHi<|im_end|>\n".to_owned()),
        (json!({"inputs": "Hi", "parameters": {"raw_prompt": true}}), "Hi".to_owned()),
        (json!({"inputs": format!("![]({url})What?")}), turn("[picture]What?")),
        (json!({"inputs": "![](local.png)"}), turn("![](local.png)")),
        (json!({"inputs": user(json!("Hi")).to_string()}), turn("Hi")),
        // 6: a conversation
        (json!({"inputs": user(json!("Hi"))}), turn("Hi")),
        (json!({"inputs": user(json!([text("Hi")]))}), turn("Hi")),
        (json!({"inputs": user(json!([{"type": "image", "image": url}, text("What?")]))}), turn("[picture]What?")),
        (
            json!({"inputs": user(json!([text("Is "), {"type": "image_url", "image_url": {"url": url}}, text(" red?")]))}),
            turn("Is [picture] red?"),
        ),
        (json!({"inputs": user(json!([{"type": "input_image", "image_url": base64}]))}), turn("[picture]")),
        // 9: an object with a conversation
        (json!({"inputs": {"messages": user(json!("Hi"))}}), turn("Hi")),
        (json!({"inputs": {"msgs": user(json!("Hi"))}}), turn("Hi")),
        (json!({"inputs": {"text": user(json!("Hi"))}}), turn("Hi")),
        (
            json!({"inputs": {"text": user(json!([{"type": "image"}, text("What?")])), "images": [url]}}),
            turn("[picture]What?"),
        ),
        // 10: an object with a text and pictures
        (json!({"inputs": {"text": "Hi"}}), turn("Hi")),
        (json!({"inputs": {"question": "What?", "image": base64}}), turn("[picture]What?")),
        (json!({"inputs": {"query": "Same?", "images": [url, base64]}}), turn("[picture][picture]Same?")),
        (json!({"inputs": {"img_uri": {"url": url}}}), turn("[picture]What is shown?")),
        (
            json!({"inputs": {"prompt": "Is <|vision_start|><|image_pad|><|vision_end|> red?", "image_data": url}}),
            turn("Is [picture] red?"),
        ),
        // 12: visual question answering
        (json!({"inputs": base64, "question": "What?", "image": base64}), turn("[picture]What?")),
        (json!({"inputs": "What?", "image": url}), turn("[picture]What?")),
    ] {
        let reply = bench.post(body.clone()).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.text);
        assert_eq!(reply.json()[0]["generated_text"], json!(ANSWER), "{body}");
        assert_eq!(squeezed(&bench.prompt()), prompt, "{body}");
    }
}

#[tokio::test]
async fn a_batch_is_answered_in_its_order() {
    let bench = Bench::start().await;
    let user = |content: &str| json!([{"role": "user", "content": content}]);
    for inputs in [
        json!(["a", "b", "c"]),
        json!([user("a"), user("b"), user("c")]),
        json!([{"text": "a"}, {"prompt": "b"}, {"messages": user("c")}]),
    ] {
        let reply = bench.post(json!({"inputs": inputs})).await;
        let record = json!({"generated_text": ANSWER});
        assert_eq!(reply.json(), json!([record, record, record]), "{inputs}");
        let mut prompts: Vec<String> = bench.seen().iter().map(|seen| bench.text(seen)).collect();
        prompts.sort();
        assert_eq!(prompts, [turn("a"), turn("b"), turn("c")], "{inputs}");
    }
}

#[tokio::test]
async fn vertex_gets_a_prediction_for_each_instance() {
    let bench = Bench::start().await;
    let instances = json!(["a", {"inputs": "b", "parameters": {"max_new_tokens": 1}}, {"inputs": ["c", "d"]}]);
    let reply = bench.post(json!({"instances": instances, "parameters": {"temperature": 1}})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let predictions = reply.json()["predictions"].clone();
    let lengths: Vec<usize> = predictions.as_array().unwrap().iter().map(|p| p.as_array().unwrap().len()).collect();
    assert_eq!(lengths, [1, 1, 2]);
    assert_eq!(predictions[0], json!([{"generated_text": ANSWER}]));
    assert_eq!(predictions[1], json!([{"generated_text": "A"}]));
}

#[tokio::test]
async fn an_assistants_last_message_is_continued_unless_the_client_says_otherwise() {
    let bench = Bench::start().await;
    let inputs = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well, "}]);
    let answered = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
    for (parameters, end) in [
        (json!({}), "Well,"),
        (json!({"continue_final_message": true}), "Well,"),
        (json!({"add_generation_prompt": true}), answered),
        (json!({"add_generation_prompt": false}), "Well,<|im_end|>\n"),
    ] {
        let reply = bench.post(json!({"inputs": inputs, "parameters": parameters})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let prompt = bench.prompt();
        assert!(prompt.ends_with(end), "{parameters}: {prompt}");
    }
}

#[tokio::test]
async fn what_shapes_the_prompt_reaches_the_template() {
    let bench = Bench::start().await;
    let tool = json!({"type": "function", "function": {"name": "lookup", "parameters": {}}});
    for (parameters, part) in [
        (json!({"enable_thinking": true}), "<|im_start|>assistant\n<think>\n"),
        (json!({"chat_template_kwargs": {"enable_thinking": true}}), "<|im_start|>assistant\n<think>\n"),
        (json!({"add_vision_id": true}), "Picture 1: <|vision_start|>"),
        (json!({"tools": [tool]}), "lookup"),
    ] {
        let body = json!({"inputs": {"text": "Hi", "image": png_data_url()}, "parameters": parameters});
        let reply = bench.post(body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let prompt = bench.prompt();
        assert!(
            prompt.contains(part) && (!part.ends_with("<think>\n") || prompt.ends_with(part)),
            "{parameters}: {prompt}"
        );
    }
}

//! fry/samples: held-out questions with their true answers.

use std::path::PathBuf;

use base64::Engine;
use serde::Deserialize;
use serde_json::{Value, json};

/// What the template writes where a picture stands.
const PICTURE_PLACE: &str = "<|vision_start|><|image_pad|><|vision_end|>";

/// A question with its true answer. A picture is `{"type": "image", "path": ...}` in its messages.
#[derive(Debug, Clone, Deserialize)]
pub struct Sample {
    pub name: String,
    messages: Vec<Value>,
    tools: Vec<Value>,
    thinking: bool,
    pub answer: String,
}

/// Every sample.
pub fn samples() -> Vec<Sample> {
    let text = std::fs::read_to_string(path("samples.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fry/samples").join(name)
}

pub fn file(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub fn data_url(name: &str) -> String {
    let subtype = if name.ends_with(".png") { "png" } else { "jpeg" };
    format!("data:image/{subtype};base64,{}", base64(&file(name)))
}

impl Sample {
    /// The request in the toolkit's form, pictures in it.
    pub fn request(&self) -> Value {
        let mut messages = self.messages.clone();
        let parts = messages.iter_mut().filter_map(|message| message["content"].as_array_mut()).flatten();
        for part in parts.filter(|part| part["type"] == "image") {
            *part = json!({"type": "image", "image": data_url(part["path"].as_str().unwrap())});
        }
        let mut parameters = json!({"max_new_tokens": 256, "do_sample": false, "enable_thinking": self.thinking});
        if !self.tools.is_empty() {
            parameters["tools"] = json!(self.tools);
        }
        json!({"inputs": messages, "parameters": parameters})
    }

    /// The same request in OpenAI's form.
    pub fn chat_request(&self) -> Value {
        let Value::Object(mut request) = self.request() else { unreachable!("a request is an object") };
        let mut messages = request.remove("inputs").unwrap();
        let parts = messages.as_array_mut().unwrap().iter_mut().filter_map(|message| message["content"].as_array_mut());
        for part in parts.flatten().filter(|part| part["type"] == "image") {
            *part = json!({"type": "image_url", "image_url": {"url": part["image"]}});
        }
        let mut chat =
            json!({"messages": messages, "temperature": 0, "max_tokens": 256, "enable_thinking": self.thinking});
        if !self.tools.is_empty() {
            chat["tools"] = json!(self.tools);
        }
        chat
    }

    /// The same conversation for `/chat_tokenize`, which tells the prompt that the template makes of it.
    pub fn template_request(&self) -> Value {
        let Value::Object(mut request) = self.request() else { unreachable!("a request is an object") };
        let mut template = json!({"messages": request.remove("inputs"), "enable_thinking": self.thinking});
        if !self.tools.is_empty() {
            template["tools"] = json!(self.tools);
        }
        template
    }

    /// The same request in TGI's form: the `prompt` that the template makes, its pictures in Markdown.
    pub fn generate_request(&self, prompt: &str) -> Value {
        let mut texts = prompt.split(PICTURE_PLACE);
        let mut inputs = texts.next().unwrap().to_owned();
        let pictures = self.pictures();
        let mut urls = pictures.iter().map(|name| data_url(name));
        for text in texts {
            inputs += &format!("![]({}){text}", urls.next().expect("a picture for each place"));
        }
        assert_eq!(urls.next(), None, "{}: a place for each picture", self.name);
        json!({"inputs": inputs, "parameters": {"max_new_tokens": 256}})
    }

    /// One picture and the question to describe it.
    pub fn is_description(&self) -> bool {
        self.name.starts_with("describe") && self.messages.len() == 1 && self.pictures().len() == 1
    }

    pub fn pictures(&self) -> Vec<String> {
        self.parts().filter_map(|part| part["path"].as_str().map(str::to_owned)).collect()
    }

    /// The text of the first message.
    pub fn question(&self) -> String {
        self.parts().filter_map(|part| part["text"].as_str()).collect()
    }

    fn parts(&self) -> impl Iterator<Item = &Value> {
        self.messages.iter().filter_map(|message| message["content"].as_array()).flatten()
    }
}

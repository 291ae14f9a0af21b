//! A checkpoint whose text side cannot be read is refused at the start, in one line that names the file.

use std::fs;
use std::path::Path;

use sardine::chat::{Chat, Conversation, SpecialText};
use sardine::checkpoint::Checkpoint;
use serde_json::{Value, json};
use tempfile::TempDir;

const FILES: [&str; 5] =
    ["chat_template.jinja", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];

/// A copy of fry's text side.
fn copy() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in FILES {
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("fry").join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn load(folder: &TempDir) -> Result<Chat, String> {
    Chat::load(&Checkpoint::in_folder(folder.path())?, SpecialText::StaysText)
}

fn edit(folder: &TempDir, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.path().join(file);
    let mut json = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

fn render(chat: &Chat, conversation: Conversation) -> String {
    let messages = vec![json!({"role": "user", "content": "Hi"})];
    chat.render(&Conversation { messages, ..conversation }).unwrap()
}

#[test]
fn a_checkpoint_without_a_template_is_refused() {
    let folder = copy();
    fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    edit(&folder, "tokenizer_config.json", |config| config["chat_template"] = Value::Null);
    let error = load(&folder).err().unwrap();
    assert!(error.contains("neither chat_template.jinja nor a chat_template in tokenizer_config.json"), "{error}");
}

#[test]
fn a_template_that_does_not_compile_names_its_file() {
    let folder = copy();
    fs::write(folder.path().join("chat_template.jinja"), "{% if %}").unwrap();
    assert!(load(&folder).err().unwrap().contains("chat_template.jinja: syntax error"));
}

#[test]
fn the_template_may_live_in_the_tokenizers_configuration() {
    let folder = copy();
    fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    edit(&folder, "tokenizer_config.json", |config| {
        config["chat_template"] = json!("{{ messages[0].content }}{{ eos_token }}")
    });
    assert_eq!(render(&load(&folder).unwrap(), Conversation::default()), "Hi<|im_end|>");
}

#[test]
fn of_several_templates_the_one_for_tools_is_taken_where_there_are_tools() {
    let folder = copy();
    fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let templates = json!([{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]);
    edit(&folder, "tokenizer_config.json", |config| config["chat_template"] = templates);
    let chat = load(&folder).unwrap();
    assert_eq!(render(&chat, Conversation::default()), "D");
    assert_eq!(render(&chat, Conversation { tools: vec![json!({})], ..Conversation::default() }), "T");

    edit(&folder, "tokenizer_config.json", |config| config["chat_template"] = json!([{"name": "x", "template": "T"}]));
    assert!(load(&folder).err().unwrap().contains("\"default\""));
}

#[test]
fn added_tokens_of_the_tokenizers_configuration_are_tokens() {
    let folder = copy();
    let next = load(&folder).unwrap().tokenizer().vocabulary().len();
    let token = |content| {
        let flags = json!({"lstrip": false, "rstrip": false, "normalized": false, "single_word": false});
        let mut token = json!({"content": content, "special": true});
        token.as_object_mut().unwrap().extend(flags.as_object().unwrap().clone());
        token
    };
    edit(&folder, "tokenizer_config.json", |config| {
        config["added_tokens_decoder"][next.to_string()] = token("<|extra|>")
    });
    let chat = load(&folder).unwrap();
    assert_eq!(chat.encode("<|extra|>").unwrap(), [next as u32]);
    assert!(chat.is_special(next as u32));

    edit(&folder, "tokenizer_config.json", |config| {
        config["added_tokens_decoder"][(next + 5).to_string()] = token("<|more|>")
    });
    let error = load(&folder).err().unwrap();
    assert!(error.contains(&format!("\"<|more|>\" should have the id {}", next + 5)), "{error}");
}

#[test]
fn a_placeholder_that_is_no_special_token_is_refused() {
    let folder = copy();
    edit(&folder, "config.json", |config| config["image_token_id"] = json!(5));
    assert!(load(&folder).err().unwrap().contains("image_token_id is 5"));
}

//! A chat request's messages as the chat template takes them, and what the template is told beside them.

use serde_json::{Map, Value, json};

use super::request::{ChatFields, ReasoningEffort};
use crate::error::Error;
use crate::generation::{Conversation, Ending};
use crate::http::json::refuse;
use crate::http::messages::take_media;
use crate::http::video::processor_kwargs;
use crate::media::Medium;

/// Variables of the template that have fields of their own.
const FIELDS_OF_THEIR_OWN: [&str; 4] = ["messages", "tools", "add_generation_prompt", "continue_final_message"];

/// The conversation of a request, with its pictures and videos in order.
pub(super) fn conversation(fields: &mut ChatFields) -> Result<(Conversation, Vec<Medium>), Error> {
    if fields.functions.is_some() {
        return Err(refuse("functions", "is OpenAI's old form of `tools`, which this server takes instead"));
    }
    let videos = processor_kwargs(fields.mm_processor_kwargs.take())?;
    let messages = fields.messages.take().filter(|messages| !messages.is_empty());
    let messages = messages.ok_or_else(|| refuse("messages", "must be a list of at least one message"))?;
    let (messages, media) = take_media(messages, Vec::new(), "messages")?;
    let media = media.into_iter().map(|medium| medium.or(videos)).collect();
    let conversation = Conversation {
        messages: with_one_system_message(messages),
        tools: tools(fields)?,
        template_variables: template_variables(fields)?,
        ending: ending(fields)?,
    };
    Ok((conversation, media))
}

/// Puts what every system and developer message says into one at the beginning, where templates want it: clients repeat
/// them, send them late and call them either name.
fn with_one_system_message(messages: Vec<Value>) -> Vec<Value> {
    let is_system = |message: &Value| matches!(message["role"].as_str(), Some("system" | "developer"));
    let (mut system, mut others): (Vec<Value>, Vec<Value>) = messages.into_iter().partition(is_system);
    match system.len() {
        0 => return others,
        1 => system[0]["role"] = json!("system"),
        _ => {
            let texts: Vec<String> = system.iter().map(|message| text_of(&message["content"])).collect();
            system = vec![json!({ "role": "system", "content": texts.join("\n\n") })];
        }
    }
    system.append(&mut others);
    system
}

/// What the assistant has said already, where the last message is its own.
pub(super) fn begun_answer(conversation: &Conversation) -> Option<String> {
    let last = conversation.messages.last().filter(|message| message["role"] == "assistant")?;
    Some(text_of(&last["content"])).filter(|text| !text.is_empty())
}

/// The text of a content, whether that is a string or a list of parts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// The tools that the model is shown: none where it must not call any.
fn tools(fields: &mut ChatFields) -> Result<Vec<Value>, Error> {
    let tools = fields.tools.take().unwrap_or_default();
    for (index, tool) in tools.iter().enumerate() {
        if !tool["function"]["name"].is_string() {
            let path = format!("tools[{index}]");
            return Err(refuse(&path, "must be {\"type\": \"function\", \"function\": {\"name\": ...}}"));
        }
    }
    match &fields.tool_choice {
        None | Some(Value::Null) => Ok(tools),
        Some(Value::String(choice)) if choice == "auto" => Ok(tools),
        Some(Value::String(choice)) if choice == "none" => Ok(Vec::new()),
        Some(other) => Err(refuse(
            "tool_choice",
            &format!("is {other}, which this server cannot force on the model yet; send \"auto\" or \"none\""),
        )),
    }
}

fn template_variables(fields: &mut ChatFields) -> Result<Map<String, Value>, Error> {
    let mut variables = fields.chat_template_kwargs.take().unwrap_or_default();
    if let Some(name) = FIELDS_OF_THEIR_OWN.iter().find(|name| variables.contains_key(**name)) {
        let path = format!("chat_template_kwargs.{name}");
        return Err(refuse(&path, &format!("has a place of its own: send `{name}` outside chat_template_kwargs")));
    }
    let effort = fields.reasoning_effort;
    if let Some(effort) = effort {
        variables.entry("reasoning_effort").or_insert(json!(effort_name(effort)));
    }
    let thinks = fields.enable_thinking.or(effort.map(|effort| effort != ReasoningEffort::None));
    if let Some(thinks) = thinks {
        match variables.get("enable_thinking") {
            Some(other) if *other != json!(thinks) && fields.enable_thinking.is_some() => {
                return Err(refuse("enable_thinking", "differs from the one in chat_template_kwargs"));
            }
            Some(_) => {}
            None => _ = variables.insert("enable_thinking".to_owned(), json!(thinks)),
        }
    }
    Ok(variables)
}

fn effort_name(effort: ReasoningEffort) -> &'static str {
    match effort {
        ReasoningEffort::None => "none",
        ReasoningEffort::Minimal => "minimal",
        ReasoningEffort::Low => "low",
        ReasoningEffort::Medium => "medium",
        ReasoningEffort::High => "high",
        ReasoningEffort::Xhigh => "xhigh",
    }
}

fn ending(fields: &ChatFields) -> Result<Ending, Error> {
    match (fields.add_generation_prompt, fields.continue_final_message.unwrap_or(false)) {
        (Some(true), true) => {
            Err(refuse("continue_final_message", "cannot be true together with `add_generation_prompt`"))
        }
        (_, true) => Ok(Ending::Continue),
        (Some(false), false) => Ok(Ending::Nothing),
        (_, false) => Ok(Ending::GenerationPrompt),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::conversation;
    use crate::generation::{Conversation, Ending};
    use crate::http::openai::request::ChatFields;

    fn read(fields: Value) -> Result<Conversation, String> {
        let mut fields: ChatFields = serde_json::from_value(fields).unwrap();
        conversation(&mut fields).map(|(conversation, _)| conversation).map_err(|error| error.to_string())
    }

    fn user() -> Value {
        json!({"role": "user", "content": "hi"})
    }

    #[test]
    fn system_messages_become_one_at_the_beginning() {
        let system = |role, content| json!({"role": role, "content": content});
        let messages =
            json!([system("developer", json!("a")), user(), system("system", json!([{"type": "text", "text": "b"}]))]);
        assert_eq!(read(json!({"messages": messages})).unwrap().messages, [system("system", json!("a\n\nb")), user()]);
        let late = json!([user(), system("developer", json!("a"))]);
        assert_eq!(read(json!({"messages": late})).unwrap().messages, [system("system", json!("a")), user()]);
    }

    #[test]
    fn thinking_has_three_spellings() {
        let thinks = |fields: Value| {
            let mut fields = fields;
            fields["messages"] = json!([user()]);
            read(fields).map(|read| read.template_variables.get("enable_thinking").cloned())
        };
        assert_eq!(thinks(json!({"enable_thinking": false})), Ok(Some(json!(false))));
        assert_eq!(thinks(json!({"chat_template_kwargs": {"enable_thinking": true}})), Ok(Some(json!(true))));
        assert_eq!(thinks(json!({"reasoning_effort": "none"})), Ok(Some(json!(false))));
        assert_eq!(thinks(json!({"reasoning_effort": "high"})), Ok(Some(json!(true))));
        assert_eq!(thinks(json!({})), Ok(None));
        let differs = json!({"enable_thinking": true, "chat_template_kwargs": {"enable_thinking": false}});
        assert!(thinks(differs).is_err());
    }

    #[test]
    fn tools_are_hidden_from_a_model_that_must_not_call_them() {
        let with_choice = |choice: Value| {
            let tools = json!([{"type": "function", "function": {"name": "f"}}]);
            read(json!({"messages": [user()], "tools": tools, "tool_choice": choice})).map(|read| read.tools.len())
        };
        assert_eq!(with_choice(json!("auto")), Ok(1));
        assert_eq!(with_choice(json!(null)), Ok(1));
        assert_eq!(with_choice(json!("none")), Ok(0));
        assert!(with_choice(json!("required")).unwrap_err().contains("tool_choice"));
        assert!(with_choice(json!({"type": "function", "function": {"name": "f"}})).is_err());
        assert!(read(json!({"messages": [user()], "tools": [{"name": "f"}]})).is_err());
    }

    #[test]
    fn the_ending_is_one_of_three() {
        let ending = |fields: Value| {
            let mut fields = fields;
            fields["messages"] = json!([user()]);
            read(fields).map(|read| read.ending)
        };
        assert_eq!(ending(json!({})), Ok(Ending::GenerationPrompt));
        assert_eq!(ending(json!({"add_generation_prompt": false})), Ok(Ending::Nothing));
        assert_eq!(ending(json!({"continue_final_message": true})), Ok(Ending::Continue));
        assert!(ending(json!({"continue_final_message": true, "add_generation_prompt": true})).is_err());
    }
}

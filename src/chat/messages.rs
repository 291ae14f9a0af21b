//! Messages as Transformers hands them to the template: nulls dropped, reasoning under one name, arguments parsed.

use serde_json::{Map, Value};

use crate::error::Error;

/// Names under which a message's reasoning is sent. The first is the one that templates read.
const REASONING_FIELDS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The messages as the template wants them. Errors where one is not an object, or a tool call's arguments are not.
pub(super) fn prepare(messages: &[Value]) -> Result<Vec<Value>, Error> {
    if messages.is_empty() {
        return Err(Error::invalid_param("messages", "the conversation is empty: send at least one message"));
    }
    messages.iter().enumerate().map(|(index, message)| prepare_one(index, message)).collect()
}

fn prepare_one(index: usize, message: &Value) -> Result<Value, Error> {
    let Value::Object(message) = message else {
        let text = format!("messages[{index}] must be an object with a role and content");
        return Err(Error::invalid_param(format!("messages[{index}]"), text));
    };
    // Transformers drops nulls: OpenAI's clients send `content: null`, which many templates would print.
    let present = message.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone()));
    let mut message: Map<String, Value> = present.collect();
    alias_reasoning(&mut message);
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        for (call_index, call) in calls.iter_mut().enumerate() {
            parse_arguments(call, &format!("messages[{index}].tool_calls[{call_index}].function.arguments"))?;
        }
    }
    Ok(Value::Object(message))
}

/// Puts the reasoning under the name that templates read, and under `thinking` for those that read that.
fn alias_reasoning(message: &mut Map<String, Value>) {
    let Some(reasoning) = REASONING_FIELDS.iter().find_map(|field| message.get(*field)).cloned() else { return };
    message.entry("thinking").or_insert_with(|| reasoning.clone());
    message.insert("reasoning_content".to_owned(), reasoning);
}

/// OpenAI sends a tool call's arguments as JSON in a string; templates walk an object.
fn parse_arguments(call: &mut Value, param: &str) -> Result<(), Error> {
    let function = if call.get("function").is_some() { &mut call["function"] } else { call };
    let Some(arguments) = function.get_mut("arguments") else { return Ok(()) };
    let Value::String(text) = &*arguments else { return Ok(()) };
    let text = if text.trim().is_empty() { "{}" } else { text };
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => {
            *arguments = Value::Object(object);
            Ok(())
        }
        Ok(_) => Err(Error::invalid_param(param, format!("{param} must be a JSON object"))),
        Err(error) => Err(Error::invalid_param(param, format!("{param} must be a JSON object: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::prepare;
    use crate::error::Error;

    #[test]
    fn nulls_are_dropped_and_reasoning_gets_its_name() {
        let messages = [json!({"role": "assistant", "content": null, "reasoning": "r", "thinking": null})];
        let expected = json!({"role": "assistant", "reasoning": "r", "thinking": "r", "reasoning_content": "r"});
        assert_eq!(prepare(&messages).unwrap(), [expected]);
    }

    #[test]
    fn arguments_in_a_string_become_an_object() {
        let call = |arguments| {
            let function = json!({"name": "f", "arguments": arguments});
            json!({"role": "assistant", "tool_calls": [{"function": function}]})
        };
        let prepared = prepare(&[call(json!("{\"b\": 1, \"a\": [null]}"))]).unwrap();
        assert_eq!(prepared, [call(json!({"b": 1, "a": [null]}))]);
        assert_eq!(prepare(&[call(json!(""))]).unwrap(), [call(json!({}))]);
        let Err(Error::Invalid { message, param }) = prepare(&[call(json!("[1]"))]) else { panic!("not refused") };
        assert_eq!(message, "messages[0].tool_calls[0].function.arguments must be a JSON object");
        assert_eq!(param.as_deref(), Some("messages[0].tool_calls[0].function.arguments"));
    }

    #[test]
    fn a_message_that_is_no_object_is_named() {
        let Err(Error::Invalid { message, .. }) = prepare(&[json!({}), json!("hi")]) else { panic!("not refused") };
        assert!(message.starts_with("messages[1] must be an object"), "{message}");
    }
}

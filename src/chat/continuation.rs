//! Leaving the last message open, as Transformers' `continue_final_message` does it: by a tag that finds its end.

use serde_json::Value;

use super::python;
use crate::error::Error;

const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// The text of the last message, which the model is to continue.
pub(super) struct Continuation {
    text: String,
}

impl Continuation {
    /// Tags the last message's text. Errors where it has none, or the template does not read it.
    pub(super) fn tag(messages: &mut [Value], template: &str) -> Result<Continuation, Error> {
        let content = messages.last_mut().and_then(|message| message.get_mut("content"));
        let Some(content) = content else {
            return refuse("continue_final_message is set but the final message has no \"content\" to continue!");
        };
        if !template.contains("content") {
            return refuse(
                "continue_final_message is set to \"content\" but this is not an accepted field in the chat_template",
            );
        }
        let text = match content {
            Value::String(text) => text,
            Value::Array(parts) => match parts.iter_mut().rev().find_map(|part| part.get_mut("text")) {
                Some(Value::String(text)) => text,
                _ => {
                    return refuse(
                        "continue_final_message is set but we could not find any text to continue in the final message!",
                    );
                }
            },
            _ => return refuse("continue_final_message is set but the final message's content is not text"),
        };
        let untagged = text.clone();
        text.push_str(TAG);
        Ok(Continuation { text: untagged })
    }

    /// The rendering up to the end of the text. Errors where the template has dropped the text.
    pub(super) fn cut(&self, mut rendered: String) -> Result<String, Error> {
        let (text, tag) = (self.text.trim_matches(python::is_space), TAG.trim_end());
        let (true, Some(end)) = (rendered.contains(text), rendered.rfind(tag)) else {
            return refuse(
                "continue_final_message is set but the final message does not appear in the chat after applying the chat \
                 template! This can happen if the chat template deletes portions of the final message.",
            );
        };
        let template_trims = !rendered[end..].starts_with(TAG);
        rendered.truncate(end);
        if template_trims {
            rendered.truncate(rendered.trim_end_matches(python::is_space).len());
        }
        Ok(rendered)
    }
}

fn refuse<T>(message: &str) -> Result<T, Error> {
    Err(Error::invalid(message))
}

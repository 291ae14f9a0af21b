//! Parameters that shape the prompt rather than the answer.

use serde_json::{Map, Value};

use super::refuse;
use super::values::Values;
use crate::error::Error;
use crate::generation::Ending;

/// What the chat template is told.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in super::super) struct Template {
    /// A text is the prompt itself; no template is applied.
    pub(in super::super) raw_prompt: bool,
    pub(in super::super) tools: Vec<Value>,
    pub(in super::super) variables: Map<String, Value>,
    /// `None`: an assistant's last message is continued, any other is answered.
    pub(in super::super) ending: Option<Ending>,
}

impl Template {
    /// A parameter that has no effect where no template is applied.
    pub(in super::super) fn given_parameter(&self) -> Option<&str> {
        if !self.tools.is_empty() {
            return Some("tools");
        }
        let ending = self.ending.map(|_| "add_generation_prompt");
        self.variables.keys().next().map(String::as_str).or(ending)
    }
}

pub(super) fn resolve(values: &mut Values) -> Result<Template, Error> {
    let mut variables = values.object("chat_template_kwargs")?.unwrap_or_default();
    for name in ["messages", "tools", "add_generation_prompt", "continue_final_message"] {
        if variables.contains_key(name) {
            let path = format!("chat_template_kwargs.{name}");
            return Err(refuse(&path, &format!("has a place of its own: send `{name}` outside chat_template_kwargs")));
        }
    }
    for name in ["enable_thinking", "add_vision_id"] {
        let Some(value) = values.boolean(name)?.map(Value::Bool) else { continue };
        if variables.get(name).is_some_and(|present| *present != value) {
            return Err(refuse(name, "differs from the one in chat_template_kwargs"));
        }
        variables.insert(name.to_owned(), value);
    }
    Ok(Template {
        raw_prompt: values.boolean("raw_prompt")?.unwrap_or(false),
        tools: values.objects("tools")?.unwrap_or_default(),
        variables,
        ending: ending(values)?,
    })
}

fn ending(values: &mut Values) -> Result<Option<Ending>, Error> {
    let add = values.boolean("add_generation_prompt")?;
    let continues = values.boolean("continue_final_message")?;
    match (add, continues) {
        (Some(true), Some(true)) => {
            Err(refuse("continue_final_message", "cannot be true together with `add_generation_prompt`"))
        }
        (_, Some(true)) => Ok(Some(Ending::Continue)),
        (Some(true), _) | (None, Some(false)) => Ok(Some(Ending::GenerationPrompt)),
        (Some(false), _) => Ok(Some(Ending::Nothing)),
        (None, None) => Ok(None),
    }
}

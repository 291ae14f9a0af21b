//! Parameters that shape the prompt rather than the answer.

use serde_json::{Map, Value};

use super::refuse;
use super::values::Values;
use crate::error::Error;
use crate::generation::Ending;

/// What the chat template is told.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::http) struct Template {
    /// Whether a text is the prompt itself, to which no template is applied.
    pub(in crate::http) raw_prompt: Option<bool>,
    pub(in crate::http) tools: Vec<Value>,
    pub(in crate::http) variables: Map<String, Value>,
    /// `None`: an assistant's last message is continued, any other is answered.
    pub(in crate::http) ending: Option<Ending>,
}

impl Template {
    /// Refuses what would have no effect on a text to which no template is applied.
    pub(in crate::http) fn check_idle(&self) -> Result<(), Error> {
        let tools = (!self.tools.is_empty()).then_some("tools");
        let variable = self.variables.keys().next().map(String::as_str);
        let ending = self.ending.map(|_| "add_generation_prompt");
        match tools.or(variable).or(ending) {
            Some(parameter) => Err(refuse(parameter, "has no effect on a text that is the prompt already")),
            None => Ok(()),
        }
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
        raw_prompt: values.boolean("raw_prompt")?,
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

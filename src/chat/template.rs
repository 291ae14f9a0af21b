//! The checkpoint's chat template: a conversation in, the prompt's text out, exactly as Transformers renders it.

use std::error::Error as _;

use minijinja::value::{Serde, Value as JinjaValue};
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};

use super::continuation::Continuation;
use super::conversation::Ending;
use super::jinja;
use crate::checkpoint::Checkpoint;
use crate::error::Error;

/// Special tokens that `tokenizer_config.json` names, which templates see as variables.
const TOKEN_VARIABLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The names of a template for everything, and of one for conversations with tools where the checkpoint has it.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` ... as the tokenizer's configuration has them.
    token_variables: Map<String, Value>,
}

/// What a template is given.
pub(super) struct Variables {
    pub messages: Vec<Value>,
    pub tools: Vec<Value>,
    /// Any others; they win over the special tokens' names.
    pub others: Map<String, Value>,
    pub ending: Ending,
}

impl ChatTemplate {
    /// Reads `chat_template.jinja`, or else the `chat_template` of `tokenizer_config.json`.
    pub fn load(checkpoint: &Checkpoint) -> Result<ChatTemplate, String> {
        let config = checkpoint.json("tokenizer_config.json")?.unwrap_or_default();
        let mut environment = jinja::environment().map_err(|error| error.to_string())?;
        for (name, source, file) in sources(checkpoint, &config)? {
            environment
                .add_template_owned(name, jinja::without_generation_blocks(&source))
                .map_err(|error| format!("{}: {file}: {error}", checkpoint.name()))?;
        }
        if environment.get_template(DEFAULT).is_err() {
            return Err(format!(
                "{}: tokenizer_config.json has several chat templates and none of them is named \"default\"",
                checkpoint.name()
            ));
        }
        Ok(ChatTemplate { environment, token_variables: token_variables(&config) })
    }

    /// The prompt's text. A refusal of the template itself (`raise_exception`) arrives in its own words.
    pub(super) fn render(&self, mut variables: Variables) -> Result<String, Error> {
        let name = match variables.tools.is_empty() {
            false if self.environment.get_template(TOOL_USE).is_ok() => TOOL_USE,
            _ => DEFAULT,
        };
        let template = self.environment.get_template(name).map_err(refusal)?;
        let continuation = match variables.ending {
            Ending::Continue => Some(Continuation::tag(&mut variables.messages, template.source())?),
            Ending::GenerationPrompt | Ending::Nothing => None,
        };
        let context = JinjaValue::from(Serde(self.context(variables)));
        let rendered = template.render(context).map_err(refusal)?;
        match continuation {
            Some(continuation) => continuation.cut(rendered),
            None => Ok(rendered),
        }
    }

    /// A special token's text by its name in the tokenizer's configuration.
    pub(super) fn token_variable(&self, name: &str) -> Option<&str> {
        self.token_variables.get(name)?.as_str()
    }

    fn context(&self, variables: Variables) -> Map<String, Value> {
        let mut context = self.token_variables.clone();
        context.extend(variables.others);
        let tools = if variables.tools.is_empty() { Value::Null } else { Value::Array(variables.tools) };
        let add_generation_prompt = variables.ending == Ending::GenerationPrompt;
        context.insert("messages".to_owned(), Value::Array(variables.messages));
        context.insert("tools".to_owned(), tools);
        context.entry("documents").or_insert(Value::Null);
        context.insert("add_generation_prompt".to_owned(), Value::Bool(add_generation_prompt));
        context
    }
}

/// The checkpoint's templates: (name, source, the file it is from).
fn sources(checkpoint: &Checkpoint, config: &Value) -> Result<Vec<(String, String, &'static str)>, String> {
    let file = "chat_template.jinja";
    if let Some(source) = checkpoint.text(file)? {
        return Ok(vec![(DEFAULT.to_owned(), source, file)]);
    }
    let file = "tokenizer_config.json";
    let complaint = || {
        let name = checkpoint.name();
        format!("{name}: the checkpoint has neither chat_template.jinja nor a chat_template in tokenizer_config.json")
    };
    match config.get("chat_template") {
        Some(Value::String(source)) => Ok(vec![(DEFAULT.to_owned(), source.clone(), file)]),
        Some(Value::Array(templates)) => {
            let named = templates.iter().map(|template| {
                let field = |key: &str| template.get(key)?.as_str().map(str::to_owned);
                Some((field("name")?, field("template")?, file))
            });
            named.collect::<Option<_>>().ok_or_else(|| {
                format!("{}: {file}: chat_template must be a list of {{name, template}}", checkpoint.name())
            })
        }
        _ => Err(complaint()),
    }
}

fn token_variables(config: &Value) -> Map<String, Value> {
    let named = TOKEN_VARIABLES.iter().filter_map(|name| {
        let token = config.get(*name)?;
        // Either the text itself or an added token's description.
        let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
        Some(((*name).to_owned(), Value::from(text)))
    });
    named.collect()
}

/// Why the template did not render: its own words where it raised them.
fn refusal(error: minijinja::Error) -> Error {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(raised) = cause.downcast_ref::<jinja::Raised>() {
            return Error::invalid(raised.0.clone());
        }
        source = cause.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return Error::invalid("the conversation is too large for the chat template; send fewer messages or tools");
    }
    Error::invalid(format!("the chat template cannot render this conversation: {error}"))
}

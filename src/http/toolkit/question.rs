//! A record and its parameters become a request to the model, and what the reply to it needs.

use serde_json::{Value, json};

use super::inputs::{Asked, Record};
use super::parameters::{Parameters, Reply, Template};
use super::text;
use crate::chat::is_templated;
use crate::error::Error;
use crate::generation::{ChatRequest, Conversation, Ending, Input};
use crate::http::json::refuse;
use crate::http::messages;
use crate::media::Source;

/// A record ready for the model.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) request: ChatRequest,
    pub(super) reply: ReplyPlan,
}

/// How the answers to a question become records of the reply.
#[derive(Debug, Clone)]
pub(super) struct ReplyPlan {
    pub(super) reply: Reply,
    /// What `return_full_text` puts before the answer, where it was asked for.
    pub(super) given: Option<Given>,
    pub(super) is_visual_question: bool,
    /// `None`: greedy.
    pub(super) seed: Option<u64>,
    /// Which of Vertex AI's instances it belongs to; 0 elsewhere.
    pub(super) instance: usize,
}

impl ReplyPlan {
    /// Answers to ask for.
    pub(super) fn num_answers(&self) -> usize {
        self.reply.num_sequences.max(self.reply.best_of)
    }
}

/// What the client asked, for the reply to repeat.
#[derive(Debug, Clone)]
pub(super) enum Given {
    Text(String),
    Conversation { messages: Vec<Value>, ending: Ending },
}

/// Puts `record` and its `parameters` together. A picture without a question is asked about with `picture_prompt`.
pub(super) fn question(record: Record, parameters: Parameters, picture_prompt: &str) -> Result<Question, Error> {
    let Record { path, instance, asked, pictures, is_visual_question, .. } = record;
    let Parameters { sampling, length, stop, skip_special_tokens, template, reply, .. } = parameters;
    let given = reply.return_full_text.then(|| given(&asked, &template, picture_prompt));
    let (input, media) = match asked {
        Asked::Messages(messages) => conversation(messages, pictures, template, &path)?,
        Asked::Text(text) if template.raw_prompt || is_templated(&text) => raw(&text, pictures, &template, &path)?,
        Asked::Text(text) => turn(&text, pictures, template, &path)?,
        Asked::PicturesOnly => turn(picture_prompt, pictures, template, &path)?,
    };
    let seed = sampling.do_sample.then_some(sampling.seed);
    let request = ChatRequest {
        input,
        media,
        sampling,
        length,
        stop,
        skip_special_tokens,
        prompt_logprobs: None,
        deadline: None,
    };
    Ok(Question { request, reply: ReplyPlan { reply, given, is_visual_question, seed, instance } })
}

fn given(asked: &Asked, template: &Template, picture_prompt: &str) -> Given {
    match asked {
        Asked::Messages(messages) => {
            Given::Conversation { messages: messages.clone(), ending: ending(messages, template) }
        }
        Asked::Text(text) => Given::Text(text.clone()),
        Asked::PicturesOnly => Given::Text(picture_prompt.to_owned()),
    }
}

/// An assistant's last message is continued, as the pipeline does, unless the client says otherwise.
fn ending(messages: &[Value], template: &Template) -> Ending {
    let is_open = messages.last().is_some_and(|last| last["role"] == "assistant");
    template.ending.unwrap_or(if is_open { Ending::Continue } else { Ending::GenerationPrompt })
}

type Prompted = (Input, Vec<Source>);

fn conversation(
    messages: Vec<Value>,
    pictures: Vec<Source>,
    template: Template,
    path: &str,
) -> Result<Prompted, Error> {
    if template.raw_prompt {
        return Err(refuse("raw_prompt", "is for texts; a conversation goes through the chat template"));
    }
    let ending = ending(&messages, &template);
    let (messages, media) = messages::take_pictures(messages, pictures, path)?;
    Ok((templated(messages, template, ending), media))
}

fn turn(text: &str, pictures: Vec<Source>, template: Template, path: &str) -> Result<Prompted, Error> {
    let ending = template.ending.unwrap_or_default();
    let (message, media) = text::user_message(text, pictures, path)?;
    Ok((templated(vec![message], template, ending), media))
}

fn raw(text: &str, pictures: Vec<Source>, template: &Template, path: &str) -> Result<Prompted, Error> {
    if let Some(parameter) = template.given_parameter() {
        return Err(refuse(parameter, "has no effect on a text that is the prompt already"));
    }
    let (prompt, media) = text::raw(text, pictures, path)?;
    Ok((Input::Raw(prompt), media))
}

fn templated(messages: Vec<Value>, template: Template, ending: Ending) -> Input {
    let Template { tools, variables, .. } = template;
    Input::Conversation(Conversation { messages, tools, template_variables: variables, ending })
}

impl Given {
    /// The whole text, or the whole conversation, with the answer at its end: the pipeline's form.
    pub(super) fn with_answer(self, answer: &str) -> Value {
        match self {
            Given::Text(text) => Value::String(text + answer),
            Given::Conversation { mut messages, ending } => {
                match messages.last_mut().filter(|_| ending == Ending::Continue) {
                    Some(last) => append(last, answer),
                    None => messages.push(json!({ "role": "assistant", "content": answer })),
                }
                Value::Array(messages)
            }
        }
    }
}

/// Continues the text of `message`.
fn append(message: &mut Value, answer: &str) {
    let text = match &mut message["content"] {
        Value::Array(parts) => parts.iter_mut().rev().find_map(|part| part.get_mut("text")),
        content => Some(content),
    };
    if let Some(Value::String(text)) = text {
        text.push_str(answer);
    }
}

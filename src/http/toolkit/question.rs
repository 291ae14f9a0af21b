//! A record and its parameters become a question to the model, and what the toolkit's reply to it needs.

use serde_json::Value;

use super::inputs::{Asked, Record};
use crate::chat::is_templated;
use crate::error::Error;
use crate::generation::{Conversation, Ending, Input};
use crate::http::hf::parameters::{Parameters, Template};
use crate::http::hf::question::{Given, Question};
use crate::http::hf::text;
use crate::http::json::refuse;
use crate::http::messages;
use crate::media::Medium;

/// A question with its place in the reply.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    pub(super) question: Question,
    /// Which of Vertex AI's instances it belongs to; 0 elsewhere.
    pub(super) instance: usize,
}

/// What is asked about pictures and videos that come without a question.
#[derive(Debug, Clone, Copy)]
pub(super) struct UsualPrompts<'a> {
    pub(super) picture: &'a str,
    pub(super) video: &'a str,
}

/// Puts `record` and its `parameters` together. What is shown without a question is asked about with one of the `usual` prompts.
pub(super) fn asking(record: Record, mut parameters: Parameters, usual: UsualPrompts) -> Result<Asking, Error> {
    let Record { path, instance, asked, shown, is_visual_question, .. } = record;
    let shows_video = shown.iter().any(|medium| matches!(medium, Medium::Video(_)));
    let usual = if shows_video { usual.video } else { usual.picture };
    let template = std::mem::take(&mut parameters.template);
    let given = parameters.reply.return_full_text.then(|| given(&asked, &template, usual));
    let prompted = match asked {
        Asked::Messages(messages) => conversation(messages, shown, template, &path)?,
        Asked::Text(text) if template.raw_prompt.unwrap_or_else(|| is_templated(&text)) => {
            raw(&text, shown, &template, &path)?
        }
        Asked::Text(text) => turn(&text, shown, template, &path)?,
        Asked::Nothing => turn(usual, shown, template, &path)?,
    };
    let mut question = Question::new(prompted, parameters, given);
    question.reply.is_visual_question = is_visual_question;
    Ok(Asking { question, instance })
}

fn given(asked: &Asked, template: &Template, usual: &str) -> Given {
    match asked {
        Asked::Messages(messages) => {
            Given::Conversation { messages: messages.clone(), ending: ending(messages, template) }
        }
        Asked::Text(text) => Given::Text(text.clone()),
        Asked::Nothing => Given::Text(usual.to_owned()),
    }
}

/// An assistant's last message is continued, as the pipeline does, unless the client says otherwise.
fn ending(messages: &[Value], template: &Template) -> Ending {
    let is_open = messages.last().is_some_and(|last| last["role"] == "assistant");
    template.ending.unwrap_or(if is_open { Ending::Continue } else { Ending::GenerationPrompt })
}

type Prompted = (Input, Vec<Medium>);

fn conversation(messages: Vec<Value>, shown: Vec<Medium>, template: Template, path: &str) -> Result<Prompted, Error> {
    if template.raw_prompt == Some(true) {
        return Err(refuse("raw_prompt", "is for texts; a conversation goes through the chat template"));
    }
    let ending = ending(&messages, &template);
    let (messages, media) = messages::take_media(messages, shown, path)?;
    Ok((templated(messages, template, ending), media))
}

fn turn(text: &str, shown: Vec<Medium>, template: Template, path: &str) -> Result<Prompted, Error> {
    let ending = template.ending.unwrap_or_default();
    let (message, media) = text::user_message(text, shown, path)?;
    Ok((templated(vec![message], template, ending), media))
}

fn raw(text: &str, shown: Vec<Medium>, template: &Template, path: &str) -> Result<Prompted, Error> {
    template.check_idle()?;
    let (prompt, media) = text::raw(text, shown, path)?;
    Ok((Input::Raw(prompt), media))
}

fn templated(messages: Vec<Value>, template: Template, ending: Ending) -> Input {
    let Template { tools, variables, .. } = template;
    Input::Conversation(Conversation { messages, tools, template_variables: variables, ending })
}

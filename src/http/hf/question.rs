//! A question ready for the model, what the reply to it needs, and the asking.

use std::time::Instant;

use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::parameters::{Parameters, Reply};
use super::record::GeneratedText;
use crate::error::Error;
use crate::generation::{Answer, ChatRequest, Ending, Generation, Input, Service};
use crate::media::Medium;

/// A question ready for the model.
#[derive(Debug, Clone)]
pub(in crate::http) struct Question {
    pub(in crate::http) request: ChatRequest,
    pub(in crate::http) reply: ReplyPlan,
}

/// How the answers to a question become records of the reply.
#[derive(Debug, Clone)]
pub(in crate::http) struct ReplyPlan {
    pub(in crate::http) reply: Reply,
    /// What `return_full_text` puts before the answer, where it was asked for.
    pub(in crate::http) given: Option<Given>,
    /// `None`: greedy.
    pub(in crate::http) seed: Option<u64>,
    /// The record carries `answer` and `score` as well.
    pub(in crate::http) is_visual_question: bool,
}

/// What the client asked, for the reply to repeat.
#[derive(Debug, Clone)]
pub(in crate::http) enum Given {
    Text(String),
    Conversation { messages: Vec<Value>, ending: Ending },
}

impl Question {
    /// The question `input`, with pictures and videos in the order of its places, and `parameters`, whose template was applied to it.
    pub(in crate::http) fn new(
        (input, media): (Input, Vec<Medium>),
        parameters: Parameters,
        given: Option<Given>,
    ) -> Question {
        let Parameters { sampling, length, stop, skip_special_tokens, videos, reply, .. } = parameters;
        let media = media.into_iter().map(|medium| medium.or(videos)).collect();
        let seed = sampling.do_sample.then_some(sampling.seed);
        let request = ChatRequest {
            input,
            media,
            sampling,
            length,
            stop,
            skip_special_tokens,
            prompt_logprobs: reply.decoder_input_details.then_some(0),
            deadline: None,
        };
        Question { request, reply: ReplyPlan { reply, given, seed, is_visual_question: false } }
    }

    /// The question of a client that stops waiting at `deadline`.
    pub(in crate::http) fn until(mut self, deadline: Option<Instant>) -> Question {
        self.request.deadline = deadline;
        self
    }

    /// All answers to it, whole.
    pub(in crate::http) async fn ask(self, service: &Service) -> Result<(ReplyPlan, Vec<Answer>), Error> {
        let generations = service.start_several(self.request, self.reply.num_answers()).await?;
        let answers = try_join_all(generations.into_iter().map(Generation::collect)).await?;
        Ok((self.reply, answers))
    }
}

impl ReplyPlan {
    /// Answers to ask for.
    pub(in crate::http) fn num_answers(&self) -> usize {
        self.reply.num_sequences.max(self.reply.best_of)
    }
}

impl Given {
    /// The whole text, or the whole conversation, with the answer at its end: the pipeline's form.
    pub(in crate::http) fn with_answer(self, answer: &str) -> GeneratedText {
        match self {
            Given::Text(text) => GeneratedText::Text(text + answer),
            Given::Conversation { mut messages, ending } => {
                match messages.last_mut().filter(|_| ending == Ending::Continue) {
                    Some(last) => append(last, answer),
                    None => messages.push(json!({ "role": "assistant", "content": answer })),
                }
                GeneratedText::Conversation(messages)
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

//! Answers in the toolkit's form: `{"generated_text"}`, with TGI's details where asked for.

use serde_json::{Map, Value, json};

use super::question::ReplyPlan;
use super::wire::Form;
use crate::generation::{Answer, Finish, Token};

/// The reply to a whole request.
pub(super) fn body(form: Form, answered: &[(ReplyPlan, Vec<Answer>)]) -> Value {
    let mut all = answered.iter().flat_map(|(plan, answers)| records(plan, answers));
    match form {
        Form::Records => all.collect(),
        Form::Record => all.next().unwrap_or_default(),
        Form::Predictions => {
            let instances = answered.chunk_by(|(one, _), (next, _)| one.instance == next.instance);
            let prediction = |instance: &[(ReplyPlan, Vec<Answer>)]| {
                instance.iter().flat_map(|(plan, answers)| records(plan, answers)).collect()
            };
            json!({ "predictions": instances.map(prediction).collect::<Vec<Value>>() })
        }
    }
}

/// The records of one question's `answers`.
fn records(plan: &ReplyPlan, answers: &[Answer]) -> Vec<Value> {
    if plan.reply.best_of > 1 {
        return vec![best_record(plan, answers)];
    }
    answers.iter().enumerate().map(|(index, answer)| Value::Object(record(plan, index, answer))).collect()
}

/// The likeliest answer, with the others in its details: TGI's `best_of`.
fn best_record(plan: &ReplyPlan, answers: &[Answer]) -> Value {
    let likelihood = |index: &usize| mean_logprob(&answers[*index]);
    let best = (0..answers.len()).max_by(|a, b| likelihood(a).total_cmp(&likelihood(b))).unwrap_or_default();
    let mut record = record(plan, best, &answers[best]);
    if let Some(details) = record.get_mut("details") {
        let others = answers.iter().enumerate().filter(|(index, _)| *index != best);
        let other = |(index, answer): (usize, &Answer)| {
            let mut sequence = details_of(plan, index, answer);
            sequence.insert("generated_text".to_owned(), json!(answer.text));
            Value::Object(sequence)
        };
        details["best_of_sequences"] = others.map(other).collect();
    }
    Value::Object(record)
}

fn record(plan: &ReplyPlan, index: usize, answer: &Answer) -> Map<String, Value> {
    let text = match &plan.given {
        Some(given) => given.clone().with_answer(&answer.text),
        None => json!(answer.text),
    };
    let mut record = Map::new();
    if plan.is_visual_question {
        record.insert("answer".to_owned(), json!(answer.text.trim()));
        record.insert("score".to_owned(), json!(mean_logprob(answer).exp()));
    }
    record.insert("generated_text".to_owned(), text);
    if plan.reply.details {
        record.insert("details".to_owned(), Value::Object(details_of(plan, index, answer)));
    }
    record
}

fn details_of(plan: &ReplyPlan, index: usize, answer: &Answer) -> Map<String, Value> {
    let mut details = Map::new();
    details.insert("finish_reason".to_owned(), json!(finish_reason(answer.finish)));
    details.insert("generated_tokens".to_owned(), json!(answer.usage.generated_tokens));
    details.insert("seed".to_owned(), json!(plan.seed.map(|seed| seed.wrapping_add(index as u64))));
    details.insert("prefill".to_owned(), json!([]));
    details.insert("tokens".to_owned(), answer.tokens.iter().map(token).collect());
    if answer.tokens.iter().any(|token| !token.top.is_empty()) {
        details.insert("top_tokens".to_owned(), answer.tokens.iter().map(top_tokens).collect());
    }
    details
}

/// TGI's words; a time limit is a length to those who know three reasons only.
pub(super) fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Eos => "eos_token",
        Finish::StopString => "stop_sequence",
        Finish::Length | Finish::Time => "length",
    }
}

fn token(token: &Token) -> Value {
    json!({ "id": token.id, "text": token.text, "logprob": token.logprob, "special": token.special })
}

pub(super) fn top_tokens(token: &Token) -> Value {
    token.top.iter().map(|(id, text, logprob)| json!({ "id": id, "text": text, "logprob": logprob })).collect()
}

/// The mean of the tokens' log-probabilities: how sure the model was, whatever the length.
fn mean_logprob(answer: &Answer) -> f32 {
    let sum: f32 = answer.tokens.iter().map(|token| token.logprob).sum();
    sum / answer.tokens.len().max(1) as f32
}

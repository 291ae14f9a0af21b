//! Answers as records: `generated_text`, with TGI's `details` where asked for.

use serde_json::{Map, Value, json};

use super::question::ReplyPlan;
use crate::generation::{Answer, Finish, Token};

/// The records of one question's `answers`, each with the answer that it tells of.
pub(in crate::http) fn records<'a>(plan: &ReplyPlan, answers: &'a [Answer]) -> Vec<(&'a Answer, Map<String, Value>)> {
    if plan.reply.best_of > 1 {
        return best(plan, answers).into_iter().collect();
    }
    answers.iter().enumerate().map(|(index, answer)| (answer, record(plan, index, answer))).collect()
}

/// The likeliest answer, with the others in its details: TGI's `best_of`.
fn best<'a>(plan: &ReplyPlan, answers: &'a [Answer]) -> Option<(&'a Answer, Map<String, Value>)> {
    let likelihood = |index: &usize| mean_logprob(&answers[*index]);
    let best = (0..answers.len()).max_by(|a, b| likelihood(a).total_cmp(&likelihood(b)))?;
    let mut record = record(plan, best, &answers[best]);
    if let Some(details) = record.get_mut("details") {
        let others = answers.iter().enumerate().filter(|(index, _)| *index != best);
        let other = |(index, answer): (usize, &Answer)| {
            let mut sequence = details_of(plan, index, answer);
            sequence.insert("generated_text".to_owned(), generated_text(plan, answer));
            Value::Object(sequence)
        };
        details["best_of_sequences"] = others.map(other).collect();
    }
    Some((&answers[best], record))
}

fn record(plan: &ReplyPlan, index: usize, answer: &Answer) -> Map<String, Value> {
    let mut record = Map::new();
    record.insert("generated_text".to_owned(), generated_text(plan, answer));
    if plan.reply.details {
        record.insert("details".to_owned(), Value::Object(details_of(plan, index, answer)));
    }
    record
}

fn generated_text(plan: &ReplyPlan, answer: &Answer) -> Value {
    match &plan.given {
        Some(given) => given.clone().with_answer(&answer.text),
        None => json!(answer.text),
    }
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
pub(in crate::http) fn mean_logprob(answer: &Answer) -> f32 {
    let sum: f32 = answer.tokens.iter().map(|token| token.logprob).sum();
    sum / answer.tokens.len().max(1) as f32
}

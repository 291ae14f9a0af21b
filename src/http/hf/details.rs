//! Answers as records, with TGI's details where asked for.

use super::question::ReplyPlan;
use super::record::{
    BestOfSequence, Details, FinishReason, GeneratedText, PrefillToken, Record, Sequence, Token, TopToken,
};
use crate::generation::{self, Answer, Finish};

/// The records of one question's `answers`.
pub(in crate::http) fn records(plan: &ReplyPlan, answers: &[Answer]) -> Vec<Record> {
    if plan.reply.best_of > 1 {
        return best(plan, answers).into_iter().collect();
    }
    answers.iter().enumerate().map(|(index, answer)| record(plan, index, answer)).collect()
}

/// The likeliest answer, with the others in its details: TGI's `best_of`.
fn best(plan: &ReplyPlan, answers: &[Answer]) -> Option<Record> {
    let likelihood = |index: &usize| mean_logprob(&answers[*index]);
    let best = (0..answers.len()).max_by(|a, b| likelihood(a).total_cmp(&likelihood(b)))?;
    let mut record = record(plan, best, &answers[best]);
    if let Some(details) = &mut record.details {
        let others = answers.iter().enumerate().filter(|(index, _)| *index != best);
        let other = |(index, answer): (usize, &Answer)| BestOfSequence {
            generated_text: generated_text(plan, answer),
            sequence: sequence(plan, index, answer),
        };
        details.best_of_sequences = Some(others.map(other).collect());
    }
    Some(record)
}

fn record(plan: &ReplyPlan, index: usize, answer: &Answer) -> Record {
    let details =
        plan.reply.details.then(|| Details { sequence: sequence(plan, index, answer), best_of_sequences: None });
    Record {
        generated_text: generated_text(plan, answer),
        details,
        answer: plan.is_visual_question.then(|| answer.text.trim().to_owned()),
        score: plan.is_visual_question.then(|| mean_logprob(answer).exp()),
    }
}

fn generated_text(plan: &ReplyPlan, answer: &Answer) -> GeneratedText {
    match &plan.given {
        Some(given) => given.clone().with_answer(&answer.text),
        None => GeneratedText::Text(answer.text.clone()),
    }
}

fn sequence(plan: &ReplyPlan, index: usize, answer: &Answer) -> Sequence {
    let has_alternatives = answer.tokens.iter().any(|token| !token.top.is_empty());
    Sequence {
        finish_reason: finish_reason(answer.finish),
        generated_tokens: answer.usage.generated_tokens,
        seed: plan.seed.map(|seed| seed.wrapping_add(index as u64)),
        prefill: answer.prompt.iter().map(prefill).collect(),
        tokens: answer.tokens.iter().map(|one| token(one, &one.text)).collect(),
        top_tokens: has_alternatives.then(|| answer.tokens.iter().map(top_tokens).collect()),
    }
}

/// TGI's words.
pub(super) fn finish_reason(finish: Finish) -> FinishReason {
    match finish {
        Finish::Eos => FinishReason::EosToken,
        Finish::StopString => FinishReason::StopSequence,
        Finish::Length | Finish::Time => FinishReason::Length,
    }
}

fn prefill(token: &generation::PromptToken) -> PrefillToken {
    PrefillToken { id: token.id, text: token.text.clone(), logprob: token.logprob }
}

/// `token` with the text `text`.
pub(super) fn token(token: &generation::Token, text: &str) -> Token {
    Token { id: token.id, text: text.to_owned(), logprob: token.logprob, special: token.special }
}

pub(super) fn top_tokens(token: &generation::Token) -> Vec<TopToken> {
    token.top.iter().map(|(id, text, logprob)| TopToken { id: *id, text: text.clone(), logprob: *logprob }).collect()
}

/// The mean of the tokens' log-probabilities: how sure the model was, whatever the length.
fn mean_logprob(answer: &Answer) -> f32 {
    let sum: f32 = answer.tokens.iter().map(|token| token.logprob).sum();
    sum / answer.tokens.len().max(1) as f32
}

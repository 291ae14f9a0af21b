//! Answers in the toolkit's form: a list of records, with what visual question answering wants in them.

use serde_json::{Value, json};

use super::question::Place;
use super::wire::Form;
use crate::generation::Answer;
use crate::http::hf::details::{self, mean_logprob};
use crate::http::hf::question::ReplyPlan;

/// The answers to one question.
pub(super) struct Answered {
    pub(super) place: Place,
    pub(super) plan: ReplyPlan,
    pub(super) answers: Vec<Answer>,
}

/// The reply to a whole request.
pub(super) fn body(form: Form, answered: &[Answered]) -> Value {
    let mut all = answered.iter().flat_map(records);
    match form {
        Form::Records => all.collect(),
        Form::Record => all.next().unwrap_or_default(),
        Form::Predictions => {
            let instances = answered.chunk_by(|one, next| one.place.instance == next.place.instance);
            let prediction = |instance: &[Answered]| instance.iter().flat_map(records).collect();
            json!({ "predictions": instances.map(prediction).collect::<Vec<Value>>() })
        }
    }
}

/// The records of one question.
fn records(answered: &Answered) -> Vec<Value> {
    let records = details::records(&answered.plan, &answered.answers).into_iter();
    records
        .map(|(answer, mut record)| {
            if answered.place.is_visual_question {
                record.insert("answer".to_owned(), json!(answer.text.trim()));
                record.insert("score".to_owned(), json!(mean_logprob(answer).exp()));
            }
            Value::Object(record)
        })
        .collect()
}

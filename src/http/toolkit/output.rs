//! Answers in the toolkit's form: a list of records, or what else a client's form is.

use serde::Serialize;
use utoipa::ToSchema;

use super::wire::Form;
use crate::generation::Usage;
use crate::http::hf::record::Record;

/// The answers to one question.
pub(super) struct Answered {
    pub(super) instance: usize,
    pub(super) records: Vec<Record>,
    pub(super) usages: Vec<Usage>,
}

/// The reply to a whole request.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = PredictReply)]
pub(in crate::http) enum Reply {
    /// One for each input, or several where `num_return_sequences` says so.
    Records(Vec<Record>),
    /// To huggingface.js, about a picture that is the whole body.
    Record(Box<Record>),
    /// To `instances`: a list for each.
    Predictions { predictions: Vec<Vec<Record>> },
}

impl Reply {
    pub(super) fn new(form: Form, answered: Vec<Answered>) -> Reply {
        if form == Form::Predictions {
            let mut predictions: Vec<Vec<Record>> = Vec::new();
            for Answered { instance, records, .. } in answered {
                predictions.resize_with(predictions.len().max(instance + 1), Vec::new);
                predictions[instance].extend(records);
            }
            return Reply::Predictions { predictions };
        }
        let mut records: Vec<Record> = answered.into_iter().flat_map(|one| one.records).collect();
        match form {
            Form::Record if records.len() == 1 => Reply::Record(Box::new(records.remove(0))),
            _ => Reply::Records(records),
        }
    }
}

//! The body of a request to the toolkit's routes.

use serde_json::{Map, Value};

use super::form::{self, Form as FilledForm};
use super::inputs::{self, Asked, Record};
use crate::error::Error;
use crate::http::hf::parameters;
use crate::http::json::{kind, parse, refuse, shown};
use crate::http::negotiation::Body;
use crate::media::{Medium, Source};

/// A request as it was sent: what to answer, with the parameters of each record.
#[derive(Debug, PartialEq)]
pub(super) struct Call {
    /// In the order of the reply.
    pub(super) records: Vec<Record>,
    pub(super) form: Form,
    /// `None`: the client does not say.
    pub(super) stream: Option<bool>,
}

/// The form of the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A list of records.
    Records,
    /// The only record.
    Record,
    /// Vertex AI's: `{"predictions": [...]}`, one list for each instance.
    Predictions,
}

/// Reads a body; `query` are the parameters of the query string.
pub(super) fn read(body: Body, query: Map<String, Value>) -> Result<Call, Error> {
    match body {
        Body::Picture(file) => file_alone(Source::File(file).into(), query),
        Body::Video(file) => file_alone(Medium::Video(Source::File(file).into()), query),
        Body::Json(text) => read_object(object(parse(&text)?)?, Vec::new(), query),
        Body::Form { content_type, body } => {
            let FilledForm { fields, files } = form::read(&content_type, body)?;
            read_object(fields, files, query)
        }
    }
}

/// A body that is the file itself.
fn file_alone(medium: Medium, query: Map<String, Value>) -> Result<Call, Error> {
    let mut record = Record::new("", Asked::Nothing, vec![medium]);
    record.parameters = parameters::merge(Map::new(), query)?;
    Ok(Call { records: vec![record], form: Form::Records, stream: None })
}

fn object(body: Value) -> Result<Map<String, Value>, Error> {
    match body {
        Value::Object(object) => Ok(object),
        other => Err(refuse_shape(&format!("received {}", kind(&other)))),
    }
}

/// Reads the fields of a body; `files` are pictures and videos that came beside them.
fn read_object(mut body: Map<String, Value>, files: Vec<Medium>, query: Map<String, Value>) -> Result<Call, Error> {
    let stream = match body.shift_remove("stream") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(stream)) => Some(stream),
        Some(other) => {
            return Err(refuse("stream", &format!("must be true or false, not {}", shown(&other))));
        }
    };
    check_ignored(&mut body)?;
    let shared = parameters::merge(Map::new(), query)?;
    let (mut records, form) = match body.shift_remove("instances") {
        Some(_) if !files.is_empty() => return Err(refuse("instances", "cannot be asked about the files of a form")),
        Some(instances) => (read_instances(instances)?, Form::Predictions),
        None if files.is_empty() => (read_inputs(&mut body)?, Form::Records),
        None => (vec![read_about_files(&mut body, files)?], Form::Records),
    };
    // What is left of the body: `parameters`, some beside them, or fields that nobody knows, which will be refused as such.
    let shared = parameters::merge(shared, body)?;
    for record in &mut records {
        record.parameters = parameters::merge(shared.clone(), std::mem::take(&mut record.parameters))?;
    }
    Ok(Call { records, form, stream })
}

/// `model` names the model, which is the only one here; `options` steered the hosted API's cache and queue.
fn check_ignored(body: &mut Map<String, Value>) -> Result<(), Error> {
    match body.shift_remove("model") {
        None | Some(Value::Null | Value::String(_)) => {}
        Some(other) => return Err(refuse("model", &format!("must be a string, not {}", kind(&other)))),
    }
    let options = match body.shift_remove("options") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(options)) => options,
        Some(other) => {
            return Err(refuse("options", &format!("must be an object, not {}", kind(&other))));
        }
    };
    match options.keys().find(|key| !["use_cache", "wait_for_model"].contains(&key.as_str())) {
        Some(unknown) => {
            let path = format!("options.{unknown}");
            Err(refuse(&path, "is not known; there are use_cache and wait_for_model, which have no effect here"))
        }
        None => Ok(()),
    }
}

/// Takes out of `body` what is to be answered.
fn read_inputs(body: &mut Map<String, Value>) -> Result<Vec<Record>, Error> {
    let inputs = body.shift_remove("inputs").filter(|inputs| !inputs.is_null());
    match inputs {
        Some(inputs) if inputs::shows(body) => read_beside_picture(inputs, body),
        Some(inputs) => inputs::records(inputs, "inputs"),
        None if inputs::is_record(body) => {
            let record = inputs::record_of_object(std::mem::take(body), "")?;
            Ok(vec![record])
        }
        None => {
            let keys: Vec<&str> = body.keys().map(String::as_str).collect();
            let received = if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
            Err(refuse_shape(&format!("received {received}")))
        }
    }
}

/// What is asked about `files`: one question, or nothing where there is none.
fn read_about_files(body: &mut Map<String, Value>, files: Vec<Medium>) -> Result<Record, Error> {
    let is_visual_question = body.contains_key("question");
    if !body.contains_key("inputs") && !inputs::is_record(body) {
        return Ok(Record::new("", Asked::Nothing, files));
    }
    let mut records = read_inputs(body)?;
    match records.pop() {
        Some(mut only) if records.is_empty() => {
            only.shown.extend(files);
            only.is_visual_question = is_visual_question;
            Ok(only)
        }
        _ => Err(refuse("inputs", "must be one question where files are beside it")),
    }
}

/// A picture beside `inputs`: huggingface_hub's visual question answering, where `inputs` is that picture once more, or a
/// text about it.
fn read_beside_picture(inputs: Value, body: &mut Map<String, Value>) -> Result<Vec<Record>, Error> {
    let mut object = std::mem::take(body);
    if object.contains_key("question") {
        if object.get("image") != Some(&inputs) {
            return Err(refuse("inputs", "must be the same picture as `image` when a `question` is beside them"));
        }
    } else if inputs.is_string() {
        object.insert("text".to_owned(), inputs);
    } else {
        return Err(refuse("inputs", "must be a text when a picture or a video is beside it"));
    }
    Ok(vec![inputs::record_of_object(object, "")?])
}

/// Vertex AI's batch: each instance is what `inputs` would be, or an object with `inputs` and `parameters`.
fn read_instances(instances: Value) -> Result<Vec<Record>, Error> {
    let instances = match instances {
        Value::Array(instances) if !instances.is_empty() => instances,
        _ => return Err(refuse("instances", "must be a list with at least one instance")),
    };
    let mut records = Vec::new();
    for (index, instance) in instances.into_iter().enumerate() {
        let mut read = read_instance(instance, &format!("instances[{index}]"))?;
        read.iter_mut().for_each(|record| record.instance = index);
        records.append(&mut read);
    }
    Ok(records)
}

fn read_instance(instance: Value, path: &str) -> Result<Vec<Record>, Error> {
    let mut object = match instance {
        Value::Object(object) if object.contains_key("inputs") => object,
        other => return inputs::records(other, path),
    };
    let inputs = object.shift_remove("inputs").unwrap_or_default();
    let mut records = inputs::records(inputs, &format!("{path}.inputs"))?;
    for record in &mut records {
        record.parameters = parameters::merge(object.clone(), std::mem::take(&mut record.parameters))?;
    }
    Ok(records)
}

/// The toolkit's words for a body without inputs, with what may be sent instead.
fn refuse_shape(received: &str) -> Error {
    Error::invalid_param(
        "inputs",
        format!(
            "Body needs to provide an `inputs` key ({received}); `messages`, `prompt` or `image` are understood as well"
        ),
    )
}

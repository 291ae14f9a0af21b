//! The bodies of requests to TGI's routes.

use serde_json::{Map, Value};

use crate::error::Error;
use crate::http::json::{kind, parse, refuse, shown};
use crate::http::negotiation::{self, Body};

/// A text to continue.
#[derive(Debug, PartialEq)]
pub(super) struct Call {
    pub(super) inputs: String,
    pub(super) parameters: Map<String, Value>,
    /// `None`: the client does not say.
    pub(super) stream: Option<bool>,
}

/// A body as it came in.
pub(super) struct Sent {
    pub(super) content_type: Option<String>,
    pub(super) body: bytes::Bytes,
}

impl Sent {
    /// The object that a body is.
    pub(super) fn object(self) -> Result<Map<String, Value>, Error> {
        let text = match negotiation::classify(self.content_type.as_deref(), self.body)? {
            Body::Json(text) => text,
            Body::Picture(_) | Body::Video(_) | Body::Form { .. } => {
                let message = "this route reads `application/json`; a picture stands in `inputs` as ![](address)";
                return Err(Error::UnsupportedMediaType(message.to_owned()));
            }
        };
        match parse(&text)? {
            Value::Object(object) => Ok(object),
            other => Err(refuse("", &format!("must be an object with `inputs`, not {}", kind(&other)))),
        }
    }

    /// The text to continue.
    pub(super) fn call(self) -> Result<Call, Error> {
        let mut body = self.object()?;
        let inputs = inputs(&mut body)?;
        if inputs.is_empty() {
            return Err(refuse("inputs", "is an empty text"));
        }
        let call = Call { inputs, parameters: parameters(&mut body)?, stream: boolean(&mut body, "stream")? };
        refuse_rest(&mut body)?;
        Ok(call)
    }

    /// The text to tokenise. The rest of a request to generate may be there; it changes no token.
    pub(super) fn text(self) -> Result<String, Error> {
        let mut body = self.object()?;
        let inputs = inputs(&mut body)?;
        parameters(&mut body)?;
        boolean(&mut body, "stream")?;
        refuse_rest(&mut body)?;
        Ok(inputs)
    }
}

fn inputs(body: &mut Map<String, Value>) -> Result<String, Error> {
    match body.shift_remove("inputs") {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(refuse("inputs", &format!("must be a text, the prompt itself, not {}", kind(&other)))),
        None => Err(refuse("inputs", "is missing: send the prompt in it")),
    }
}

fn parameters(body: &mut Map<String, Value>) -> Result<Map<String, Value>, Error> {
    match body.shift_remove("parameters") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(parameters)) => Ok(parameters),
        Some(other) => Err(refuse("parameters", &format!("must be an object, not {}", kind(&other)))),
    }
}

fn boolean(body: &mut Map<String, Value>, name: &str) -> Result<Option<bool>, Error> {
    match body.shift_remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(other) => Err(refuse(name, &format!("must be true or false, not {}", shown(&other)))),
    }
}

/// Refuses what no route of TGI's reads: a field is used or refused, never ignored.
fn refuse_rest(body: &mut Map<String, Value>) -> Result<(), Error> {
    // Whether the tokenizer's own tokens are put around the text: this model's has none.
    boolean(body, "add_special_tokens")?;
    match body.keys().next() {
        Some(unknown) => Err(refuse(unknown, "is no field of this route; there are inputs, parameters and stream")),
        None => Ok(()),
    }
}

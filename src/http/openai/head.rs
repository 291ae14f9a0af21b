//! What every reply of one request begins with: its id, its time and the model's name.

use std::time::{SystemTime, UNIX_EPOCH};

use super::request::GenerationFields;
use crate::error::Error;
use crate::http::json::refuse;

/// Names that clients send where they name no model: huggingface_hub's and TGI's.
const NO_NAMES: [&str; 3] = ["", "dummy", "tgi"];

/// Characters of a request's own id.
const MAX_ID_LEN: usize = 256;

#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) model: String,
}

impl Head {
    /// `kind`: "chatcmpl" or "cmpl". The model is called as the client called it, or `served`, and the reply by the client's
    /// `request_id` where there is one.
    pub(super) fn new(kind: &str, fields: &mut GenerationFields, served: &str) -> Result<Head, Error> {
        let model = fields.model.take().filter(|name| !NO_NAMES.contains(&name.as_str()));
        let id = match fields.request_id.take() {
            // It is in every chunk.
            Some(id) if id.chars().count() > MAX_ID_LEN => {
                return Err(refuse("request_id", &format!("is longer than {MAX_ID_LEN} characters")));
            }
            Some(id) => id,
            None => uuid::Uuid::new_v4().simple().to_string(),
        };
        let model = model.unwrap_or_else(|| served.to_owned());
        Ok(Head { id: format!("{kind}-{id}"), created: now(), model })
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

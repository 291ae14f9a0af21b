//! What every reply of one request begins with: its id, its time and the model's name.

use std::time::{SystemTime, UNIX_EPOCH};

/// Names that clients send where they name no model: huggingface_hub's and TGI's.
const NO_NAMES: [&str; 3] = ["", "dummy", "tgi"];

#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) model: String,
}

impl Head {
    /// `kind`: "chatcmpl" or "cmpl". The model is called as the client called it, or `served`.
    pub(super) fn new(kind: &str, asked: Option<String>, served: &str) -> Head {
        let asked = asked.filter(|name| !NO_NAMES.contains(&name.as_str()));
        Head {
            id: format!("{kind}-{}", uuid::Uuid::new_v4().simple()),
            created: now(),
            model: asked.unwrap_or_else(|| served.to_owned()),
        }
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

//! The HTTP side; the only home of `actix-web`. Routes and what all protocols share are here, each protocol has a folder.

mod auth;
mod body;
mod cors;
mod deadline;
mod docs;
mod error;
mod exchange;
mod hf;
mod in_flight;
mod json;
mod messages;
mod metrics;
mod negotiation;
mod openai;
mod parameters;
mod probes;
mod receiving;
mod reply;
mod routes;
mod schema;
mod server;
mod sizing;
mod sse;
mod status_hold;
mod tgi;
mod toolkit;
mod video;
mod waiting;

use std::time::Duration;

pub use auth::ApiKeys;
pub use server::{Server, Signals, listen, serve, serve_on};
pub use waiting::WaitingRoom;

/// How the server listens and what it lets in.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    pub model: ServedModel,
    pub host: String,
    /// 0: a free one. 80 without permission: 8080 instead.
    pub port: u16,
    /// Bytes of one body. A phone's picture is up to 15 MB and base64 makes it a third larger; three of them should pass.
    pub max_body_bytes: usize,
    /// Answers that one request may ask for: its records, times `num_return_sequences`.
    pub max_client_batch_size: usize,
    /// Where there are any, everything but probes, metrics and documentation wants one as a bearer token.
    pub api_keys: ApiKeys,
    /// Origins of web pages that may ask from a browser, or `*`.
    pub cors_origins: Vec<String>,
    /// What is asked about a picture that came without a question.
    pub default_image_prompt: String,
    /// What is asked about a video that came without a question.
    pub default_video_prompt: String,
    /// A failure of a request to the toolkit's routes is a 400 without `error_type`, as in the toolkit itself, but for 401, 429 and 503.
    pub strict_toolkit_status: bool,
    /// A prefix that a proxy may leave on every path, such as `/models/sardine`.
    pub base_path: Option<String>,
    /// Google Vertex AI's routes, beside all others.
    pub vertex: Option<VertexRoutes>,
    /// A stream's status is sent once its request has left the queue, or after this.
    pub status_hold: Duration,
    /// How long the engine may be at one step before it counts as hung.
    pub stall_limit: Duration,
    /// How long requests in flight may still take once the process was told to end.
    pub shutdown_grace: Duration,
}

/// What is served, for clients that ask.
#[derive(Debug, Clone)]
pub struct ServedModel {
    pub name: String,
    /// The hub's word for what it does: "image-text-to-text", or "text-generation" where it has no eyes.
    pub pipeline_tag: &'static str,
    /// "bfloat16" or "float32".
    pub dtype: &'static str,
    /// "cpu", "cuda:0" or "cuda:0,cuda:1".
    pub device: String,
}

/// Where Vertex AI wants its two routes (`AIP_HEALTH_ROUTE`, `AIP_PREDICT_ROUTE`).
#[derive(Debug, Clone)]
pub struct VertexRoutes {
    pub health: String,
    pub predict: String,
}

impl ServedModel {
    /// "cpu" or "cuda".
    pub fn device_type(&self) -> &str {
        self.device.split([':', ',']).next().unwrap_or(&self.device)
    }
}

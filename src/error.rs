//! `Error`: why a request failed, in words every protocol can express.

use std::time::Duration;

/// Why a request failed. A variant is a reaction that a client can have; each protocol's folder turns it
/// into that protocol's status and JSON.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The request cannot be served as it stands. `param` is the JSON path of the offending field, where one is to blame.
    #[error("{message}")]
    Invalid { message: String, param: Option<String> },
    /// A remote picture could not be fetched, or its address was refused.
    #[error("{0}")]
    MediaFetch(String),
    /// The prompt does not fit in the context.
    #[error(
        "the prompt has {tokens} tokens, which with {new_tokens} new ones exceeds the {limit} of this server (--max-model-len, and what its memory allows)"
    )]
    TooLong { tokens: usize, new_tokens: usize, limit: usize },
    /// The body is larger than the server reads.
    #[error("the request body is larger than {limit} bytes (--max-body-bytes, SARDINE_MAX_BODY_BYTES)")]
    PayloadTooLarge { limit: usize },
    /// The body is of a type that nothing here can decode.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The client accepts no type that this route can produce.
    #[error("{0}")]
    NotAcceptable(String),
    #[error("there is no {0} on this server")]
    NotFound(String),
    #[error("{method} is not allowed here; allowed: {allowed}")]
    MethodNotAllowed { method: String, allowed: String },
    #[error("{0}")]
    Unauthorized(String),
    /// Too many want to be served; trying again after `retry_after` is sensible.
    #[error("{}; try again in {} s", .why.message(), retry_after.as_secs())]
    Overloaded { why: Overload, retry_after: Duration },
    /// The server cannot answer anybody now.
    #[error("{}", .0.message())]
    Unavailable(Unavailable),
    /// A time limit, the server's own or the client's, ended the request before it had an answer.
    #[error("{0}")]
    Timeout(String),
    /// Generation failed for a reason the client did not cause. `deterministic`: the same request will fail again.
    #[error("generation failed: {message}")]
    Generation { message: String, deterministic: bool },
}

/// Why a request is not taken, or does not get its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overload {
    QueueFull {
        places: usize,
    },
    /// The pictures of the requests that wait and run take all the memory for them.
    PicturesFull {
        bytes: u64,
    },
    /// By what was measured its turn comes after its client has stopped waiting.
    WaitTooLong {
        expected: Duration,
        left: Duration,
    },
    /// Its client's deadline passed while it waited.
    DeadlinePassed,
    /// Its client's API key has as many requests as it may.
    KeyFull {
        limit: usize,
    },
}

impl Overload {
    fn message(self) -> String {
        let why = match self {
            Overload::KeyFull { limit } => {
                return format!(
                    "this API key has {limit} requests in work, as many as it may (--max-concurrent-per-key)"
                );
            }
            Overload::QueueFull { places } => format!("all {places} places of its queue are taken"),
            Overload::PicturesFull { bytes } => format!(
                "the pictures of the requests before it take nearly all of the {} MiB for them (--picture-memory)",
                bytes >> 20
            ),
            Overload::WaitTooLong { expected, left } => format!(
                "the request would wait about {:.1} s for its turn, and its client waits {:.1} s",
                expected.as_secs_f64(),
                left.as_secs_f64()
            ),
            Overload::DeadlinePassed => "the request's turn did not come before its client's deadline".to_owned(),
        };
        format!("the server is overloaded: {why}")
    }
}

/// Why nobody is served at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The weights are not loaded yet.
    Loading,
    /// The process is draining before it exits.
    ShuttingDown,
    /// The engine thread is gone; the process should be restarted.
    Unhealthy,
}

impl Unavailable {
    fn message(self) -> &'static str {
        match self {
            Unavailable::Loading => "the model is still loading; try again shortly",
            Unavailable::ShuttingDown => "the server is shutting down; send the request to another replica",
            Unavailable::Unhealthy => "the engine has stopped; the server must be restarted",
        }
    }
}

impl Error {
    /// The [`Error::Timeout`] of an answer that the client's own deadline cut off.
    pub fn missed_deadline() -> Error {
        Error::Timeout("the answer was not complete at the deadline that the request set".to_owned())
    }

    /// An [`Error::Invalid`] about the whole request.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::Invalid { message: message.into(), param: None }
    }

    /// An [`Error::Invalid`] about the field at the JSON path `param`.
    pub fn invalid_param(param: impl Into<String>, message: impl Into<String>) -> Error {
        Error::Invalid { message: message.into(), param: Some(param.into()) }
    }
}

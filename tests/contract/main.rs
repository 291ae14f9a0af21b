//! The service contract, tested through the door: a real server on a real socket, over a scripted model.

mod bench;
mod docs;
mod errors;
mod forms;
mod hangup;
mod inputs;
mod logs;
mod measuring;
mod metrics;
mod negotiation;
mod openai;
mod parameters;
mod pictures;
mod probes;
mod prompt_tokens;
mod replies;
mod safety;
mod script;
mod starting;
mod streams;
mod tgi;
mod time_limits;
#[cfg(feature = "otel")]
mod traces;

//! Logs, metrics and traces, set up in one place. Logs: a line per event on standard error, text or JSON, with no payload and no token in it.

mod metrics;
mod traces;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

pub use metrics::{AnswerEnd, Gauges, Metrics, RequestEnd, RequestKind};
pub use traces::{RequestTrace, Stage, Traces, trace_request};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Starts logging what `filter` names ("info", or a tracing filter). Errors where the filter is none.
///
/// A panic becomes one log line: the engine answers for it (see `engine::worker`), and a backtrace through libtorch helps nobody.
pub fn start(filter: &str, format: LogFormat) -> Result<(), String> {
    // actix-server announces its threads at info, which says nothing to whoever deploys.
    let filter = EnvFilter::try_new(format!("actix_server=warn,{filter}"))
        .map_err(|error| format!("--log {filter:?}: {error}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.with_target(false).init(),
        LogFormat::Json => lines.json().init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        tracing::error!("{}", text.lines().take(2).collect::<Vec<_>>().join(" "));
    }));
    Ok(())
}

//! A request's stages as spans of an OpenTelemetry trace, for a collector; a build without the feature `otel` tells nobody.

#[cfg(feature = "otel")]
mod otlp;

use std::time::Instant;

/// A request that has ended, with what it spent its time on.
#[derive(Debug, Clone)]
pub struct RequestTrace<'a> {
    pub method: &'a str,
    /// The route's pattern.
    pub route: &'a str,
    pub request_id: &'a str,
    /// The client's `traceparent`: the trace that the request belongs to.
    pub traceparent: Option<&'a str>,
    pub status: u16,
    /// Empty where nothing failed.
    pub error_type: &'static str,
    pub prompt_tokens: usize,
    pub generated_tokens: usize,
    pub began: Instant,
    pub stages: &'a [Stage],
}

/// A piece of a request's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// "media", "queue", "prefill" (and within it "see"), or "decode".
    pub name: &'static str,
    pub began: Instant,
    pub ended: Instant,
}

/// The way to the collector; spans that wait are sent when it is finished.
#[must_use]
pub struct Traces {
    #[cfg(feature = "otel")]
    provider: Option<otlp::Provider>,
}

impl Traces {
    /// Sends the traces of requests to the collector at `endpoint` (OTLP over HTTP, such as `http://localhost:4318`) from now on.
    /// Nothing is sent where there is none. Errors are one line for the person who deploys.
    pub fn start(endpoint: Option<&str>) -> Result<Traces, String> {
        #[cfg(feature = "otel")]
        return Ok(Traces { provider: endpoint.map(otlp::start).transpose()? });
        #[cfg(not(feature = "otel"))]
        {
            if endpoint.is_some() {
                tracing::warn!("no traces are sent: this program was built without the feature `otel`");
            }
            Ok(Traces {})
        }
    }

    /// Sends what waits to be sent, and then no more. Blocks for as long as the collector takes, within its own limit.
    pub fn finish(self) {
        #[cfg(feature = "otel")]
        if let Some(provider) = self.provider {
            otlp::finish(&provider);
        }
    }
}

/// Tells the collector, if there is one.
pub fn trace_request(trace: &RequestTrace) {
    #[cfg(feature = "otel")]
    otlp::tell(trace);
    #[cfg(not(feature = "otel"))]
    let _ = trace;
}

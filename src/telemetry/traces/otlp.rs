//! Spans made of what was measured, after the fact, and sent in batches from a thread of the exporter's own.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::RequestTrace;

pub(super) type Provider = SdkTracerProvider;

/// Set once where traces are sent: as with logs, there is one place for them in a process.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

pub(super) fn start(endpoint: &str) -> Result<Provider, String> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        .map_err(|error| format!("--otlp-endpoint {endpoint}: {error}"))?;
    let resource = Resource::builder().with_service_name("sardine").build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let _ = TRACER.set(provider.tracer("sardine"));
    Ok(provider)
}

pub(super) fn finish(provider: &Provider) {
    if let Err(error) = provider.shutdown() {
        tracing::warn!("the last traces were not sent: {error}");
    }
}

/// The request's span, and below it one for each stage.
pub(super) fn tell(trace: &RequestTrace) {
    let Some(tracer) = TRACER.get() else { return };
    let parent = parent(trace.traceparent);
    let mut attributes = vec![
        KeyValue::new("http.request.method", trace.method.to_owned()),
        KeyValue::new("http.route", trace.route.to_owned()),
        KeyValue::new("http.response.status_code", i64::from(trace.status)),
        KeyValue::new("sardine.request_id", trace.request_id.to_owned()),
        KeyValue::new("gen_ai.usage.input_tokens", trace.prompt_tokens as i64),
        KeyValue::new("gen_ai.usage.output_tokens", trace.generated_tokens as i64),
    ];
    if !trace.error_type.is_empty() {
        attributes.push(KeyValue::new("error.type", trace.error_type));
    }
    let request = SpanBuilder::from_name(format!("{} {}", trace.method, trace.route))
        .with_kind(SpanKind::Server)
        .with_start_time(time_of(trace.began))
        .with_attributes(attributes);
    let mut request = tracer.build_with_context(request, &parent);
    if trace.status >= 500 {
        request.set_status(Status::error(trace.error_type));
    }
    let within = parent.with_remote_span_context(request.span_context().clone());
    for stage in trace.stages {
        let span = SpanBuilder::from_name(stage.name).with_start_time(time_of(stage.began));
        tracer.build_with_context(span, &within).end_with_timestamp(time_of(stage.ended));
    }
    request.end();
}

/// The client's span, where the request names one.
fn parent(traceparent: Option<&str>) -> Context {
    let carrier: HashMap<String, String> =
        traceparent.map(|header| ("traceparent".to_owned(), header.to_owned())).into_iter().collect();
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

/// The time of day at a moment that has passed.
fn time_of(moment: Instant) -> SystemTime {
    SystemTime::now() - moment.elapsed()
}

//! Traces by OTLP, and the W3C `traceparent` that a job carries from its client to its provider.
//!
//! Shape: a producer span where jobs are handed in, a consumer span per call, the HTTP client's span within; a batch
//! call has a trace of its own with a link to every job's. Never `baggage`: it could carry anything. Next: `engine/caller`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Level, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use super::Error;

/// A collector that does not answer is given up after this time; the spans of that export are lost.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Are traces made at all? Spans that serve nothing else are left out when not.
static ON: AtomicBool = AtomicBool::new(false);

pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

pub(super) fn provider(endpoint: &str) -> Result<SdkTracerProvider, Error> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|e| Error::Otlp { endpoint: endpoint.to_owned(), reason: e.to_string() })?;
    ON.store(true, Ordering::Relaxed);
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        // Who sent the job decides about its trace; without a word of theirs it is kept.
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .with_resource(Resource::builder().with_service_name("tidegate").build())
        .build())
}

pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl tracing_subscriber::Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    // Our own spans alone: those of the libraries below would flood a collector, and the exporter's own connection
    // would be traced while it sends traces.
    let ours = Targets::new().with_target("tidegate", Level::INFO);
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tidegate"));
    layer.with_location(false).with_threads(false).with_filter(ours)
}

/// The span of a request that hands jobs in, as the sender of messages.
pub fn producer_span(what: &'static str) -> tracing::Span {
    tracing::info_span!("enqueue", otel.name = what, otel.kind = "producer", messaging.system = "tidegate")
}

/// The span of one HTTP request to a provider, after OpenTelemetry's conventions. The path stays out: it may carry what
/// a key says.
pub fn client_span(method: &http::Method, url: &url::Url) -> tracing::Span {
    tracing::info_span!(
        "http",
        otel.name = method.as_str(),
        otel.kind = "client",
        http.request.method = method.as_str(),
        server.address = url.host_str().unwrap_or_default(),
        server.port = url.port_or_known_default(),
        http.response.status_code = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
        otel.status_description = tracing::field::Empty,
    )
}

pub fn answered(span: &tracing::Span, status: u16) {
    span.record("http.response.status_code", status);
    if status >= 400 {
        span.record("otel.status_code", "ERROR");
    }
}

pub fn failed(span: &tracing::Span, reason: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", reason);
}

/// Reads a `traceparent` of version 00; `None` when it is not one (a wrong header must never cost a job).
pub fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let sound = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && version != "ff";
    // Later versions may add parts behind; version 00 has none.
    if !sound || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

/// Makes `span` a child of the trace that `traceparent` names. Call before the span is entered.
pub fn adopt(span: &tracing::Span, traceparent: Option<&str>) {
    if let Some(context) = traceparent.and_then(parse) {
        // Refused only when the span is disabled or nothing traces: then there is nothing to adopt.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(context));
    }
}

/// Links `span` to the trace that `traceparent` names: one batch call serves the traces of many jobs.
pub fn link(span: &tracing::Span, traceparent: Option<&str>) {
    if let Some(context) = traceparent.and_then(parse) {
        span.add_link(context);
    }
}

/// The `traceparent` to send on from within `span`; `None` when nothing traces.
pub fn traceparent(span: &tracing::Span) -> Option<String> {
    let context = span.context();
    let context = context.span().span_context().clone();
    context
        .is_valid()
        .then(|| format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_job_joins_the_trace_of_its_client() {
        use tracing_subscriber::layer::SubscriberExt;
        let provider = SdkTracerProvider::builder().build();
        let subscriber = tracing_subscriber::registry().with(layer(&provider));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("send");
            adopt(&span, Some(EXAMPLE));
            let sent = traceparent(&span).expect("a traced span has a traceparent");
            assert_eq!(&sent[3..35], &EXAMPLE[3..35]);
            assert_ne!(&sent[36..52], &EXAMPLE[36..52]);
            assert!(sent.ends_with("-01"));
        });
    }

    #[test]
    fn a_wrong_traceparent_is_passed_over() {
        let wrong = [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ];
        for text in wrong {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").is_some());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in ".*") {
            let _ = parse(&text);
        }
    }
}

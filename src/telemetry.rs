//! What the daemon tells about itself: log lines, traces, instruments.
//!
//! A leaf: everything with I/O may use it, it knows only names and times. Bodies and secrets never come here; those
//! who log pass ids. Next: `telemetry/metrics.rs`, the list of every instrument.

pub mod family;
pub mod log;
pub mod metrics;
pub mod scrape;
pub mod trace;

pub use metrics::Metrics;

use std::time::Duration;

/// How to tell. Built from the configuration's `[telemetry]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub format: log::Format,
    /// Which log lines are written: a level, or levels by part, as `info,tidegate::engine=debug`.
    pub filter: String,
    /// Where traces go by OTLP over gRPC, as `http://127.0.0.1:4317`. `None`: no traces are made.
    pub otlp_endpoint: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options { format: log::Format::Auto, filter: "info".to_owned(), otlp_endpoint: None }
    }
}

/// What keeps telemetry from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("expected a log filter such as \"info\" or \"info,tidegate=debug\", got {filter:?}: {reason}")]
    Filter { filter: String, reason: String },
    #[error("traces cannot be sent to {endpoint:?}: {reason}")]
    Otlp { endpoint: String, reason: String },
    #[error("telemetry was already started in this process")]
    Twice,
}

/// Keeps the trace exporter. Call [`Telemetry::flush`] before the process ends, else the last spans are lost.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// Starts logging, and traces when an endpoint is given. Once per process; with traces, inside a tokio runtime.
pub fn start(options: &Options) -> Result<Telemetry, Error> {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;

    let filter: tracing_subscriber::filter::Targets =
        options.filter.parse().map_err(|e: tracing_subscriber::filter::ParseError| Error::Filter {
            filter: options.filter.clone(),
            reason: e.to_string(),
        })?;
    let traces = options.otlp_endpoint.as_deref().map(trace::provider).transpose()?;
    let layer = traces.as_ref().map(trace::layer);
    // Traces above the filter: how much is logged must not decide what is traced.
    let log = tracing_subscriber::Layer::with_filter(log::layer(options.format), filter);
    tracing_subscriber::registry().with(layer).with(log).try_init().map_err(|_| Error::Twice)?;
    Ok(Telemetry { traces })
}

impl Telemetry {
    /// Sends what is left, for at most `timeout`. Blocks the thread: call from `spawn_blocking` or after the runtime's
    /// work is done. A collector that is away costs the last spans and nothing else.
    pub fn flush(self, timeout: Duration) {
        if let Some(traces) = self.traces
            && let Err(e) = traces.shutdown_with_timeout(timeout)
        {
            tracing::warn!(error = %e, "the last traces could not be sent");
        }
    }
}

//! Log lines on stderr: for people on a terminal, JSON everywhere else and under systemd.
//!
//! Fields carry ids (`job`, `provider`, `call`), never bodies, never secrets: secrets are of types that cannot be
//! printed. Next: `trace.rs`.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere and under systemd.
    #[default]
    Auto,
    Text,
    Json,
}

impl Format {
    /// The form in use: never `Auto`. systemd sets `JOURNAL_STREAM` for services whose stderr is the journal.
    pub fn settle(self, terminal: bool, journal: bool) -> Format {
        match self {
            Format::Auto if terminal && !journal => Format::Text,
            Format::Auto => Format::Json,
            fixed => fixed,
        }
    }
}

pub(super) fn layer<S>(format: Format) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match format.settle(std::io::stderr().is_terminal(), journal) {
        Format::Text => {
            let color = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            stderr.with_ansi(color).with_target(false).boxed()
        }
        _ => stderr.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_without_a_journal_reads_text() {
        assert_eq!(Format::Auto.settle(true, false), Format::Text);
        assert_eq!(Format::Auto.settle(true, true), Format::Json);
        assert_eq!(Format::Auto.settle(false, false), Format::Json);
        assert_eq!(Format::Text.settle(false, true), Format::Text);
    }
}

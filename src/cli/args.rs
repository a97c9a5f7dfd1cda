//! Values on the command line: times, durations, labels, targets, payloads. Each refusal shows an example.
//!
//! Must never know: commands. Next: `jobs.rs`.

use std::io::Read;
use std::time::Duration;

use super::exit::Error;
use crate::grpc::pb;

/// Largest payload read from a file or from stdin; the daemon's own bound is smaller and told by it.
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

/// `crm/sync_user`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub provider: String,
    pub operation: String,
}

pub fn target(text: &str) -> Result<Target, String> {
    match text.split_once('/') {
        Some((provider, operation)) if !provider.is_empty() && !operation.is_empty() && !operation.contains('/') => {
            Ok(Target { provider: provider.to_owned(), operation: operation.to_owned() })
        }
        _ => Err("expected PROVIDER/OPERATION, as crm/sync_user".to_owned()),
    }
}

/// `1h30m`, `90s`, `2 days`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time such as 90s, 1h30m or 2d, not negative".to_owned();
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let signed = span.to_duration(days).map_err(|_| wrong())?;
    Duration::try_from(signed).map_err(|_| wrong())
}

/// `2026-11-22T14:30:00Z`, or without a zone in local time.
pub fn time(text: &str) -> Result<prost_types::Timestamp, String> {
    let local = || {
        let there: jiff::civil::DateTime = text.parse().ok()?;
        Some(there.to_zoned(jiff::tz::TimeZone::system()).ok()?.timestamp())
    };
    let at = text.parse::<jiff::Timestamp>().ok().or_else(local);
    let at = at.ok_or("expected a time such as 2026-11-22T14:30:00Z or 2026-11-22T14:30 (local)")?;
    Ok(prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() })
}

pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, as team=growth".to_owned()),
    }
}

/// How urgent a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Priority {
    Urgent,
    Normal,
    Bulk,
}

impl Priority {
    pub fn proto(self) -> i32 {
        match self {
            Priority::Urgent => pb::PriorityClass::Urgent as i32,
            Priority::Normal => pb::PriorityClass::Normal as i32,
            Priority::Bulk => pb::PriorityClass::Bulk as i32,
        }
    }
}

/// A state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum State {
    Waiting,
    Calling,
    Delivered,
    Dead,
    Cancelled,
    Unknown,
}

impl State {
    pub fn proto(self) -> pb::JobState {
        match self {
            State::Waiting => pb::JobState::Waiting,
            State::Calling => pb::JobState::Calling,
            State::Delivered => pb::JobState::Delivered,
            State::Dead => pb::JobState::Dead,
            State::Cancelled => pb::JobState::Cancelled,
            State::Unknown => pb::JobState::Unknown,
        }
    }

    /// As it stands in a filter.
    pub fn word(self) -> &'static str {
        self.proto().as_str_name().trim_start_matches("JOB_STATE_")
    }
}

/// Which jobs, for lists and bulk actions.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Which {
    /// Only jobs that pass this filter, as `state = DEAD AND provider = "github" AND labels.team = "x"`. Fields: state,
    /// provider, operation, account, tenant, key, run_id, priority_class, attempts, last_status, create_time, due_time,
    /// labels.NAME.
    #[arg(short, long, value_name = "FILTER")]
    pub filter: Option<String>,
    /// Only jobs in this state.
    #[arg(long, value_enum, value_name = "STATE")]
    pub state: Option<State>,
    /// Only jobs of this provider.
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
}

impl Which {
    /// All conditions as one filter; empty when there is none.
    pub fn filter(&self) -> String {
        let state = self.state.map(|s| format!("state = {}", s.word()));
        let provider = self.provider.as_deref().map(|p| format!("provider = {}", quote(p)));
        // Parentheses keep an OR of the user's from swallowing the other conditions.
        let alone = state.is_none() && provider.is_none();
        let asked = self.filter.as_ref().map(|f| if alone { f.clone() } else { format!("({f})") });
        [state, provider, asked].into_iter().flatten().collect::<Vec<_>>().join(" AND ")
    }
}

/// A text as it stands in a filter.
pub fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The payload that `-d` names: a JSON text, `@file`, or `-` for stdin. Checked to be JSON before it travels.
pub fn payload(asked: &str) -> Result<String, Error> {
    let text = match asked {
        "-" => read("stdin", std::io::stdin())?,
        path if path.starts_with('@') => {
            let path = &path[1..];
            let file = std::fs::File::open(path).map_err(|e| Error::usage(format!("{path} cannot be read: {e}")))?;
            read(path, file)?
        }
        text => text.to_owned(),
    };
    serde_json::from_str::<&serde_json::value::RawValue>(&text)
        .map_err(|e| Error::usage(format!("expected a JSON document as payload, got {:?}: {e}", head(&text))))?;
    Ok(text)
}

/// All of a file or of stdin (`-`), as text of a bounded size.
pub fn text_of(path: &str) -> Result<String, Error> {
    match path {
        "-" => read("stdin", std::io::stdin()),
        path => {
            let file = std::fs::File::open(path).map_err(|e| Error::usage(format!("{path} cannot be read: {e}")))?;
            read(path, file)
        }
    }
}

fn read(name: &str, from: impl Read) -> Result<String, Error> {
    let mut text = String::new();
    let read = from.take(PAYLOAD_BYTES_MAX + 1).read_to_string(&mut text);
    let length = read.map_err(|e| Error::usage(format!("{name} cannot be read as UTF-8 text: {e}")))?;
    match length as u64 > PAYLOAD_BYTES_MAX {
        true => Err(Error::usage(format!("expected at most {PAYLOAD_BYTES_MAX} bytes in {name}, got more"))),
        false => Ok(text),
    }
}

/// The beginning of a text, for messages.
pub fn head(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() { format!("{cut}...") } else { cut }
}

/// A duration for the wire.
pub fn proto_duration(d: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(d.subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("-5s").is_err() && duration("soon").is_err());
        assert_eq!(time("1970-01-01T00:01:00Z").map(|t| t.seconds), Ok(60));
        assert!(time("1970-01-01T00:01").is_ok() && time("tomorrow").is_err());
    }

    #[test]
    fn a_target_is_a_provider_and_an_operation() {
        assert_eq!(target("crm/sync"), Ok(Target { provider: "crm".into(), operation: "sync".into() }));
        for wrong in ["crm", "/sync", "crm/", "a/b/c"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn conditions_add_up_to_one_filter() {
        let which = Which {
            filter: Some("attempts > 2 OR key = \"a\"".into()),
            state: Some(State::Dead),
            provider: Some("crm".into()),
        };
        assert_eq!(which.filter(), "state = DEAD AND provider = \"crm\" AND (attempts > 2 OR key = \"a\")");
        assert_eq!(Which::default().filter(), "");
    }

    #[test]
    fn a_payload_that_is_not_json_is_refused_before_it_travels() {
        assert_eq!(payload(r#"{"a": 1}"#).unwrap(), r#"{"a": 1}"#);
        let e = payload("{a: 1}").unwrap_err();
        assert!(e.message.contains("expected a JSON document"), "{e}");
    }
}

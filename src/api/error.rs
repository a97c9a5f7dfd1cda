//! The ONE error of the edges: a code, a reason that programs can match, and what helps to put it right.
//!
//! One table maps [`Code`] to gRPC and HTTP. `grpc/status` and the REST face only write down what stands here. Must
//! never know: a wire format. Next: `grpc/status`.

use std::fmt;
use std::time::Duration;

use crate::engine::EngineError;
use crate::model::id::Id;
use crate::store::{self, Refusal};

/// Domain of all reasons, for google.rpc.ErrorInfo.
pub const DOMAIN: &str = "tidegate";
/// Most violations that one error carries; the message tells how many more there are.
pub const VIOLATIONS_MAX: usize = 100;
/// What a client is told to wait when the daemon shuts down: about the time of a restart.
pub const RESTART_WAIT: Duration = Duration::from_secs(2);
/// What a client is told to wait when the writer or the store is busy: a few commits.
pub const BUSY_WAIT: Duration = Duration::from_millis(100);

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong. Says who can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is wrong whatever the state of the daemon.
    InvalidArgument,
    /// What it names does not exist.
    NotFound,
    /// What it would make exists with other content.
    AlreadyExists,
    /// Not in this state; something else must be done first.
    FailedPrecondition,
    /// Somebody else was faster; read again and repeat.
    Aborted,
    /// Beyond what the log or a list still holds.
    OutOfRange,
    /// Above a cap.
    ResourceExhausted,
    /// The time was up. It may have happened.
    DeadlineExceeded,
    /// Try again later.
    Unavailable,
    /// Not built.
    Unimplemented,
    /// It does not come from whom it says.
    Unauthenticated,
    /// Our fault.
    Internal,
}

/// The one table: code, number in google.rpc.Code, HTTP status.
pub const CODES: [(Code, i32, u16); 12] = [
    (Code::InvalidArgument, 3, 400),
    (Code::DeadlineExceeded, 4, 504),
    (Code::NotFound, 5, 404),
    (Code::AlreadyExists, 6, 409),
    (Code::ResourceExhausted, 8, 429),
    (Code::FailedPrecondition, 9, 409),
    (Code::Aborted, 10, 409),
    (Code::OutOfRange, 11, 400),
    (Code::Unimplemented, 12, 501),
    (Code::Internal, 13, 500),
    (Code::Unavailable, 14, 503),
    (Code::Unauthenticated, 16, 401),
];

impl Code {
    fn row(self) -> (Code, i32, u16) {
        *CODES.iter().find(|row| row.0 == self).expect("the table has a row per code: a test walks through it")
    }

    /// Number in google.rpc.Code.
    pub fn grpc(self) -> i32 {
        self.row().1
    }

    /// HTTP status.
    pub fn http(self) -> u16 {
        self.row().2
    }
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path from the request's root, as `jobs[3].payload`.
    pub field: String,
    /// UPPER_SNAKE_CASE.
    pub reason: &'static str,
    /// One sentence: what was expected and what came.
    pub description: String,
}

/// What an error is about, where it is about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `job`, `run`, `provider`.
    pub kind: &'static str,
    pub name: String,
}

/// A refusal or failure, ready for any wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: Code,
    /// Which rule was broken: UPPER_SNAKE_CASE.
    pub reason: &'static str,
    /// One sentence for people.
    pub message: String,
    /// The rest, seldom looked at.
    pub more: Box<More>,
}

/// What helps to put it right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct More {
    /// At most [`VIOLATIONS_MAX`].
    pub violations: Vec<Violation>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    pub resource: Option<Resource>,
    /// Facts that a program may want.
    pub metadata: Vec<(&'static str, String)>,
}

impl Error {
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Error { code, reason, message: message.into(), more: Box::default() }
    }

    /// One field is wrong.
    pub fn field(field: impl Into<String>, reason: &'static str, description: impl fmt::Display) -> Self {
        Error::fields(vec![Violation { field: field.into(), reason, description: description.to_string() }])
    }

    /// Several fields are wrong. The first gives reason and message; never call it with none.
    pub fn fields(mut violations: Vec<Violation>) -> Self {
        let total = violations.len();
        violations.truncate(VIOLATIONS_MAX);
        let (reason, message) = match (&violations[..], total) {
            ([], _) => ("INVALID_REQUEST", "the request is wrong".to_owned()),
            ([first, ..], 1) => (first.reason, format!("{}: {}", first.field, first.description)),
            ([first, ..], n) => (first.reason, format!("{}: {} (and {} more)", first.field, first.description, n - 1)),
        };
        let mut error = Error::new(Code::InvalidArgument, reason, message);
        error.more.violations = violations;
        error
    }

    /// Above a cap, which is named.
    pub fn above_cap(field: impl Into<String>, cap: &'static str, max: usize, got: usize) -> Self {
        let field = field.into();
        let said = format!("expected at most {max} bytes ({cap}), got {got}");
        let mut error = Error::new(Code::ResourceExhausted, "ABOVE_CAP", format!("{field}: {said}"));
        error.more.violations.push(Violation { field, reason: "ABOVE_CAP", description: said });
        error.with("cap", cap).with("max", max.to_string())
    }

    pub fn not_found(kind: &'static str, name: impl fmt::Display) -> Self {
        let reason = match kind {
            "job" => "NO_SUCH_JOB",
            "run" => "NO_SUCH_RUN",
            "provider" => "NO_SUCH_PROVIDER",
            "schedule" => "NO_SUCH_SCHEDULE",
            "webhook" => "NO_SUCH_WEBHOOK",
            _ => "NOT_FOUND",
        };
        Error::new(Code::NotFound, reason, format!("no {kind} {name}")).about(kind, name)
    }

    /// Shutdown has begun.
    pub fn draining() -> Self {
        Error::new(Code::Unavailable, "DRAINING", "the daemon is shutting down; try again soon").retry_in(RESTART_WAIT)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(Code::Internal, "INTERNAL", message)
    }

    #[must_use]
    pub fn about(mut self, kind: &'static str, name: impl fmt::Display) -> Self {
        self.more.resource = Some(Resource { kind, name: name.to_string() });
        self
    }

    #[must_use]
    pub fn retry_in(mut self, wait: Duration) -> Self {
        self.more.retry_after = Some(wait);
        self
    }

    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.more.metadata.push((key, value.into()));
        self
    }

    /// Puts `prefix` before the path of every field, as `jobs[3]`.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        for violation in &mut self.more.violations {
            violation.field = format!("{prefix}.{}", violation.field);
        }
        if let [only] = &self.more.violations[..] {
            self.message = format!("{}: {}", only.field, only.description);
        }
        self
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let precondition = |reason| Error::new(Code::FailedPrecondition, reason, message.clone());
        match refusal {
            Refusal::NoJob(id) => Error::not_found("job", id),
            Refusal::NoRun(id) => Error::not_found("run", id),
            Refusal::NoProvider(name) => Error::not_found("provider", name),
            Refusal::WrongState { id, state } => {
                precondition("WRONG_STATE").about("job", id).with("state", state.name())
            }
            Refusal::WrongRunState { id, state } => {
                precondition("WRONG_RUN_STATE").about("run", id).with("state", state)
            }
            Refusal::KeyReused { first } => Error::new(Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED", message)
                .about("job", first)
                .with("job", first.to_string()),
            Refusal::StaleRevision { name, current, .. } => Error::new(Code::Aborted, "STALE_ETAG", message)
                .about("provider", name)
                .with("revision", current.to_string()),
            Refusal::NoRecord { collection, id } => Error::not_found("record", format_args!("{collection}/{id}")),
            Refusal::StaleRecord { collection, id, current, .. } => Error::new(Code::Aborted, "STALE_VERSION", message)
                .about("record", format_args!("{collection}/{id}"))
                .with("version", current.to_string()),
            Refusal::AlertMoved(name) => Error::new(Code::Aborted, "ALERT_MOVED", message).about("alert", name),
            Refusal::Repeated(name) => {
                Error::new(Code::AlreadyExists, "WEBHOOK_REPEATED", message).about("webhook", name)
            }
            Refusal::NoSchedule(name) => Error::not_found("schedule", name),
            Refusal::StaleSchedule { name, current, .. } => Error::new(Code::Aborted, "STALE_ETAG", message)
                .about("schedule", name)
                .with("revision", current.to_string()),
            Refusal::ScheduleMoved(name) => {
                Error::new(Code::Aborted, "SCHEDULE_MOVED", message).about("schedule", name).retry_in(BUSY_WAIT)
            }
            Refusal::ProviderBusy { name, jobs } => {
                precondition("PROVIDER_BUSY").about("provider", name).with("jobs", jobs.to_string())
            }
        }
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Refused(refusal) => refusal.into(),
            EngineError::Draining => Error::draining(),
            EngineError::Unavailable(reason) => {
                Error::new(Code::Unavailable, "STORE_UNAVAILABLE", reason).retry_in(Duration::from_secs(1))
            }
            EngineError::Unusable(why) => Error::new(Code::FailedPrecondition, "PROVIDER_UNUSABLE", why.to_string())
                .about("provider", &why.provider),
            busy @ EngineError::Busy { .. } => {
                Error::new(Code::Unavailable, "WRITER_BUSY", busy.to_string()).retry_in(BUSY_WAIT)
            }
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Error::new(Code::Unavailable, "STORE_UNAVAILABLE", error.to_string()).retry_in(Duration::from_secs(1))
    }
}

/// Reads the id of a job or run, or says which field is wrong.
pub fn parse_id(field: &str, text: &str) -> Result<Id> {
    text.parse::<Id>().map_err(|bad| Error::field(field, "BAD_ID", bad))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_row_and_one_grpc_number() {
        for (code, number, http) in CODES {
            assert_eq!((code.grpc(), code.http()), (number, http));
            assert_eq!(CODES.iter().filter(|row| row.1 == number).count(), 1, "{code:?}");
        }
    }

    #[test]
    fn a_field_of_an_item_is_named_from_the_root() {
        let error = Error::field("payload", "PAYLOAD_NOT_JSON", "expected JSON").under("jobs[3]");
        assert_eq!(error.to_string(), "jobs[3].payload: expected JSON");
        assert_eq!(error.more.violations[0].field, "jobs[3].payload");
    }

    #[test]
    fn a_reused_key_names_the_first_job() {
        let first = Id::new(crate::clock::Timestamp::from_secs(9), 42);
        let error = Error::from(Refusal::KeyReused { first });
        assert_eq!(error.code, Code::AlreadyExists);
        assert_eq!(error.more.metadata, [("job", first.to_string())]);
    }
}

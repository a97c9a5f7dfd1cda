//! The way of a job into the house: what a client hands in becomes a checked [`NewJob`], or a list of what is wrong.
//!
//! Built for the fast path: texts are moved, a payload is checked without building a tree, names are shared with the
//! provider's declaration. Must never know: proto types. Next: [`crate::engine::Handle::enqueue`], which makes the jobs
//! durable.

use std::sync::Arc;
use std::time::Duration;

use serde::de::IgnoredAny;

use super::error::{Code, Error, Result, Violation, parse_id};
use super::{Api, repeat};
use crate::clock::Timestamp;
use crate::model::flow::Class;
use crate::model::id::{JobId, RunId};
use crate::model::job::{ENQUEUE_JOBS_MAX, LABEL_BYTES_MAX, LABELS_MAX, Labels, NewJob};
use crate::model::name::{Account, BadName, IdempotencyKey, Key, OperationName, ProviderName, Tenant};
use crate::model::notify::is_reserved;
use crate::model::provider::Provider;
pub use crate::store::Accepted;
use crate::store::{Enqueued, Refusal};

/// Longest time ahead that a job may be put.
pub const DELAY_MAX: Duration = Duration::from_secs(366 * 86_400);
/// Deepest nesting of a payload: what every JSON reader behind us can take.
pub const PAYLOAD_DEPTH_MAX: usize = 100;
/// Idempotency keys that begin like this are made by the daemon, as of request ids.
pub(super) const RESERVED: &str = "tidegate.";

/// A job as a client hands it in, unchecked.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    pub provider: String,
    pub operation: String,
    pub account: String,
    pub tenant: String,
    /// Empty: no key.
    pub key: String,
    /// JSON; empty means `null`.
    pub payload: String,
    pub class: Class,
    pub start: Start,
    pub labels: Labels,
    /// Empty: none.
    pub idempotency_key: String,
    /// Empty: none.
    pub traceparent: String,
    /// Id of a run; empty: none.
    pub run: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    #[default]
    Now,
    At(Timestamp),
    /// Microseconds from now. Negative ones are refused.
    In(i64),
}

/// What became of a job that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted {
        id: JobId,
        how: Accepted,
    },
    /// Would be accepted; nothing was done.
    Valid,
}

/// How a request wants its jobs to be treated.
#[derive(Clone, Copy, Debug, Default)]
pub struct How<'a> {
    /// Empty: none.
    pub request_id: &'a str,
    pub validate_only: bool,
    /// The jobs belong to this run and, where they name none, to its tenant.
    pub run: Option<(RunId, &'a Tenant)>,
}

impl Api {
    /// One job. Durable when it returns.
    pub async fn enqueue_job(&self, spec: Spec, how: How<'_>) -> Result<Outcome> {
        let mut results = self.enqueue_all(vec![Ok(spec)], how).await?;
        results.pop().unwrap_or_else(|| Err(Error::internal("the writer gave no result")))
    }

    /// Up to [`ENQUEUE_JOBS_MAX`] jobs: one result each, in order. More are refused as a whole. An item that could not
    /// even be read comes in as an error and goes out as it came.
    pub async fn enqueue_jobs(&self, specs: Vec<Result<Spec>>, how: How<'_>) -> Result<Vec<Result<Outcome>>> {
        if specs.is_empty() || specs.len() > ENQUEUE_JOBS_MAX {
            let said = format!("expected 1 to {ENQUEUE_JOBS_MAX} jobs, got {}", specs.len());
            return Err(Error::field("jobs", "BAD_JOB_COUNT", said));
        }
        self.enqueue_all(specs, how).await
    }

    async fn enqueue_all(&self, specs: Vec<Result<Spec>>, how: How<'_>) -> Result<Vec<Result<Outcome>>> {
        repeat::check(how.request_id)?;
        if self.is_draining() {
            return Err(Error::draining());
        }
        let mut checker = Checker::new(self, how, specs.len());
        let mut results: Vec<Result<Outcome>> = Vec::with_capacity(specs.len());
        let mut jobs = Vec::with_capacity(specs.len());
        // Where in `results` each job's answer belongs.
        let mut places = Vec::with_capacity(specs.len());
        for (at, spec) in specs.into_iter().enumerate() {
            match spec.and_then(|spec| checker.check(at, spec)) {
                Ok(job) => {
                    jobs.push(job);
                    places.push(at);
                    results.push(Ok(Outcome::Valid));
                }
                Err(error) => results.push(Err(error)),
            }
        }
        if how.validate_only || jobs.is_empty() {
            return Ok(results);
        }
        let answers = self.engine().enqueue(jobs).await?;
        for (at, answer) in places.into_iter().zip(answers) {
            results[at] = accepted(answer);
        }
        Ok(results)
    }
}

fn accepted(answer: std::result::Result<Enqueued, Refusal>) -> Result<Outcome> {
    let Enqueued { id, how } = answer?;
    Ok(Outcome::Accepted { id, how })
}

/// Checks the jobs of one request. Remembers the last names, because jobs of a request are mostly alike.
struct Checker<'a> {
    api: &'a Api,
    how: How<'a>,
    now: Timestamp,
    one: bool,
    provider: Option<Arc<Provider>>,
    account: Account,
    tenant: Tenant,
}

impl<'a> Checker<'a> {
    fn new(api: &'a Api, how: How<'a>, jobs: usize) -> Self {
        Checker {
            api,
            how,
            now: api.clock().now(),
            one: jobs == 1,
            provider: None,
            account: Account::default(),
            tenant: Tenant::default(),
        }
    }

    fn check(&mut self, at: usize, spec: Spec) -> Result<NewJob> {
        let provider = self.provider(&spec.provider)?;
        let operation = provider.operations.get(spec.operation.as_str());
        let operation = operation.ok_or_else(|| unknown_operation(&provider, &spec.operation))?;
        check_payload("payload", &spec.payload, self.api.0.options.payload_bytes_max)?;
        let mut wrong = Vec::new();
        let mut bad = |field: &str, reason, said: String| {
            wrong.push(Violation { field: field.to_owned(), reason, description: said });
        };
        let mut named = |field: &str, e: BadName| bad(field, "BAD_NAME", e.to_string());
        if self.account.as_str() != spec.account {
            match Account::new(&spec.account) {
                Ok(account) => self.account = account,
                Err(e) => named("account", e),
            }
        }
        if self.tenant.as_str() != spec.tenant {
            match Tenant::new(&spec.tenant) {
                Ok(tenant) => self.tenant = tenant,
                Err(e) => named("tenant", e),
            }
        }
        let key = optional(&spec.key, Key::new).unwrap_or_else(|e| {
            named("key", e);
            None
        });
        let idempotency_key = match self.idempotency_key(at, &spec.idempotency_key) {
            Ok(key) => key,
            Err(said) => {
                bad("idempotency_key", "BAD_IDEMPOTENCY_KEY", said);
                None
            }
        };
        if let Err(said) = check_labels(&spec.labels) {
            bad("labels", "BAD_LABELS", said);
        }
        let due_at = due_at(spec.start, self.now).unwrap_or_else(|(field, said)| {
            bad(field, "BAD_START", said);
            None
        });
        let traceparent = (!spec.traceparent.is_empty()).then_some(spec.traceparent);
        if traceparent.as_deref().is_some_and(|t| !is_traceparent(t)) {
            bad("traceparent", "BAD_TRACEPARENT", "expected 00-<32 hex digits>-<16 hex digits>-<2 hex digits>".into());
        }
        let (run, tenant) = match self.run(&spec.run, &spec.tenant) {
            Ok(run) => run,
            Err(violation) => {
                wrong.push(violation);
                (None, None)
            }
        };
        if !wrong.is_empty() {
            return Err(Error::fields(wrong));
        }
        Ok(NewJob {
            provider: provider.name.clone(),
            operation: operation.name.clone(),
            account: self.account.clone(),
            tenant: tenant.unwrap_or_else(|| self.tenant.clone()),
            run,
            key,
            class: spec.class,
            payload: if spec.payload.is_empty() { Arc::from("null") } else { Arc::from(spec.payload) },
            due_at,
            labels: spec.labels,
            idempotency_key,
            traceparent: traceparent.map(Arc::from),
            coalesce: operation.coalesce,
            part: 0,
        })
    }

    fn provider(&mut self, name: &str) -> Result<Arc<Provider>> {
        if let Some(last) = self.provider.as_ref().filter(|p| p.name.as_str() == name) {
            return Ok(Arc::clone(last));
        }
        let name = ProviderName::new(name).map_err(|e| Error::field("provider", "BAD_NAME", e))?;
        if is_reserved(name.as_str()) {
            let said = format!("{name} sends what [notify] tells, and nothing else");
            return Err(Error::field("provider", "RESERVED_PROVIDER", said));
        }
        let found = self.api.engine().provider(&name).ok_or_else(|| Error::not_found("provider", &name))?;
        self.provider = Some(Arc::clone(&found));
        Ok(found)
    }

    /// The job's own key, or one made of the request id, so that a repeated request finds its jobs again.
    fn idempotency_key(&self, at: usize, own: &str) -> std::result::Result<Option<IdempotencyKey>, String> {
        if !own.is_empty() {
            if own.starts_with(RESERVED) {
                return Err(format!("expected a key that does not begin with {RESERVED:?}"));
            }
            return IdempotencyKey::new(own).map(Some).map_err(|e| e.to_string());
        }
        let key = match (self.how.request_id, self.one) {
            ("", _) => return Ok(None),
            (id, true) => format!("{RESERVED}request/{id}"),
            (id, false) => format!("{RESERVED}request/{id}/{at}"),
        };
        IdempotencyKey::new(key).map(Some).map_err(|e| e.to_string())
    }

    fn run(&self, own: &str, tenant: &str) -> std::result::Result<(Option<RunId>, Option<Tenant>), Violation> {
        let named = if own.is_empty() { None } else { Some(own.parse::<RunId>()) };
        let bad = |reason, said: String| Violation { field: "run_id".into(), reason, description: said };
        match (self.how.run, named) {
            (_, Some(Err(e))) => Err(bad("BAD_ID", e.to_string())),
            (None, None) => Ok((None, None)),
            (None, Some(Ok(run))) => Ok((Some(run), None)),
            (Some((run, _)), Some(Ok(other))) if run != other => {
                Err(bad("OTHER_RUN", format!("expected {run} or nothing, got {other}")))
            }
            (Some((run, of)), _) if tenant.is_empty() || tenant == of.as_str() => Ok((Some(run), Some(of.clone()))),
            (Some((_, of)), _) => Err(Violation {
                field: "tenant".into(),
                reason: "OTHER_TENANT",
                description: format!("expected the run's tenant {of:?} or nothing, got {tenant:?}"),
            }),
        }
    }
}

pub(super) fn unknown_operation(provider: &Provider, name: &str) -> Error {
    if let Err(e) = OperationName::new(name) {
        return Error::field("operation", "BAD_NAME", e);
    }
    let known: Vec<&str> = provider.operations.keys().map(OperationName::as_str).take(20).collect();
    let said = format!("provider {} has no operation {name}; it has {}", provider.name, known.join(", "));
    Error::new(Code::NotFound, "NO_SUCH_OPERATION", said).about("operation", format_args!("{}/{name}", provider.name))
}

fn optional<'t, T>(text: &'t str, make: impl Fn(&'t str) -> Result<T, BadName>) -> Result<Option<T>, BadName> {
    if text.is_empty() { Ok(None) } else { make(text).map(Some) }
}

/// The time of a start; `None` for now.
fn due_at(start: Start, now: Timestamp) -> std::result::Result<Option<Timestamp>, (&'static str, String)> {
    let latest = now + DELAY_MAX;
    let (field, at) = match start {
        Start::Now | Start::In(0) => return Ok(None),
        Start::In(us) if us < 0 => return Err(("delay", format!("expected 0 to 366 days, got {us} microseconds"))),
        Start::In(us) => ("delay", Timestamp(now.0.saturating_add(us))),
        Start::At(at) => ("due_time", at),
    };
    if at > latest {
        return Err((field, format!("expected at most 366 days ahead, that is {latest}, got {at}")));
    }
    Ok((at > now).then_some(at))
}

/// Checks the time that an edit asks for.
pub(super) fn check_due(at: Timestamp, now: Timestamp) -> Result<()> {
    due_at(Start::At(at), now).map(drop).map_err(|(field, said)| Error::field(field, "BAD_START", said))
}

/// A payload is JSON, not too long, not too deep. Empty is taken for `null`.
pub(super) fn check_payload(field: &str, payload: &str, bytes_max: usize) -> Result<()> {
    if payload.len() > bytes_max {
        return Err(Error::above_cap(field, "server.payload_bytes_max", bytes_max, payload.len()));
    }
    if payload.is_empty() {
        return Ok(());
    }
    if let Err(e) = serde_json::from_str::<IgnoredAny>(payload) {
        return Err(Error::field(field, "PAYLOAD_NOT_JSON", format_args!("expected a JSON document: {e}")));
    }
    // Every level takes two bytes, so most payloads need no look.
    if payload.len() > 2 * PAYLOAD_DEPTH_MAX && depth(payload) > PAYLOAD_DEPTH_MAX {
        let said = format!("expected at most {PAYLOAD_DEPTH_MAX} levels of nesting");
        return Err(Error::field(field, "PAYLOAD_TOO_DEEP", said));
    }
    Ok(())
}

/// Levels of nesting of a text that is known to be JSON.
fn depth(json: &str) -> usize {
    let (mut now, mut most, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' if !quoted => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

pub(super) fn check_labels(labels: &Labels) -> std::result::Result<(), String> {
    if labels.len() > LABELS_MAX {
        return Err(format!("expected at most {LABELS_MAX} labels, got {}", labels.len()));
    }
    for (name, value) in labels {
        let long = name.is_empty() || name.len() > LABEL_BYTES_MAX || value.len() > LABEL_BYTES_MAX;
        if long || name.chars().chain(value.chars()).any(char::is_control) {
            let name: String = name.chars().take(40).collect();
            return Err(format!(
                "expected names of 1 to {LABEL_BYTES_MAX} and values of 0 to {LABEL_BYTES_MAX} bytes without control \
                 characters, see label {name:?}"
            ));
        }
    }
    Ok(())
}

/// W3C Trace Context, version 00: lower-case hex, trace and parent not all zeros.
pub fn is_traceparent(text: &str) -> bool {
    let hex = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let mut parts = text.split('-');
    let wanted = [("00", 2), ("", 32), ("", 16), ("", 2)];
    let fits = wanted.iter().enumerate().all(|(i, (fixed, len))| {
        parts.next().is_some_and(|p| {
            let zero = (i == 1 || i == 2) && p.bytes().all(|b| b == b'0');
            p.len() == *len && hex(p) && !zero && (fixed.is_empty() || p == *fixed)
        })
    });
    fits && parts.next().is_none()
}

/// Reads the ids of a request, at most `max`.
pub(super) fn parse_ids(field: &str, ids: &[String], max: usize) -> Result<Vec<JobId>> {
    if ids.len() > max {
        return Err(Error::field(field, "TOO_MANY_IDS", format_args!("expected at most {max} ids, got {}", ids.len())));
    }
    ids.iter().enumerate().map(|(i, id)| parse_id(&format!("{field}[{i}]"), id)).collect()
}

#[cfg(test)]
mod tests;

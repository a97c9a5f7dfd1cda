//! What an answer means for each job of a call: delivered, retry at, throttled until, rejected, unknown.
//!
//! Pure: an [`Answer`] or a [`Failure`] and the operation's rules go in, one [`Verdict`] per job comes out, with what
//! the answer says about the provider's health. `verdict/retry_after.rs` reads the header of that name,
//! `verdict/batch.rs` the per-record results of a batch. Must never know: attempts left, backoff, limiters; the engine
//! decides with the verdict in hand. Next: `engine/caller`.

use std::fmt;
use std::sync::Arc;

use super::call::Lane;
use super::job::ClaimedJob;
use super::provider::{Match, Operation, Provider, Repeat};
use crate::clock::Timestamp;

mod batch;
mod retry_after;

pub use retry_after::{Asked, RETRY_AFTER_MAX, RETRY_AFTER_MIN, read as read_retry_after, read_date as read_http_date};

/// An HTTP answer, bounded.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    /// After decompression, at most the provider's `response_bytes_max`.
    pub body: bytes::Bytes,
    /// The body was cut: by the cap, or because the connection broke. The status still counts.
    pub truncated: bool,
    /// Wall time at which the status line was read.
    pub received_at: Timestamp,
}

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub sent: Sent,
    /// A breaker counts it: connect, TLS, timeouts. Not: refused by our own guard.
    pub provider_fault: bool,
    /// One sentence.
    pub reason: Arc<str>,
}

/// Did bytes of the request leave?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Certainly not: resolver, guard, connect, TLS.
    No,
    /// The connection was there; anything may have happened.
    Maybe,
}

/// The fate of one job of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Delivered {
        result: Option<Arc<str>>,
    },
    /// May succeed later; uses up an attempt if the call was sent.
    Retry {
        reason: Arc<str>,
        not_before: Option<Timestamp>,
    },
    /// The provider said "not now"; uses up nothing. `until` is clamped to the longest wait allowed; `None`: it did
    /// not say how long.
    Throttled {
        until: Option<Timestamp>,
        reason: Arc<str>,
    },
    /// Will never succeed.
    Rejected {
        reason: Arc<str>,
        result: Option<Arc<str>>,
    },
    /// The provider may have done it.
    Unknown {
        reason: Arc<str>,
    },
    /// The call was refused as a whole and this batch should be tried in halves.
    Split {
        reason: Arc<str>,
    },
}

/// What the end of a call says about the provider, for breakers and limiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Good,
    /// Connect, TLS, timeout, a lost answer, 5xx without `Retry-After`: the host's breaker counts it.
    Failing,
    /// It said "not now", until this wall time when it said so. Blocks limits; no breaker counts it.
    Limiting { until: Option<Timestamp> },
    /// It refused the credential: the account's breaker counts it, the host's takes it as good.
    Refusing,
    /// Says nothing: our own guard refused, or the request could not be made.
    Silent,
}

/// Something odd in an answer: to be counted, and said in the log. Never carries a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// `Retry-After` that is neither seconds nor a date; ignored.
    RetryAfterIgnored,
    /// A longer wait than [`RETRY_AFTER_MAX`]; clamped.
    RetryAfterClamped,
    /// A redirect, never followed. Where to.
    Redirect(String),
    /// An answer with success status whose body could not be read as the declared batch result.
    UnreadableResult,
    /// Keys of jobs for which the batch answer had no result.
    MissingResults(usize),
    /// Results for keys that were not in the call, or without a key.
    UnknownResults(usize),
    /// Second results for one key; the first one counted.
    DuplicateResults(usize),
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Oddity::RetryAfterIgnored => f.write_str("a Retry-After that is neither seconds nor a date was ignored"),
            Oddity::RetryAfterClamped => {
                write!(f, "a Retry-After beyond {} h was clamped", RETRY_AFTER_MAX.as_secs() / 3_600)
            }
            Oddity::Redirect(to) => write!(f, "a redirect to {to} was not followed"),
            Oddity::UnreadableResult => f.write_str("a batch answer could not be read as the declared result"),
            Oddity::MissingResults(n) => write!(f, "{n} jobs of a batch have no result in its answer"),
            Oddity::UnknownResults(n) => write!(f, "{n} results of a batch belong to none of its jobs"),
            Oddity::DuplicateResults(n) => write!(f, "{n} results of a batch came twice; the first ones counted"),
        }
    }
}

/// All that the end of a call means.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// One per job, in the order of the jobs.
    pub verdicts: Vec<Verdict>,
    pub health: Health,
    pub oddities: Vec<Oddity>,
}

/// Longest excerpt of an answer in a reason, characters.
const EXCERPT_CHARS: usize = 200;

/// Judges the end of a call that carried `jobs`. `now` is wall time.
pub fn judge(
    provider: &Provider,
    operation: &Operation,
    lane: Lane,
    jobs: &[ClaimedJob],
    outcome: &Result<Answer, Failure>,
    now: Timestamp,
) -> Judgement {
    let call = Judged { provider, operation, lane, jobs, now };
    match outcome {
        Ok(answer) => call.answered(answer),
        Err(failure) => call.failed(failure),
    }
}

/// Is it safe to send the job again at wall time `at`, when the answer to its last call was lost? A gate asks again
/// before it repeats a call after a long wait, since an idempotency key may have died meanwhile.
///
/// On the batch lane an idempotency key never makes a repeat safe: the next batch may hold other jobs, so its key
/// would differ.
pub fn repeat_is_safe(operation: &Operation, lane: Lane, job: &ClaimedJob, now: Timestamp, at: Timestamp) -> bool {
    let idempotent = operation.lane(lane).is_some_and(|spec| spec.method.is_idempotent());
    match operation.repeat {
        Repeat::Always => true,
        Repeat::Never => false,
        Repeat::ByMethod if idempotent => true,
        Repeat::ByMethod => match &operation.idempotency {
            Some(key) if lane == Lane::Single => at < job.first_sent_at.unwrap_or(now) + key.life,
            _ => false,
        },
    }
}

/// Has the job been tried before, and is a repeat by this lane at wall time `now` not safe? Its idempotency key may have
/// died, or it was lost on a lane that may repeat and would go again by one that may not. If a former call may have done
/// it, the job must not be sent again unasked.
pub fn repeat_is_in_doubt(operation: &Operation, lane: Lane, job: &ClaimedJob, now: Timestamp) -> bool {
    let two_lanes = Lane::ALL.into_iter().all(|l| operation.lane(l).is_some());
    // Attempts that certainly were not sent, and those the provider refused to take, are given back.
    (two_lanes || operation.idempotency.is_some())
        && job.attempts > 1
        && !repeat_is_safe(operation, lane, job, now, now)
}

/// The provider said "not now", until this wall time when it said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    pub until: Option<Timestamp>,
}

/// Did an answer to whomever say "not now"? `now` is wall time.
pub fn limiting(provider: &Provider, answer: &Answer, now: Timestamp) -> Option<Limited> {
    not_now(provider, answer, &View::new(answer), now).0
}

fn not_now(provider: &Provider, answer: &Answer, view: &View<'_>, now: Timestamp) -> (Option<Limited>, Option<Oddity>) {
    let limited = answer.status == 429 || view.any(&provider.throttled);
    if !limited && answer.status != 503 {
        return (None, None);
    }
    let asked = retry_after::read(&answer.headers, answer.received_at);
    let odd = match asked {
        Asked::Garbage => Some(Oddity::RetryAfterIgnored),
        Asked::Clamped(_) => Some(Oddity::RetryAfterClamped),
        _ => None,
    };
    let until = asked.wait().map(|wait| now + wait);
    ((limited || until.is_some()).then_some(Limited { until }), odd)
}

struct Judged<'a> {
    provider: &'a Provider,
    operation: &'a Operation,
    lane: Lane,
    jobs: &'a [ClaimedJob],
    now: Timestamp,
}

impl Judged<'_> {
    fn failed(&self, failure: &Failure) -> Judgement {
        let health = if failure.provider_fault { Health::Failing } else { Health::Silent };
        let verdicts = match failure.sent {
            Sent::No => self.all(Verdict::Retry { reason: failure.reason.clone(), not_before: None }),
            Sent::Maybe => self.jobs.iter().map(|job| self.lost(job, failure.reason.clone())).collect(),
        };
        Judgement { verdicts, health, oddities: Vec::new() }
    }

    /// The answer for this job was lost.
    fn lost(&self, job: &ClaimedJob, reason: Arc<str>) -> Verdict {
        let again_at = self.now + self.operation.retry.ceiling(job.attempts);
        if repeat_is_safe(self.operation, self.lane, job, self.now, again_at) {
            Verdict::Retry { reason, not_before: None }
        } else {
            Verdict::Unknown { reason }
        }
    }

    fn answered(&self, answer: &Answer) -> Judgement {
        let view = View::new(answer);
        let status = answer.status;
        let mut oddities = Vec::new();
        let (limited, odd) = not_now(self.provider, answer, &view, self.now);
        oddities.extend(odd);
        if let Some(Limited { until }) = limited {
            let reason = self.said(answer, "the provider said not now");
            let verdicts = self.all(Verdict::Throttled { until, reason });
            return Judgement { verdicts, health: Health::Limiting { until }, oddities };
        }
        let health = match status {
            500.. => Health::Failing,
            401 => Health::Refusing,
            // A bare 403 is about the record; with a challenge it is about the credential.
            403 if answer.headers.contains_key(http::header::WWW_AUTHENTICATE) => Health::Refusing,
            _ => Health::Good,
        };
        let verdicts = self.by_status(answer, &view, &mut oddities);
        Judgement { verdicts, health, oddities }
    }

    fn by_status(&self, answer: &Answer, view: &View<'_>, oddities: &mut Vec<Oddity>) -> Vec<Verdict> {
        let retry = |what: &str| Verdict::Retry { reason: self.said(answer, what), not_before: None };
        // The declared rules first, the most cautious of them before the others.
        if view.any(&self.operation.retry_if) {
            return self.all(retry("retry_if matched"));
        }
        if view.any(&self.operation.failed_if) {
            return self.refused_whole(answer, "failed_if matched");
        }
        if view.any(&self.operation.delivered_if) {
            return self.all(Verdict::Delivered { result: self.keep(&answer.body) });
        }
        match answer.status {
            200..=299 => match self.operation.lane(self.lane).and_then(|spec| spec.result.as_ref()) {
                Some(rule) => self.by_results(rule, answer, oddities),
                None => self.all(Verdict::Delivered { result: self.keep(&answer.body) }),
            },
            // An answer to If-None-Match, which only pages send.
            304 if self.operation.pages.is_some() => self.all(Verdict::Delivered { result: None }),
            300..=399 => {
                let to = answer.headers.get(http::header::LOCATION).map(|v| String::from_utf8_lossy(v.as_bytes()));
                let to = excerpt(to.as_deref().unwrap_or("nowhere"));
                let reason = self.said(answer, &format!("redirect to {to}, never followed"));
                oddities.push(Oddity::Redirect(to));
                self.all(Verdict::Rejected { reason, result: self.keep(&answer.body) })
            }
            // The credential may be renewed; meanwhile the account's breaker keeps the quota.
            401 => self.all(retry("the provider refused the credential")),
            408 | 425 => self.all(retry("a passing failure")),
            400 | 413 | 422 => self.refused_whole(answer, "the provider refused it"),
            501 | 505 => {
                let reason = self.said(answer, "the provider cannot do this");
                self.all(Verdict::Rejected { reason, result: self.keep(&answer.body) })
            }
            500.. => self.all(retry("the provider failed")),
            _ => {
                let reason = self.said(answer, "the provider refused it");
                self.all(Verdict::Rejected { reason, result: self.keep(&answer.body) })
            }
        }
    }

    /// The whole call was refused: perhaps for one of its records.
    fn refused_whole(&self, answer: &Answer, what: &str) -> Vec<Verdict> {
        let reason = self.said(answer, what);
        if self.jobs.len() > 1 {
            self.all(Verdict::Split { reason })
        } else {
            self.all(Verdict::Rejected { reason, result: self.keep(&answer.body) })
        }
    }

    fn all(&self, verdict: Verdict) -> Vec<Verdict> {
        vec![verdict; self.jobs.len()]
    }

    /// `status 422: the provider refused it: {"error":...`
    fn said(&self, answer: &Answer, what: &str) -> Arc<str> {
        let body = excerpt(&String::from_utf8_lossy(&answer.body[..answer.body.len().min(4 * EXCERPT_CHARS)]));
        let sep = if body.is_empty() { "" } else { ": " };
        format!("status {}: {what}{sep}{body}", answer.status).into()
    }

    /// The part of an answer that is kept with a job.
    fn keep(&self, body: &[u8]) -> Option<Arc<str>> {
        keep(body, self.operation.keep_bytes)
    }
}

/// At most `max` bytes of `body` as text; what is not UTF-8, and NUL, which databases refuse, becomes U+FFFD.
fn keep(body: &[u8], max: usize) -> Option<Arc<str>> {
    if max == 0 || body.is_empty() {
        return None;
    }
    let mut text = String::from_utf8_lossy(&body[..body.len().min(max)]).replace('\0', "\u{fffd}");
    // A replaced byte takes three, so the text may be longer than what it was made of.
    text.truncate(text.floor_char_boundary(max));
    Some(text.into())
}

/// One line, printable, cut to [`EXCERPT_CHARS`].
fn excerpt(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut out: String = text.trim().chars().take(EXCERPT_CHARS).map(clean).collect();
    if text.trim().chars().nth(EXCERPT_CHARS).is_some() {
        out.push_str("...");
    }
    out
}

/// Does any of the matches fit? Other things that came over HTTP are looked at in the same way.
pub fn any_fits(rules: &[Match], answer: &Answer) -> bool {
    View::new(answer).any(rules)
}

/// An answer as matches look at it: its JSON is read at most once.
struct View<'a> {
    answer: &'a Answer,
    json: std::cell::OnceCell<Option<serde_json::Value>>,
}

impl<'a> View<'a> {
    fn new(answer: &'a Answer) -> Self {
        View { answer, json: std::cell::OnceCell::new() }
    }

    fn any(&self, rules: &[Match]) -> bool {
        rules.iter().any(|rule| self.matches(rule))
    }

    fn matches(&self, rule: &Match) -> bool {
        let status = rule.status.is_none_or(|(low, high)| (low..=high).contains(&self.answer.status));
        status
            && rule.header.as_ref().is_none_or(|(name, value)| self.has_header(name, value))
            && rule.body.as_ref().is_none_or(|text| contains(&self.answer.body, text.as_bytes()))
            && rule.json.as_ref().is_none_or(|(pointer, value)| self.has_json(pointer, value.as_ref()))
    }

    /// Equal without regard to case, with or without parameters: `text/html` fits `text/html; charset=utf-8`.
    fn has_header(&self, name: &http::HeaderName, expected: &str) -> bool {
        let fits = |value: &http::HeaderValue| {
            let value = String::from_utf8_lossy(value.as_bytes());
            let bare = value.split(';').next().unwrap_or_default();
            [value.trim(), bare.trim()].iter().any(|v| v.eq_ignore_ascii_case(expected))
        };
        self.answer.headers.get_all(name).iter().any(|value| expected.is_empty() || fits(value))
    }

    fn has_json(&self, pointer: &str, expected: Option<&serde_json::Value>) -> bool {
        // Deeper than serde_json's 128 levels, or cut off: not JSON to us.
        let json = self.json.get_or_init(|| serde_json::from_slice(&self.answer.body).ok());
        json.as_ref().is_some_and(|document| holds(document, pointer, expected).is_some())
    }
}

/// What stands at the pointer, if it is what was expected; or, where nothing was named, if it is something.
fn holds<'v>(
    document: &'v serde_json::Value,
    pointer: &str,
    expected: Option<&serde_json::Value>,
) -> Option<&'v serde_json::Value> {
    let found = document.pointer(pointer)?;
    expected.map_or_else(|| is_something(found), |expected| found == expected).then_some(found)
}

/// Neither null, false, "" nor 0, nor an empty list or object.
fn is_something(value: &serde_json::Value) -> bool {
    use serde_json::Value::*;
    match value {
        Null => false,
        Bool(b) => *b,
        Number(n) => n.as_f64() != Some(0.0),
        String(s) => !s.is_empty(),
        Array(a) => !a.is_empty(),
        Object(o) => !o.is_empty(),
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|w| w == text)
}

#[cfg(test)]
mod tests;

//! What an answer means for each job of a call: delivered, retry at, throttled until, rejected, unknown.
//!
//! Pure: an [`Answer`] or a [`Failure`] and the operation's rules go in, one [`Verdict`] per job comes out.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;

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
    /// The provider said "not now"; uses up nothing. `until` is clamped to the longest wait allowed.
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

/// Longest wait that a provider may impose by header. Longer ones are clamped and counted.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

//! From a verdict to what the store records: the one place that decides about attempts, backoff and giving up. Pure.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::model::job::ClaimedJob;
use crate::model::provider::Operation;
use crate::model::verdict::Verdict;
use crate::store::{Again, JobOutcome, Next};

/// A job whose attempts ended this often because the daemon died is taken for the cause.
pub const CRASHES_MAX: u32 = 3;

/// How the call that carried the job ended, as far as attempts are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// Bytes left: the attempt counts.
    Sent,
    /// Certainly nothing left: the attempt is given back.
    NotSent,
    /// The daemon died with the call open: the attempt counts, and so does the crash.
    Crashed,
}

/// What becomes of a job. `dice` is uniform in `[0, 1)`; `now` is wall time.
pub fn outcome(
    job: &ClaimedJob,
    verdict: Verdict,
    operation: &Operation,
    spent: Spent,
    now: Timestamp,
    dice: f64,
) -> JobOutcome {
    let (next, error, result) = match verdict {
        Verdict::Delivered { result } => (Next::Delivered, None, result),
        Verdict::Rejected { reason, result } => (Next::Dead, Some(reason), result),
        Verdict::Unknown { reason } => (Next::Unknown, Some(reason), None),
        // Ready again at once: the limiter, which heard of it first, holds the job back.
        Verdict::Throttled { reason, .. } => (Next::Wait { due_at: now, why: Again::Throttled }, Some(reason), None),
        // The provider took none of them; the halves are not to blame for the whole.
        Verdict::Split { reason } => (Next::Wait { due_at: now, why: Again::NotSent }, Some(reason), None),
        Verdict::Retry { reason, not_before } => {
            let (next, reason) = again(job, operation, spent, now, not_before, dice, reason);
            (next, Some(reason), None)
        }
    };
    JobOutcome { job: job.id.seq, next, error, result }
}

fn again(
    job: &ClaimedJob,
    operation: &Operation,
    spent: Spent,
    now: Timestamp,
    not_before: Option<Timestamp>,
    dice: f64,
    reason: Arc<str>,
) -> (Next, Arc<str>) {
    let due = |delay| {
        let backed_off = now + delay;
        not_before.map_or(backed_off, |t| t.max(backed_off))
    };
    if spent == Spent::NotSent {
        // Attempts do not grow here, so the wait is drawn as after a first try; the breaker slows a dead host down.
        let delay = operation.retry.delay(0, dice).unwrap_or(operation.retry.base);
        return (Next::Wait { due_at: due(delay), why: Again::NotSent }, reason);
    }
    if spent == Spent::Crashed && job.crashes + 1 >= CRASHES_MAX {
        return (Next::Dead, format!("poison: {CRASHES_MAX} attempts ended because the daemon died").into());
    }
    let why = if spent == Spent::Crashed { Again::Crashed } else { Again::Retry };
    match operation.retry.delay(job.attempts, dice) {
        Some(delay) => (Next::Wait { due_at: due(delay), why }, reason),
        None => (Next::Dead, format!("gave up after {} attempts: {reason}", job.attempts).into()),
    }
}

//! Judges calls that nobody will finish: their process died, or their lease ended.
//!
//! A journaled call may have been sent; its journal row says no more. So each of its jobs is judged like a lost answer:
//! again where repeating is safe, `unknown` where it is not. Must never know: gates, limits. Next: `outcome`.

use std::sync::Arc;

use super::EngineError;
use super::lender::Lender;
use super::outcome::{Spent, outcome};
use super::registry::Registry;
use super::writer::Writer;
use crate::clock::{Clock, Timestamp};
use crate::model::call::{Call, Ending};
use crate::model::id::CallId;
use crate::model::job::ClaimedJob;
use crate::model::verdict::{Failure, Sent, Verdict, judge};
use crate::store::{FinishCall, JobOutcome, Next, PAGE_MAX, Store, Whose};

/// Ends every open call: for a start, when no caller can be alive.
pub async fn recover_all(
    store: &Arc<dyn Store>,
    writer: &Writer,
    registry: &Registry,
    clock: &Clock,
    lender: &Lender,
) -> Result<usize, EngineError> {
    let now = clock.steady();
    // A program outside outlives the daemon: what it holds, it holds until its lease ends.
    let over = |call: &Call| call.outside == 0 || !call.jobs.is_empty() || call.lease_until < now;
    recover(store, writer, registry, clock, lender, Whose::Anyone, over).await
}

/// Ends open calls whose lease is over.
pub async fn recover_expired(
    store: &Arc<dyn Store>,
    writer: &Writer,
    registry: &Registry,
    clock: &Clock,
    lender: &Lender,
) -> Result<(), EngineError> {
    let now = clock.steady();
    for call in lender.overdue(now) {
        if let Some(call) = store.call(call).await? {
            expire(&call, lender, registry).await;
        }
    }
    let over = |call: &Call| call.lease_until < now;
    let ended = recover(store, writer, registry, clock, lender, Whose::Nobody, over).await?;
    if ended > 0 {
        tracing::warn!(calls = ended, "calls outlived their lease and were judged as crashed");
    }
    Ok(())
}

async fn recover(
    store: &Arc<dyn Store>,
    writer: &Writer,
    registry: &Registry,
    clock: &Clock,
    lender: &Lender,
    whose: Whose,
    over: impl Fn(&Call) -> bool,
) -> Result<usize, EngineError> {
    let away = |e: crate::store::Error| EngineError::Unavailable(e.to_string());
    let (mut after, mut ended) = (CallId(0), 0);
    loop {
        let page = store.open_calls(whose, after, PAGE_MAX).await.map_err(away)?;
        let Some(last) = page.last() else { return Ok(ended) };
        after = last.id;
        for call in page.iter().filter(|c| over(c)) {
            if call.outside > 0 && call.jobs.is_empty() {
                expire(call, lender, registry).await;
                continue;
            }
            let jobs = store.claimed(call.id).await.map_err(away)?;
            if whose == Whose::Anyone && waits_for_worker(call, &jobs, registry, clock).await {
                continue;
            }
            writer.finish(crashed(call, &jobs, registry, clock)).await;
            ended += 1;
        }
        if page.len() < PAGE_MAX {
            return Ok(ended);
        }
    }
}

/// A worker outlives the daemon too: it may come back for what it was leased.
async fn waits_for_worker(call: &Call, jobs: &[ClaimedJob], registry: &Registry, clock: &Clock) -> bool {
    if call.outside == 0 || call.lease_until < clock.steady() {
        return false;
    }
    match registry.get(&call.provider) {
        Some(entry) => entry.gate.take_up(call.clone(), jobs.to_vec()).await,
        None => false,
    }
}

/// Ends a program's lease. Others may have waited for its end.
async fn expire(call: &Call, lender: &Lender, registry: &Registry) {
    lender.expire(call).await;
    if let Some(entry) = registry.get(&call.provider) {
        entry.gate.permits_settled(false);
    }
}

fn crashed(call: &Call, jobs: &[ClaimedJob], registry: &Registry, clock: &Clock) -> FinishCall {
    let error: Arc<str> = "the daemon died while the call was open".into();
    let now = clock.now();
    let rules = registry.operation(&call.provider, &call.operation);
    // Of an operation that is not declared, as a test's, too.
    let deadline = registry.get(&call.provider).map(|entry| entry.provider.timeouts.total).unwrap_or_default();
    let settled_at: Timestamp = super::latest_arrival(clock.steady(), call.permit.granted_at, deadline);
    // What the dead process sent may still be on its way. A job with a key waits until it must have arrived, or its
    // repeat and the jobs behind it could overtake it.
    let not_before = now + settled_at.since(clock.steady());
    let outcomes = match rules {
        Some((provider, operation)) => {
            let lost = Err(Failure { sent: Sent::Maybe, provider_fault: false, reason: error.clone() });
            let mut verdicts = judge(&provider, &operation, call.lane, jobs, &lost, now).verdicts;
            if crate::mutant::on("retry-unknown") {
                let again = || Verdict::Retry { reason: error.clone(), not_before: None };
                verdicts.iter_mut().for_each(|v| *v = again());
            }
            let judged = jobs.iter().zip(verdicts);
            let after_it = |(job, v): (&ClaimedJob, Verdict)| {
                let mut outcome = outcome(job, v, &operation, Spent::Crashed, now, 0.5);
                if let (Next::Wait { due_at, .. }, Some(_)) = (&mut outcome.next, &job.key) {
                    *due_at = not_before.max(*due_at);
                }
                outcome
            };
            judged.map(after_it).collect()
        }
        // Nobody can say whether repeating is safe.
        None => jobs
            .iter()
            .map(|job| JobOutcome { job: job.id.seq, next: Next::Unknown, error: Some(error.clone()), result: None })
            .collect(),
    };
    FinishCall {
        call: call.id,
        ending: Ending::Crashed,
        settled_at,
        status: None,
        error: Some(error),
        outcomes,
        spends: None,
        seen: None,
    }
}

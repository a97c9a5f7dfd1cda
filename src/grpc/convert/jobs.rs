//! Jobs, calls and bulk answers as proto.
//!
//! Must never know: policy. Next: `api/jobs`.

use super::{class, class_from, count, duration_from, micros_from, small, state, state_from, time, time_from};
use crate::api::bulk::{Decision, Done, Which};
use crate::api::enqueue::{Outcome, Spec, Start};
use crate::api::error::{Error, Result};
use crate::api::jobs::{Edit, JobView, Waits};
use crate::api::watch::{Item, Kind, Watched};
use crate::engine::status::WaitingOn;
use crate::grpc::pb;
use crate::grpc::status::item_error;
use crate::model::id::RunId;
use crate::model::job::Job;
use crate::model::state::Event;
use crate::model::state::State;

/// A job as handed in. `traceparent`: of the request's metadata, for jobs that bring none.
pub fn spec(job: pb::JobSpec, traceparent: Option<&str>) -> Result<Spec> {
    let start = match job.start {
        None => Start::Now,
        Some(pb::job_spec::Start::DueTime(at)) => Start::At(time_from("due_time", at)?),
        Some(pb::job_spec::Start::Delay(d)) => Start::In(micros_from("delay", d)?),
    };
    let class = class_from("priority_class", job.priority_class)?.unwrap_or_default();
    let traceparent = match (job.traceparent, traceparent) {
        (own, Some(given)) if own.is_empty() => given.to_owned(),
        (own, _) => own,
    };
    Ok(Spec {
        provider: job.provider,
        operation: job.operation,
        account: job.account,
        tenant: job.tenant,
        key: job.key,
        payload: job.payload,
        class,
        start,
        labels: job.labels,
        idempotency_key: job.idempotency_key,
        traceparent,
        run: job.run_id,
    })
}

pub fn specs(jobs: Vec<pb::JobSpec>, traceparent: Option<&str>) -> Vec<Result<Spec>> {
    jobs.into_iter().map(|job| spec(job, traceparent)).collect()
}

/// Job id (empty when there is none) and what became of it.
pub fn outcome(outcome: Outcome) -> (String, pb::Acceptance) {
    use crate::api::enqueue::Accepted;
    match outcome {
        Outcome::Valid => (String::new(), pb::Acceptance::Validated),
        Outcome::Accepted { id, how } => {
            let how = match how {
                Accepted::Created => pb::Acceptance::Created,
                Accepted::Coalesced => pb::Acceptance::Coalesced,
                Accepted::Repeated => pb::Acceptance::Repeated,
            };
            (id.to_string(), how)
        }
    }
}

/// One result per item, and how many were accepted.
pub fn results(all: Vec<Result<Outcome>>) -> (Vec<pb::EnqueueResult>, i32) {
    let accepted = all.iter().filter(|result| result.is_ok()).count();
    let results = all.into_iter().enumerate().map(|(at, result)| {
        let result = match result {
            Ok(done) => {
                let (job_id, how) = outcome(done);
                pb::enqueue_result::Result::Enqueued(pb::Enqueued { job_id, acceptance: how as i32 })
            }
            Err(error) => pb::enqueue_result::Result::Error(item_error(error.under(&format!("jobs[{at}]")))),
        };
        pb::EnqueueResult { result: Some(result) }
    });
    (results.collect(), small(accepted))
}

pub fn job_view(view: JobView, full: bool) -> pb::Job {
    let JobView { job, run, waits, next_attempt_at, progress } = view;
    let mut told = plain(job, run, full);
    told.waiting_on = waits.map(waiting_on);
    told.next_attempt_time = next_attempt_at.and_then(time);
    told.progress = progress.map(super::workers::progress);
    told
}

/// A job without what it waits for.
fn plain(job: Job, run: Option<RunId>, full: bool) -> pb::Job {
    pb::Job {
        id: job.id.to_string(),
        provider: job.flow_key.provider.to_string(),
        operation: job.flow_key.operation.to_string(),
        account: job.flow_key.account.to_string(),
        tenant: job.flow_key.tenant.to_string(),
        key: job.key.map(|key| key.to_string()).unwrap_or_default(),
        run_id: run.map(|run| run.to_string()).unwrap_or_default(),
        priority_class: class(job.class) as i32,
        state: state(job.state) as i32,
        waiting_on: None,
        next_attempt_time: None,
        payload: if full { job.payload.to_string() } else { String::new() },
        version: small(job.version),
        attempts: small(job.attempts),
        crashes: small(job.crashes),
        throttles: small(job.throttles),
        create_time: time(job.id.created_at),
        due_time: time(job.due_at),
        update_time: time(job.updated_at),
        finish_time: job.finished_at.and_then(time),
        cancel_requested: job.cancel_requested,
        labels: job.labels,
        last_status: job.last_status.map_or(0, i32::from),
        last_error: job.last_error.map(|e| e.to_string()).unwrap_or_default(),
        result: if full { job.result.map(|r| r.to_string()).unwrap_or_default() } else { String::new() },
        traceparent: job.traceparent.map(|t| t.to_string()).unwrap_or_default(),
        progress: None,
    }
}

pub fn waiting_on(waits: Waits) -> pb::WaitingOn {
    use pb::waiting_on::Kind as K;
    let mut told = pb::WaitingOn::default();
    let kind = match waits {
        Waits::Behind => K::Key,
        Waits::On(on) => match on {
            WaitingOn::Nothing => K::Nothing,
            WaitingOn::Turn => K::Turn,
            WaitingOn::NotDue { due_at } => {
                told.due_time = time(due_at);
                K::NotDue
            }
            WaitingOn::Key { behind } => {
                told.behind_job_id = behind.to_string();
                K::Key
            }
            WaitingOn::Limit { name } => {
                told.limit = name;
                K::Limit
            }
            WaitingOn::Breaker => K::Breaker,
            WaitingOn::Paused => K::Paused,
            WaitingOn::RunPaused => K::RunPaused,
            WaitingOn::InFlight => K::InFlight,
            WaitingOn::Worker => K::Worker,
            WaitingOn::UnknownProvider => K::UnknownProvider,
            WaitingOn::Decision => K::Decision,
            WaitingOn::Draining => K::Draining,
            WaitingOn::Limiter => K::Limiter,
            WaitingOn::OtherDaemon { name } => {
                told.daemon = name.unwrap_or_default();
                K::OtherDaemon
            }
        },
    };
    told.kind = kind as i32;
    told
}

pub fn edit(request: pb::EditJobRequest) -> Result<(String, Edit)> {
    let class = class_from("priority_class", request.priority_class)?;
    let due_at = request.due_time.map(|at| time_from("due_time", at)).transpose()?;
    Ok((request.job_id, Edit { payload: request.payload, class, due_at }))
}

/// State and timeout of a WaitJobs.
pub fn wait(request: &pb::WaitJobsRequest) -> Result<(Option<State>, Option<std::time::Duration>)> {
    Ok((state_from("state", request.state)?, duration_from("timeout", request.timeout)?))
}

pub fn which(ids: Vec<String>, filter: String, validate_only: bool, request_id: String) -> Which {
    Which { ids, filter, validate_only, request_id }
}

pub fn decision(number: i32) -> Result<Decision> {
    match super::known::<pb::Decision>("decision", number)? {
        pb::Decision::Delivered => Ok(Decision::Delivered),
        pb::Decision::Again => Ok(Decision::Again),
        pb::Decision::Dead => Ok(Decision::Dead),
        pb::Decision::Unspecified => {
            Err(Error::field("decision", "NO_DECISION", "expected DELIVERED, AGAIN or DEAD, got nothing"))
        }
    }
}

pub fn done(done: Done) -> pb::BulkResult {
    let changes = done.changes.into_iter().map(|change| {
        let (now, cancel_requested, error) = match change.now {
            Ok((now, cancel_requested)) => (state(now), cancel_requested, None),
            Err(error) => (pb::JobState::Unspecified, false, Some(item_error(error))),
        };
        pb::JobChange { job_id: change.id.to_string(), state: now as i32, cancel_requested, error }
    });
    pb::BulkResult {
        changes: changes.collect(),
        matched_count: count(done.matched),
        changed_count: count(done.changed),
        more: done.more,
    }
}

pub fn item(item: Item) -> pb::WatchJobsResponse {
    use pb::watch_jobs_response::Item as I;
    let watched = |w: Watched| {
        let progress = w.progress.map(super::workers::progress);
        pb::Job { progress, ..plain(w.job, w.run, false) }
    };
    match item {
        Item::Snapshot(job) => {
            pb::WatchJobsResponse { resume_token: String::new(), item: Some(I::Snapshot(watched(*job))) }
        }
        Item::Bookmark { resume_token, sequence } => {
            pb::WatchJobsResponse { resume_token, item: Some(I::Bookmark(pb::Bookmark { sequence })) }
        }
        Item::Change { resume_token, change } => {
            let event = pb::JobEvent {
                sequence: change.sequence,
                time: time(change.at),
                kind: kind(change.kind) as i32,
                state: state(change.to) as i32,
                call_id: change.call.map_or(0, |call| call.0),
                status: change.status.map_or(0, i32::from),
                error: change.error.map(|e| e.to_string()).unwrap_or_default(),
                due_time: change.due_at.and_then(time),
                job: Some(watched(change.watched)),
                dropped_intermediate_count: count(change.dropped),
            };
            pb::WatchJobsResponse { resume_token, item: Some(I::Event(event)) }
        }
    }
}

pub fn kind(kind: Kind) -> pb::job_event::Kind {
    use pb::job_event::Kind as K;
    match kind {
        Kind::Enqueued => K::Enqueued,
        Kind::DuplicateObserved => K::DuplicateObserved,
        Kind::Progress => K::Progress,
        Kind::Changed(event) => match event {
            Event::Begin => K::Begun,
            Event::Deliver => K::Delivered,
            Event::Retry => K::Retried,
            Event::Throttle => K::Throttled,
            Event::Die => K::Died,
            Event::Lose => K::Lost,
            Event::Cancel => K::Cancelled,
            Event::Coalesce => K::Coalesced,
            Event::Edit => K::Edited,
            Event::Revive => K::Revived,
            Event::ResolveDelivered | Event::ResolveAgain | Event::ResolveDead => K::Resolved,
        },
    }
}

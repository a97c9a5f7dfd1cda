//! Workers: proto to plain data and back.
//!
//! Must never know: policy. Next: `grpc/worker_service`.

use super::{class, count, duration_from, known, small, time};
use crate::api::Result;
use crate::api::workers::{Failure, Hello, Joined};
use crate::grpc::pb;
use crate::grpc::pb::work_response::What;
use crate::model::worker::{Ended, Progress, RunProgress, Told, Work, WorkerView};

pub fn hello(hello: pb::WorkerHello) -> Hello {
    let pb::WorkerHello { name, operations, seats, resume_tokens } = hello;
    Hello { name, operations, seats, resume_tokens }
}

pub fn welcome(joined: &Joined) -> pb::WorkResponse {
    let resumed_tokens = joined.resumed.iter().map(ToString::to_string).collect();
    let heartbeat_interval = Some(super::duration(joined.worker.heartbeat));
    answer(What::Welcome(pb::WorkerWelcome { heartbeat_interval, resumed_tokens }))
}

pub fn told(told: Told) -> pb::WorkResponse {
    match told {
        Told::Job(work) => answer(What::Job(job(*work))),
        Told::Ended(end) => ended(end),
        Told::CalledOff(token) => answer(What::Cancel(pb::LeaseCancelled { token: token.to_string() })),
    }
}

pub fn ended(ended: Ended) -> pb::WorkResponse {
    let Ended { token, recorded, reason } = ended;
    answer(What::Ended(pb::LeaseEnded { token: token.to_string(), recorded, reason: reason.to_string() }))
}

fn job(work: Work) -> pb::LeasedJob {
    let Work { token, provider, operation, account, job, ends_at } = work;
    pb::LeasedJob {
        token: token.to_string(),
        job_id: job.id.to_string(),
        provider: provider.to_string(),
        operation: operation.to_string(),
        account: account.to_string(),
        key: job.key.map(|key| key.to_string()).unwrap_or_default(),
        payload: job.payload.to_string(),
        attempt: small(job.attempts),
        version: small(job.version),
        end_time: time(ends_at),
        priority_class: class(job.class) as i32,
        traceparent: job.traceparent.map(|t| t.to_string()).unwrap_or_default(),
    }
}

fn answer(what: What) -> pb::WorkResponse {
    pb::WorkResponse { what: Some(what) }
}

/// How a job failed, and after how long it may be tried again.
pub fn failure(failed: &pb::JobFailed) -> Result<(Failure, Option<std::time::Duration>)> {
    use pb::job_failed::Kind;
    let failure = match known::<Kind>("failed.kind", failed.kind)? {
        Kind::Unspecified | Kind::Retry => Failure::Retry,
        Kind::Rejected => Failure::Rejected,
        Kind::Throttled => Failure::Throttled,
    };
    Ok((failure, duration_from("failed.retry_after", failed.retry_after)?))
}

pub fn progress(progress: Progress) -> pb::JobProgress {
    let Progress { fraction, text, said_at } = progress;
    pb::JobProgress { fraction, text: text.to_string(), update_time: time(said_at) }
}

pub fn run_progress(progress: RunProgress) -> pb::RunProgress {
    let RunProgress { jobs, fractions, latest } = progress;
    let latest = latest
        .into_iter()
        .map(|(job, said)| pb::RunJobProgress { job_id: job.to_string(), progress: Some(self::progress(said)) });
    pb::RunProgress { job_count: count(jobs), fraction_sum: fractions, latest: latest.collect() }
}

pub fn worker(view: WorkerView) -> pb::Worker {
    let lease = |lease: crate::model::worker::LeaseView| pb::WorkerLease {
        job_id: lease.job.to_string(),
        operation: format!("{}/{}", lease.provider, lease.operation),
        end_time: time(lease.ends_at),
        progress: lease.progress.map(progress),
    };
    pb::Worker {
        name: view.name,
        operations: view.serves.iter().map(|(provider, operation)| format!("{provider}/{operation}")).collect(),
        seats: small(view.seats),
        taken_seats: small(view.taken),
        join_time: time(view.joined_at),
        heard_time: time(view.heard_at),
        leases: view.leases.into_iter().map(lease).collect(),
    }
}

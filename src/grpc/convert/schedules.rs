//! Schedules as proto.
//!
//! Must never know: policy. Next: `api/schedules`.

use super::calls::{invalidation, keys};
use super::{class, class_from, duration, duration_from, known, small, time};
use crate::api::Result;
use crate::api::schedules::{
    JobSpec, Missed, Overlap, ScheduleSpec, ScheduleView, ScheduledJob, Spec, Target, TargetSpec,
};
use crate::grpc::pb;
use crate::grpc::pb::schedule_spec as s;

/// Ticks that are made up for when nothing is said.
const MISSED_DEFAULT: u32 = 100;

pub fn spec(spec: Option<pb::ScheduleSpec>) -> Result<ScheduleSpec> {
    let spec = spec.unwrap_or_default();
    let overlap = match known::<s::Overlap>("spec.overlap", spec.overlap)? {
        s::Overlap::Unspecified | s::Overlap::Skip => Overlap::Skip,
        s::Overlap::Queue => Overlap::Queue,
        s::Overlap::Allow => Overlap::Allow,
        s::Overlap::CancelOther => Overlap::CancelOther,
    };
    let missed = match known::<s::Missed>("spec.missed", spec.missed)? {
        s::Missed::Unspecified | s::Missed::One => Missed::One,
        s::Missed::Skip => Missed::Skip,
        // A negative number is refused with those that are too big.
        s::Missed::All if spec.missed_max == 0 => Missed::All(MISSED_DEFAULT),
        s::Missed::All => Missed::All(u32::try_from(spec.missed_max).unwrap_or(0)),
    };
    let target = match spec.target {
        None => None,
        Some(s::Target::Invalidate(which)) => {
            Some(TargetSpec::Invalidate { namespace: which.namespace, keys: keys(which.which) })
        }
        Some(s::Target::Pull(pull)) => Some(TargetSpec::Pull { collection: pull.collection, full: pull.full }),
        Some(s::Target::Jobs(jobs)) => {
            let jobs = jobs.jobs.into_iter().enumerate().map(|(at, job)| scheduled(at, job));
            Some(TargetSpec::Jobs(jobs.collect::<Result<_>>()?))
        }
    };
    let jitter = duration_from("spec.jitter", spec.jitter)?.unwrap_or_default();
    Ok(ScheduleSpec { cron: spec.cron, zone: spec.zone, jitter, overlap, missed, target })
}

fn scheduled(at: usize, job: pb::ScheduledJob) -> Result<ScheduledJob> {
    let class = class_from(&format!("spec.jobs.jobs[{at}].priority_class"), job.priority_class)?.unwrap_or_default();
    let pb::ScheduledJob { provider, operation, account, tenant, key, payload, labels, .. } = job;
    Ok(ScheduledJob { provider, operation, account, tenant, key, payload, class, labels })
}

pub fn schedule(view: ScheduleView) -> pb::Schedule {
    let ScheduleView { schedule, etag, starts_at } = view;
    pb::Schedule {
        name: schedule.name.to_string(),
        spec: Some(spec_of(schedule.spec)),
        etag,
        from_file: schedule.from_file,
        actor: schedule.actor,
        paused: schedule.paused,
        next_time: time(schedule.next_at),
        next_start_time: time(starts_at),
        last_time: schedule.last_tick_at.and_then(time),
        last_outcome: schedule.last_outcome,
        last_run_id: schedule.last_run.map(|id| id.to_string()).unwrap_or_default(),
        queued_times: schedule.queued.into_iter().filter_map(time).collect(),
        create_time: time(schedule.created_at),
        update_time: time(schedule.updated_at),
    }
}

fn spec_of(spec: Spec) -> pb::ScheduleSpec {
    let overlap = match spec.overlap {
        Overlap::Skip => s::Overlap::Skip,
        Overlap::Queue => s::Overlap::Queue,
        Overlap::Allow => s::Overlap::Allow,
        Overlap::CancelOther => s::Overlap::CancelOther,
    };
    let (missed, missed_max) = match spec.missed {
        Missed::Skip => (s::Missed::Skip, 0),
        Missed::One => (s::Missed::One, 0),
        Missed::All(n) => (s::Missed::All, n),
    };
    let target = match spec.target {
        Target::Jobs(jobs) => s::Target::Jobs(pb::ScheduledJobs { jobs: jobs.into_iter().map(job).collect() }),
        Target::Invalidate(which) => s::Target::Invalidate(invalidation(&which)),
        Target::Pull(pull) => {
            s::Target::Pull(pb::PullCollectionRequest { collection: pull.collection.to_string(), full: pull.full })
        }
    };
    pb::ScheduleSpec {
        cron: spec.cron,
        zone: spec.zone,
        jitter: Some(duration(spec.jitter)),
        overlap: overlap as i32,
        missed: missed as i32,
        missed_max: small(missed_max),
        target: Some(target),
    }
}

fn job(job: JobSpec) -> pb::ScheduledJob {
    pb::ScheduledJob {
        provider: job.provider.to_string(),
        operation: job.operation.to_string(),
        account: job.account.to_string(),
        tenant: job.tenant.to_string(),
        key: job.key.map(|key| key.to_string()).unwrap_or_default(),
        payload: job.payload.to_string(),
        priority_class: class(job.class) as i32,
        labels: job.labels,
    }
}

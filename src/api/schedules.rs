//! Schedules: declare, look at, pause, run by hand, delete.
//!
//! Must never know: proto types. Next: `engine/scheduler`.

use std::time::Duration;

use super::enqueue::{check_labels, check_payload};
use super::error::{Code, Error, Result};
use super::jobs::Page;
use super::{Api, page};
use crate::clock::Timestamp;
use crate::model::flow::Class;
use crate::model::invalidation::Keys;
use crate::model::job::Labels;
use crate::model::name::{Account, BadName, CollectionName, Key, OperationName, ProviderName, ScheduleName, Tenant};
use crate::model::schedule::{JITTER_MAX, JOBS_MAX, MISSED_MAX, SCHEDULES_MAX, Timer};
pub use crate::model::schedule::{JobSpec, Missed, Overlap, PullSpec, Schedule, Spec, Target};

/// A schedule as it is shown.
#[derive(Clone, Debug)]
pub struct ScheduleView {
    pub schedule: Schedule,
    pub etag: String,
    /// The next tick with its jitter.
    pub starts_at: Timestamp,
}

/// A declaration as a client hands it in, unchecked.
#[derive(Clone, Debug)]
pub struct ScheduleSpec {
    pub cron: String,
    /// Empty: UTC.
    pub zone: String,
    pub jitter: Duration,
    pub overlap: Overlap,
    pub missed: Missed,
    /// `None`: nothing was said.
    pub target: Option<TargetSpec>,
}

#[derive(Clone, Debug)]
pub enum TargetSpec {
    Jobs(Vec<ScheduledJob>),
    Invalidate { namespace: String, keys: Option<Keys> },
    Pull { collection: String, full: bool },
}

#[derive(Clone, Debug, Default)]
pub struct ScheduledJob {
    pub provider: String,
    pub operation: String,
    pub account: String,
    pub tenant: String,
    /// Empty: none.
    pub key: String,
    /// JSON; empty means `null`.
    pub payload: String,
    pub class: Class,
    pub labels: Labels,
}

impl Api {
    pub async fn create_schedule(
        &self,
        name: &str,
        spec: ScheduleSpec,
        validate_only: bool,
        actor: &str,
    ) -> Result<ScheduleView> {
        let name = parse(name)?;
        let (spec, timer) = self.check_spec(&name, spec)?;
        let all = self.engine().store().schedules().await?;
        if all.iter().any(|s| s.name == name) {
            let said = format!("schedule {name} is there already; change it with UpdateSchedule");
            return Err(Error::new(Code::AlreadyExists, "SCHEDULE_EXISTS", said).about("schedule", &name));
        }
        if all.len() >= SCHEDULES_MAX {
            let said = format!("expected at most {SCHEDULES_MAX} schedules");
            return Err(Error::new(Code::ResourceExhausted, "TOO_MANY_SCHEDULES", said));
        }
        if validate_only {
            return Ok(would_be(name, spec, &timer, self.clock().now(), actor));
        }
        Ok(view(self.engine().apply_schedule(name, spec, false, Some(0), actor).await?))
    }

    pub async fn get_schedule(&self, name: &str) -> Result<ScheduleView> {
        Ok(view(self.schedule(name).await?))
    }

    pub async fn list_schedules(&self, page_size: i32, page_token: &str) -> Result<Page<ScheduleView>> {
        let list = page::fingerprint("schedules", "");
        let from = usize::try_from(page::position(list, page_token)?.unwrap_or(0)).unwrap_or(0);
        let size = page::size(page_size)?;
        let all = self.engine().store().schedules().await?;
        let next = (from + size < all.len()).then(|| page::token(list, (from + size) as i64));
        let items = all.into_iter().skip(from).take(size).map(view).collect();
        Ok(Page { items, next_page_token: next.unwrap_or_default() })
    }

    pub async fn update_schedule(
        &self,
        name: &str,
        spec: ScheduleSpec,
        etag: &str,
        actor: &str,
    ) -> Result<ScheduleView> {
        let found = self.own_schedule(name).await?;
        let (spec, _) = self.check_spec(&found.name, spec)?;
        let expect = match etag {
            "" => found.revision,
            text => text
                .strip_prefix('r')
                .and_then(|n| n.parse().ok())
                .filter(|revision| *revision > 0)
                .ok_or_else(|| Error::field("etag", "BAD_ETAG", "expected the etag of an answer"))?,
        };
        Ok(view(self.engine().apply_schedule(found.name, spec, false, Some(expect), actor).await?))
    }

    pub async fn delete_schedule(&self, name: &str, actor: &str) -> Result<()> {
        Ok(self.engine().delete_schedule(&parse(name)?, actor).await?)
    }

    pub async fn pause_schedule(&self, name: &str, paused: bool, actor: &str) -> Result<ScheduleView> {
        let found = self.schedule(name).await?;
        Ok(view(self.engine().pause_schedule(&found, paused, actor).await?))
    }

    pub async fn run_schedule(&self, name: &str, actor: &str) -> Result<ScheduleView> {
        let found = self.schedule(name).await?;
        Ok(view(self.engine().run_schedule(&found, actor).await?))
    }

    async fn schedule(&self, name: &str) -> Result<Schedule> {
        let name = parse(name)?;
        let found = self.engine().store().schedule(&name).await?;
        found.ok_or_else(|| Error::not_found("schedule", &name))
    }

    /// One that no file declares.
    async fn own_schedule(&self, name: &str) -> Result<Schedule> {
        let found = self.schedule(name).await?;
        if found.from_file {
            let said = format!("schedule {name} is declared by {}; change it there and reload", found.actor);
            return Err(Error::new(Code::FailedPrecondition, "SCHEDULE_OF_FILE", said).about("schedule", name));
        }
        Ok(found)
    }

    fn check_spec(&self, name: &ScheduleName, spec: ScheduleSpec) -> Result<(Spec, Timer)> {
        let ScheduleSpec { cron, zone, jitter, overlap, missed, target } = spec;
        let target = match target {
            None => return Err(Error::field("spec.target", "NO_TARGET", "expected jobs, a pull or an invalidation")),
            Some(TargetSpec::Invalidate { namespace, keys }) => {
                Target::Invalidate(super::calls::which(&namespace, keys).map_err(|e| e.under("spec.invalidate"))?)
            }
            Some(TargetSpec::Jobs(jobs)) => Target::Jobs(self.check_jobs(jobs)?),
            Some(TargetSpec::Pull { collection, full }) => Target::Pull(self.check_pull(&collection, full)?),
        };
        if jitter > JITTER_MAX {
            let said = format!("expected at most {} s, got {jitter:?}", JITTER_MAX.as_secs());
            return Err(Error::field("spec.jitter", "BAD_JITTER", said));
        }
        if matches!(missed, Missed::All(n) if n == 0 || n > MISSED_MAX) {
            return Err(Error::field("spec.missed_max", "BAD_MISSED", format!("expected 1 to {MISSED_MAX}")));
        }
        let zone = if zone.is_empty() { "UTC".to_owned() } else { zone };
        let spec = Spec { cron, zone, jitter, overlap, missed, target };
        let timer =
            Timer::new(name, &spec).map_err(|e| Error::field(format!("spec.{}", e.field), "BAD_SCHEDULE", e.said))?;
        Ok((spec, timer))
    }

    fn check_pull(&self, collection: &str, full: bool) -> Result<PullSpec> {
        const FIELD: &str = "spec.pull.collection";
        let collection = CollectionName::new(collection).map_err(|e| Error::field(FIELD, "BAD_NAME", e))?;
        let declared = self.engine().collections().get(&collection);
        let declared = declared.ok_or_else(|| Error::not_found("collection", &collection))?;
        if declared.pull.is_none() {
            let said = format!("collection {collection} has no pull; declare [collections.{collection}.pull]");
            return Err(Error::field(FIELD, "NO_PULL", said));
        }
        Ok(PullSpec { collection, full })
    }

    fn check_jobs(&self, jobs: Vec<ScheduledJob>) -> Result<Vec<JobSpec>> {
        if jobs.is_empty() || jobs.len() > JOBS_MAX {
            let said = format!("expected 1 to {JOBS_MAX} jobs, got {}", jobs.len());
            return Err(Error::field("spec.jobs.jobs", "BAD_JOB_COUNT", said));
        }
        let mut specs: Vec<JobSpec> = Vec::with_capacity(jobs.len());
        for (at, job) in jobs.into_iter().enumerate() {
            let spec = self.check_job(job).map_err(|e| e.under(&format!("spec.jobs.jobs[{at}]")))?;
            if specs.first().is_some_and(|first| first.tenant != spec.tenant) {
                let said = "expected jobs of one tenant, since they are one run";
                return Err(Error::field(format!("spec.jobs.jobs[{at}].tenant"), "OTHER_TENANT", said));
            }
            specs.push(spec);
        }
        Ok(specs)
    }

    fn check_job(&self, job: ScheduledJob) -> Result<JobSpec> {
        let bad = |field: &'static str| move |e: BadName| Error::field(field, "BAD_NAME", e);
        check_payload("payload", &job.payload, self.0.options.payload_bytes_max)?;
        check_labels(&job.labels).map_err(|said| Error::field("labels", "BAD_LABELS", said))?;
        let provider = ProviderName::new(&job.provider).map_err(bad("provider"))?;
        let operation = OperationName::new(&job.operation).map_err(bad("operation"))?;
        let declared = self.engine().provider(&provider).ok_or_else(|| Error::not_found("provider", &provider))?;
        if !declared.operations.contains_key(&operation) {
            let said = format!("provider {provider} has no operation {operation}");
            return Err(Error::field("operation", "NO_SUCH_OPERATION", said));
        }
        let key = if job.key.is_empty() { None } else { Some(Key::new(&job.key).map_err(bad("key"))?) };
        Ok(JobSpec {
            provider,
            operation,
            account: Account::new(&job.account).map_err(bad("account"))?,
            tenant: Tenant::new(&job.tenant).map_err(bad("tenant"))?,
            key,
            class: job.class,
            payload: if job.payload.is_empty() { "null".into() } else { job.payload.into() },
            labels: job.labels,
        })
    }
}

fn parse(name: &str) -> Result<ScheduleName> {
    ScheduleName::new(name).map_err(|e| Error::field("name", "BAD_NAME", e))
}

fn view(schedule: Schedule) -> ScheduleView {
    let starts_at =
        Timer::new(&schedule.name, &schedule.spec).map_or(Timestamp::NEVER, |t| t.fires_at(schedule.next_at));
    ScheduleView { etag: format!("r{}", schedule.revision), starts_at, schedule }
}

fn would_be(name: ScheduleName, spec: Spec, timer: &Timer, now: Timestamp, actor: &str) -> ScheduleView {
    let schedule = Schedule {
        name,
        spec,
        from_file: false,
        actor: actor.to_owned(),
        revision: 0,
        version: 0,
        paused: false,
        next_at: timer.next_after(now),
        queued: Vec::new(),
        last_tick_at: None,
        last_run: None,
        last_outcome: String::new(),
        created_at: now,
        updated_at: now,
    };
    ScheduleView { etag: String::new(), ..view(schedule) }
}

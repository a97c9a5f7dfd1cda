//! Undoing a run: a new run with the inverse jobs of those that were delivered, the last one first.
//!
//! Only what was delivered is undone, and only once the run has ended, so an inverse never leaves before the job that it
//! undoes is final. Jobs of one key keep the reverse of their order, because they are enqueued in it. Asking again finds
//! the same run, and goes on filling it where an earlier call stopped: each inverse has an idempotency key of its own.
//! Must never know: proto types. Next: `api/runs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::Api;
use super::enqueue::RESERVED;
use super::error::{Code, Error, Result, parse_id};
use super::runs::{DISPLAY_NAME_BYTES_MAX, RunView};
use crate::model::flow::FlowKey;
use crate::model::job::{Coalesce, Job, NewJob, Payload};
use crate::model::name::{IdempotencyKey, OperationName, ProviderName};
use crate::model::provider::Undo;
use crate::model::run::{NewRun, Run, RunWish};
use crate::store::{Change, PAGE_MAX};

pub(super) mod fill;

/// One call fills for so long; the next one goes on.
const FILL_MAX: Duration = Duration::from_secs(20);

/// What an undo did, or would do.
#[derive(Clone, Debug)]
pub struct Undone {
    /// The new run; `None`: nothing was done.
    pub run: Option<RunView>,
    /// Inverse jobs that it has in the end.
    pub jobs: u64,
    /// Delivered jobs that retention has thrown away: they cannot be undone.
    pub forgotten: u64,
    /// False: the time of one call was over. Ask again to go on.
    pub complete: bool,
}

impl Api {
    pub async fn undo_run(&self, id: &str, validate_only: bool) -> Result<Undone> {
        let id = parse_id("run_id", id)?;
        let run = self.engine().store().run(id).await?.ok_or_else(|| Error::not_found("run", id))?;
        if !run.state.is_final() {
            let said = format!("run {id} is {}: let it end, or cancel it, before it is undone", run.state.name());
            return Err(Error::new(Code::FailedPrecondition, "RUN_NOT_ENDED", said).about("run", id));
        }
        if self.is_draining() {
            return Err(Error::draining());
        }
        let started = self.clock().steady();
        let mut turns = self.delivered_turns(&run).await?;
        if (turns.len() as u64) < run.counts.delivered {
            if !self.fill_run(&run, started).await? {
                return Ok(Undone { run: None, jobs: turns.len() as u64, forgotten: 0, complete: false });
            }
            turns = self.delivered_turns(&run).await?;
        }
        let (jobs, forgotten) = (turns.len() as u64, run.counts.delivered.saturating_sub(turns.len() as u64));
        if validate_only {
            return Ok(Undone { run: None, jobs, forgotten, complete: false });
        }
        let mut undoing = self.changed_run(Change::CreateRun { run: inverse_of(&run) }).await?;
        for chunk in turns.chunks(PAGE_MAX) {
            if !undoing.state.takes_jobs() {
                // It was filled before, or called off meanwhile.
                return Ok(Undone { run: Some(self.run(undoing.id).await?), jobs, forgotten, complete: true });
            }
            if self.clock().steady().since(started) > FILL_MAX {
                return Ok(Undone { run: Some(self.run(undoing.id).await?), jobs, forgotten, complete: false });
            }
            let seqs: Vec<i64> = chunk.iter().map(|(_, seq)| *seq).collect();
            let mut found = self.engine().store().jobs(&seqs).await?;
            found.sort_by_key(|job| std::cmp::Reverse((job.turn, job.id.seq)));
            let inverses: Result<Vec<NewJob>> = found.iter().map(|job| self.inverse(job, &undoing)).collect();
            for enqueued in self.engine().enqueue(inverses?).await? {
                enqueued?;
            }
            undoing = self.run(undoing.id).await?.run;
        }
        if undoing.state.takes_jobs() {
            undoing = self.changed_run(Change::WishRun { run: undoing.id, wish: RunWish::Seal }).await?;
        }
        Ok(Undone { run: Some(self.run(undoing.id).await?), jobs, forgotten, complete: true })
    }

    /// (turn, number) of every delivered job, the last one first. Fails when one of them has no inverse.
    async fn delivered_turns(&self, run: &Run) -> Result<Vec<(i64, i64)>> {
        let (mut turns, mut lacking) = (Vec::new(), BTreeSet::new());
        loop {
            let page = self.engine().store().run_delivered(run.id, turns.last().copied(), PAGE_MAX).await?;
            for job in &page {
                if self.undo_rule(&job.provider, &job.operation).is_none() {
                    lacking.insert(format!("{}/{}", job.provider, job.operation));
                }
                turns.push((job.turn, job.seq));
            }
            if page.len() < PAGE_MAX {
                break;
            }
        }
        if !lacking.is_empty() {
            let names: Vec<String> = lacking.into_iter().take(20).collect();
            let said = format!(
                "expected every operation of the run to declare `undo`; these do not, or are not declared any more: {}",
                names.join(", ")
            );
            return Err(Error::new(Code::FailedPrecondition, "NO_INVERSE", said).about("run", run.id));
        }
        Ok(turns)
    }

    fn undo_rule(&self, provider: &ProviderName, operation: &OperationName) -> Option<Undo> {
        self.engine().provider(provider)?.operations.get(operation)?.undo.clone()
    }

    fn inverse(&self, job: &Job, undoing: &Run) -> Result<NewJob> {
        let FlowKey { provider, operation, .. } = &job.flow_key;
        let rule = self.undo_rule(provider, operation);
        let rule = rule.ok_or_else(|| Error::internal("an inverse was taken away meanwhile"))?;
        let key = IdempotencyKey::new(format!("{RESERVED}undo/{}", job.id));
        let key = key.map_err(|e| Error::internal(e.to_string()))?;
        Ok(NewJob {
            account: job.flow_key.account.clone(),
            tenant: job.flow_key.tenant.clone(),
            run: Some(undoing.id),
            key: job.key.clone(),
            class: job.class,
            labels: job.labels.clone(),
            idempotency_key: Some(key),
            // Each is undone by itself.
            coalesce: Coalesce::Never,
            ..NewJob::new(job.flow_key.provider.clone(), rule.operation.clone(), payload(job, &rule))
        })
    }
}

fn inverse_of(run: &Run) -> NewRun {
    let mut display_name = format!("undo of {}", if run.display_name.is_empty() { "a run" } else { &run.display_name });
    display_name.truncate(display_name.floor_char_boundary(DISPLAY_NAME_BYTES_MAX));
    NewRun { display_name, tenant: run.tenant.clone(), labels: run.labels.clone(), undo_of: Some(run.id.seq) }
}

/// The original payload, or it and the kept answer: `{"payload":...,"result":...}`. An answer that is no JSON, or was cut,
/// comes as a text.
fn payload(job: &Job, rule: &Undo) -> Payload {
    if !rule.with_result {
        return job.payload.clone();
    }
    let result = match job.result.as_deref() {
        None => "null".to_owned(),
        Some(text) => match serde_json::from_str::<&RawValue>(text) {
            Ok(json) => json.get().to_owned(),
            Err(_) => serde_json::Value::from(text).to_string(),
        },
    };
    Arc::from(format!("{{\"payload\":{},\"result\":{result}}}", job.payload))
}

//! Changes that people, the sweeper or the gate ask for: each by itself, none is frequent. Next: `enqueue`.

use std::collections::{BTreeSet, HashMap};

use super::bulk::json;
use super::row::{self, Columns};
use super::sql;
use super::work::Work;
use crate::clock::Timestamp;
use crate::model::alert::{Raised, Step};
use crate::model::event::What;
use crate::model::id::{FlowId, JobId, RunId};
use crate::model::name::ProviderName;
use crate::model::run::{NewRun, Run, RunState, RunWish};
use crate::model::state::Event;
use crate::store::rules::{self, Core};
use crate::store::{AlertChange, AppliedProvider, Change, Changed, Delivery, Error, JobNow, Refusal};

pub(super) type Answer<T> = Result<Result<T, Refusal>, Error>;

impl Work<'_> {
    pub(super) async fn change(&mut self, change: Change) -> Answer<Changed> {
        let now = self.now;
        match change {
            Change::CancelJobs { jobs } => self.each(&jobs, |core| core.cancel(now)).await.map(Ok),
            Change::ReviveJobs { jobs, fresh } => self.revive(&jobs, fresh).await.map(Ok),
            Change::ExpediteJobs { jobs } => {
                self.each(&jobs, |core| Ok(core.expedite(now)?.then_some(Event::Edit))).await.map(Ok)
            }
            Change::ResolveJobs { jobs, decision } => {
                self.each(&jobs, |core| core.resolve(decision, now).map(Some)).await.map(Ok)
            }
            Change::EditJob { job, payload, class, due_at } => {
                let edit = |core: &mut Core| core.edit(payload.is_some(), class, due_at, now).map(Some);
                let edited = self.each(&[job], edit).await?;
                if let (Some(payload), Changed::Jobs(results)) = (payload, &edited)
                    && results[0].is_ok()
                {
                    self.trip.write(sql::UPDATE_PAYLOAD, &[job.seq.into(), payload.into()]);
                }
                Ok(Ok(edited))
            }
            Change::PromoteDue { limit } => self.promote_due(limit).await.map(|n| Ok(Changed::Count(n))),
            Change::CreateRun { run } => self.create_run(run).await.map(|run| Ok(Changed::Run(run))),
            Change::WishRun { run, wish } => Ok(self.wish_run(run, wish).await?.map(Changed::Run)),
            Change::CancelRunJobs { run, limit } => Ok(self.cancel_run_jobs(run, limit).await?.map(Changed::Count)),
            Change::FillRun { run, after, limit } => self.fill_run(run, after, limit).await.map(Ok),
            Change::ApplyProvider { name, source, expect, actor } => {
                self.apply_provider(name, source, expect, actor).await
            }
            Change::DeleteProvider { name, force, actor } => self.delete_provider(name, force, &actor).await,
            Change::PauseProvider { name, paused, actor } => self.pause_provider(name, paused, &actor).await,
            Change::SaveGate { provider, memory, .. } => {
                let Some(mut found) = self.provider(&provider).await? else {
                    return Ok(Err(Refusal::NoProvider(provider)));
                };
                found.memory = Some(memory);
                self.save_provider(&found);
                Ok(Ok(Changed::Done))
            }
            Change::Prune { finished_before, dead_before, calls_before, events_before, limit } => {
                let pruned = self.prune(finished_before, dead_before, calls_before, events_before, limit).await?;
                Ok(Ok(Changed::Count(pruned)))
            }
            Change::Note { what } => {
                self.packer.note(what);
                Ok(Ok(Changed::Done))
            }
            Change::Schedule(change) => self.schedule(*change).await,
            Change::Receive(delivery) => self.receive(*delivery).await,
            Change::Alert(change) => self.alert(*change).await,
            Change::Invalidate { which, actor } => {
                self.packer.note(What::Invalidated { which, actor });
                Ok(Ok(Changed::Done))
            }
        }
    }

    async fn fill_run(&mut self, run: RunId, after: i64, limit: u32) -> Result<Changed, Error> {
        let rows = self.trip.read(sql::JOBS_UPTO, &[after.into(), i64::from(limit).into()]).await?;
        let upto = rows.first().map(|row| Columns::of(row).opt_int()).transpose()?.flatten();
        if let Some(upto) = upto {
            self.trip.write(sql::FILL_RUN, &[run.seq.into(), after.into(), upto.into()]);
        }
        Ok(Changed::Filled { upto })
    }

    async fn receive(&mut self, delivery: Delivery) -> Answer<Changed> {
        let values = [delivery.mark.to_vec().into(), delivery.forget_at.0.into()];
        if self.trip.read(sql::SAVE_DELIVERY, &values).await?.is_empty() {
            return Ok(Err(Refusal::Repeated(delivery.webhook)));
        }
        self.enqueue_all(delivery.job.into_iter().collect()).await?;
        Ok(Ok(Changed::Done))
    }

    async fn alert(&mut self, change: AlertChange) -> Answer<Changed> {
        let AlertChange { step, alert: Raised { name, provider, raised_at, told_at, detail }, expect } = &change;
        let (name, detail, expected) = (name.as_str(), detail.as_str(), expect.map(|at| at.0));
        let done = match step {
            Step::Raise => {
                let values =
                    [name.into(), provider.as_str().into(), raised_at.0.into(), told_at.0.into(), detail.into()];
                self.trip.read(sql::RAISE_ALERT, &values).await?
            }
            Step::Repeat => {
                let values = [name.into(), told_at.0.into(), detail.into(), expected.into()];
                self.trip.read(sql::REPEAT_ALERT, &values).await?
            }
            Step::Clear => self.trip.read(sql::CLEAR_ALERT, &[name.into(), expected.into()]).await?,
        };
        if done.is_empty() {
            return Ok(Err(Refusal::AlertMoved(change.alert.name.clone())));
        }
        self.packer.alert(&change);
        Ok(Ok(Changed::Done))
    }

    /// The jobs with those of the ids that exist. A final job has its key's hash again, in case it comes back.
    async fn find(&mut self, ids: &[JobId]) -> Result<HashMap<i64, Core>, Error> {
        let seqs = json(ids.iter().map(|id| id.seq));
        let mut cores = HashMap::new();
        for row in self.trip.read(sql::CORES_WITH_KEY, &[seqs.into()]).await? {
            let mut columns = Columns::of(&row);
            let mut core = columns.core()?;
            if let Some(key) = columns.key()? {
                core.key_hash = Some(rules::key_hash(&columns.provider()?, &columns.account()?, &key));
            }
            cores.insert(core.id.seq, core);
        }
        self.need_flows(cores.values().map(|core| core.flow).collect()).await?;
        Ok(cores)
    }

    /// Applies `change` to each job by itself. What returns an event is written to the log.
    async fn each<F>(&mut self, ids: &[JobId], mut change: F) -> Result<Changed, Error>
    where
        F: FnMut(&mut Core) -> Result<Option<Event>, Refusal>,
    {
        let before = self.find(ids).await?;
        let mut after = before.clone();
        let mut results = Vec::with_capacity(ids.len());
        let mut changed = BTreeSet::new();
        for &id in ids {
            let Some(core) = after.get_mut(&id.seq).filter(|core| core.id == id) else {
                results.push(Err(Refusal::NoJob(id)));
                continue;
            };
            results.push(change(core).map(|event| {
                if let Some(event) = event {
                    self.packer.changed(core, event, None);
                }
                changed.insert(id.seq);
                JobNow { id, state: core.state(), cancel_requested: core.cancel_requested }
            }));
        }
        let changed = changed.into_iter().map(|seq| (before[&seq].clone(), after[&seq].clone())).collect();
        self.save_jobs(changed).await?;
        Ok(Changed::Jobs(results))
    }

    /// One by one: each revived job changes what the next of its key finds, and may open its run again.
    async fn revive(&mut self, ids: &[JobId], fresh: bool) -> Result<Changed, Error> {
        let mut results = Vec::with_capacity(ids.len());
        for &id in ids {
            let Some(old) = self.find(&[id]).await?.remove(&id.seq).filter(|core| core.id == id) else {
                results.push(Err(Refusal::NoJob(id)));
                continue;
            };
            results.push(self.revive_one(old, fresh).await?);
        }
        Ok(Changed::Jobs(results))
    }

    async fn revive_one(&mut self, old: Core, fresh: bool) -> Answer<JobNow> {
        if let Err(refusal) = old.allows(Event::Revive) {
            return Ok(Err(refusal));
        }
        let run = self.flows[&old.flow].key.run;
        match self.runs.get(&run).map(|run| (run.id, run.state)) {
            Some((id, state @ (RunState::Cancelling | RunState::Cancelled))) => {
                return Ok(Err(Refusal::WrongRunState { id, state: state.name() }));
            }
            Some((_, RunState::Finished)) => {
                self.runs.get_mut(&run).expect("it was just found").finished_at = None;
                self.set_run_state(run, RunState::Sealed).await?;
            }
            _ => {}
        }
        let mut new = old.clone();
        let turn = self.numbers.seq;
        self.numbers.seq += 1;
        self.save_numbers = true;
        let alone = match old.key_hash {
            None => true,
            Some(hash) => {
                let used = self.trip.read(sql::KEY_IN_USE, &[hash.into()]).await?;
                used.first().map(|row| Columns::of(row).int()).transpose()? == Some(0)
            }
        };
        let event = match new.revive(turn, fresh, alone, self.now) {
            Ok(event) => event,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.packer.changed(&new, event, None);
        let job = JobNow { id: new.id, state: new.state(), cancel_requested: new.cancel_requested };
        self.save_jobs(vec![(old, new)]).await?;
        Ok(Ok(job))
    }

    async fn promote_due(&mut self, limit: u32) -> Result<u64, Error> {
        let mut changed = Vec::new();
        for old in self.trip.read(sql::DUE, &[self.now.0.into(), i64::from(limit).into()]).await? {
            let old = row::core(&old)?;
            let mut new = old.clone();
            new.promote();
            changed.push((old, new));
        }
        let count = changed.len() as u64;
        self.save_jobs(changed).await?;
        Ok(count)
    }

    pub(super) async fn create_run(&mut self, new: NewRun) -> Result<Run, Error> {
        if let Some(undone) = new.undo_of {
            let known = self.runs.values().find(|run| run.undo_of == Some(undone)).map(|run| run.id.seq);
            let found = match known {
                Some(seq) => Some(seq),
                None => {
                    let rows = self.trip.read(sql::RUN_UNDOING, &[undone.into()]).await?;
                    rows.first().map(|row| Columns::of(row).int()).transpose()?
                }
            };
            if let Some(seq) = found {
                self.need_runs([seq].into()).await?;
                if let Some(run) = self.runs.get(&seq) {
                    return Ok(run.clone());
                }
            }
        }
        let run = Run {
            id: RunId::new(self.now, self.numbers.run),
            display_name: new.display_name,
            tenant: new.tenant,
            labels: new.labels,
            state: RunState::Open,
            counts: Default::default(),
            updated_at: self.now,
            finished_at: None,
            undo_of: new.undo_of,
        };
        self.numbers.run += 1;
        self.packer.note(What::run(run.id, run.state));
        self.runs_changed.insert(run.id.seq);
        self.runs.insert(run.id.seq, run.clone());
        Ok(run)
    }

    async fn find_run(&mut self, id: RunId) -> Answer<Run> {
        self.need_runs([id.seq].into()).await?;
        Ok(self.runs.get(&id.seq).filter(|run| run.id == id).cloned().ok_or(Refusal::NoRun(id)))
    }

    pub(super) async fn wish_run(&mut self, id: RunId, wish: RunWish) -> Answer<Run> {
        let old = match self.find_run(id).await? {
            Ok(run) => run.state,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(new) = old.on(wish) else {
            return Ok(Err(Refusal::WrongRunState { id, state: old.name() }));
        };
        if new != old {
            self.set_run_state(id.seq, new).await?;
        }
        self.end_run(id.seq).await?;
        self.find_run(id).await
    }

    async fn cancel_run_jobs(&mut self, id: RunId, limit: u32) -> Answer<u64> {
        match self.find_run(id).await? {
            Ok(run) if run.state == RunState::Cancelling => {}
            Ok(run) => return Ok(Err(Refusal::WrongRunState { id, state: run.state.name() })),
            Err(refusal) => return Ok(Err(refusal)),
        }
        // A flow that only calls is busy and has nothing to cancel, so all busy ones are looked at.
        let flows = self.trip.read(sql::RUN_FLOWS, &[id.seq.into(), 0.into(), i64::MAX.into()]).await?;
        let mut left = limit as usize;
        for flow in flows {
            let flow = row::flow(&flow)?.id;
            // Cancelling a job may make the next of its key ready, so a flow is done only when it yields nothing.
            loop {
                let before = left;
                for query in [sql::FLOW_READY, sql::FLOW_APART] {
                    left -= self.cancel_some(query, flow.0, left).await?;
                }
                if left == before {
                    break;
                }
            }
        }
        self.end_run(id.seq).await?;
        Ok(Ok(u64::from(limit) - left as u64))
    }

    async fn cancel_some(&mut self, query: &'static str, flow: i64, limit: usize) -> Result<usize, Error> {
        let mut changed = Vec::new();
        for old in self.trip.read(query, &[flow.into(), (limit as i64).into()]).await? {
            let old = row::core(&old)?;
            let mut new = old.clone();
            let event = new.cancel(self.now).expect("waiting and unknown jobs may be cancelled");
            self.packer.changed(&new, event.expect("it is not on the wire"), None);
            changed.push((old, new));
        }
        let count = changed.len();
        self.save_jobs(changed).await?;
        Ok(count)
    }

    async fn provider(&mut self, name: &ProviderName) -> Result<Option<AppliedProvider>, Error> {
        let found = self.trip.read(sql::PROVIDER, &[name.as_str().into()]).await?;
        found.first().map(row::provider).transpose()
    }

    fn save_provider(&mut self, p: &AppliedProvider) {
        let values = [
            p.name.as_str().into(),
            p.source.as_str().into(),
            p.revision.into(),
            i64::from(p.paused).into(),
            p.applied_at.0.into(),
            p.actor.as_str().into(),
            p.memory.as_deref().into(),
        ];
        self.trip.write(sql::SAVE_PROVIDER, &values);
    }

    async fn apply_provider(
        &mut self,
        name: ProviderName,
        source: String,
        expect: Option<i64>,
        actor: String,
    ) -> Answer<Changed> {
        let old = self.provider(&name).await?;
        let current = old.as_ref().map_or(0, |p| p.revision);
        if let Some(expected) = expect.filter(|&expected| expected != current) {
            return Ok(Err(Refusal::StaleRevision { name, current, expected }));
        }
        let paused = old.as_ref().is_some_and(|p| p.paused);
        let memory = old.and_then(|p| p.memory);
        let new = AppliedProvider { name, source, revision: current + 1, paused, applied_at: self.now, actor, memory };
        self.save_provider(&new);
        let detail = format!("revision {}", new.revision);
        self.packer.note(What::provider(&new.name, "applied", detail, &new.actor));
        Ok(Ok(Changed::Provider(new)))
    }

    async fn delete_provider(&mut self, name: ProviderName, force: bool, actor: &str) -> Answer<Changed> {
        if self.provider(&name).await?.is_none() {
            return Ok(Err(Refusal::NoProvider(name)));
        }
        let mut tallies = self.desk.tallies.clone();
        tallies.extend(self.tallies.clone());
        let of_it = tallies.iter().filter(|((provider, _), _)| *provider == name);
        let jobs: u64 = of_it.map(|(_, counts)| rules::hot(counts)).sum();
        if jobs > 0 && !force {
            return Ok(Err(Refusal::ProviderBusy { name, jobs }));
        }
        self.trip.write(sql::DELETE_PROVIDER, &[name.as_str().into()]);
        self.packer.note(What::provider(&name, "deleted", "", actor));
        Ok(Ok(Changed::Done))
    }

    async fn pause_provider(&mut self, name: ProviderName, paused: bool, actor: &str) -> Answer<Changed> {
        let Some(mut provider) = self.provider(&name).await? else {
            return Ok(Err(Refusal::NoProvider(name)));
        };
        if provider.paused != paused {
            provider.paused = paused;
            self.save_provider(&provider);
            self.packer.note(What::provider(&name, if paused { "paused" } else { "resumed" }, "", actor));
        }
        Ok(Ok(Changed::Provider(provider)))
    }

    async fn prune(
        &mut self,
        finished_before: Timestamp,
        dead_before: Timestamp,
        calls_before: Timestamp,
        events_before: Timestamp,
        limit: u32,
    ) -> Result<u64, Error> {
        let (limit, mut old, mut no_more) = (i64::from(limit), Vec::new(), true);
        for (query, before) in [(sql::OLD_DEAD, dead_before), (sql::OLD_DONE, finished_before)] {
            let rows = self.trip.read(query, &[before.0.into(), limit.into()]).await?;
            no_more &= (rows.len() as i64) < limit;
            for row in rows {
                old.push(Columns::of(&row).int()?);
            }
        }
        let mut pruned = old.len() as u64;
        if !old.is_empty() {
            let old = json(old);
            for query in [sql::DELETE_IDEMPOTENCY, sql::DELETE_JOBS] {
                self.trip.write(query, &[old.as_str().into()]);
            }
        }
        let log =
            [(sql::PRUNE_CALLS, calls_before), (sql::PRUNE_EVENTS, events_before), (sql::PRUNE_DELIVERIES, self.now)];
        for (query, before) in log {
            self.trip.write(query, &[before.0.into(), limit.into()]);
            pruned += self.trip.flush().await?;
        }
        if no_more {
            pruned += self.prune_ended(finished_before.min(dead_before), limit).await?;
        }
        // The rows with the highest numbers may be among those that went. Nothing went: nothing to flush, so an idle
        // daemon leaves the disk alone.
        self.save_numbers |= pruned > 0;
        Ok(pruned)
    }

    /// Flows and runs that nothing names any more. What this commit has in hand stays, whatever its row still says.
    async fn prune_ended(&mut self, before: Timestamp, limit: i64) -> Result<u64, Error> {
        let mut gone = BTreeSet::new();
        let in_hand = json(self.touched.iter().map(|id| id.0));
        for row in self.trip.read(sql::PRUNE_FLOWS, &[before.0.into(), limit.into(), in_hand.into()]).await? {
            gone.insert(FlowId(Columns::of(&row).int()?));
        }
        if !gone.is_empty() {
            self.flows.retain(|id, _| !gone.contains(id));
            // A cache: forgetting is right even if this commit fails.
            self.desk.forget_flows();
        }
        let in_hand = json(self.runs_changed.iter().copied());
        let runs = self.trip.read(sql::PRUNE_RUNS, &[before.0.into(), limit.into(), in_hand.into()]).await?;
        for row in &runs {
            self.runs.remove(&Columns::of(row).int()?);
        }
        Ok((gone.len() + runs.len()) as u64)
    }
}

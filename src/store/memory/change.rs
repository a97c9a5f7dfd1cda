//! Changes that people, the sweeper or the gate ask for. Next: `enqueue`.

use super::Work;
use crate::model::alert::Step;
use crate::model::event::What;
use crate::model::id::{FlowId, JobId, RunId};
use crate::model::name::ProviderName;
use crate::model::run::{NewRun, Run, RunState, RunWish};
use crate::model::state::Event;
use crate::store::rules::{self, Core, Stand};
use crate::store::{AlertChange, AppliedProvider, Change, Changed, Delivery, JobNow, Refusal};

impl Work<'_> {
    pub(super) fn change(&mut self, change: Change) -> Result<Changed, Refusal> {
        match change {
            Change::CancelJobs { jobs } => Ok(self.each(&jobs, |_, core, now| core.cancel(now))),
            Change::ReviveJobs { jobs, fresh } => Ok(self.each(&jobs, |work, core, _| work.revive(core, fresh))),
            Change::ExpediteJobs { jobs } => {
                Ok(self.each(&jobs, |_, core, now| Ok(core.expedite(now)?.then_some(Event::Edit))))
            }
            Change::ResolveJobs { jobs, decision } => {
                Ok(self.each(&jobs, |_, core, now| core.resolve(decision, now).map(Some)))
            }
            Change::EditJob { job, payload, class, due_at } => {
                let edited =
                    self.each(&[job], |_, core, now| core.edit(payload.is_some(), class, due_at, now).map(Some));
                if let (Some(payload), Changed::Jobs(results)) = (payload, &edited)
                    && results[0].is_ok()
                {
                    self.world.jobs.get_mut(&job.seq).expect("it was just edited").payload = payload;
                }
                Ok(edited)
            }
            Change::PromoteDue { limit } => Ok(Changed::Count(self.promote_due(limit))),
            Change::CreateRun { run } => Ok(Changed::Run(self.create_run(run))),
            Change::WishRun { run, wish } => self.wish_run(run, wish).map(Changed::Run),
            Change::CancelRunJobs { run, limit } => self.cancel_run_jobs(run, limit).map(Changed::Count),
            // Here every job knows its run.
            Change::FillRun { .. } => Ok(Changed::Filled { upto: None }),
            Change::ApplyProvider { name, source, expect, actor } => self.apply_provider(name, source, expect, actor),
            Change::DeleteProvider { name, force, actor } => self.delete_provider(name, force, &actor),
            Change::PauseProvider { name, paused, actor } => self.pause_provider(name, paused, &actor),
            Change::SaveGate { provider, memory, .. } => {
                self.provider(&provider)?.memory = Some(memory);
                Ok(Changed::Done)
            }
            Change::Prune { finished_before, dead_before, calls_before, events_before, limit } => {
                let limit = limit as usize;
                let (jobs, no_more) = self.prune_jobs(finished_before, dead_before, limit);
                let calls = self.prune_calls(calls_before, limit);
                let events = self.prune_events(events_before, limit) + self.prune_deliveries(limit);
                let before = finished_before.min(dead_before);
                let ended = if no_more { self.prune_flows(before, limit) + self.prune_runs(before, limit) } else { 0 };
                Ok(Changed::Count(jobs + calls + events + ended))
            }
            Change::Note { what } => {
                self.packer.note(what);
                Ok(Changed::Done)
            }
            Change::Schedule(change) => self.schedule(*change),
            Change::Receive(delivery) => self.receive(*delivery),
            Change::Alert(change) => self.alert(*change),
            Change::Invalidate { which, actor } => {
                self.packer.note(What::Invalidated { which, actor });
                Ok(Changed::Done)
            }
        }
    }

    fn receive(&mut self, delivery: Delivery) -> Result<Changed, Refusal> {
        if self.world.deliveries.contains_key(&delivery.mark) {
            return Err(Refusal::Repeated(delivery.webhook));
        }
        self.world.deliveries.insert(delivery.mark, delivery.forget_at);
        if let Some(job) = delivery.job {
            self.enqueue(job)?;
        }
        Ok(Changed::Done)
    }

    fn alert(&mut self, change: AlertChange) -> Result<Changed, Refusal> {
        let AlertChange { step, alert, expect } = &change;
        if self.world.alerts.get(&alert.name).map(|raised| raised.told_at) != *expect {
            return Err(Refusal::AlertMoved(alert.name.clone()));
        }
        match step {
            Step::Raise | Step::Repeat => drop(self.world.alerts.insert(alert.name.clone(), alert.clone())),
            Step::Clear => drop(self.world.alerts.remove(&alert.name)),
        }
        self.packer.alert(&change);
        Ok(Changed::Done)
    }

    /// Applies `change` to each job by itself. What returns an event is written to the log.
    fn each<F>(&mut self, ids: &[JobId], mut change: F) -> Changed
    where
        F: FnMut(&mut Self, &mut Core, crate::clock::Timestamp) -> Result<Option<Event>, Refusal>,
    {
        let mut results = Vec::with_capacity(ids.len());
        for &id in ids {
            let Some(mut core) = self.core(id.seq).filter(|core| core.id == id).cloned() else {
                results.push(Err(Refusal::NoJob(id)));
                continue;
            };
            let now = self.now;
            results.push(change(self, &mut core, now).map(|event| {
                if let Some(event) = event {
                    self.packer.changed(&core, event, None);
                }
                let job = JobNow { id, state: core.state(), cancel_requested: core.cancel_requested };
                self.put(core);
                job
            }));
        }
        Changed::Jobs(results)
    }

    fn revive(&mut self, core: &mut Core, fresh: bool) -> Result<Option<Event>, Refusal> {
        core.allows(Event::Revive)?;
        let run = self.world.flows[&core.flow].0.run;
        match self.world.runs.get(&run).map(|r| (r.id, r.state)) {
            Some((id, state @ (RunState::Cancelling | RunState::Cancelled))) => {
                return Err(Refusal::WrongRunState { id, state: state.name() });
            }
            Some((_, RunState::Finished)) => {
                self.world.runs.get_mut(&run).expect("it was just found").finished_at = None;
                self.set_run_state(run, RunState::Sealed);
            }
            _ => {}
        }
        self.world.last_seq += 1;
        let alone = core.key_hash.is_none_or(|hash| !self.world.chains.contains_key(&hash));
        core.revive(self.world.last_seq, fresh, alone, self.now).map(Some)
    }

    fn promote_due(&mut self, limit: u32) -> u64 {
        let due = self.world.later.iter().take_while(|(at, _)| *at <= self.now).take(limit as usize);
        let due: Vec<i64> = due.map(|&(_, seq)| seq).collect();
        for &seq in &due {
            let mut core = self.world.jobs[&seq].core.clone();
            core.promote();
            self.put(core);
        }
        due.len() as u64
    }

    pub(super) fn create_run(&mut self, new: NewRun) -> Run {
        let undoes = |run: &&Run| new.undo_of.is_some() && run.undo_of == new.undo_of;
        if let Some(known) = self.world.runs.values().find(undoes) {
            return known.clone();
        }
        self.world.last_run += 1;
        let run = Run {
            id: RunId::new(self.now, self.world.last_run),
            display_name: new.display_name,
            tenant: new.tenant,
            labels: new.labels,
            state: RunState::Open,
            counts: Default::default(),
            updated_at: self.now,
            finished_at: None,
            undo_of: new.undo_of,
        };
        self.packer.note(What::run(run.id, run.state));
        self.world.runs.insert(run.id.seq, run.clone());
        run
    }

    fn find_run(&self, id: RunId) -> Result<&Run, Refusal> {
        self.world.runs.get(&id.seq).filter(|run| run.id == id).ok_or(Refusal::NoRun(id))
    }

    pub(super) fn wish_run(&mut self, id: RunId, wish: RunWish) -> Result<Run, Refusal> {
        let old = self.find_run(id)?.state;
        let new = old.on(wish).ok_or(Refusal::WrongRunState { id, state: old.name() })?;
        if new != old {
            self.set_run_state(id.seq, new);
        }
        self.end_run(id.seq);
        self.find_run(id).cloned()
    }

    fn cancel_run_jobs(&mut self, id: RunId, limit: u32) -> Result<u64, Refusal> {
        let state = self.find_run(id)?.state;
        if state != RunState::Cancelling {
            return Err(Refusal::WrongRunState { id, state: state.name() });
        }
        let flows = self.world.flows.iter().filter(|(_, (key, _))| key.run == id.seq);
        let flows: Vec<FlowId> = flows.map(|(flow, _)| *flow).collect();
        let mut left = limit as usize;
        for flow in flows {
            // Cancelling a job may make the next of its key ready, so a flow is done only when it yields nothing.
            loop {
                let before = left;
                left -= self.cancel_some(flow, left, |stand| stand == Stand::Ready);
                left -= self.cancel_some(flow, left, |stand| !matches!(stand, Stand::Ready | Stand::Calling));
                if left == before {
                    break;
                }
            }
        }
        let count = u64::from(limit) - left as u64;
        self.end_run(id.seq);
        Ok(count)
    }

    /// Of the jobs of a flow that stand where `which` says, the ready ones as a gate would take them, others by place.
    fn cancel_some(&mut self, flow: FlowId, limit: usize, which: impl Fn(Stand) -> bool) -> usize {
        let of_flow = |core: &&Core| core.flow == flow && core.stand.is_hot() && which(core.stand);
        let mut cores: Vec<Core> = self.world.jobs.values().map(|row| &row.core).filter(of_flow).cloned().collect();
        cores.sort_by_key(|c| match c.stand {
            Stand::Ready => (c.stand, c.class as i64, c.turn),
            _ => (c.stand, c.turn, c.id.seq),
        });
        cores.truncate(limit);
        let count = cores.len();
        for core in cores {
            // A key freed by the one before may have moved this one from behind to ready.
            let mut core = self.world.jobs[&core.id.seq].core.clone();
            let event = core.cancel(self.now).expect("waiting and unknown jobs may be cancelled");
            self.packer.changed(&core, event.expect("it is not on the wire"), None);
            self.put(core);
        }
        count
    }

    fn provider(&mut self, name: &ProviderName) -> Result<&mut AppliedProvider, Refusal> {
        self.world.providers.get_mut(name).ok_or_else(|| Refusal::NoProvider(name.clone()))
    }

    fn apply_provider(
        &mut self,
        name: ProviderName,
        source: String,
        expect: Option<i64>,
        actor: String,
    ) -> Result<Changed, Refusal> {
        let old = self.world.providers.get(&name);
        let current = old.map_or(0, |p| p.revision);
        if let Some(expected) = expect.filter(|&expected| expected != current) {
            return Err(Refusal::StaleRevision { name, current, expected });
        }
        let new = AppliedProvider {
            name: name.clone(),
            source,
            revision: current + 1,
            paused: old.is_some_and(|p| p.paused),
            applied_at: self.now,
            actor,
            memory: old.and_then(|p| p.memory.clone()),
        };
        let detail = format!("revision {}", new.revision);
        self.packer.note(What::provider(&name, "applied", detail, &new.actor));
        self.world.providers.insert(name, new.clone());
        Ok(Changed::Provider(new))
    }

    fn delete_provider(&mut self, name: ProviderName, force: bool, actor: &str) -> Result<Changed, Refusal> {
        self.provider(&name)?;
        let tallies = self.world.tallies.iter().filter(|((provider, _), _)| *provider == name);
        let jobs: u64 = tallies.map(|(_, counts)| rules::hot(counts)).sum();
        if jobs > 0 && !force {
            return Err(Refusal::ProviderBusy { name, jobs });
        }
        self.world.providers.remove(&name);
        self.packer.note(What::provider(&name, "deleted", "", actor));
        Ok(Changed::Done)
    }

    fn pause_provider(&mut self, name: ProviderName, paused: bool, actor: &str) -> Result<Changed, Refusal> {
        let provider = self.provider(&name)?;
        let changed = std::mem::replace(&mut provider.paused, paused) != paused;
        let provider = provider.clone();
        if changed {
            self.packer.note(What::provider(&name, if paused { "paused" } else { "resumed" }, "", actor));
        }
        Ok(Changed::Provider(provider))
    }
}

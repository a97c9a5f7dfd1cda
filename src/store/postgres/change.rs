//! Changes that people, the sweeper or the gate ask for: each by itself, none is frequent. Next: `runs`, `declare`,
//! `prune`; then `enqueue`.

use std::collections::{BTreeSet, HashMap};

use super::arrays::text;
use super::row::{self, Columns};
use super::sql;
use super::work::{Step, Work};
use crate::model::alert::{self, Raised};
use crate::model::id::JobId;
use crate::model::run::{RunState, RunWish};
use crate::model::state::Event;
use crate::store::rules::{self, Core, Stand};
use crate::store::{AlertChange, Change, Changed, Delivery, JobNow, Refusal};

pub(super) type Answer<T> = Step<Result<T, Refusal>>;

impl Work<'_> {
    pub(super) async fn change(&mut self, change: &Change) -> Answer<Changed> {
        let now = self.now;
        match change {
            Change::CancelJobs { jobs } => {
                let done = self.each(jobs, |core| core.cancel(now)).await?;
                let marked = |jobs: &[Result<JobNow, Refusal>]| jobs.iter().flatten().any(|job| job.cancel_requested);
                self.called_off |= matches!(&done, Changed::Jobs(jobs) if marked(jobs));
                Ok(Ok(done))
            }
            Change::ReviveJobs { jobs, fresh } => self.revive(jobs, *fresh).await.map(Ok),
            Change::ExpediteJobs { jobs } => {
                self.each(jobs, |core| Ok(core.expedite(now)?.then_some(Event::Edit))).await.map(Ok)
            }
            Change::ResolveJobs { jobs, decision } => {
                self.each(jobs, |core| core.resolve(*decision, now).map(Some)).await.map(Ok)
            }
            Change::EditJob { job, payload, class, due_at } => {
                let edit = |core: &mut Core| core.edit(payload.is_some(), *class, *due_at, now).map(Some);
                let edited = self.each(&[*job], edit).await?;
                if let (Some(payload), Changed::Jobs(results)) = (payload, &edited)
                    && results[0].is_ok()
                {
                    let update = sqlx::query(sql::UPDATE_PAYLOAD).bind(job.seq).bind(text(payload));
                    update.execute(&mut *self.conn).await?;
                }
                Ok(Ok(edited))
            }
            Change::PromoteDue { limit } => self.promote_due(*limit).await.map(|n| Ok(Changed::Count(n))),
            Change::CreateRun { run } => self.create_run(run).await.map(|run| Ok(Changed::Run(run))),
            Change::WishRun { run, wish } => {
                self.called_off |= *wish == RunWish::Cancel;
                Ok(self.wish_run(*run, *wish).await?.map(Changed::Run))
            }
            Change::CancelRunJobs { run, limit } => Ok(self.cancel_run_jobs(*run, *limit).await?.map(Changed::Count)),
            Change::FillRun { run, after, limit } => self.fill_run(*run, *after, *limit).await.map(Ok),
            Change::ApplyProvider { name, source, expect, actor } => {
                self.apply_provider(name, source, *expect, actor).await
            }
            Change::DeleteProvider { name, force, actor } => self.delete_provider(name, *force, actor).await,
            Change::PauseProvider { name, paused, actor } => self.pause_provider(name, *paused, actor).await,
            Change::SaveGate { provider, memory, news } => {
                self.declarations |= news;
                self.save_gate(provider, memory).await
            }
            Change::Prune { finished_before, dead_before, calls_before, events_before, limit } => {
                let jobs = [(sql::OLD_DEAD, *dead_before), (sql::OLD_DONE, *finished_before)];
                let log = [
                    (sql::PRUNE_CALLS, *calls_before),
                    (sql::PRUNE_EVENTS, *events_before),
                    (sql::PRUNE_DELIVERIES, now),
                ];
                Ok(Ok(Changed::Count(self.prune(jobs, log, *limit).await?)))
            }
            Change::Note { what } => {
                self.packer.note(what.clone());
                Ok(Ok(Changed::Done))
            }
            Change::Schedule(change) => self.schedule(change).await,
            Change::Receive(delivery) => self.receive(delivery).await,
            Change::Alert(change) => self.alert(change).await,
            Change::Invalidate { which, actor } => {
                self.invalidate(which, actor);
                Ok(Ok(Changed::Done))
            }
        }
    }

    /// Of several daemons that bring the same message at once, the second waits here for the first.
    async fn receive(&mut self, delivery: &Delivery) -> Answer<Changed> {
        let save = sqlx::query(sql::SAVE_DELIVERY).bind(&delivery.mark[..]).bind(delivery.forget_at.0);
        if save.fetch_optional(&mut *self.conn).await?.is_none() {
            return Ok(Err(Refusal::Repeated(delivery.webhook.clone())));
        }
        self.enqueue_all(delivery.job.as_slice()).await?;
        Ok(Ok(Changed::Done))
    }

    /// Of several daemons that tell it at once, the second waits here for the first and finds it told.
    async fn alert(&mut self, change: &AlertChange) -> Answer<Changed> {
        let AlertChange { step, alert: Raised { name, provider, raised_at, told_at, detail }, expect } = change;
        let expected = expect.map(|at| at.0);
        let query = match step {
            alert::Step::Raise => sqlx::query(sql::RAISE_ALERT)
                .bind(name.as_str())
                .bind(provider.as_str())
                .bind(raised_at.0)
                .bind(told_at.0)
                .bind(text(detail)),
            alert::Step::Repeat => {
                sqlx::query(sql::REPEAT_ALERT).bind(name.as_str()).bind(told_at.0).bind(text(detail)).bind(expected)
            }
            alert::Step::Clear => sqlx::query(sql::CLEAR_ALERT).bind(name.as_str()).bind(expected),
        };
        if query.fetch_optional(&mut *self.conn).await?.is_none() {
            return Ok(Err(Refusal::AlertMoved(name.clone())));
        }
        self.packer.alert(change);
        Ok(Ok(Changed::Done))
    }

    /// The jobs with those of the ids that exist, the hot ones locked. A final job has its key's hash, in case it comes
    /// back.
    async fn find(&mut self, ids: &[JobId]) -> Step<HashMap<i64, Core>> {
        let mut seqs: Vec<i64> = ids.iter().map(|id| id.seq).collect();
        seqs.sort_unstable();
        seqs.dedup();
        let mut cores = HashMap::new();
        for query in [sql::CORES_WITH_KEY, sql::FINISHED_CORES] {
            seqs.retain(|seq| !cores.contains_key(seq));
            if seqs.is_empty() {
                break;
            }
            for row in sqlx::query(query).bind(&seqs).fetch_all(&mut *self.conn).await? {
                let mut columns = Columns::of(&row);
                let mut core = columns.core()?;
                if let Some(key) = columns.key()? {
                    core.key_hash = Some(rules::key_hash(&columns.provider()?, &columns.account()?, &key));
                }
                cores.insert(core.id.seq, core);
            }
        }
        self.need_flows(cores.values().map(|core| core.flow).collect()).await?;
        Ok(cores)
    }

    /// Applies `change` to each job by itself. What returns an event is written to the log.
    async fn each<F>(&mut self, ids: &[JobId], mut change: F) -> Step<Changed>
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
    async fn revive(&mut self, ids: &[JobId], fresh: bool) -> Step<Changed> {
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
        let run = self.flows[&old.flow].run;
        let run = if run == 0 { None } else { self.take_run(run).await? };
        match run.map(|run| (run.id, run.state)) {
            Some((id, state @ (RunState::Cancelling | RunState::Cancelled))) => {
                return Ok(Err(Refusal::WrongRunState { id, state: state.name() }));
            }
            Some((id, RunState::Finished)) => {
                self.runs.get_mut(&id.seq).expect("it was just taken").finished_at = None;
                self.set_run_state(id.seq, RunState::Sealed).await?;
            }
            _ => {}
        }
        // Whoever adds to a key holds its first job.
        let head = match old.key_hash {
            Some(hash) => sqlx::query(sql::HEADS).bind(vec![hash]).fetch_optional(&mut *self.conn).await?,
            None => None,
        };
        let mut new = old.clone();
        let turn = self.draw_turn().await?;
        let event = match new.revive(turn, fresh, head.is_none(), self.now) {
            Ok(event) => event,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.packer.changed(&new, event, None);
        let job = JobNow { id: new.id, state: new.state(), cancel_requested: new.cancel_requested };
        self.save_jobs(vec![(old, new)]).await?;
        Ok(Ok(job))
    }

    async fn promote_due(&mut self, limit: u32) -> Step<u64> {
        let due = sqlx::query(sql::DUE).bind(self.now.0).bind(i64::from(limit)).fetch_all(&mut *self.conn).await?;
        let mut changed = Vec::new();
        for old in due {
            let old = row::core(&old)?;
            let mut new = old.clone();
            new.promote();
            changed.push((old, new));
        }
        let count = changed.len() as u64;
        self.save_jobs(changed).await?;
        Ok(count)
    }

    /// Of the jobs of a flow that a query finds, cancels up to `limit`.
    pub(super) async fn cancel_some(&mut self, query: &'static str, flow: i64, limit: usize) -> Step<usize> {
        let rows = sqlx::query(query).bind(flow).bind(limit as i64).fetch_all(&mut *self.conn).await?;
        let mut changed = Vec::new();
        for old in rows {
            let old = row::core(&old)?;
            debug_assert_ne!(old.stand, Stand::Calling);
            let mut new = old.clone();
            let event = new.cancel(self.now).expect("waiting and unknown jobs may be cancelled");
            self.packer.changed(&new, event.expect("it is not on the wire"), None);
            changed.push((old, new));
        }
        let count = changed.len();
        self.save_jobs(changed).await?;
        Ok(count)
    }
}

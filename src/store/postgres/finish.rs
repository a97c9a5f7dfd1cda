//! The end of calls: lock the calls and the jobs they carried, let the rules decide, write all of them at once. Next:
//! `change`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::arrays::opt_text;
use super::begin::spends_text;
use super::row::{self, Columns};
use super::sql;
use super::work::{Step, Work};
use crate::model::id::CallId;
use crate::store::rules::{self, Core, Met};
use crate::store::{FinishCall, Finished, JobOutcome};

impl Work<'_> {
    pub(super) async fn finish_all(&mut self, calls: &[FinishCall]) -> Step<Vec<Finished>> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let mut open = self.open_calls(calls).await?;
        let mut missing: HashMap<CallId, Vec<JobOutcome>> = HashMap::new();
        let mut seen = HashSet::new();
        for call in calls.iter().filter(|call| seen.insert(call.call)) {
            if let Some(jobs) = open.get(&call.call) {
                let told: HashSet<i64> = call.outcomes.iter().map(|o| o.job).collect();
                let untold = jobs.iter().filter(|seq| !told.contains(seq)).map(|&seq| rules::missing_outcome(seq));
                missing.insert(call.call, untold.collect());
            }
        }
        let outcomes =
            calls.iter().flat_map(|call| call.outcomes.iter().chain(missing.get(&call.call).into_iter().flatten()));
        let before = self.cores(outcomes.map(|o| o.job).collect()).await?;
        let mut after: BTreeMap<i64, Core> = BTreeMap::new();
        let mut results = Vec::with_capacity(calls.len());
        let mut ended: Vec<&FinishCall> = Vec::with_capacity(calls.len());
        for call in calls {
            self.packer.section();
            // A second end of the same call within one commit finds it ended.
            let untold = open.remove(&call.call).map(|_| missing.remove(&call.call).unwrap_or_default());
            let mut done = Finished { applied: untold.is_some(), ..Finished::default() };
            if untold.is_some() {
                ended.push(call);
            }
            for outcome in call.outcomes.iter().chain(untold.iter().flatten()) {
                self.finish_job(call, outcome, &before, &mut after, &mut done);
            }
            results.push(done);
        }
        self.end_calls(&ended).await?;
        let changed = after.into_values().map(|new| (before[&new.id.seq].clone(), new)).collect();
        self.save_jobs(changed).await?;
        Ok(results)
    }

    fn finish_job(
        &mut self,
        call: &FinishCall,
        outcome: &JobOutcome,
        before: &HashMap<i64, Core>,
        after: &mut BTreeMap<i64, Core>,
        done: &mut Finished,
    ) {
        let Some(core) = after.get(&outcome.job).or_else(|| before.get(&outcome.job)) else {
            return done.stale.push(outcome.job);
        };
        let mut core = core.clone();
        match core.finish(call, outcome, self.now) {
            Met::Applied(event) => {
                self.packer.changed(&core, event, Some((call.call, call.status)));
                after.insert(outcome.job, core);
            }
            Met::Adopted(event) => {
                done.stale.push(outcome.job);
                done.adopted.push(outcome.job);
                self.packer.changed(&core, event, Some((call.call, call.status)));
                after.insert(outcome.job, core);
            }
            Met::Duplicate => {
                done.stale.push(outcome.job);
                self.packer.duplicate(call, outcome.job);
            }
            Met::Ignored => done.stale.push(outcome.job),
        }
    }

    /// Jobs of those of the calls that are open, and locks these.
    async fn open_calls(&mut self, calls: &[FinishCall]) -> Step<HashMap<CallId, Vec<i64>>> {
        let ids: Vec<i64> = calls.iter().map(|call| call.call.0).collect();
        let mut open = HashMap::new();
        for row in sqlx::query(sql::OPEN_CALL_JOBS).bind(ids).fetch_all(&mut *self.conn).await? {
            let mut columns = Columns::of(&row);
            open.insert(CallId(columns.int()?), columns.packed()?);
        }
        Ok(open)
    }

    /// The jobs as they stand, the hot ones locked.
    async fn cores(&mut self, jobs: BTreeSet<i64>) -> Step<HashMap<i64, Core>> {
        let jobs: Vec<i64> = jobs.into_iter().collect();
        let mut cores = HashMap::with_capacity(jobs.len());
        for row in sqlx::query(sql::CORES).bind(&jobs).fetch_all(&mut *self.conn).await? {
            let core = row::core(&row)?;
            cores.insert(core.id.seq, core);
        }
        let finished: Vec<i64> = jobs.into_iter().filter(|seq| !cores.contains_key(seq)).collect();
        if !finished.is_empty() {
            for row in sqlx::query(sql::FINISHED_CORES).bind(finished).fetch_all(&mut *self.conn).await? {
                let core = row::core(&row)?;
                cores.insert(core.id.seq, core);
            }
        }
        Ok(cores)
    }

    async fn end_calls(&mut self, ended: &[&FinishCall]) -> Step<()> {
        if ended.is_empty() {
            return Ok(());
        }
        for (call, spends) in ended.iter().filter_map(|call| Some((call.call.0, call.spends.as_ref()?))) {
            let respend = sqlx::query(sql::RESPEND_CALL).bind(call).bind(spends_text(spends));
            respend.execute(&mut *self.conn).await?;
        }
        let ids: Vec<i64> = ended.iter().map(|call| call.call.0).collect();
        let endings: Vec<i64> = ended.iter().map(|call| call.ending as i64).collect();
        let statuses: Vec<Option<i64>> = ended.iter().map(|call| call.status.map(i64::from)).collect();
        let errors: Vec<_> = ended.iter().map(|call| opt_text(call.error.as_deref())).collect();
        let settled: Vec<i64> = ended.iter().map(|call| call.settled_at.0).collect();
        let end = sqlx::query(sql::END_CALLS).bind(ids).bind(endings).bind(statuses).bind(errors).bind(settled);
        end.bind(self.now.0).execute(&mut *self.conn).await?;
        Ok(())
    }
}

//! The end of calls: load the jobs they carried, let the rules decide, write all of them at once. Next: `change`.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::bulk::json;
use super::row::{self, Columns};
use super::work::Work;
use super::{error, sql};
use crate::model::id::CallId;
use crate::store::rules::{self, Core, Met};
use crate::store::{Error, FinishCall, Finished, JobOutcome};

impl Work<'_> {
    pub(super) async fn finish_all(&mut self, calls: &[FinishCall]) -> Result<Vec<Finished>, Error> {
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
        let carried: Vec<i64> = outcomes.map(|o| o.job).collect();
        let before = self.carried(carried).await?;
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

    /// Jobs of those of the calls that are open.
    async fn open_calls(&mut self, calls: &[FinishCall]) -> Result<HashMap<CallId, Vec<i64>>, Error> {
        let mut open = HashMap::new();
        let mut unknown = Vec::new();
        for call in calls {
            match self.desk.open_calls.get(&call.call) {
                Some(jobs) => drop(open.insert(call.call, jobs.clone())),
                None => unknown.push(call.call.0),
            }
        }
        if !unknown.is_empty() {
            let rows = sqlx::query(sql::OPEN_CALL_JOBS).bind(json(unknown)).fetch_all(&mut *self.conn).await;
            for row in rows.map_err(error::of)? {
                let mut columns = Columns::of(&row);
                open.insert(CallId(columns.int()?), columns.packed()?);
            }
        }
        Ok(open)
    }

    /// The jobs as they stand: from the desk if they are on the wire, else from the database.
    async fn carried(&mut self, jobs: Vec<i64>) -> Result<HashMap<i64, Core>, Error> {
        let mut cores = HashMap::new();
        let mut unknown = Vec::new();
        for seq in jobs {
            match self.desk.calling.get(&seq) {
                Some(core) => drop(cores.insert(seq, core.clone())),
                None => unknown.push(seq),
            }
        }
        if !unknown.is_empty() {
            let rows = sqlx::query(sql::CORES).bind(json(unknown)).fetch_all(&mut *self.conn).await;
            for row in rows.map_err(error::of)? {
                let core = row::core(&row)?;
                cores.insert(core.id.seq, core);
            }
        }
        Ok(cores)
    }

    async fn end_calls(&mut self, ended: &[&FinishCall]) -> Result<(), Error> {
        self.calls_ended.extend(ended.iter().map(|call| call.call));
        let now = self.now.0;
        let end = sql::bulk().end_calls.of(ended, |cells, call| {
            cells.int(call.call.0);
            cells.int(call.ending as i64);
            cells.opt_int(call.status.map(i64::from));
            cells.opt_text(call.error.as_ref());
            cells.int(call.settled_at.0);
            cells.int(now);
        });
        end.run(self.conn).await
    }
}

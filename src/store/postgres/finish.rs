//! The end of calls: lock the calls and the jobs they carried, let the rules decide, write all of them at once. Next:
//! `change`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::arrays::opt_text;
use super::begin::spends_text;
use super::row::{self, Columns};
use super::sql;
use super::work::{Step, Work};
use crate::model::id::CallId;
use crate::store::rules::Core;
use crate::store::{FinishCall, Finished, finishing};

impl Work<'_> {
    pub(super) async fn finish_all(&mut self, calls: &[FinishCall]) -> Step<Vec<Finished>> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let (mut open, mut before) = self.end_calls(calls).await?;
        let mut missing = finishing::untold(calls, &open);
        let outcomes =
            calls.iter().flat_map(|call| call.outcomes.iter().chain(missing.get(&call.call).into_iter().flatten()));
        let unseen: BTreeSet<i64> = outcomes.map(|o| o.job).filter(|seq| !before.contains_key(seq)).collect();
        before.extend(self.cores(unseen).await?);
        let mut after: BTreeMap<i64, Core> = BTreeMap::new();
        let mut results = Vec::with_capacity(calls.len());
        for call in calls {
            self.packer.section();
            // A second end of the same call within one commit finds it ended.
            let untold = open.remove(&call.call).map(|_| missing.remove(&call.call).unwrap_or_default());
            let mut done = Finished { applied: untold.is_some(), ..Finished::default() };
            if let (true, Some(spends)) = (done.applied, &call.spends) {
                let respend = sqlx::query(sql::RESPEND_CALL).bind(call.call.0).bind(spends_text(spends));
                respend.execute(&mut *self.conn).await?;
            }
            for outcome in call.outcomes.iter().chain(untold.iter().flatten()) {
                let core = after.get(&outcome.job).or_else(|| before.get(&outcome.job));
                if let Some(core) = self.packer.outcome(core, call, outcome, self.now, &mut done) {
                    after.insert(outcome.job, core);
                }
            }
            results.push(done);
        }
        let changed = after.into_values().map(|new| (before[&new.id.seq].clone(), new)).collect();
        self.save_jobs(changed).await?;
        Ok(results)
    }

    /// Ends those of the calls that are open and tells their jobs; and the jobs of the outcomes, where they are hot, locked.
    async fn end_calls(&mut self, calls: &[FinishCall]) -> Step<(HashMap<CallId, Vec<i64>>, HashMap<i64, Core>)> {
        // Of two ends of a call in one commit the first counts.
        let mut first: BTreeMap<CallId, &FinishCall> = BTreeMap::new();
        for call in calls {
            first.entry(call.call).or_insert(call);
        }
        let ints = |get: fn(&FinishCall) -> i64| -> Vec<i64> { first.values().map(|call| get(call)).collect() };
        let statuses: Vec<Option<i64>> = first.values().map(|call| call.status.map(i64::from)).collect();
        let errors: Vec<_> = first.values().map(|call| opt_text(call.error.as_deref())).collect();
        let (mut latencies, mut headers, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
        for (latency, header, body) in first.values().map(|call| row::seen_texts(call.seen.as_ref())) {
            latencies.push(latency);
            headers.push(header);
            bodies.push(body);
        }
        let jobs: BTreeSet<i64> = calls.iter().flat_map(|call| &call.outcomes).map(|o| o.job).collect();
        let end = sqlx::query(sql::END_CALLS)
            .bind(ints(|call| call.call.0))
            .bind(ints(|call| call.ending as i64))
            .bind(statuses)
            .bind(errors)
            .bind(ints(|call| call.settled_at.0))
            .bind(self.now.0)
            .bind(jobs.into_iter().collect::<Vec<i64>>())
            .bind(latencies)
            .bind(headers)
            .bind(bodies);
        let (mut open, mut cores) = (HashMap::with_capacity(first.len()), HashMap::with_capacity(first.len()));
        for row in end.fetch_all(&mut *self.conn).await? {
            let mut columns = Columns::of(&row);
            match columns.opt_int()? {
                Some(call) => drop(open.insert(CallId(call), columns.packed()?)),
                None => {
                    columns.skip();
                    let core = columns.core()?;
                    cores.insert(core.id.seq, core);
                }
            }
        }
        Ok((open, cores))
    }

    /// The jobs as they stand, the hot ones locked.
    async fn cores(&mut self, jobs: BTreeSet<i64>) -> Step<HashMap<i64, Core>> {
        let mut cores = HashMap::with_capacity(jobs.len());
        if jobs.is_empty() {
            return Ok(cores);
        }
        let jobs: Vec<i64> = jobs.into_iter().collect();
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
}

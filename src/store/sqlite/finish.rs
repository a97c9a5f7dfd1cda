//! The end of calls: load the jobs they carried, let the rules decide, write all of them at once. Next: `change`.

use std::collections::{BTreeMap, HashMap};

use super::bulk::json;
use super::row::{self, Columns};
use super::work::Work;
use super::{packed, sql};
use crate::model::call::Ending;
use crate::model::id::CallId;
use crate::store::rules::Core;
use crate::store::{Error, FinishCall, Finished, finishing};

/// How a call ended.
type How<'c> = (Ending, Option<u16>, Option<&'c str>);

/// What is a call's own: number, when it settled, and what was seen of it ([`row::seen_texts`]).
type End = (i64, i64, Option<i64>, Option<String>, Option<String>);

impl Work<'_> {
    pub(super) async fn finish_all(&mut self, calls: &[FinishCall]) -> Result<Vec<Finished>, Error> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let mut open = self.open_calls(calls).await?;
        let mut missing = finishing::untold(calls, &open);
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
                let core = after.get(&outcome.job).or_else(|| before.get(&outcome.job));
                if let Some(core) = self.packer.outcome(core, call, outcome, self.now, &mut done) {
                    after.insert(outcome.job, core);
                }
            }
            results.push(done);
        }
        self.end_calls(&ended);
        let changed = after.into_values().map(|new| (before[&new.id.seq].clone(), new)).collect();
        self.save_jobs(changed).await?;
        Ok(results)
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
            for row in self.trip.read(sql::OPEN_CALL_JOBS, &[json(unknown).into()]).await? {
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
            for row in self.trip.read(sql::CORES, &[json(unknown).into()]).await? {
                let core = row::core(&row)?;
                cores.insert(core.id.seq, core);
            }
        }
        Ok(cores)
    }

    /// Calls that ended alike are written together: most were answered with 200.
    fn end_calls(&mut self, ended: &[&FinishCall]) {
        self.calls_ended.extend(ended.iter().map(|call| call.call));
        let mut alike: BTreeMap<How<'_>, Vec<End>> = BTreeMap::new();
        for call in ended {
            if let Some(spends) = &call.spends {
                let values = [call.call.0.into(), packed::spends(spends).into()];
                self.trip.write(sql::RESPEND_CALL, &values);
            }
            let how = (call.ending, call.status, call.error.as_deref());
            let (latency, headers, bodies) = row::seen_texts(call.seen.as_ref());
            alike.entry(how).or_default().push((call.call.0, call.settled_at.0, latency, headers, bodies));
        }
        for ((ending, status, error), calls) in alike {
            let calls = serde_json::to_string(&calls).expect("numbers and texts are JSON");
            let (status, now) = (status.map(i64::from), self.now.0);
            let values = [calls.into(), (ending as i64).into(), status.into(), error.into(), now.into()];
            self.trip.write(sql::END_CALLS, &values);
        }
    }
}

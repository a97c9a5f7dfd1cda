//! How the outcomes of a call meet the jobs that it carried: alike in every store, wherever it keeps its jobs.
//!
//! Must never know: SQL, maps of a store. Next: `memory/finish` as the simplest user.

use std::collections::{HashMap, HashSet};

use super::packer::Packer;
use super::rules::{Core, Met, missing_outcome};
use super::{FinishCall, Finished, JobOutcome};
use crate::clock::Timestamp;
use crate::model::id::CallId;

/// For each of the calls that is `open` (with the jobs it carries), the outcomes that its end fails to tell. Of two ends of
/// a call in one commit the first counts.
pub(super) fn untold(calls: &[FinishCall], open: &HashMap<CallId, Vec<i64>>) -> HashMap<CallId, Vec<JobOutcome>> {
    let mut untold = HashMap::new();
    for call in calls {
        if let Some(jobs) = open.get(&call.call)
            && !untold.contains_key(&call.call)
        {
            untold.insert(call.call, missing(call, jobs));
        }
    }
    untold
}

/// What the end of a call fails to tell of the jobs that it carried.
pub(super) fn missing(call: &FinishCall, jobs: &[i64]) -> Vec<JobOutcome> {
    let told: HashSet<i64> = call.outcomes.iter().map(|o| o.job).collect();
    jobs.iter().filter(|seq| !told.contains(seq)).map(|&seq| missing_outcome(seq)).collect()
}

impl Packer {
    /// One outcome meets its job, which stands as `core` (`None`: there is no such job). Returns the job as it stands after it,
    /// if that is to be saved.
    pub(super) fn outcome(
        &mut self,
        core: Option<&Core>,
        call: &FinishCall,
        outcome: &JobOutcome,
        now: Timestamp,
        done: &mut Finished,
    ) -> Option<Core> {
        let Some(mut core) = core.cloned() else {
            done.stale.push(outcome.job);
            return None;
        };
        let about = Some((call.call, call.status));
        match core.finish(call, outcome, now) {
            Met::Applied(event) => {
                self.changed(&core, event, about);
                return Some(core);
            }
            Met::Adopted(event) => {
                done.stale.push(outcome.job);
                done.adopted.push(outcome.job);
                self.changed(&core, event, about);
                return Some(core);
            }
            Met::Duplicate => self.duplicate(call, outcome.job),
            Met::Ignored => {}
        }
        done.stale.push(outcome.job);
        None
    }
}

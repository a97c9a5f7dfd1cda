//! The end of calls. Next: `change`.

use super::Work;
use crate::model::call::Ending;
use crate::store::rules::{self, Met};
use crate::store::{FinishCall, Finished, JobOutcome};

impl Work<'_> {
    pub(super) fn finish(&mut self, call: &FinishCall) -> Finished {
        self.packer.section();
        let jobs = self.end_call(call);
        let missing = jobs.iter().flatten().filter(|seq| call.outcomes.iter().all(|o| o.job != **seq));
        let missing: Vec<JobOutcome> = missing.map(|&seq| rules::missing_outcome(seq)).collect();
        let mut done = Finished { applied: jobs.is_some(), ..Finished::default() };
        for outcome in call.outcomes.iter().chain(&missing) {
            self.finish_job(call, outcome, &mut done);
        }
        done
    }

    /// Closes the journal entry. `None`: there is no open one.
    fn end_call(&mut self, end: &FinishCall) -> Option<Vec<i64>> {
        let call = self.world.calls.get_mut(&end.call).filter(|call| call.ending == Ending::Open)?;
        call.ending = end.ending;
        call.ended_at = Some(self.now);
        call.settled_at = Some(end.settled_at);
        call.status = end.status;
        call.error = end.error.clone();
        call.seen = end.seen.clone();
        if let Some(spends) = &end.spends {
            call.permit.spends = spends.clone();
        }
        Some(call.jobs.clone())
    }

    fn finish_job(&mut self, call: &FinishCall, outcome: &JobOutcome, done: &mut Finished) {
        let Some(mut core) = self.core(outcome.job).cloned() else {
            return done.stale.push(outcome.job);
        };
        let about = Some((call.call, call.status));
        match core.finish(call, outcome, self.now) {
            Met::Applied(event) => {
                self.packer.changed(&core, event, about);
                self.put(core);
            }
            Met::Adopted(event) => {
                done.stale.push(outcome.job);
                done.adopted.push(outcome.job);
                self.packer.changed(&core, event, about);
                self.put(core);
            }
            Met::Duplicate => {
                done.stale.push(outcome.job);
                self.packer.duplicate(call, outcome.job);
            }
            Met::Ignored => done.stale.push(outcome.job),
        }
    }
}

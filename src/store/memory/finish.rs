//! The end of calls. Next: `change`.

use super::Work;
use crate::model::call::Ending;
use crate::store::{FinishCall, Finished, finishing};

impl Work<'_> {
    pub(super) fn finish(&mut self, call: &FinishCall) -> Finished {
        self.packer.section();
        let jobs = self.end_call(call);
        let missing = jobs.as_ref().map_or_else(Vec::new, |jobs| finishing::missing(call, jobs));
        let mut done = Finished { applied: jobs.is_some(), ..Finished::default() };
        for outcome in call.outcomes.iter().chain(&missing) {
            let core = self.core(outcome.job).cloned();
            if let Some(core) = self.packer.outcome(core.as_ref(), call, outcome, self.now, &mut done) {
                self.put(core);
            }
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
}

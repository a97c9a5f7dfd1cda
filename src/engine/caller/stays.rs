//! Who does not go with a call although it was begun for them: asked between the journal and the first byte.
//!
//! Two questions can only be put once the jobs are known. *May it be repeated?* A job whose answer was lost and that
//! waited until its idempotency key has died, or would go again by a lane that may not repeat it, becomes `unknown`. *Have the limits by key room?* A job that finds none goes
//! back to waiting until it does, with no attempt counted; the others of a batch go. The journal row of the call names
//! the spends of all its jobs until the end says which were sent, so that a restart in between counts too much and
//! never too little. Must never know: the wire. Next: `caller`.

use std::sync::Arc;
use std::time::Duration;

use super::{Caller, Errand};
use crate::clock::Timestamp;
use crate::limiter::{Acquire, Answer};
use crate::model::call::{Ending, LimitKey, Permit};
use crate::model::job::ClaimedJob;
use crate::model::verdict::repeat_is_in_doubt;
use crate::store::{Again, JobOutcome, Next};

/// Wait before asking again where nobody can say when.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The jobs that stay behind, and what the others were given.
#[derive(Debug, Default)]
pub(super) struct Stays {
    pub outcomes: Vec<JobOutcome>,
    /// Of the limits by key, one per job that goes and has any.
    pub permits: Vec<Permit>,
    /// The journaled spends are not what was spent.
    pub unspent: bool,
}

impl Stays {
    /// What the call spends after all, if that is not what the journal says.
    pub fn spends(&self, of_call: &Permit) -> Option<Arc<[(LimitKey, u32)]>> {
        let all = || std::iter::once(of_call).chain(&self.permits).flat_map(|p| p.spends.iter().cloned());
        self.unspent.then(|| all().collect())
    }
}

impl Caller {
    /// Takes those jobs out of the errand that may not go now.
    pub(super) async fn hold_back(&self, errand: &mut Errand) -> Stays {
        let mut stays = Stays::default();
        let mut going = Vec::with_capacity(errand.call.jobs.len());
        for job in std::mem::take(&mut errand.call.jobs) {
            match self.doubt(errand, &job).await {
                None => going.push(job),
                Some(outcome) => stays.outcomes.push(outcome),
            }
        }
        stays.unspent = !stays.outcomes.is_empty() && !errand.keyed.is_empty();
        errand.call.jobs = if errand.keyed.is_empty() { going } else { self.by_key(errand, going, &mut stays).await };
        stays
    }

    /// Acquires the limits by key: all of a job's or none.
    async fn by_key(&self, errand: &Errand, jobs: Vec<ClaimedJob>, stays: &mut Stays) -> Vec<ClaimedJob> {
        let asks = |job: &ClaimedJob| {
            let spends = job.key.iter().flat_map(|key| errand.keyed.iter().map(|k| k.spend(key))).collect();
            Acquire { spends, min: 1, max: 1, class: job.class, request: 0 }
        };
        let asked: Vec<Acquire> = jobs.iter().map(asks).collect();
        let (steady, now) = (self.clock.steady(), self.clock.now());
        let answers = match self.limiter.acquire(steady, &asked).await {
            Ok(answers) => answers,
            Err(e) => {
                tracing::warn!(call = %errand.call.id, error = %e, "holding");
                Vec::new()
            }
        };
        let mut going = Vec::with_capacity(jobs.len());
        let mut answers = answers.into_iter();
        for job in jobs {
            let (wait, why) = match answers.next() {
                Some(Answer::Granted { permit, .. }) => {
                    stays.permits.extend((!permit.spends.is_empty()).then_some(permit));
                    going.push(job);
                    continue;
                }
                Some(Answer::Wait { earliest: Timestamp::NEVER, binder, .. }) => {
                    (ASK_AGAIN, format!("limit {binder} is used up for now"))
                }
                Some(Answer::Wait { earliest, binder, .. }) => {
                    (earliest.since(steady), format!("limit {binder} is used up for now"))
                }
                None => (ASK_AGAIN, "the limiter is not available".to_owned()),
            };
            stays.unspent = true;
            stays.outcomes.push(stays_waiting(&job, now + wait, why));
        }
        going
    }

    /// What becomes of the job instead, if sending it again could do twice what a lost call of it has done.
    async fn doubt(&self, errand: &Errand, job: &ClaimedJob) -> Option<JobOutcome> {
        let now = self.clock.now();
        if !repeat_is_in_doubt(&errand.operation, errand.lane, job, now) {
            return None;
        }
        match self.was_lost(errand, job).await {
            Ok(false) => None,
            Ok(true) => {
                let why = match errand.operation.idempotency {
                    Some(_) => "an earlier call may have done it, and its idempotency key no longer protects a repeat",
                    None => "an earlier call may have done it, and a repeat by this lane is not safe",
                };
                let error = Some(Arc::from(why));
                Some(JobOutcome { job: job.id.seq, next: Next::Unknown, error, result: None })
            }
            Err(e) => Some(stays_waiting(job, now + ASK_AGAIN, e.to_string())),
        }
    }

    /// Did a call of the job's present version end without an answer? One that is no longer in the journal may have.
    async fn was_lost(&self, errand: &Errand, job: &ClaimedJob) -> Result<bool, crate::store::Error> {
        let Some(found) = self.store.job(job.id).await? else { return Ok(true) };
        let former: Vec<_> = found.calls.into_iter().filter(|call| *call != errand.call.id).collect();
        let calls = self.store.calls(&former).await?;
        let since = job.first_sent_at.unwrap_or(Timestamp::ZERO);
        let lost = |ending| matches!(ending, Ending::Lost | Ending::Crashed | Ending::Open);
        let any_lost = calls.iter().any(|call| call.begun_at >= since && lost(call.ending));
        Ok(any_lost || calls.len() < former.len())
    }
}

/// Back to waiting, no attempt counted.
fn stays_waiting(job: &ClaimedJob, due_at: Timestamp, why: String) -> JobOutcome {
    let next = Next::Wait { due_at, why: Again::NotSent };
    JobOutcome { job: job.id.seq, next, error: Some(why.into()), result: None }
}

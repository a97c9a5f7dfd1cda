//! What a call's credential has to do with its fate: none to be had, outdated, or seen in an answer.
//!
//! A 401 under a token that worked before is nobody's fault: the job goes back without an attempt counted, once, and goes
//! again under the next token. A 401 under that one as well is no accident: the gate hears of it. Must never know: how a token is had. Next: `outbound/mark`, which says whose fault it is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::{Caller, Errand};
use crate::model::request::RenderError;
use crate::model::verdict::{Answer, Failure, Health, Judgement, Oddity, Sent, Verdict};
use crate::outbound::{Credential, NoCredential, Shown};

/// Jobs under excuse at one time; a job beyond has an attempt counted.
const EXCUSED_MAX: usize = 10_000;

/// How a call went over the wire, or why it did not.
pub(super) struct Sending {
    pub answer: Result<Answer, Failure>,
    /// The job of the call that cannot be rendered.
    pub at_fault: Option<RenderError>,
    pub credential: Credential,
    /// There is no credential until somebody mends it.
    pub lost: bool,
}

impl Sending {
    pub fn without(none: NoCredential) -> Sending {
        let failure = Failure { sent: Sent::No, provider_fault: false, reason: none.reason };
        Sending { answer: Err(failure), at_fault: None, credential: Credential::default(), lost: none.for_good }
    }
}

/// Jobs that were excused once and have not come to an answer since. Forgotten with the process, which costs such a job
/// one more excuse.
#[derive(Debug, Default)]
pub struct Excused(Mutex<BTreeSet<i64>>);

impl Excused {
    /// True the first time.
    fn excuse(&self, job: i64) -> bool {
        let mut jobs = self.0.lock().expect("no panic while held");
        jobs.len() < EXCUSED_MAX && jobs.insert(job)
    }

    fn forget(&self, which: impl Iterator<Item = i64>) {
        let mut jobs = self.0.lock().expect("no panic while held");
        if !jobs.is_empty() {
            which.for_each(|job| {
                jobs.remove(&job);
            });
        }
    }
}

/// Why the breaker of a credential opened at once.
pub(in super::super) const REFUSED_AGAIN: &str =
    "status 401 for a token that had just been fetched, as for the one before it; mend the credential";

impl Caller {
    /// Sends those jobs again that were refused for an outdated token. True: a new token was refused like the one before.
    pub(super) fn excuse(
        &self,
        errand: &Errand,
        answer: &Result<Answer, Failure>,
        credential: &Credential,
        judgement: &mut Judgement,
    ) -> bool {
        let Ok(answer) = answer else { return false };
        let jobs = &errand.call.jobs;
        let shown = credential.answered(answer.status, self.clock.steady());
        let refused = judgement.health == Health::Refusing;
        if shown != Shown::Outdated || !refused {
            self.excused.forget(jobs.iter().map(|job| job.id.seq));
            return shown == Shown::RefusedAgain && refused;
        }
        let reason: Arc<str> = "the token was outdated; it goes again under the next one".into();
        let mut all = true;
        for (job, verdict) in jobs.iter().zip(&mut judgement.verdicts) {
            if self.excused.excuse(job.id.seq) {
                *verdict = Verdict::Split { reason: reason.clone() };
            } else {
                all = false;
            }
        }
        if all {
            judgement.health = Health::Silent;
        }
        false
    }
}

/// Takes the credential out of whatever an answer echoed of it.
pub(super) fn hide(credential: &Credential, judgement: &mut Judgement) {
    for verdict in &mut judgement.verdicts {
        match verdict {
            Verdict::Delivered { result } => hide_in(credential, result),
            Verdict::Rejected { reason, result } => {
                *reason = credential.hide(reason);
                hide_in(credential, result);
            }
            Verdict::Retry { reason, .. }
            | Verdict::Throttled { reason, .. }
            | Verdict::Unknown { reason }
            | Verdict::Split { reason } => *reason = credential.hide(reason),
        }
    }
    for oddity in &mut judgement.oddities {
        if let Oddity::Redirect(to) = oddity {
            *to = credential.hide(&Arc::from(to.as_str())).to_string();
        }
    }
}

fn hide_in(credential: &Credential, text: &mut Option<Arc<str>>) {
    if let Some(text) = text {
        *text = credential.hide(text);
    }
}

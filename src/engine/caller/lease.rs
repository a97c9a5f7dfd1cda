//! One job in a worker's hands, from its journal entry to its recorded end.
//!
//! The same steps as for a call of our own: hold back, hand out, hear, judge, settle, record. A lease that ends unheard
//! is a lost answer. While the worker works nothing is held open: a daemon that stops leaves the lease in the journal,
//! and the next one waits for the worker to come back. Must never know: streams, who the worker is. Next: `../desk`.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::super::desk::{Desk, Seat, Term};
use super::super::open_calls::{Held, OpenCalls};
use super::super::outcome::{Spent, outcome};
use super::super::wall_of;
use super::stays::Stays;
use super::{Caller, Completion, Errand, heard};
use crate::model::call::{Ending, Lane};
use crate::model::id::{CallId, Id};
use crate::model::provider::External;
use crate::model::verdict::{Failure, Health, Sent, Verdict, judge, keep};
use crate::model::worker::{Failed, Word, Work};
use crate::store::FinishCall;

const UNHEARD: &str = "its worker was not heard of before the lease ended; it may have done it";
const TOO_LATE: &str = "its call was judged elsewhere before: the word came too late";
const NOBODY: &str = "its worker went away before it was handed out";

/// A caller for jobs that workers carry out.
#[derive(Debug)]
pub struct Leased {
    pub caller: Caller,
    pub external: External,
    pub desk: Arc<Desk>,
    pub open_calls: Arc<OpenCalls>,
    pub stopping: CancellationToken,
}

/// What came of a lease.
#[derive(Debug)]
enum Heard {
    Said(Word),
    /// It ended unheard.
    Nothing,
    /// Nobody was there to take it.
    Untaken,
}

impl Leased {
    pub async fn carry(self, mut errand: Errand, seat: Option<Seat>, open: Held, completed: impl FnOnce(Completion)) {
        let stays = self.caller.hold_back(&mut errand).await;
        let completed = |completion| completed(Completion { leased: true, ..completion });
        let call = errand.call.id;
        let Some(work) = self.work(&errand) else {
            return self.caller.nothing_left(errand, stays, completed).await;
        };
        let term = self.term(&errand);
        let heard = match seat.and_then(|seat| self.desk.lend(seat, call, work, term)) {
            None => Heard::Untaken,
            Some(word) => {
                drop(open);
                let Some(heard) = self.hear(call, word).await else { return };
                heard
            }
        };
        self.ended(errand, stays, heard, true, completed).await;
    }

    /// A lease that a former process gave out, and whose permits the limiter has from the journal: they count from its
    /// end, which the journal names.
    pub async fn carry_on(self, errand: Errand, word: oneshot::Receiver<Word>) {
        let Some(heard) = self.hear(errand.call.id, word).await else { return };
        self.ended(errand, Stays::default(), heard, false, |_| ()).await;
    }

    /// What the worker is told. `None`: no job is left in the call.
    pub fn work(&self, errand: &Errand) -> Option<Work> {
        let job = errand.call.jobs.first()?.clone();
        Some(Work {
            token: Id { created_at: errand.permit.granted_at, seq: errand.call.id.0 },
            provider: self.caller.provider.name.clone(),
            operation: errand.operation.name.clone(),
            account: errand.account.clone(),
            job,
            ends_at: wall_of(&self.caller.clock, self.term(errand).until),
        })
    }

    /// Ours ends before the journal's, so that nobody else judges the call.
    pub fn term(&self, errand: &Errand) -> Term {
        let until = errand.permit.granted_at + self.external.within;
        Term { patience: self.external.lease, until: until.min(errand.lease_until) }
    }

    /// `None`: the daemon stops.
    async fn hear(&self, call: CallId, mut word: oneshot::Receiver<Word>) -> Option<Heard> {
        loop {
            tokio::select! {
                biased;
                said = &mut word => return Some(said.map_or(Heard::Nothing, Heard::Said)),
                () = self.stopping.cancelled() => return None,
                () = self.caller.clock.sleep_until(self.desk.ends_at(call)) => {}
            }
            if self.desk.expire(call) {
                return Some(Heard::Nothing);
            }
        }
    }

    async fn ended(
        &self,
        errand: Errand,
        stays: Stays,
        heard: Heard,
        settles: bool,
        completed: impl FnOnce(Completion),
    ) {
        // Until the outcome is recorded.
        let _open = self.open_calls.hold();
        let caller = &self.caller;
        let (call, Some(job)) = (errand.call.id, errand.call.jobs.first()) else { return };
        let (now, settled_at) = (caller.clock.now(), caller.clock.steady());
        let said = matches!(heard, Heard::Said(_));
        let (verdict, health) = self.verdict(&errand, &heard);
        let (ending, spent) = match heard {
            Heard::Said(_) => (Ending::Answered, Spent::Sent),
            Heard::Nothing => (Ending::Lost, Spent::Sent),
            Heard::Untaken => (Ending::NotSent, Spent::NotSent),
        };
        let blocked_until = caller.throttles.until(&caller.clock, health, errand.permit.granted_at);
        if settles {
            let sent = ending != Ending::NotSent;
            let word = heard::Word { blocked_until, good: health == Health::Good, ..heard::Word::default() };
            caller.settle_with(&errand.permit, &stays.permits, sent, settled_at, &word).await;
        }
        if blocked_until.is_some() {
            caller.metrics.throttled(caller.provider.name.as_str(), "");
        }
        let over = matches!(verdict, Verdict::Delivered { .. } | Verdict::Rejected { .. });
        let outcome = outcome(job, verdict, &errand.operation, spent, now, caller.dice.roll());
        let error = outcome.error.clone();
        // A worker's trouble is none of the host's: only "not now" is said of the provider.
        let health = if blocked_until.is_some() { health } else { Health::Silent };
        completed(Completion {
            lane: Lane::Single,
            health,
            probe: false,
            throttled_until: blocked_until,
            jobs: 1,
            error: error.clone(),
            lost_credential: false,
            refused_again: false,
            leased: true,
        });
        let (took, seq) = (now.since(job.id.created_at), job.id.seq);
        let spends = stays.spends(&errand.permit);
        let mut outcomes = vec![outcome];
        outcomes.extend(stays.outcomes);
        let finish = FinishCall { call, ending, settled_at, status: None, error, outcomes, spends, seen: None };
        // `None`: the daemon ends; the worker asks the next one.
        let Some(finished) = caller.writer.finish(finish).await else { return };
        let stands = finished.applied && !finished.stale.contains(&seq) || finished.adopted.contains(&seq);
        let reason = match (said, stands) {
            (true, true) => "",
            (true, false) => TOO_LATE,
            (false, _) => UNHEARD,
        };
        self.desk.end(call, said && stands, &reason.into());
        if over {
            caller.metrics.jobs_done(caller.provider.name.as_str(), errand.operation.name.as_str(), &[took]);
        }
    }

    fn verdict(&self, errand: &Errand, heard: &Heard) -> (Verdict, Health) {
        let operation = &errand.operation;
        match heard {
            Heard::Said(Word::Done { result }) => {
                let result = result.as_ref().and_then(|r| keep(r.as_bytes(), operation.keep_bytes));
                (Verdict::Delivered { result }, Health::Good)
            }
            Heard::Said(Word::Failed { reason, what }) => {
                let reason = reason.clone();
                match *what {
                    Failed::Retry { not_before } => (Verdict::Retry { reason, not_before }, Health::Silent),
                    Failed::Rejected => (Verdict::Rejected { reason, result: None }, Health::Silent),
                    Failed::Throttled { until } => (Verdict::Throttled { until, reason }, Health::Limiting { until }),
                }
            }
            Heard::Nothing => {
                let lost = Err(Failure { sent: Sent::Maybe, provider_fault: false, reason: UNHEARD.into() });
                let (provider, now) = (&self.caller.provider, self.caller.clock.now());
                let judged = judge(provider, operation, Lane::Single, &errand.call.jobs, &lost, now);
                let lost = || Verdict::Unknown { reason: UNHEARD.into() };
                (judged.verdicts.into_iter().next().unwrap_or_else(lost), Health::Silent)
            }
            Heard::Untaken => (Verdict::Retry { reason: NOBODY.into(), not_before: None }, Health::Silent),
        }
    }
}

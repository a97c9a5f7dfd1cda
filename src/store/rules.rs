//! What every store must decide alike, as pure functions: how a call's outcome, a change or a coalesced payload moves
//! a job, and what that does to the counts.
//!
//! A store loads a [`Core`], lets these functions change it, and writes it back; where and how it keeps it is its own
//! affair. Must never know: SQL, maps, async, clocks. Next: `packer`, then `memory` as the simplest user.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Again, Decision, FinishCall, JobOutcome, Next, Refusal};
use crate::clock::Timestamp;
use crate::model::call::Ending;
use crate::model::flow::{Class, FlowCounts, Place};
use crate::model::id::{CallId, FlowId, JobId};
use crate::model::job::{Coalesce, NewJob, Payload};
use crate::model::name::{Account, Key, ProviderName};
use crate::model::run::RunState;
use crate::model::state::{Event, State};
use crate::mutant;

/// Where a job stands, final states included. One number, stored as such; the first five equal [`Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(super) enum Stand {
    Ready = 0,
    Later = 1,
    Behind = 2,
    Calling = 3,
    Unknown = 4,
    Delivered = 5,
    Dead = 6,
    Cancelled = 7,
}

impl Stand {
    pub(super) const ALL: [Stand; 8] = [
        Stand::Ready,
        Stand::Later,
        Stand::Behind,
        Stand::Calling,
        Stand::Unknown,
        Stand::Delivered,
        Stand::Dead,
        Stand::Cancelled,
    ];

    pub(super) fn from_i64(n: i64) -> Option<Stand> {
        usize::try_from(n).ok().and_then(|n| Stand::ALL.get(n)).copied()
    }

    pub(super) fn state(self) -> State {
        match self {
            Stand::Ready | Stand::Later | Stand::Behind => State::Waiting,
            Stand::Calling => State::Calling,
            Stand::Unknown => State::Unknown,
            Stand::Delivered => State::Delivered,
            Stand::Dead => State::Dead,
            Stand::Cancelled => State::Cancelled,
        }
    }

    /// `Ready` for final jobs, whose place means nothing.
    pub(super) fn place(self) -> Place {
        Place::from_u8(self as u8).unwrap_or(Place::Ready)
    }

    pub(super) fn is_hot(self) -> bool {
        !self.state().is_final()
    }
}

/// What decisions need of a job: everything but its texts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Core {
    pub id: JobId,
    pub flow: FlowId,
    pub class: Class,
    pub stand: Stand,
    pub turn: i64,
    /// Order scope. Two keys of one hash only cost order; coalescing compares the key itself.
    pub key_hash: Option<i64>,
    pub version: u32,
    pub attempts: u32,
    pub crashes: u32,
    pub throttles: u32,
    pub due_at: Timestamp,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub cancel_requested: bool,
    /// The call that carried it last.
    pub call: Option<CallId>,
    /// Wall time at which it first began under its present version.
    pub first_sent_at: Option<Timestamp>,
    pub last_status: Option<u16>,
    pub last_error: Option<Arc<str>>,
    pub result: Option<Arc<str>>,
}

/// How a reported outcome met its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// The job was `calling` under the call and moved on.
    Applied(Event),
    /// Stale, but the success is the newest there is: the job is delivered.
    Adopted(Event),
    /// A success after a newer attempt or after the job's end.
    Duplicate,
    /// Stale and of no interest.
    Ignored,
}

impl Core {
    /// A job that was just taken in. `first`: no hot job has its key.
    pub(super) fn new(
        id: JobId,
        flow: FlowId,
        job: &NewJob,
        key_hash: Option<i64>,
        first: bool,
        now: Timestamp,
    ) -> Core {
        let due_at = job.due_at.unwrap_or(now);
        Core {
            id,
            flow,
            class: job.class,
            stand: new_stand(first, due_at, now),
            turn: id.seq,
            key_hash,
            version: 1,
            attempts: 0,
            crashes: 0,
            throttles: 0,
            due_at,
            updated_at: now,
            finished_at: None,
            cancel_requested: false,
            call: None,
            first_sent_at: None,
            last_status: None,
            last_error: None,
            result: None,
        }
    }

    pub(super) fn state(&self) -> State {
        self.stand.state()
    }

    /// The transition table's answer, as a refusal where it is one.
    pub(super) fn allows(&self, event: Event) -> Result<State, Refusal> {
        self.state().on(event).ok_or(Refusal::WrongState { id: self.id, state: self.state() })
    }

    fn go(&mut self, event: Event, to: Stand, now: Timestamp) {
        debug_assert_eq!(self.state().on(event), Some(to.state()), "{event:?} of {:?}", self.id);
        self.stand = to;
        self.updated_at = now;
        self.finished_at = (!to.is_hot()).then_some(now);
    }

    fn due_stand(&self, now: Timestamp) -> Stand {
        if self.due_at <= now { Stand::Ready } else { Stand::Later }
    }

    pub(super) fn begin(&mut self, call: CallId, now: Timestamp) {
        self.go(Event::Begin, Stand::Calling, now);
        self.attempts += 1;
        self.call = Some(call);
        self.first_sent_at.get_or_insert(now);
    }

    /// Applies the outcome of a call. Fencing: only a job that is `calling` under this very call moves.
    pub(super) fn finish(&mut self, call: &FinishCall, outcome: &JobOutcome, now: Timestamp) -> Met {
        let carried = self.call == Some(call.call) || mutant::on("no-fencing");
        if !carried || self.stand != Stand::Calling {
            return self.finish_late(call, outcome, carried, now);
        }
        self.note_answer(call, outcome);
        let event = match outcome.next {
            Next::Delivered => self.end(Event::Deliver, Stand::Delivered, now),
            Next::Dead => self.end(Event::Die, Stand::Dead, now),
            Next::Unknown => self.end(Event::Lose, Stand::Unknown, now),
            Next::Wait { due_at, why } => {
                let event = self.count_again(why);
                self.due_at = due_at;
                if self.cancel_requested {
                    self.end(Event::Cancel, Stand::Cancelled, now)
                } else {
                    // It was calling, so it is first of its key: never behind.
                    self.end(event, self.due_stand(now), now)
                }
            }
        };
        Met::Applied(event)
    }

    fn end(&mut self, event: Event, to: Stand, now: Timestamp) -> Event {
        self.go(event, to, now);
        event
    }

    fn count_again(&mut self, why: Again) -> Event {
        match why {
            Again::Retry => Event::Retry,
            Again::Throttled => {
                self.attempts = self.attempts.saturating_sub(1);
                self.throttles += 1;
                Event::Throttle
            }
            Again::NotSent => {
                self.attempts = self.attempts.saturating_sub(1);
                Event::Retry
            }
            Again::Crashed => {
                self.crashes += 1;
                Event::Retry
            }
        }
    }

    /// A zombie's late answer. Its success counts if nothing newer has begun and the payload it sent is the present
    /// one: `first_sent_at` is forgotten whenever the version grows.
    fn finish_late(&mut self, call: &FinishCall, outcome: &JobOutcome, carried: bool, now: Timestamp) -> Met {
        if outcome.next != Next::Delivered || (carried && self.stand == Stand::Delivered) {
            return Met::Ignored;
        }
        if !carried || !self.stand.is_hot() || self.first_sent_at.is_none() {
            return Met::Duplicate;
        }
        self.note_answer(call, outcome);
        let event = match self.stand {
            Stand::Unknown => Event::ResolveDelivered,
            // As if its call had been found open: begin (again) and deliver.
            _ => {
                self.stand = Stand::Calling;
                Event::Deliver
            }
        };
        Met::Adopted(self.end(event, Stand::Delivered, now))
    }

    fn note_answer(&mut self, call: &FinishCall, outcome: &JobOutcome) {
        self.last_status = call.status.or(self.last_status);
        self.last_error = match outcome.next {
            Next::Delivered => None,
            _ => outcome.error.clone().or_else(|| call.error.clone()),
        };
        if outcome.result.is_some() {
            self.result = outcome.result.clone();
        }
    }

    /// `None`: the job is on the wire and was marked instead.
    pub(super) fn cancel(&mut self, now: Timestamp) -> Result<Option<Event>, Refusal> {
        self.allows(Event::Cancel)?;
        if self.stand == Stand::Calling {
            self.cancel_requested = true;
            self.updated_at = now;
            return Ok(None);
        }
        Ok(Some(self.end(Event::Cancel, Stand::Cancelled, now)))
    }

    /// Back to waiting with a new `turn`. `alone`: no other hot job has its key.
    pub(super) fn revive(&mut self, turn: i64, fresh: bool, alone: bool, now: Timestamp) -> Result<Event, Refusal> {
        self.allows(Event::Revive)?;
        self.turn = turn;
        self.decided(now);
        self.due_at = now;
        self.cancel_requested = false;
        if fresh {
            (self.attempts, self.crashes, self.throttles) = (0, 0, 0);
            self.new_version();
        }
        Ok(self.end(Event::Revive, if alone { Stand::Ready } else { Stand::Behind }, now))
    }

    pub(super) fn resolve(&mut self, decision: Decision, now: Timestamp) -> Result<Event, Refusal> {
        let (event, to) = match decision {
            Decision::Delivered => (Event::ResolveDelivered, Stand::Delivered),
            Decision::Again => (Event::ResolveAgain, Stand::Ready),
            Decision::Dead => (Event::ResolveDead, Stand::Dead),
        };
        self.allows(event)?;
        if decision == Decision::Again {
            self.due_at = now;
            self.cancel_requested = false;
            self.decided(now);
        }
        Ok(self.end(event, to, now))
    }

    /// A person has decided that it is sent again, whatever became of what was sent: a new life begins.
    fn decided(&mut self, now: Timestamp) {
        self.first_sent_at = self.first_sent_at.map(|_| now);
    }

    /// Makes a waiting job due. True when that changed anything.
    pub(super) fn expedite(&mut self, now: Timestamp) -> Result<bool, Refusal> {
        self.allows(Event::Edit)?;
        if self.due_at <= now {
            return Ok(false);
        }
        self.set_due(now, now);
        Ok(true)
    }

    pub(super) fn edit(
        &mut self,
        new_payload: bool,
        class: Option<Class>,
        due_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Event, Refusal> {
        self.allows(Event::Edit)?;
        if new_payload {
            self.new_version();
        }
        self.class = class.unwrap_or(self.class);
        self.set_due(due_at.unwrap_or(self.due_at), now);
        Ok(Event::Edit)
    }

    /// May a new job of the same flow and key become part of this one, the last of its key?
    pub(super) fn takes_coalesced(&self, rule: Coalesce) -> bool {
        rule != Coalesce::Never && self.state().on(Event::Coalesce).is_some()
    }

    /// Takes the place of a newer job in: its class if more urgent, its due time if earlier. A job that was tried
    /// before keeps its backoff.
    pub(super) fn coalesce(&mut self, class: Class, due_at: Timestamp, now: Timestamp) {
        self.new_version();
        self.class = self.class.min(class);
        let due_at = if self.call.is_none() { self.due_at.min(due_at) } else { self.due_at };
        self.set_due(due_at, now);
    }

    /// The job before it is final: it is first of its key now.
    pub(super) fn release(&mut self, now: Timestamp) {
        debug_assert!(self.stand == Stand::Behind || mutant::on("order-ignored"));
        self.stand = self.due_stand(now);
    }

    /// Its due time has come.
    pub(super) fn promote(&mut self) {
        debug_assert_eq!(self.stand, Stand::Later);
        self.stand = Stand::Ready;
    }

    fn set_due(&mut self, due_at: Timestamp, now: Timestamp) {
        self.due_at = due_at;
        self.updated_at = now;
        if self.stand != Stand::Behind {
            self.stand = self.due_stand(now);
        }
    }

    fn new_version(&mut self) {
        self.version += 1;
        self.first_sent_at = None;
    }
}

/// Where a new job stands. `first`: no hot job has its key.
pub(super) fn new_stand(first: bool, due_at: Timestamp, now: Timestamp) -> Stand {
    match (first || mutant::on("order-ignored"), due_at <= now) {
        (false, _) => Stand::Behind,
        (true, true) => Stand::Ready,
        (true, false) => Stand::Later,
    }
}

/// The payload after coalescing. Merge patches apply to objects only; anything else is replaced.
pub(super) fn coalesced_payload(rule: Coalesce, old: &Payload, new: &Payload) -> Payload {
    if mutant::on("coalesce-keeps-old") {
        return old.clone();
    }
    if rule != Coalesce::Merge {
        return new.clone();
    }
    let parsed = (serde_json::from_str(old), serde_json::from_str(new));
    let (Ok(mut doc @ serde_json::Value::Object(_)), Ok(patch @ serde_json::Value::Object(_))) = parsed else {
        return new.clone();
    };
    json_patch::merge(&mut doc, &patch);
    doc.to_string().into()
}

/// What the end of a call without an outcome for one of its jobs means for that job: nobody knows.
pub(super) fn missing_outcome(job: i64) -> JobOutcome {
    let error = Some(Arc::from("the call ended without an outcome for this job"));
    JobOutcome { job, next: Next::Unknown, error, result: None }
}

/// Did the permits of the call leave the house?
pub(super) fn was_sent(ending: Ending) -> bool {
    ending != Ending::NotSent
}

/// The state a run ends in, if it ends now. `hot`: jobs of it that are not final.
pub(super) fn run_end(state: RunState, hot: u64) -> Option<RunState> {
    match state {
        _ if hot > 0 => None,
        RunState::Sealed | RunState::SealedPaused => Some(RunState::Finished),
        RunState::Cancelling => Some(RunState::Cancelled),
        _ => None,
    }
}

/// Jobs that are not final.
pub(super) fn hot(counts: &FlowCounts) -> u64 {
    counts.waiting() + counts.calling + counts.unknown
}

/// The counter in which a job stands.
pub(super) fn counter(counts: &mut FlowCounts, stand: Stand, class: Class) -> &mut u64 {
    match stand {
        Stand::Ready => &mut counts.ready[class as usize],
        Stand::Later => &mut counts.later,
        Stand::Behind => &mut counts.behind,
        Stand::Calling => &mut counts.calling,
        Stand::Unknown => &mut counts.unknown,
        Stand::Delivered => &mut counts.delivered,
        Stand::Dead => &mut counts.dead,
        Stand::Cancelled => &mut counts.cancelled,
    }
}

/// Moves `n` jobs between two counters. Both exist in the counts because every job was counted in when it came.
pub(super) fn recount(counts: &mut FlowCounts, from: Option<(Stand, Class)>, to: Option<(Stand, Class)>) {
    if let Some((stand, class)) = from {
        let n = counter(counts, stand, class);
        debug_assert!(*n > 0, "counter of {stand:?} below zero");
        *n = n.saturating_sub(1);
    }
    if let Some((stand, class)) = to {
        *counter(counts, stand, class) += 1;
    }
}

fn hash_of(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

/// Scope of the order of a key: the same record at the same account of a provider, whatever the operation. Stored, so
/// it must never change.
pub(super) fn key_hash(provider: &ProviderName, account: &Account, key: &Key) -> i64 {
    let hash = hash_of(&[provider.as_str(), account.as_str(), key.as_str()]);
    i64::from_le_bytes(hash[..8].try_into().expect("8 of 32 bytes"))
}

/// Content of an enqueue, for telling a repeat from a reuse of an idempotency key. Due time and trace differ between
/// honest repeats and stay out. Stored, so it must never change.
pub(super) fn fingerprint(job: &NewJob) -> [u8; 32] {
    let run = job.run.map(|r| r.to_string()).unwrap_or_default();
    let mut parts = vec![
        job.provider.as_str(),
        job.operation.as_str(),
        job.account.as_str(),
        &run,
        job.key.as_ref().map_or("", |k| k.as_str()),
        job.class.name(),
        &job.payload,
    ];
    for (name, value) in &job.labels {
        parts.extend([name.as_str(), value.as_str()]);
    }
    hash_of(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_joins_objects_and_replaces_the_rest() {
        let merge = |a: &str, b: &str| coalesced_payload(Coalesce::Merge, &a.into(), &b.into()).to_string();
        assert_eq!(merge(r#"{"a":1,"b":2}"#, r#"{"b":null,"c":3}"#), r#"{"a":1,"c":3}"#);
        assert_eq!(merge(r#"{"a":1}"#, "[1]"), "[1]");
        assert_eq!(merge("7", r#"{"a":1}"#), r#"{"a":1}"#);
    }

    #[test]
    fn the_stored_hashes_never_change() {
        let name = |s: &str| ProviderName::new(s).unwrap();
        let hash = key_hash(&name("crm"), &Account::default(), &Key::new("user-1").unwrap());
        assert_eq!(hash, KEY_HASH_ON_DISK);
    }

    const KEY_HASH_ON_DISK: i64 = -4_185_645_578_545_850_286;
}

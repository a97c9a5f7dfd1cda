//! Calls whose answer somebody waits for: they stand in line at the gate and go before its jobs, under the same limits,
//! breakers and bounds.
//!
//! The line is short and each asker brings a deadline; who cannot be served before it is told so at once, with the time at
//! which there would be room. Must never know: caches, what the answers are for. Next: `../caller/direct`, which carries
//! one out.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{oneshot, watch};

use super::super::LEASE_MARGIN;
use super::super::caller::direct::{Direct, Errand};
use super::super::handle::EngineError;
use super::actor::{AWAY_WAIT, Gate};
use super::group::GroupKey;
use crate::clock::Timestamp;
use crate::limiter::{self, Acquire, Answer, Settle, spends};
use crate::model::call::{Lane, Permit};
use crate::model::flow::Class;
use crate::model::job::ClaimedJob;
use crate::model::name::Account;
use crate::model::provider::{Operation, Provider};
use crate::model::request::Request;
use crate::model::verdict::{self, Failure};

/// Askers that stand in line at one provider.
pub const LINE_MAX: usize = 1_000;
/// Asks put to the limiter at one time.
pub(super) const ASK_AT_ONCE: usize = 64;
/// An ask that was denied is not put again in the same instant.
pub(super) const ASK_AGAIN: std::time::Duration = std::time::Duration::from_millis(1);

/// One call that somebody waits for, rendered.
#[derive(Clone, Debug)]
pub struct Ask {
    pub provider: Arc<Provider>,
    pub operation: Arc<Operation>,
    pub account: Account,
    /// Not in the store: what the templates and the limits by key see.
    pub job: ClaimedJob,
    pub request: Request,
    pub class: Class,
    /// Steady time until which it waits for the limits.
    pub wait_until: Timestamp,
    /// Says whether it has left the line and has no answer yet.
    pub on_wire: watch::Sender<bool>,
}

/// What became of it.
#[derive(Debug)]
pub enum Said {
    /// The provider answered.
    Answered(verdict::Answer),
    /// The provider said "not now", until then (steady); nothing was done.
    NotNow {
        until: Timestamp,
        answer: verdict::Answer,
    },
    /// Refused for a token that has had its day: it may go again under the next one.
    Outdated(verdict::Answer),
    Failed(Failure),
    /// Nothing was sent, and nothing will be: paused, or a secret is missing.
    Refused(String),
    /// Nothing was sent: there is no room before the deadline. `earliest` is steady; `None`: it cannot be said.
    NoRoom {
        earliest: Option<Timestamp>,
        why: String,
    },
}

pub type Reply = oneshot::Sender<Result<Said, EngineError>>;

#[derive(Debug)]
pub(super) struct Waiting {
    ask: Ask,
    reply: Reply,
    again_at: Timestamp,
    why: String,
}

#[derive(Debug, Default)]
pub(super) struct Line(VecDeque<Waiting>);

impl Line {
    /// An answer or a new declaration may have freed what somebody waits for.
    pub fn unpark(&mut self) {
        self.0.iter_mut().for_each(|w| w.again_at = Timestamp::ZERO);
    }
}

impl Gate {
    pub fn stand_in_line(&mut self, ask: Ask, reply: Reply) {
        if self.line.0.len() >= LINE_MAX {
            let _ = reply.send(Err(EngineError::Busy { waiting: LINE_MAX }));
            return;
        }
        let behind = self.line.0.iter().position(|w| w.ask.class > ask.class).unwrap_or(self.line.0.len());
        self.line.0.insert(behind, Waiting { ask, reply, again_at: Timestamp::ZERO, why: String::new() });
    }

    /// Lets go who may go now, and answers those who cannot before their deadline. When to look again.
    pub async fn serve_line(&mut self) -> Timestamp {
        // Who has gone away needs nothing.
        self.line.0.retain(|w| !w.reply.is_closed());
        if self.line.0.is_empty() {
            return Timestamp::NEVER;
        }
        let now = self.now();
        if let Some(refusal) = self.refuses_line() {
            for waiting in self.line.0.drain(..) {
                let said = refusal.as_ref().map(|why| Said::Refused(why.clone())).map_err(|_| EngineError::Draining);
                let _ = waiting.reply.send(said);
            }
            return Timestamp::NEVER;
        }
        let (slots, probe, room_at) = match self.room(now) {
            // With no slot free, the next answer wakes the gate.
            Ok((slots, probe)) => (slots, probe, Timestamp::NEVER),
            Err(until) => (0, false, until),
        };
        if slots > 0 {
            self.put_line_to_limiter(slots, probe, now).await;
        } else {
            let (why, again_at) = ("the provider takes no calls for now", room_at);
            self.line.0.iter_mut().for_each(|w| (w.why, w.again_at) = (why.to_owned(), again_at));
        }
        let hopeless =
            |w: &Waiting| w.ask.wait_until <= now || (w.again_at != Timestamp::NEVER && w.again_at > w.ask.wait_until);
        let (over, line): (VecDeque<Waiting>, _) = std::mem::take(&mut self.line.0).into_iter().partition(hopeless);
        self.line.0 = line;
        for Waiting { reply, again_at, why, .. } in over {
            let earliest = (again_at != Timestamp::NEVER && again_at > now).then_some(again_at);
            let _ = reply.send(Ok(Said::NoRoom { earliest, why }));
        }
        self.line.0.iter().map(|w| w.again_at.min(w.ask.wait_until)).min().unwrap_or(Timestamp::NEVER)
    }

    /// What to tell everybody in the line, where nobody can be served however long they wait.
    fn refuses_line(&self) -> Option<Result<String, EngineError>> {
        let name = &self.current.provider.name;
        match &self.current.transport {
            _ if self.shared.held.load(Ordering::Relaxed) => Some(Err(EngineError::Draining)),
            Err(reason) => Some(Ok(format!("provider {name} cannot be called: {reason}"))),
            Ok(_) if self.shared.paused.load(Ordering::Relaxed) => Some(Ok(format!("provider {name} is paused"))),
            Ok(_) => None,
        }
    }

    async fn put_line_to_limiter(&mut self, slots: u32, probe: bool, now: Timestamp) {
        let admitted = self.admitted(ASK_AT_ONCE.min(slots as usize), now);
        if admitted.is_empty() {
            return;
        }
        let (due, probes): (Vec<usize>, Vec<bool>) = admitted.into_iter().unzip();
        let request = |at: &usize| {
            let Ask { provider, operation, account, job, class, .. } = &self.line.0[*at].ask;
            let spends = self.learned.apply(spends(provider, operation, Lane::Single, account, job.key.as_ref()));
            Acquire { spends, min: 1, max: 1, class: *class, request: 0 }
        };
        let requests: Vec<Acquire> = due.iter().map(request).collect();
        let answers = match self.ask_limiter(now, &requests).await {
            Ok(answers) => answers,
            Err(e) => {
                for at in due {
                    let waiting = &mut self.line.0[at];
                    (waiting.again_at, waiting.why) = (now + AWAY_WAIT, e.to_string());
                }
                return;
            }
        };
        let mut granted = Vec::new();
        for ((at, answer), of_credential) in due.into_iter().zip(answers).zip(probes) {
            match answer {
                Answer::Granted { permit, .. } => granted.push((at, permit, of_credential)),
                Answer::Wait { earliest, binder, .. } => {
                    let waiting = &mut self.line.0[at];
                    waiting.again_at = earliest.max(now + ASK_AGAIN);
                    waiting.why = format!("limit {binder} is used up for now");
                }
            }
        }
        // From the back, so that the places before stay what they were.
        for (at, permit, of_credential) in granted.into_iter().rev() {
            let waiting = self.line.0.remove(at).expect("it was just there");
            if of_credential {
                self.credential_probe_began(&waiting.ask.account, now);
            }
            self.launch_direct(waiting, permit, probe || of_credential).await;
        }
    }

    /// Asks for somebody who stands in a line, here or outside. Doubts about the limiter are raised.
    pub(super) async fn ask_limiter(
        &mut self,
        now: Timestamp,
        requests: &[Acquire],
    ) -> Result<Vec<Answer>, limiter::Error> {
        self.parts.limiter.acquire(now, requests).await.inspect_err(|e| {
            tracing::warn!(provider = %self.current.provider.name, error = %e, "holding those who wait for the limits");
            self.parts.doubts.raise(e);
        })
    }

    /// Whose credential lets them go now, and whether as its probe. One call goes for a credential in doubt.
    fn admitted(&mut self, max: usize, now: Timestamp) -> Vec<(usize, bool)> {
        let (mut admitted, mut one_went) = (Vec::new(), BTreeSet::new());
        for at in 0..self.line.0.len() {
            if admitted.len() >= max || self.line.0[at].again_at > now {
                continue;
            }
            let account = self.line.0[at].ask.account.clone();
            let again_at = if one_went.contains(&account) {
                now + AWAY_WAIT
            } else {
                match self.credential_admits(&account, u32::MAX, now) {
                    Ok((slots, of_credential)) => {
                        if slots == 1 {
                            one_went.insert(account);
                        }
                        admitted.push((at, of_credential));
                        continue;
                    }
                    Err(until) => until,
                }
            };
            let why =
                self.explain_credential(&account).map_or_else(|| "its credential is in doubt".to_owned(), |e| e.0);
            (self.line.0[at].again_at, self.line.0[at].why) = (again_at, why);
        }
        admitted
    }

    /// In a task of its own, so that an asker who goes away leaves nothing behind.
    async fn launch_direct(&mut self, waiting: Waiting, permit: Permit, probe: bool) {
        let Waiting { ask, reply, .. } = waiting;
        let Ok(transport) = self.current.transport.clone() else {
            let settle = Settle::new(permit, 1, false);
            if let Err(e) = self.parts.limiter.settle(self.now(), &[settle]).await {
                tracing::warn!(error = %e, "a permit could not be given back");
            }
            return;
        };
        ask.on_wire.send_replace(true);
        let group = GroupKey { operation: ask.operation.name.clone(), account: ask.account.clone() };
        self.groups.entry(group.clone()).or_default().in_flight[Lane::Single as usize] += 1;
        self.shared.in_flight[Lane::Single as usize].fetch_add(1, Ordering::Relaxed);
        self.rates.left(self.parts.clock.steady(), &group, Lane::Single, 1, 0);
        if probe {
            self.probe_began();
        }
        let lease_until = self.now() + self.current.provider.timeouts.total + LEASE_MARGIN;
        let direct = Direct { caller: self.caller(transport), open: self.parts.open_calls.hold() };
        let (shared, spent) = (self.shared.clone(), permit.spends.clone());
        let errand = Errand { ask, permit, lease_until, probe, reply };
        let completed = move |completion| shared.completed(group, spent, completion);
        self.parts.supervisor.task(async move {
            let _how_long = direct.carry(errand, completed).await;
        });
    }
}

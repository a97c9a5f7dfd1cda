//! Programs outside that ask for permits: who gets them, and when.
//!
//! They stand in one line, the most urgent first, and take part in the turns: while somebody waits there, whoever was
//! given less since goes first, the line or the daemon's own jobs. So neither starves the other, and both are bound by
//! the same limits, classes and reserves. An ask for more than one permit at least is all or nothing and may be
//! overtaken by smaller ones. Breakers and `in_flight_max` do not hold them: those are about the daemon's own wire. Must
//! never know: what the permits are used for. Next: `../lender`, which journals them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::handle::EngineError;
use super::super::lender::{GRANTS_MAX, Loan, Purpose};
use super::actor::{AWAY_WAIT, Gate};
use super::direct::{ASK_AGAIN, ASK_AT_ONCE};
use crate::clock::Timestamp;
use crate::limiter::{Acquire, Answer, Spend};
use crate::model::call::Permit;
use crate::model::flow::Class;

/// Programs that stand in line at one provider.
const ASKS_MAX: usize = 1_000;
/// How far one side may be ahead of the other: a burst of long ago must not lock anybody out for long.
const LEAD_MAX: i64 = 1_000;

/// What a program asks for.
#[derive(Debug)]
pub struct Ask {
    pub purpose: Purpose,
    pub spends: Arc<[Spend]>,
    /// 1 at least.
    pub min: u32,
    pub max: u32,
    pub class: Class,
    /// Steady time until which it waits.
    pub wait_until: Timestamp,
    /// How long it may use what it gets.
    pub lease: Duration,
}

#[derive(Clone, Debug)]
pub enum Lending {
    Granted(Loan),
    /// Nothing was taken. `earliest` is steady; `None`: it cannot be said.
    Later {
        earliest: Option<Timestamp>,
        why: Arc<str>,
    },
}

pub(super) type Reply = oneshot::Sender<Result<Lending, EngineError>>;

struct Waiting {
    ask: Ask,
    reply: Reply,
    again_at: Timestamp,
    /// A call that settles could free it sooner.
    soft: bool,
    why: Arc<str>,
}

/// The line.
#[derive(Default)]
pub(super) struct Outside {
    line: VecDeque<Waiting>,
    /// Permits that the daemon's own jobs were given more than the line while somebody stood in it.
    lead: i64,
}

impl Outside {
    pub fn goes_first(&self) -> bool {
        !self.line.is_empty() && self.lead >= 0
    }

    /// The daemon's own jobs were given permits.
    pub fn own(&mut self, count: u32) {
        if !self.line.is_empty() {
            self.lead = (self.lead + i64::from(count)).min(LEAD_MAX);
        }
    }

    /// An answer may have freed what somebody waits for.
    pub fn unpark_soft(&mut self) {
        self.line.iter_mut().filter(|w| w.soft).for_each(|w| w.again_at = Timestamp::ZERO);
    }

    pub fn unpark_all(&mut self) {
        self.line.iter_mut().for_each(|w| w.again_at = Timestamp::ZERO);
    }

    pub fn wake_at(&self) -> Timestamp {
        let next = self.line.iter().map(|w| w.again_at.min(w.ask.wait_until)).min();
        next.unwrap_or(Timestamp::NEVER)
    }

    fn join(&mut self, waiting: Waiting) {
        let behind = self.line.iter().position(|w| w.ask.class > waiting.ask.class);
        self.line.insert(behind.unwrap_or(self.line.len()), waiting);
    }
}

impl Gate {
    pub fn join_outside(&mut self, ask: Ask, reply: Reply) {
        let refused = if self.outside.line.len() >= ASKS_MAX {
            Some(EngineError::Busy { waiting: ASKS_MAX })
        } else if self.parts.lender.is_full() {
            Some(EngineError::Busy { waiting: GRANTS_MAX })
        } else {
            None
        };
        match refused {
            Some(refused) => drop(reply.send(Err(refused))),
            None => {
                let (again_at, why) = (Timestamp::ZERO, Arc::from("its turn"));
                self.outside.join(Waiting { ask, reply, again_at, soft: false, why });
            }
        }
    }

    /// Gives the line what it may have now, and an answer to those whose time is up.
    pub async fn lend(&mut self, now: Timestamp) {
        // Who has gone away needs nothing.
        self.outside.line.retain(|w| !w.reply.is_closed());
        if self.shared.held.load(Ordering::Relaxed) {
            for waiting in self.outside.line.drain(..) {
                let _ = waiting.reply.send(Err(EngineError::Draining));
            }
        }
        if self.shared.paused.load(Ordering::Relaxed) {
            for waiting in &mut self.outside.line {
                (waiting.again_at, waiting.why) = (Timestamp::NEVER, Arc::from("the provider is paused"));
            }
        }
        self.put_outside_to_limiter(now).await;
        let line = std::mem::take(&mut self.outside.line).into_iter();
        let (over, line): (VecDeque<Waiting>, _) = line.partition(|w| w.ask.wait_until <= now);
        self.outside.line = line;
        for waiting in over {
            let earliest = (waiting.again_at != Timestamp::NEVER).then_some(waiting.again_at);
            let _ = waiting.reply.send(Ok(Lending::Later { earliest, why: waiting.why }));
        }
        if self.outside.line.is_empty() {
            self.outside.lead = 0;
        }
    }

    async fn put_outside_to_limiter(&mut self, now: Timestamp) {
        let due = self.outside.line.iter().enumerate().filter(|(_, w)| w.again_at <= now).map(|(at, _)| at);
        let due: Vec<usize> = due.take(ASK_AT_ONCE).collect();
        if due.is_empty() {
            return;
        }
        let request = |at: &usize| {
            let Ask { spends, min, max, class, .. } = &self.outside.line[*at].ask;
            let spends = self.learned.apply(spends.clone());
            Acquire { spends, min: *min, max: *max, class: *class, request: 0 }
        };
        let requests: Vec<Acquire> = due.iter().map(request).collect();
        let Ok(answers) = self.ask_limiter(now, &requests).await else {
            for at in due {
                let waiting = &mut self.outside.line[at];
                (waiting.again_at, waiting.why) = (now + AWAY_WAIT, Arc::from("the limiter is not available"));
            }
            return;
        };
        let mut granted = Vec::new();
        for (at, answer) in due.into_iter().zip(answers) {
            match answer {
                Answer::Granted { count, permit } => granted.push((at, count, permit)),
                Answer::Wait { earliest, binder, soft } => {
                    let waiting = &mut self.outside.line[at];
                    waiting.again_at = earliest.max(now + ASK_AGAIN);
                    waiting.soft = soft;
                    waiting.why = Arc::from(binder.to_string());
                }
            }
        }
        // From the back, so that the places before stay what they were.
        for (at, count, permit) in granted.into_iter().rev() {
            let waiting = self.outside.line.remove(at).expect("it was just there");
            self.outside.lead = (self.outside.lead - i64::from(count)).max(-LEAD_MAX);
            self.hand_out(waiting, count, permit, now);
        }
    }

    /// Journals what was granted and tells. In a task of its own: the gate goes on, and an asker that goes away in
    /// between leaves nothing behind.
    fn hand_out(&self, waiting: Waiting, count: u32, permit: Permit, now: Timestamp) {
        let Waiting { ask, reply, .. } = waiting;
        let (lender, open) = (self.parts.lender.clone(), self.parts.open_calls.hold());
        let shared = self.shared.clone();
        self.parts.supervisor.task(async move {
            let _open = open;
            let lent = lender.lend(ask.purpose, permit, count, now + ask.lease).await;
            let loan = lent.as_ref().ok().copied();
            let told = reply.send(lent.map(Lending::Granted)).is_ok();
            if let (false, Some(loan)) = (told, loan) {
                lender.take_back(loan).await;
            }
            if !told || loan.is_none() {
                // They went back: there is room again.
                shared.returned.store(true, Ordering::Relaxed);
                shared.wake().notify_one();
            }
        });
    }
}

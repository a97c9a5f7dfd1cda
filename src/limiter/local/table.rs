//! The limits of this process by key, and what happens to them.
//!
//! Slots lie in a slab that a hand goes round: every new limit looks at two old ones and forgets those without a count,
//! so memory follows the limits in use without a pause to sweep. Must never know: locks, futures. Next:
//! `limit/state.rs`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::limit::set::{Outcome, Poll};
use crate::limit::state::{End, Known};
use crate::limit::{LimitView, State};
use crate::limiter::{Acquire, Answer, Seed, Settle, Spend};
use crate::model::call::{LimitKey, Permit};
use crate::model::provider::Limit;

/// Answers remembered for repeated requests.
const ANSWERS_MAX: usize = 1_024;
/// Known calls of a limit that nobody has declared yet are forgotten after the longest window there is.
const UNDECLARED_KEPT: std::time::Duration = std::time::Duration::from_secs(32 * 86_400);

#[derive(Debug, Default)]
pub(super) struct Table {
    index: HashMap<LimitKey, usize>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// The slot that is looked at next for being forgotten.
    hand: usize,
    /// Limits made since the hand moved last.
    made: usize,
    answers: HashMap<u64, Answer>,
    /// Numbers of the remembered answers, oldest first.
    answered: VecDeque<u64>,
    /// Slots of the decision at hand; kept to save an allocation.
    picked: Vec<usize>,
}

#[derive(Debug)]
struct Slot {
    key: LimitKey,
    /// The declaration that came with the last request. `None`: seeded, not asked for yet.
    limit: Option<Arc<Limit>>,
    state: Option<State>,
    /// What the journal knows, until a declaration says how to count it.
    known: Vec<Known>,
}

impl Slot {
    fn new(key: LimitKey) -> Self {
        Slot { key, limit: None, state: None, known: Vec::new() }
    }

    /// The state under the declaration in force. Counts carry over from the one before.
    fn declare(&mut self, now: Timestamp, limit: &Arc<Limit>) -> &mut State {
        let same = self.limit.as_ref().is_some_and(|l| Arc::ptr_eq(l, limit));
        if !same {
            self.limit = Some(limit.clone());
            if self.state.as_ref().is_some_and(|s| !s.fits(limit)) {
                self.state = None;
            }
        }
        let state = self.state.get_or_insert_with(|| State::new(limit));
        if !self.known.is_empty() {
            let mut known = std::mem::take(&mut self.known);
            known.sort_by_key(|k| k.anchored_at);
            known.iter().for_each(|k| state.seed(limit, now, *k));
        }
        state
    }

    fn is_idle(&self, now: Timestamp) -> bool {
        let forgotten = self.known.iter().all(|k| k.anchored_at + UNDECLARED_KEPT <= now);
        forgotten
            && match (&self.state, &self.limit) {
                (Some(state), Some(limit)) => state.is_idle(limit, now),
                _ => true,
            }
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn acquire(&mut self, epoch: i64, now: Timestamp, request: &Acquire) -> Answer {
        if request.request != 0
            && let Some(answer) = self.answers.get(&request.request)
        {
            return answer.clone();
        }
        let answer = self.decide(epoch, now, request);
        self.tidy(now);
        if request.request != 0 {
            if self.answered.len() >= ANSWERS_MAX
                && let Some(oldest) = self.answered.pop_front()
            {
                self.answers.remove(&oldest);
            }
            self.answered.push_back(request.request);
            self.answers.insert(request.request, answer.clone());
        }
        answer
    }

    fn decide(&mut self, epoch: i64, now: Timestamp, request: &Acquire) -> Answer {
        let mut picked = std::mem::take(&mut self.picked);
        picked.clear();
        let mut poll = Poll::new(request.min, request.max);
        for (i, spend) in request.spends.iter().enumerate() {
            let at = self.place(spend);
            // `limiter::spends` never names a key twice; whoever does pays for each.
            let times = 1 + picked.iter().filter(|&&p| p == at).count() as u32;
            picked.push(at);
            let state = self.slots[at].as_mut().expect("an indexed slot is filled").declare(now, &spend.limit);
            let least = request.min.max(1).saturating_mul(times);
            let calls = state.room(&spend.limit, now, request.class, least) / times;
            poll.hear(i, calls, |min| state.denied(&spend.limit, now, request.class, min.saturating_mul(times)));
        }
        let answer = match poll.outcome() {
            Outcome::Granted(count) => {
                for (spend, &at) in request.spends.iter().zip(&picked) {
                    let state = self.slots[at].as_mut().and_then(|s| s.state.as_mut());
                    state.expect("declared above").grant(&spend.limit, now, count);
                }
                let all = || request.spends.iter().map(|s| (s.key.clone(), s.limit.cost.max(1))).collect();
                let spends = request.spends.first().map_or_else(all, |first| first.memo.permit(all));
                Answer::Granted { count, permit: Permit { spends, granted_at: now, epoch } }
            }
            Outcome::Denied { binder, denied } => Answer::Wait {
                earliest: denied.earliest,
                binder: request.spends[binder].key.clone(),
                soft: denied.soft,
            },
        };
        self.picked = picked;
        answer
    }

    pub(super) fn settle(&mut self, now: Timestamp, settle: &Settle) {
        let granted_at = settle.permit.granted_at;
        for (key, granted) in settle.permit.spends.iter() {
            let held = settle.count.saturating_mul(*granted);
            let spent = settle.count.saturating_mul(settle.cost(key, *granted));
            if !settle.sent && !self.index.contains_key(key) {
                continue;
            }
            let at = self.slot(key);
            let slot = self.slots[at].as_mut().expect("an indexed slot is filled");
            match (&mut slot.state, &slot.limit) {
                (Some(state), Some(limit)) => {
                    let good = settle.sent && settle.good;
                    state.settle(limit, now, End { granted_at, calls: settle.count, held, spent, good });
                    match settle.said.iter().find(|said| said.key == *key) {
                        Some(said) => state.hear(limit, now, granted_at, said.left, said.until),
                        None if settle.sent => state.unheard(limit, spent),
                        None => {}
                    }
                }
                // Not granted by this process: counted like what the journal knows.
                _ if settle.sent => slot.known.push(Known { granted_at, anchored_at: now, permits: spent }),
                _ => {}
            }
        }
        if let Some(until) = settle.blocked_until {
            self.block(now, settle, until);
        }
    }

    /// Blocks the limit that the provider named, or all limits of the call when it named none that the call spends.
    fn block(&mut self, now: Timestamp, settle: &Settle, until: Timestamp) {
        let spent: Vec<usize> = settle.permit.spends.iter().filter_map(|(k, _)| self.index.get(k).copied()).collect();
        let named = |slot: &Slot| {
            let name = slot.limit.as_ref().map(|l| l.name.as_str());
            name.is_some() && name == settle.blocked_limit.as_deref()
        };
        let any_named = spent.iter().any(|&at| self.slots[at].as_ref().is_some_and(named));
        for at in spent {
            if let Some(slot) = self.slots[at].as_mut()
                && (!any_named || named(slot))
                && let Some(state) = slot.state.as_mut()
            {
                state.block(now, settle.permit.granted_at, until);
            }
        }
    }

    pub(super) fn seed(&mut self, now: Timestamp, limits: &[Spend], entries: &[Seed]) {
        for entry in entries {
            for (key, cost) in entry.permit.spends.iter() {
                let at = self.slot(key);
                let slot = self.slots[at].as_mut().expect("an indexed slot is filled");
                let (granted_at, anchored_at) = (entry.permit.granted_at, entry.anchored_at);
                slot.known.push(Known { granted_at, anchored_at, permits: *cost });
            }
        }
        for spend in limits {
            let at = self.slot(&spend.key);
            self.slots[at].as_mut().expect("an indexed slot is filled").declare(now, &spend.limit);
        }
    }

    pub(super) fn view(&mut self, now: Timestamp, spend: &Spend) -> LimitView {
        match self.index.get(&spend.key).and_then(|&at| self.slots[at].as_mut()) {
            Some(slot) => slot.declare(now, &spend.limit).view(spend.key.clone(), &spend.limit, now),
            None => State::new(&spend.limit).view(spend.key.clone(), &spend.limit, now),
        }
    }

    /// Where the limit of this spend lies; made if it is new.
    fn place(&mut self, spend: &Spend) -> usize {
        let is_there = |at: &usize| {
            let slot = self.slots.get(*at).and_then(Option::as_ref);
            slot.is_some_and(|slot| Arc::ptr_eq(&slot.key.0, &spend.key.0) || slot.key == spend.key)
        };
        if let Some(at) = spend.memo.slot().filter(is_there) {
            return at;
        }
        let at = self.slot(&spend.key);
        spend.memo.note_slot(at);
        at
    }

    /// Where the limit of this key lies; made if it is new.
    fn slot(&mut self, key: &LimitKey) -> usize {
        if let Some(&at) = self.index.get(key) {
            return at;
        }
        self.made += 1;
        let slot = Some(Slot::new(key.clone()));
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.index.insert(key.clone(), at);
        at
    }

    /// Moves the hand over two slots for each limit made, and forgets those without a count. So limits that are no
    /// longer used go at least as fast as new ones come.
    fn tidy(&mut self, now: Timestamp) {
        for _ in 0..(2 * std::mem::take(&mut self.made)).min(self.slots.len()) {
            self.hand = (self.hand + 1) % self.slots.len();
            if let Some(slot) = &self.slots[self.hand]
                && slot.is_idle(now)
            {
                self.index.remove(&slot.key);
                self.slots[self.hand] = None;
                self.free.push(self.hand);
            }
        }
    }
}

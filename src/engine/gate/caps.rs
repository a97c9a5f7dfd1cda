//! Lines of the limits: whom a limit refuses waits in its line, and one question is asked for all who wait there.
//!
//! Ten thousand accounts may wait for one limit that they share. The one whose turn it is asks; when it is refused the line
//! is closed until the limiter's `earliest`, and whoever has a turn meanwhile joins it without a question. Must never know:
//! counts. Next: `plan/fairness/lines.rs`, which keeps the order.

use std::sync::Arc;
use std::time::Duration;

use super::actor::Gate;
use super::group::GroupKey;
use crate::clock::Timestamp;
use crate::limiter::{LimitView, Spend};
use crate::model::call::{Lane, LimitKey};
use crate::model::flow::Class;
use crate::model::provider::Operation;
use crate::plan::lanes::{Lanes, TideDecision, opens_at};

/// How often a line is asked for again whose limit calls of other daemons may fill: their answers are not heard here.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is refused alike: so many permits of a limit for a class. Refused to one, it is refused to all, and to those that
/// are less urgent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cap {
    limit: LimitKey,
    cost: u32,
    class: Class,
}

impl Cap {
    fn of(spend: &Spend, class: Class) -> Self {
        Cap { limit: spend.key.clone(), cost: spend.limit.cost, class }
    }

    /// The first and the last line of a limit.
    fn all_of(limit: &LimitKey) -> (Self, Self) {
        let cap = |cost, class| Cap { limit: limit.clone(), cost, class };
        (cap(0, Class::Urgent), cap(u32::MAX, Class::Bulk))
    }
}

impl Gate {
    /// Joins the line of a limit that is known to refuse a call of this class, if there is one.
    pub fn waits_in_line(&mut self, key: &GroupKey, spends: &[Spend], class: Class) -> bool {
        let Some((_, cap)) = self.closed(spends, class) else { return false };
        self.waits.bound(&cap.limit);
        self.turns.stand_in(key, &cap);
        true
    }

    /// The line that opens last of those that hold a call.
    fn closed(&self, spends: &[Spend], class: Class) -> Option<(Timestamp, Cap)> {
        let caps = spends.iter().flat_map(|s| Class::ALL[..=class as usize].iter().map(move |c| Cap::of(s, *c)));
        caps.filter_map(|cap| Some((self.turns.closed_until(&cap)?, cap))).max()
    }

    /// The limiter refused a call: the line of the limit that binds is closed until then.
    pub fn refused(
        &mut self,
        key: &GroupKey,
        spends: &[Spend],
        class: Class,
        (earliest, binder, soft): (Timestamp, &LimitKey, bool),
        now: Timestamp,
    ) {
        self.waits.bound(binder);
        match spends.iter().find(|s| s.key == *binder) {
            Some(spend) => self.close(key, &Cap::of(spend, class), earliest, soft, now),
            None => {
                self.hopeful.insert(key.clone());
                self.turns.park(key, self.look_at(earliest, soft, now));
            }
        }
    }

    fn close(&mut self, key: &GroupKey, cap: &Cap, earliest: Timestamp, soft: bool, now: Timestamp) {
        self.turns.stand_in(key, cap);
        self.turns.close(cap, self.look_at(earliest, soft, now), soft);
    }

    /// What only an answer can free may be freed by an answer to another daemon.
    fn look_at(&self, earliest: Timestamp, soft: bool, now: Timestamp) -> Timestamp {
        if soft && self.parts.owned.is_shared() { earliest.min(now + LOOK_EVERY) } else { earliest }
    }

    /// Permits of these limits came back, or began to age: whoever waits for them may ask again, whatever its calls cost.
    /// As granted, not as declared: the declaration may be another by now.
    pub fn freed(&mut self, spent: &[(LimitKey, u32)]) {
        for (limit, _) in spent {
            let (first, last) = Cap::all_of(limit);
            self.turns.open_between(&first, &last);
        }
        self.try_hopeful();
    }

    /// The same, of limits that are not known here.
    pub fn something_freed(&mut self) {
        self.turns.open_soft();
        self.try_hopeful();
    }

    fn try_hopeful(&mut self) {
        for key in std::mem::take(&mut self.hopeful) {
            self.turns.unpark(&key);
        }
    }

    /// Does every lane of a group wait in a line? Then it joins the one that opens first, and need not be looked at.
    pub fn all_lanes_wait(&mut self, key: &GroupKey, operation: &Arc<Operation>) -> bool {
        let Some(class) = self.most_urgent(key) else { return false };
        let mut first: Option<(Timestamp, Cap)> = None;
        for lane in Lane::ALL.into_iter().filter(|l| operation.lane(*l).is_some()) {
            let spends = self.spends(key, operation, lane);
            let Some(closed) = self.closed(&spends, class) else { return false };
            first = Some(first.map_or_else(|| closed.clone(), |f| f.min(closed.clone())));
        }
        let Some((_, cap)) = first else { return false };
        self.waits.bound(&cap.limit);
        self.turns.stand_in(key, &cap);
        true
    }

    /// Nothing of a group leaves, as its limits stand. Where each lane has a limit without room, it waits in the line of
    /// the one that has room first; else it is looked at again when the plan says so.
    pub fn nothing_leaves(
        &mut self,
        key: &GroupKey,
        operation: &Arc<Operation>,
        (views, lanes): (&[Option<Vec<LimitView>>; 2], &Lanes),
        decision: &mut TideDecision,
        now: Timestamp,
    ) {
        let all = || views.iter().flatten().flatten();
        if decision.wake_at == Timestamp::NEVER && all().any(|view| view.in_flight > 0) {
            decision.wake_at = self.look_at(Timestamp::NEVER, true, now);
            self.hopeful.insert(key.clone());
        }
        let Some(class) = self.most_urgent(key) else { return };
        let mut first: Option<(Timestamp, Cap, bool)> = None;
        let open = [lanes.single.is_some(), lanes.batch.is_some()];
        for ((lane, views), _) in Lane::ALL.into_iter().zip(views).zip(open).filter(|(_, open)| *open) {
            let Some(views) = views else { continue };
            let spends = self.spends(key, operation, lane);
            let full = spends.iter().zip(views).filter(|(_, view)| view.calls(class) == 0);
            // Before the reset only an answer helps, too; and after a refusal that of the call that goes first.
            let soft = |v: &LimitView, until| {
                let by_word = v.in_flight > 0 && v.said.is_some_and(|said| said.until == until);
                until == Timestamp::NEVER || v.is_probing || by_word
            };
            let cap = full.map(|(s, v)| (opens_at(v, class), s, v)).map(|(u, s, v)| (u, Cap::of(s, class), soft(v, u)));
            let Some(cap) = cap.max() else { return };
            first = Some(first.map_or_else(|| cap.clone(), |f| f.min(cap.clone())));
        }
        if let Some((until, cap, soft)) = first.filter(|(until, ..)| *until > now) {
            self.waits.bound(&cap.limit);
            self.close(key, &cap, until, soft, now);
        }
    }

    /// The most urgent class of which the group has ready jobs.
    fn most_urgent(&self, key: &GroupKey) -> Option<Class> {
        let ready = self.groups.get(key)?.ready;
        Class::ALL.into_iter().find(|class| ready[*class as usize] > 0)
    }
}

//! Groups that wait, and how they come back: parked by themselves until a time, or in a line (`lines.rs`).
//!
//! What is kept here is kept per group, whatever the number of its tenants: the bell that calls those, and the counts of
//! what may go. Must never know: why a group waits. Next: `lines.rs`.

use super::{Counted, Turns, any};
use crate::clock::Timestamp;

impl<G: Ord + Clone, L: Ord + Clone> Turns<G, L> {
    /// Nothing of the group may leave before `until`.
    pub fn park(&mut self, group: &G, until: Timestamp) {
        self.leave_line(group);
        self.has_spoken(group);
        let Some(found) = self.groups.get_mut(group) else { return };
        match found.parked_until.replace(until) {
            Some(before) => drop(self.parked.remove(&(before, group.clone()))),
            None => self.uncalled -= found.waiting.len(),
        }
        self.parked.insert((until, group.clone()));
        self.hang_bell(group);
        self.recount(group);
    }

    /// The group may be asked again, by itself.
    pub fn unpark(&mut self, group: &G) {
        self.leave_line(group);
        let Some(found) = self.groups.get_mut(group) else { return };
        let Some(until) = found.parked_until.take() else { return };
        self.parked.remove(&(until, group.clone()));
        self.uncalled += found.waiting.len();
        self.hang_bell(group);
        self.recount(group);
    }

    /// Everything may be tried anew.
    pub fn unpark_all(&mut self) {
        while let Some((_, group)) = self.parked.first().cloned() {
            self.unpark(&group);
        }
        self.open_all();
    }

    pub fn is_parked(&self, group: &G) -> bool {
        self.groups.get(group).is_some_and(|g| g.parked_until.is_some() || g.line.is_some())
    }

    /// Nobody has a turn before this time, unless something changes. `Timestamp::ZERO`: somebody has one now.
    pub fn wake_at(&self) -> Timestamp {
        if self.may_go() {
            return Timestamp::ZERO;
        }
        let parked = self.parked.first().map_or(Timestamp::NEVER, |(at, _)| *at);
        parked.min(self.lines.opens_at())
    }

    pub(super) fn unpark_due(&mut self, now: Timestamp) {
        while let Some((until, group)) = self.parked.first().cloned()
            && until <= now
        {
            self.unpark(&group);
        }
        self.open_due(now);
    }

    /// Has anybody a turn?
    pub(super) fn may_go(&self) -> bool {
        self.open + self.lines.open > 0
    }

    /// May tenants of the group have turns now?
    pub(super) fn is_callable(&self, group: &G) -> bool {
        let of = |g: &super::Group<L>| {
            g.parked_until.is_none() && g.line.as_ref().is_none_or(|line| !self.lines.is_closed(line))
        };
        self.groups.get(group).is_some_and(of)
    }

    /// A tenant began to wait at the group, or waits there no more.
    pub(super) fn count_waiting(&mut self, group: &G, more: bool) {
        if let Some(line) = self.groups.get(group).and_then(|g| g.line.as_ref()) {
            self.lines.waits(line, more);
        }
        if self.is_callable(group) {
            self.uncalled = if more { self.uncalled + 1 } else { self.uncalled - 1 };
        }
    }

    /// Keeps the group's place among the bells, or in its line, right.
    pub(super) fn hang_bell(&mut self, group: &G) {
        let Some(found) = self.groups.get(group) else { return };
        let wanted = found.waiting.first().map(|(at, _)| *at).filter(|_| found.parked_until.is_none());
        self.set_bell(group, wanted);
    }

    pub(super) fn set_bell(&mut self, group: &G, wanted: Option<u64>) {
        let Some(found) = self.groups.get_mut(group) else { return };
        if wanted == found.bell {
            return;
        }
        let before = std::mem::replace(&mut found.bell, wanted);
        if let Some(line) = &found.line {
            return self.lines.place(line, group, before, wanted);
        }
        if let Some(at) = before {
            self.bells.remove(&(at, group.clone()));
        }
        if let Some(at) = wanted {
            self.bells.insert((at, group.clone()));
        }
    }

    pub(super) fn uncount(&mut self, group: &G) {
        let Some(found) = self.groups.get_mut(group) else { return };
        match (std::mem::take(&mut found.counted), &found.line) {
            (Counted::Open, _) => self.open -= 1,
            (Counted::InLine, Some(line)) => self.lines.stands(line, false),
            _ => {}
        }
    }

    /// After a change of what is ready in the group, or of where it waits.
    pub(super) fn recount(&mut self, group: &G) {
        self.uncount(group);
        let Some(found) = self.groups.get_mut(group) else { return };
        if !any(found.shelf.ready()) || found.parked_until.is_some() {
            return;
        }
        match &found.line {
            None => (self.open, found.counted) = (self.open + 1, Counted::Open),
            Some(line) => {
                self.lines.stands(line, true);
                found.counted = Counted::InLine;
            }
        }
    }
}

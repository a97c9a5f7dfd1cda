//! Lines: groups that wait for the same thing, of which one is asked for all.
//!
//! A closed line costs nothing, however many stand in it; what closes it again after a look is one of them. An open line
//! calls its groups one by one, the next when the one before has been told, in the order of their tenants' turns: whoever
//! got least goes first, wherever it waits. Opening and closing touch the line alone: a group costs O(log n) when it is
//! called, and nothing before. Must never know: limits. Next: `parking.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Place, Turns};
use crate::clock::Timestamp;
use crate::model::name::Tenant;

#[derive(Debug)]
pub(super) struct Lines<G, L> {
    all: BTreeMap<L, Line<G>>,
    /// Open lines in which tenants wait, by the smallest virtual time among those.
    heads: BTreeSet<(u64, L)>,
    closed: BTreeSet<(Timestamp, L)>,
    soft: BTreeSet<L>,
    /// Groups with ready jobs in open lines.
    pub open: usize,
}

#[derive(Debug)]
struct Line<G> {
    closed_until: Option<Timestamp>,
    /// Groups at which tenants wait, by the smallest virtual time among those.
    groups: BTreeSet<(u64, G)>,
    /// Its entry in `Lines::heads`.
    head: Option<u64>,
    /// A group that it called has not been told anything yet.
    speaks: bool,
    members: usize,
    /// Members with ready jobs.
    standing: usize,
    /// Tenants that wait at its groups.
    waiting: usize,
}

impl<G: Ord> Default for Line<G> {
    fn default() -> Self {
        Line {
            closed_until: None,
            groups: BTreeSet::new(),
            head: None,
            speaks: false,
            members: 0,
            standing: 0,
            waiting: 0,
        }
    }
}

impl<G, L> Default for Lines<G, L> {
    fn default() -> Self {
        let (heads, closed, soft) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Lines { all: BTreeMap::new(), heads, closed, soft, open: 0 }
    }
}

impl<G: Ord + Clone, L: Ord + Clone> Lines<G, L> {
    pub fn is_closed(&self, line: &L) -> bool {
        self.all.get(line).is_some_and(|l| l.closed_until.is_some())
    }

    pub fn opens_at(&self) -> Timestamp {
        self.closed.first().map_or(Timestamp::NEVER, |(at, _)| *at)
    }

    /// The group that an open line calls next.
    pub fn first(&self) -> Option<(u64, G)> {
        let (_, line) = self.heads.first()?;
        self.all.get(line)?.groups.first().cloned()
    }

    /// A group with ready jobs came, or has none any more.
    pub fn stands(&mut self, line: &L, more: bool) {
        let Some(found) = self.all.get_mut(line) else { return };
        let count = |n: usize| if more { n + 1 } else { n - 1 };
        found.standing = count(found.standing);
        if found.closed_until.is_none() {
            self.open = count(self.open);
        }
    }

    /// A tenant began to wait at one of its groups, or waits no more.
    pub fn waits(&mut self, line: &L, more: bool) {
        if let Some(found) = self.all.get_mut(line) {
            found.waiting = if more { found.waiting + 1 } else { found.waiting - 1 };
        }
    }

    /// Moves a group among those of its line.
    pub fn place(&mut self, line: &L, group: &G, before: Option<u64>, now: Option<u64>) {
        let Some(found) = self.all.get_mut(line) else { return };
        if let Some(at) = before {
            found.groups.remove(&(at, group.clone()));
        }
        if let Some(at) = now {
            found.groups.insert((at, group.clone()));
        }
        self.set_head(line);
    }

    fn speaks(&mut self, line: &L, speaks: bool) {
        if let Some(found) = self.all.get_mut(line) {
            found.speaks = speaks;
            self.set_head(line);
        }
    }

    fn set_head(&mut self, line: &L) {
        let Some(found) = self.all.get_mut(line) else { return };
        let wanted = found.groups.first().map(|(at, _)| *at).filter(|_| found.closed_until.is_none() && !found.speaks);
        if wanted == found.head {
            return;
        }
        if let Some(at) = std::mem::replace(&mut found.head, wanted) {
            self.heads.remove(&(at, line.clone()));
        }
        if let Some(at) = wanted {
            self.heads.insert((at, line.clone()));
        }
    }
}

impl<G: Ord + Clone, L: Ord + Clone> Turns<G, L> {
    /// The group waits with those that wait in this line. A line that nobody stood in is open.
    pub fn stand_in(&mut self, group: &G, line: &L) {
        self.has_spoken(group);
        if self.line_of(group) == Some(line) {
            // Leaving it first could be the end of the line, and of what it knows.
            return;
        }
        self.unpark(group);
        self.uncount(group);
        self.set_bell(group, None);
        let Some(found) = self.groups.get_mut(group) else { return };
        found.line = Some(line.clone());
        let waiting = found.waiting.len();
        let joined = self.lines.all.entry(line.clone()).or_default();
        joined.members += 1;
        joined.waiting += waiting;
        if joined.closed_until.is_some() {
            self.uncalled -= waiting;
        }
        self.hang_bell(group);
        self.recount(group);
    }

    /// Out of the line in which it stands, if it does; the line is forgotten with the last of its groups.
    pub(super) fn leave_line(&mut self, group: &G) {
        if self.groups.get(group).is_none_or(|g| g.line.is_none()) {
            return;
        }
        self.uncount(group);
        self.set_bell(group, None);
        let Some(found) = self.groups.get_mut(group) else { return };
        let (Some(line), waiting) = (found.line.take(), found.waiting.len()) else { return };
        if let Some(left) = self.lines.all.get_mut(&line) {
            left.members -= 1;
            left.waiting -= waiting;
            let (closed_until, is_empty) = (left.closed_until, left.members == 0);
            if closed_until.is_some() {
                self.uncalled += waiting;
            }
            if is_empty {
                self.lines.all.remove(&line);
                self.lines.soft.remove(&line);
                if let Some(until) = closed_until {
                    self.lines.closed.remove(&(until, line));
                }
            }
        }
        self.hang_bell(group);
        self.recount(group);
    }

    /// The first group of an open line may be asked, for the line.
    pub(super) fn call_from_line(&mut self) {
        let Some((_, group)) = self.lines.first() else { return };
        let Some(found) = self.groups.get(&group) else { return };
        let Some((since, tenant)) = found.waiting.first().cloned() else { return };
        let at = self.tenants.get(&tenant).map_or(since, |standing| standing.at);
        if at.max(self.present) > since.max(self.present) {
            // It got something elsewhere since it began to wait here.
            self.leave_waiting(&tenant, &group, since);
            return self.wait(&tenant, &group);
        }
        let line = found.line.clone();
        self.leave_line(&group);
        if let (Some(found), Some(line)) = (self.groups.get_mut(&group), line) {
            self.lines.speaks(&line, true);
            found.speaks_for = Some((line, tenant.clone()));
            if let Some(standing) = self.tenants.get_mut(&tenant) {
                standing.called.insert(group);
            }
        }
    }

    /// A group that was called got what it asked for, or was refused.
    pub(super) fn has_spoken(&mut self, group: &G) {
        if let Some((line, tenant)) = self.groups.get_mut(group).and_then(|g| g.speaks_for.take()) {
            self.lines.speaks(&line, false);
            if let Some(standing) = self.tenants.get_mut(&tenant) {
                standing.called.remove(group);
            }
        }
    }

    /// The tenant got something in `group`. Where it was called, it is not first any more: those groups go back into their
    /// lines, which call whoever is. Else others would wait in an open line until this tenant has its next turn.
    pub(super) fn call_off(&mut self, tenant: &Tenant, group: &G) {
        let Some(called) = self.tenants.get(tenant).map(|s| &s.called).filter(|called| !called.is_empty()) else {
            return;
        };
        let called: Vec<G> = called.iter().filter(|g| *g != group).cloned().collect();
        for group in called {
            let Some(found) = self.groups.get(&group) else { continue };
            let Some((line, _)) = found.speaks_for.clone() else { continue };
            if found.shelf.get(tenant).is_some_and(|member| member.place == Place::Open) {
                self.leave_open(tenant, &group);
                self.wait(tenant, &group);
            }
            self.stand_in(&group, &line);
        }
    }

    /// Nobody in the line may leave before `until`. `soft`: an event may open it sooner.
    pub fn close(&mut self, line: &L, until: Timestamp, soft: bool) {
        let Some(found) = self.lines.all.get_mut(line) else { return };
        match found.closed_until.replace(until) {
            Some(before) => drop(self.lines.closed.remove(&(before, line.clone()))),
            None => {
                self.uncalled -= found.waiting;
                self.lines.open -= found.standing;
            }
        }
        self.lines.closed.insert((until, line.clone()));
        if soft {
            self.lines.soft.insert(line.clone());
        } else {
            self.lines.soft.remove(line);
        }
        self.lines.set_head(line);
    }

    /// Its groups may be asked again, one by one.
    pub fn open(&mut self, line: &L) {
        let Some(found) = self.lines.all.get_mut(line) else { return };
        let Some(until) = found.closed_until.take() else { return };
        self.uncalled += found.waiting;
        self.lines.open += found.standing;
        self.lines.closed.remove(&(until, line.clone()));
        self.lines.soft.remove(line);
        self.lines.set_head(line);
    }

    /// All lines from one to another may be asked again.
    pub fn open_between(&mut self, from: &L, to: &L) {
        let closed = |(line, found): (&L, &Line<G>)| found.closed_until.map(|_| line.clone());
        let closed: Vec<L> = self.lines.all.range(from..=to).filter_map(closed).collect();
        closed.iter().for_each(|line| self.open(line));
    }

    /// Something happened that softly closed lines may have waited for.
    pub fn open_soft(&mut self) {
        while let Some(line) = self.lines.soft.first().cloned() {
            self.open(&line);
        }
    }

    pub(super) fn open_all(&mut self) {
        while let Some((_, line)) = self.lines.closed.first().cloned() {
            self.open(&line);
        }
    }

    pub(super) fn open_due(&mut self, now: Timestamp) {
        while let Some((until, line)) = self.lines.closed.first().cloned()
            && until <= now
        {
            self.open(&line);
        }
    }

    /// `None`: it is open, or nobody stands in it.
    pub fn closed_until(&self, line: &L) -> Option<Timestamp> {
        self.lines.all.get(line)?.closed_until
    }

    /// The line in which a group waits.
    pub fn line_of(&self, group: &G) -> Option<&L> {
        self.groups.get(group)?.line.as_ref()
    }
}

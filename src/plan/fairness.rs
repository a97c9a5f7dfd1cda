//! Whose turn it is: fair turns between tenants by weight, then between the groups (operation, account) of a tenant.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996): every tenant carries a virtual time that grows by the cost of what
//! it sent (permits, or records of a batch) divided by its weight; the tenant with the smallest goes next, so one with a
//! million jobs takes turns with one that has ten. Who comes back, from idling or from waiting for its own limit, starts
//! at the present virtual time: neither saves anything up. A batch is shared out in the same way by the clock of its
//! group (`fairness/shelf.rs`).
//!
//! A group that has to wait is parked (`fairness/parking.rs`), by itself or in a line with others that wait for the same
//! (`fairness/lines.rs`): it costs nothing while it waits and blocks nobody, and neither parking nor unparking touches its
//! tenants, of which there may be ten thousand. A tenant finds out when its turn meets a parked
//! group, and then waits at that group; an open group with waiting tenants rings a *bell*, which calls them one by one,
//! each when its turn has come. So a turn is O(log n), on average over the parkings that caused the waiting. Pure. Must
//! never know: limits, clocks, stores.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Timestamp;
use crate::model::flow::Class;
use crate::model::id::FlowId;
use crate::model::name::Tenant;

mod lines;
mod parking;
mod shelf;
#[cfg(test)]
mod tests;

use lines::Lines;
use shelf::{Shelf, span};

/// Ready jobs per class, most urgent first.
pub type Ready = [u64; 3];

/// Largest weight of a tenant.
pub const WEIGHT_MAX: u32 = 1_000;

/// Jobs to take from one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub flow: FlowId,
    pub class: Class,
    pub count: u32,
}

/// A tenant's turn in one of its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn<G> {
    pub tenant: Tenant,
    pub group: G,
    /// Ready jobs of this tenant in this group.
    pub ready: Ready,
}

/// `G` names groups, `L` the lines in which they may wait together.
#[derive(Debug)]
pub struct Turns<G: Ord, L: Ord = ()> {
    tenants: BTreeMap<Tenant, Standing<G>>,
    /// Tenants that know of an open group, by virtual time.
    awake: BTreeSet<(u64, Tenant)>,
    groups: BTreeMap<G, Group<L>>,
    /// Open groups at which tenants wait to be called, by the smallest virtual time among those.
    bells: BTreeSet<(u64, G)>,
    /// Groups that have ready jobs and wait for nothing.
    open: usize,
    /// Tenants waiting at open groups and at groups in open lines.
    uncalled: usize,
    parked: BTreeSet<(Timestamp, G)>,
    lines: Lines<G, L>,
    /// Tenants without ready jobs that are ahead of the present.
    gone: BTreeSet<(u64, Tenant)>,
    /// Virtual time of the latest turn.
    present: u64,
    /// As declared.
    weights: BTreeMap<Tenant, u32>,
}

/// Where a tenant stands among the tenants.
#[derive(Debug)]
struct Standing<G> {
    at: u64,
    /// The groups it takes to be open, by what it sent in each.
    open: BTreeSet<(u64, G)>,
    /// Groups in which it has ready jobs.
    groups: usize,
    /// Groups that a line called because this tenant is first there, and that have not been told anything yet.
    called: BTreeSet<G>,
    /// Virtual time of its latest turn, among its groups.
    present: u64,
}

/// A tenant in a group.
#[derive(Debug, Default)]
struct Member {
    flows: Shelf<FlowId, ()>,
    /// Virtual time of the group among the groups of the tenant.
    at: u64,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Nothing ready.
    #[default]
    Away,
    /// Among the open groups of the tenant.
    Open,
    /// Waiting at the group; the tenant's virtual time when it began to.
    Waits(u64),
}

#[derive(Debug)]
struct Group<L> {
    shelf: Shelf<Tenant, Member>,
    /// Tenants to be called when the group is open, by virtual time.
    waiting: BTreeSet<(u64, Tenant)>,
    /// Its entry in `Turns::bells`, or in its line.
    bell: Option<u64>,
    parked_until: Option<Timestamp>,
    /// Where it waits with others; then it is not parked by itself.
    line: Option<L>,
    /// The line that called it and waits for what it is told, and the tenant whose turn it was.
    speaks_for: Option<(L, Tenant)>,
    counted: Counted,
}

/// Where a group that has ready jobs and is not parked by itself is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Counted {
    #[default]
    Nowhere,
    Open,
    InLine,
}

impl<L> Default for Group<L> {
    fn default() -> Self {
        Group {
            shelf: Shelf::default(),
            waiting: BTreeSet::new(),
            bell: None,
            parked_until: None,
            line: None,
            speaks_for: None,
            counted: Counted::Nowhere,
        }
    }
}

impl<G: Ord, L: Ord> Default for Turns<G, L> {
    fn default() -> Self {
        Turns {
            tenants: BTreeMap::new(),
            awake: BTreeSet::new(),
            groups: BTreeMap::new(),
            bells: BTreeSet::new(),
            open: 0,
            uncalled: 0,
            parked: BTreeSet::new(),
            lines: Lines::default(),
            gone: BTreeSet::new(),
            present: 0,
            weights: BTreeMap::new(),
        }
    }
}

fn any(ready: &Ready) -> bool {
    ready.iter().any(|&n| n > 0)
}

impl<G: Ord + Clone, L: Ord + Clone> Turns<G, L> {
    /// Weights in force from the next charge on; 1 for tenants that are not named.
    pub fn set_weights(&mut self, weights: impl IntoIterator<Item = (Tenant, u32)>) {
        self.weights = weights.into_iter().map(|(t, w)| (t, w.clamp(1, WEIGHT_MAX))).collect();
        for group in self.groups.values_mut() {
            group.shelf.weigh(|tenant| self.weights.get(tenant).copied().unwrap_or(1));
        }
    }

    fn weight(&self, tenant: &Tenant) -> u32 {
        self.weights.get(tenant).copied().unwrap_or(1)
    }

    /// Takes in how many jobs of a flow are ready now; absolute numbers. New work unparks nothing: what a group waits
    /// for is a permit, and more jobs make no permit. (A batch that has become full does: see `unpark`.)
    pub fn update(&mut self, flow: FlowId, tenant: &Tenant, group: &G, ready: Ready) {
        if !any(&ready) && !self.groups.contains_key(group) {
            return;
        }
        let weight = self.weight(tenant);
        let found = self.groups.entry(group.clone()).or_default();
        found.shelf.set(tenant, weight, |member| {
            member.flows.set(&flow, 1, |()| ready);
            member.flows.sweep();
            *member.flows.ready()
        });
        self.settle(tenant, group);
        self.sweep(group);
        if self.groups.get(group).is_some_and(|g| !any(g.shelf.ready())) {
            // A group without work needs no memory; what it waited for is asked again when work comes.
            self.unpark(group);
            self.has_spoken(group);
            self.groups.remove(group);
        }
    }

    /// Whose turn it is at `now`, if anybody's. Unparks what is due. The same answer until something is taken or
    /// parked.
    pub fn next(&mut self, now: Timestamp) -> Option<Turn<G>> {
        self.unpark_due(now);
        while self.may_go() {
            let first = self.awake.first().map_or(u64::MAX, |(at, _)| *at);
            let bell = self.bells.first().map_or(u64::MAX, |(at, _)| *at);
            let head = self.lines.first().map_or(u64::MAX, |(at, _)| at);
            // A line calls one of its groups at a time, whoever of their tenants has turns already.
            if head < u64::MAX && head <= bell && head.max(self.present) <= first {
                self.call_from_line();
                continue;
            }
            if let Some((at, group)) = self.bells.first()
                && (*at).max(self.present) < first
            {
                let group = group.clone();
                self.call(&group);
                continue;
            }
            let (at, tenant) = self.awake.first().cloned()?;
            let group = self.tenants.get(&tenant)?.open.first()?.1.clone();
            if !self.is_callable(&group) {
                self.leave_open(&tenant, &group);
                self.wait(&tenant, &group);
                continue;
            }
            // In an open line whoever has the turn goes, without waiting to be called.
            self.leave_line(&group);
            let ready = self.groups.get(&group)?.shelf.ready_of(&tenant);
            self.advance(at);
            return Some(Turn { tenant, group, ready });
        }
        None
    }

    /// Tenants that may have a turn now, or a few more: how many a fair share is divided by.
    pub fn tenants_ready(&self) -> usize {
        (self.awake.len() + self.uncalled).max(1)
    }

    /// Up to `count` jobs of one class from the tenant whose turn it is, evenly from its flows. Charges the tenant and
    /// moves its turn on.
    pub fn share(&mut self, turn: &Turn<G>, class: Class, count: u32) -> Vec<Share> {
        let Some(group) = self.groups.get_mut(&turn.group) else { return Vec::new() };
        let Some(member) = group.shelf.get_mut(&turn.tenant) else { return Vec::new() };
        let mut shares = Vec::new();
        member.flows.deal(class, count, |flow, (), count| shares.push(Share { flow: *flow, class, count }));
        member.flows.sweep();
        let taken = shares.iter().map(|s| u64::from(s.count)).sum();
        group.shelf.charge(&turn.tenant, class, taken);
        self.charge(&turn.tenant, &turn.group, taken);
        self.has_spoken(&turn.group);
        self.sweep(&turn.group);
        merge(shares)
    }

    /// Up to `count` jobs of the group's tenants for one batch: the most urgent class first, and within a class by the
    /// tenants' weights, who had least of this group so far first. Charges each for its records.
    pub fn fill(&mut self, group: &G, count: u32) -> Vec<Share> {
        let Some(found) = self.groups.get_mut(group) else { return Vec::new() };
        let (mut shares, mut taken, mut left) = (Vec::new(), BTreeMap::<Tenant, u64>::new(), count);
        for class in Class::ALL {
            let mut got = 0;
            found.shelf.deal(class, left, |tenant, member, count| {
                member.flows.deal(class, count, |flow, (), count| shares.push(Share { flow: *flow, class, count }));
                member.flows.sweep();
                *taken.entry(tenant.clone()).or_default() += u64::from(count);
                got += count;
            });
            left -= got;
        }
        for (tenant, cost) in taken {
            self.charge(&tenant, group, cost);
        }
        self.has_spoken(group);
        self.sweep(group);
        merge(shares)
    }

    /// Is anything ready at all, parked or not?
    pub fn have_work(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Charges a tenant for what it got in a group, among the tenants and among its groups.
    fn charge(&mut self, tenant: &Tenant, group: &G, cost: u64) {
        let weight = self.weight(tenant);
        let Some(standing) = self.tenants.get_mut(tenant).filter(|_| cost > 0) else { return };
        let Some(member) = self.groups.get_mut(group).and_then(|g| g.shelf.get_mut(tenant)) else { return };
        let awake = self.awake.remove(&(standing.at, tenant.clone()));
        // Who was not called yet may be behind the present.
        standing.at = standing.at.max(self.present).saturating_add(span(cost, weight));
        if awake {
            self.awake.insert((standing.at, tenant.clone()));
        }
        let open = standing.open.remove(&(member.at, group.clone()));
        standing.present = standing.present.max(member.at);
        member.at = member.at.saturating_add(cost);
        if open {
            standing.open.insert((member.at, group.clone()));
        }
        self.settle(tenant, group);
        self.call_off(tenant, group);
    }

    /// Puts a tenant where it belongs in a group after what it has ready there has changed.
    fn settle(&mut self, tenant: &Tenant, group: &G) {
        let Some(found) = self.groups.get(group) else { return };
        let has_work = any(&found.shelf.ready_of(tenant));
        // At a group in a line a tenant waits in any case: the line calls it.
        let parked = found.parked_until.is_some() || found.line.is_some();
        let place = found.shelf.get(tenant).map_or(Place::Away, |m| m.place);
        match (place, has_work) {
            (Place::Away, true) => {
                let present = self.present;
                let new =
                    || Standing { at: present, open: BTreeSet::new(), groups: 0, called: BTreeSet::new(), present: 0 };
                let standing = self.tenants.entry(tenant.clone()).or_insert_with(new);
                self.gone.remove(&(standing.at, tenant.clone()));
                standing.groups += 1;
                if parked { self.wait(tenant, group) } else { self.enter_open(tenant, group) }
            }
            (Place::Open, false) => {
                self.leave_open(tenant, group);
                self.leave_group(tenant);
            }
            (Place::Waits(since), false) => {
                self.leave_waiting(tenant, group, since);
                self.leave_group(tenant);
            }
            _ => {}
        }
    }

    /// The tenant takes the group to be open: it has turns.
    fn enter_open(&mut self, tenant: &Tenant, group: &G) {
        let Some(standing) = self.tenants.get_mut(tenant) else { return };
        let Some(member) = self.groups.get_mut(group).and_then(|g| g.shelf.get_mut(tenant)) else { return };
        if standing.open.is_empty() {
            standing.at = standing.at.max(self.present);
            self.awake.insert((standing.at, tenant.clone()));
        }
        member.at = member.at.max(standing.present);
        member.place = Place::Open;
        standing.open.insert((member.at, group.clone()));
    }

    fn leave_open(&mut self, tenant: &Tenant, group: &G) {
        let Some(standing) = self.tenants.get_mut(tenant) else { return };
        let Some(member) = self.groups.get_mut(group).and_then(|g| g.shelf.get_mut(tenant)) else { return };
        member.place = Place::Away;
        standing.open.remove(&(member.at, group.clone()));
        if standing.open.is_empty() {
            self.awake.remove(&(standing.at, tenant.clone()));
        }
    }

    /// The tenant waits at the group until it is called.
    fn wait(&mut self, tenant: &Tenant, group: &G) {
        let Some(at) = self.tenants.get(tenant).map(|s| s.at) else { return };
        let Some(found) = self.groups.get_mut(group) else { return };
        found.waiting.insert((at, tenant.clone()));
        if let Some(member) = found.shelf.get_mut(tenant) {
            member.place = Place::Waits(at);
        }
        self.count_waiting(group, true);
        self.hang_bell(group);
    }

    fn leave_waiting(&mut self, tenant: &Tenant, group: &G, since: u64) {
        let Some(found) = self.groups.get_mut(group) else { return };
        found.waiting.remove(&(since, tenant.clone()));
        if let Some(member) = found.shelf.get_mut(tenant) {
            member.place = Place::Away;
        }
        self.count_waiting(group, false);
        self.hang_bell(group);
    }

    /// Calls the first of those that wait at an open group.
    fn call(&mut self, group: &G) {
        let Some((since, tenant)) = self.groups.get(group).and_then(|g| g.waiting.first().cloned()) else { return };
        self.leave_waiting(&tenant, group, since);
        self.enter_open(&tenant, group);
    }

    /// The tenant has nothing ready in the group any more.
    fn leave_group(&mut self, tenant: &Tenant) {
        let Some(standing) = self.tenants.get_mut(tenant) else { return };
        standing.groups -= 1;
        if standing.groups > 0 {
            return;
        }
        // Forgetting a tenant that is not ahead of the present loses nothing: it would start there anyway.
        if standing.at <= self.present {
            self.tenants.remove(tenant);
        } else {
            self.gone.insert((standing.at, tenant.clone()));
        }
    }

    /// After a change of what is ready in a group.
    fn sweep(&mut self, group: &G) {
        if let Some(found) = self.groups.get_mut(group) {
            found.shelf.sweep();
        }
        self.recount(group);
    }

    fn advance(&mut self, present: u64) {
        self.present = self.present.max(present);
        while let Some((at, tenant)) = self.gone.first().cloned()
            && at <= self.present
        {
            self.gone.remove(&(at, tenant.clone()));
            self.tenants.remove(&tenant);
        }
    }
}

/// One entry per flow and class, in the order of first appearance.
fn merge(shares: Vec<Share>) -> Vec<Share> {
    let mut merged: Vec<Share> = Vec::with_capacity(shares.len());
    let mut at: BTreeMap<(FlowId, Class), usize> = BTreeMap::new();
    for share in shares {
        match at.get(&(share.flow, share.class)) {
            Some(&i) => merged[i].count += share.count,
            None => {
                at.insert((share.flow, share.class), merged.len());
                merged.push(share);
            }
        }
    }
    merged
}

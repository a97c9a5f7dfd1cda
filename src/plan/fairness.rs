//! Whose turn it is: fair turns between tenants, then between the groups (operation, account) of a tenant.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996): every tenant carries a virtual time that grows by the cost of what
//! it sent (permits, or records of a batch); the ready tenant with the smallest goes next, so a tenant with a million
//! jobs takes turns with one that has ten. A tenant that comes back starts at the present virtual time: idling saves
//! nothing up. A group that has to wait is parked: it leaves the ready set until a time or an event, costs nothing
//! while it waits and blocks nobody. A turn is O(log n). Pure. Must never know: limits, clocks, stores.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Timestamp;
use crate::model::flow::Class;
use crate::model::id::FlowId;
use crate::model::name::Tenant;

/// Ready jobs per class, most urgent first.
pub type Ready = [u64; 3];

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

#[derive(Debug)]
pub struct Turns<G: Ord> {
    tenants: BTreeMap<Tenant, TenantTurns<G>>,
    /// Tenants that may have something to send, by virtual time.
    ready: BTreeSet<(u64, Tenant)>,
    groups: BTreeMap<G, Members>,
    /// Groups that have ready jobs and are not parked.
    open: usize,
    parked: BTreeSet<(Timestamp, G)>,
    soft: BTreeSet<G>,
    /// Virtual time of the latest turn.
    present: u64,
}

#[derive(Debug)]
struct TenantTurns<G> {
    at: u64,
    /// In `Turns::ready`. False: nothing ready, or all of its groups were found parked.
    listed: bool,
    groups: BTreeMap<G, Flows>,
    /// The group of the last turn; the next turn goes to the one after it.
    last: Option<G>,
}

#[derive(Debug, Default)]
struct Flows {
    ready: Ready,
    flows: BTreeMap<FlowId, Ready>,
}

#[derive(Debug, Default)]
struct Members {
    ready: Ready,
    tenants: BTreeSet<Tenant>,
    parked_until: Option<Timestamp>,
}

impl<G: Ord> Default for Turns<G> {
    fn default() -> Self {
        Turns {
            tenants: BTreeMap::new(),
            ready: BTreeSet::new(),
            groups: BTreeMap::new(),
            open: 0,
            parked: BTreeSet::new(),
            soft: BTreeSet::new(),
            present: 0,
        }
    }
}

fn any(ready: &Ready) -> bool {
    ready.iter().any(|&n| n > 0)
}

impl<G: Ord + Clone> Turns<G> {
    /// Takes in how many jobs of a flow are ready now; absolute numbers. New work unparks nothing: what a group waits
    /// for is a permit, and more jobs make no permit. (A batch that has become full does: see `unpark`.)
    pub fn update(&mut self, flow: FlowId, tenant: &Tenant, group: &G, ready: Ready) {
        let present = self.present;
        let turns = self.tenants.entry(tenant.clone()).or_insert_with(|| TenantTurns {
            at: present,
            listed: false,
            groups: BTreeMap::new(),
            last: None,
        });
        let flows = turns.groups.entry(group.clone()).or_default();
        let before = if any(&ready) { flows.flows.insert(flow, ready) } else { flows.flows.remove(&flow) };
        let before = before.unwrap_or_default();
        let members = self.groups.entry(group.clone()).or_default();
        let was_open = any(&members.ready) && members.parked_until.is_none();
        for class in 0..3 {
            flows.ready[class] = flows.ready[class] - before[class] + ready[class];
            members.ready[class] = members.ready[class] - before[class] + ready[class];
        }
        if any(&flows.ready) {
            members.tenants.insert(tenant.clone());
            if !turns.listed && members.parked_until.is_none() {
                turns.at = turns.at.max(present);
                turns.listed = true;
                self.ready.insert((turns.at, tenant.clone()));
            }
        } else {
            members.tenants.remove(tenant);
            turns.groups.remove(group);
        }
        let is_open = any(&members.ready) && members.parked_until.is_none();
        self.open = self.open + usize::from(is_open) - usize::from(was_open);
        if !any(&members.ready) {
            // A group without work needs no memory; what it waited for is asked again when work comes.
            if let Some(until) = members.parked_until {
                self.parked.remove(&(until, group.clone()));
                self.soft.remove(group);
            }
            self.groups.remove(group);
        }
        if turns.groups.is_empty() {
            self.ready.remove(&(turns.at, tenant.clone()));
            turns.listed = false;
            // Forgetting a tenant that is behind the present loses nothing: it would start there anyway.
            if turns.at <= self.present {
                self.tenants.remove(tenant);
            }
        }
    }

    /// Whose turn it is at `now`, if anybody's. Unparks what is due. The same answer until `charge` or `park`.
    pub fn next(&mut self, now: Timestamp) -> Option<Turn<G>> {
        while let Some((until, group)) = self.parked.first().cloned()
            && until <= now
        {
            self.unpark(&group);
        }
        while self.open > 0 {
            let (at, tenant) = self.ready.first().cloned()?;
            let turns = self.tenants.get_mut(&tenant).expect("a listed tenant exists");
            let after = turns.last.clone();
            let open = |(g, flows): &(&G, &Flows)| {
                any(&flows.ready) && self.groups.get(*g).is_some_and(|m| m.parked_until.is_none())
            };
            let group = match &after {
                Some(last) => {
                    let behind = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
                    let found = turns.groups.range(behind).find(open);
                    found.or_else(|| turns.groups.range(..=last).find(open))
                }
                None => turns.groups.iter().find(open),
            };
            let Some(group) = group.map(|(g, _)| g.clone()) else {
                // All that is left stands in parked groups: listed again when one is unparked or work comes.
                turns.listed = false;
                self.ready.remove(&(at, tenant));
                continue;
            };
            self.present = self.present.max(at);
            let ready = turns.groups[&group].ready;
            return Some(Turn { tenant, group, ready });
        }
        None
    }

    /// Tenants that may have a turn now: how many a fair share is divided by.
    pub fn tenants_ready(&self) -> usize {
        self.ready.len().max(1)
    }

    /// Up to `count` jobs of one class from the tenant whose turn it is, evenly from its flows. Charges the tenant and
    /// moves its turn on.
    pub fn share(&mut self, turn: &Turn<G>, class: Class, count: u32) -> Vec<Share> {
        let Some(turns) = self.tenants.get_mut(&turn.tenant) else { return Vec::new() };
        let Some(flows) = turns.groups.get_mut(&turn.group) else { return Vec::new() };
        let shares = flows.take(class, count);
        turns.last = Some(turn.group.clone());
        let taken = shares.iter().map(|s| u64::from(s.count)).sum();
        self.charge(&turn.tenant, taken);
        self.taken(&turn.group, class, taken);
        shares
    }

    /// Up to `count` jobs of the group's tenants for one batch: the most urgent class first, and within a class evenly
    /// between the tenants. Charges each for its records.
    pub fn fill(&mut self, group: &G, count: u32) -> Vec<Share> {
        let Some(members) = self.groups.get(group) else { return Vec::new() };
        // Who had least so far is asked first, so that rounding favours the small.
        let mut order: Vec<(u64, Tenant)> =
            members.tenants.iter().map(|t| (self.tenants.get(t).map_or(0, |s| s.at), t.clone())).collect();
        order.sort();
        let (mut shares, mut left) = (Vec::new(), count);
        for class in Class::ALL {
            let mut asked = order.clone();
            while left > 0 && !asked.is_empty() {
                let each = (left / asked.len() as u32).max(1);
                asked.retain(|(_, tenant)| {
                    let flows = self.tenants.get_mut(tenant).and_then(|t| t.groups.get_mut(group));
                    let Some(flows) = flows.filter(|_| left > 0) else { return false };
                    let got = flows.take(class, each.min(left));
                    let taken: u32 = got.iter().map(|s| s.count).sum();
                    left -= taken;
                    shares.extend(got);
                    let more = taken == each;
                    self.charge(tenant, u64::from(taken));
                    self.taken(group, class, u64::from(taken));
                    more
                });
            }
        }
        merge(shares)
    }

    fn charge(&mut self, tenant: &Tenant, cost: u64) {
        if cost == 0 {
            return;
        }
        if let Some(turns) = self.tenants.get_mut(tenant) {
            let listed = self.ready.remove(&(turns.at, tenant.clone()));
            turns.at += cost;
            if listed {
                self.ready.insert((turns.at, tenant.clone()));
            }
        }
    }

    /// What was taken is not ready any more, until the next `update` says the truth.
    fn taken(&mut self, group: &G, class: Class, count: u64) {
        if let Some(members) = self.groups.get_mut(group) {
            let was_open = any(&members.ready) && members.parked_until.is_none();
            members.ready[class as usize] = members.ready[class as usize].saturating_sub(count);
            let is_open = any(&members.ready) && members.parked_until.is_none();
            self.open = self.open + usize::from(is_open) - usize::from(was_open);
        }
    }

    /// Nothing of the group may leave before `until`. `soft`: an event may bring it back sooner.
    pub fn park(&mut self, group: &G, until: Timestamp, soft: bool) {
        let Some(members) = self.groups.get_mut(group) else { return };
        if let Some(before) = members.parked_until.replace(until) {
            self.parked.remove(&(before, group.clone()));
        } else if any(&members.ready) {
            self.open -= 1;
        }
        self.parked.insert((until, group.clone()));
        if soft {
            self.soft.insert(group.clone());
        } else {
            self.soft.remove(group);
        }
    }

    /// The group may be asked again.
    pub fn unpark(&mut self, group: &G) {
        self.soft.remove(group);
        let Some(members) = self.groups.get_mut(group) else { return };
        let Some(until) = members.parked_until.take() else { return };
        self.parked.remove(&(until, group.clone()));
        if any(&members.ready) {
            self.open += 1;
        }
        for tenant in &members.tenants {
            if let Some(turns) = self.tenants.get_mut(tenant)
                && !turns.listed
            {
                turns.listed = true;
                self.ready.insert((turns.at, tenant.clone()));
            }
        }
    }

    /// Something happened that softly parked groups may have waited for.
    pub fn unpark_soft(&mut self) {
        while let Some(group) = self.soft.first().cloned() {
            self.unpark(&group);
        }
    }

    pub fn unpark_all(&mut self) {
        while let Some((_, group)) = self.parked.first().cloned() {
            self.unpark(&group);
        }
    }

    /// Is anything ready at all, parked or not?
    pub fn have_work(&self) -> bool {
        !self.groups.is_empty()
    }

    pub fn is_parked(&self, group: &G) -> bool {
        self.groups.get(group).is_some_and(|m| m.parked_until.is_some())
    }

    /// Nobody has a turn before this time, unless something changes. `Timestamp::ZERO`: somebody has one now.
    pub fn wake_at(&self) -> Timestamp {
        if self.open > 0 { Timestamp::ZERO } else { self.parked.first().map_or(Timestamp::NEVER, |(at, _)| *at) }
    }
}

impl Flows {
    /// Up to `count` ready jobs of a class, evenly from the flows; deducts them.
    fn take(&mut self, class: Class, count: u32) -> Vec<Share> {
        let (mut shares, mut left) = (Vec::new(), count);
        let class_at = class as usize;
        let mut asked: Vec<FlowId> = self.flows.iter().filter(|(_, r)| r[class_at] > 0).map(|(f, _)| *f).collect();
        while left > 0 && !asked.is_empty() {
            let each = (left / asked.len() as u32).max(1);
            asked.retain(|flow| {
                let Some(ready) = self.flows.get_mut(flow).filter(|_| left > 0) else { return false };
                let count = u32::try_from(ready[class_at]).unwrap_or(u32::MAX).min(each).min(left);
                ready[class_at] -= u64::from(count);
                self.ready[class_at] -= u64::from(count);
                left -= count;
                if count > 0 {
                    shares.push(Share { flow: *flow, class, count });
                }
                ready[class_at] > 0
            });
        }
        merge(shares)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    fn turns(ready: &[(i64, &str, u8, u64)]) -> Turns<u8> {
        let mut t = Turns::default();
        for &(flow, name, group, n) in ready {
            t.update(FlowId(flow), &tenant(name), &group, [0, n, 0]);
        }
        t
    }

    #[test]
    fn a_hog_takes_turns_with_the_small() {
        let mut t = turns(&[(1, "hog", 0, 1_000_000), (2, "a", 0, 10), (3, "b", 0, 10)]);
        let mut order = Vec::new();
        for _ in 0..30 {
            let turn = t.next(Timestamp::ZERO).unwrap();
            assert_eq!(t.share(&turn, Class::Normal, 1).len(), 1);
            order.push(turn.tenant.to_string());
        }
        assert_eq!(order.iter().filter(|t| *t == "a").count(), 10);
        assert_eq!(order.iter().filter(|t| *t == "b").count(), 10);
    }

    #[test]
    fn a_batch_is_filled_evenly_and_the_rest_goes_to_who_has_more() {
        let mut t = turns(&[(1, "hog", 0, 1_000_000), (2, "a", 0, 10)]);
        let shares = t.fill(&0, 100);
        let count = |flow| shares.iter().filter(|s| s.flow == FlowId(flow)).map(|s| s.count).sum::<u32>();
        assert_eq!((count(2), count(1)), (10, 90));
    }

    #[test]
    fn the_urgent_class_goes_into_a_batch_first() {
        let mut t = Turns::default();
        t.update(FlowId(1), &tenant("a"), &0u8, [0, 50, 0]);
        t.update(FlowId(2), &tenant("b"), &0u8, [5, 50, 0]);
        let shares = t.fill(&0, 5);
        assert_eq!(shares, [Share { flow: FlowId(2), class: Class::Urgent, count: 5 }]);
    }

    #[test]
    fn a_parked_group_blocks_nobody_and_comes_back_in_time() {
        let mut t = turns(&[(1, "a", 0, 5), (2, "a", 1, 5), (3, "b", 0, 5)]);
        t.park(&0, Timestamp(50), false);
        for _ in 0..5 {
            let turn = t.next(Timestamp(10)).unwrap();
            assert_eq!(turn.group, 1);
            t.share(&turn, Class::Normal, 1);
        }
        assert_eq!(t.next(Timestamp(10)), None);
        assert_eq!(t.wake_at(), Timestamp(50));
        // The one who got nothing so far goes first.
        assert_eq!(t.next(Timestamp(50)).unwrap().tenant, tenant("b"));
        t.park(&0, Timestamp(90), true);
        assert_eq!(t.next(Timestamp(60)), None);
        t.unpark_soft();
        assert!(t.next(Timestamp(60)).is_some());
    }

    proptest! {
        /// Whatever happens, `next` finds somebody exactly when an unparked group has ready jobs, and shares never
        /// exceed what is ready.
        #[test]
        fn turns_go_on_as_long_as_there_is_open_work(
            steps in proptest::collection::vec((0u8..5, 0i64..6, 0u8..3, 0u64..4, 0i64..100), 1..200)
        ) {
            let mut t: Turns<u8> = Turns::default();
            let mut ready: BTreeMap<i64, u64> = BTreeMap::new();
            let mut now = 0;
            // Flow f belongs to tenant f % 3 and group f % 2 always.
            for (what, flow, group, n, time) in steps {
                match what {
                    0 | 1 => {
                        t.update(FlowId(flow), &tenant(&(flow % 3).to_string()), &((flow % 2) as u8), [0, n, 0]);
                        ready.insert(flow, n);
                    }
                    2 => t.park(&(group % 2), Timestamp(now + time), time % 2 == 0),
                    3 => t.unpark_soft(),
                    _ => {
                        now += time;
                        while let Some(turn) = t.next(Timestamp(now)) {
                            prop_assert!(!t.is_parked(&turn.group));
                            let shares = t.share(&turn, Class::Normal, 2);
                            prop_assert!(!shares.is_empty());
                            for s in shares {
                                let left = ready.get_mut(&s.flow.0).unwrap();
                                prop_assert!(u64::from(s.count) <= *left);
                                *left -= u64::from(s.count);
                            }
                        }
                        for (flow, left) in &ready {
                            prop_assert!(*left == 0 || t.is_parked(&((flow % 2) as u8)), "flow {} starves", flow);
                        }
                    }
                }
            }
        }
    }
}

//! A shelf: members that share something by weight, each with what it has ready per class.
//!
//! Start-time fair queueing as in `fairness`, one level of it: every member carries a virtual time that grows by what it
//! got divided by its weight, and the one with the smallest gets next. Who comes back starts at the present, so idling
//! saves nothing up; who left ahead of the present is remembered until the present has caught up, so leaving forgives
//! nothing. Getting is O(log n) per member served, whatever their number. Must never know: what is shared. Next:
//! `fairness`, where tenants stand on a group's shelf and flows on a tenant's.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ready, any};
use crate::model::flow::Class;

/// Virtual time of one unit of cost at weight 1: fine enough for the largest weight.
pub(super) const UNIT: u64 = 1_000_000;

/// Virtual time that `cost` takes at a weight.
pub(super) fn span(cost: u64, weight: u32) -> u64 {
    cost.saturating_mul(UNIT) / u64::from(weight.max(1))
}

#[derive(Debug)]
pub(super) struct Shelf<K, V> {
    seats: BTreeMap<K, Seat<V>>,
    /// Per class, those that have something ready, by virtual time.
    lines: [BTreeSet<(u64, K)>; 3],
    /// Sum of the weights in each line.
    weights: [u64; 3],
    /// Sum of what all have ready.
    ready: Ready,
    /// Nothing ready; remembered until the present has caught up.
    gone: BTreeSet<(u64, K)>,
    present: u64,
}

#[derive(Debug, Default)]
struct Seat<V> {
    at: u64,
    weight: u32,
    ready: Ready,
    value: V,
}

impl<K: Ord, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Shelf {
            seats: BTreeMap::new(),
            lines: [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()],
            weights: [0; 3],
            ready: [0; 3],
            gone: BTreeSet::new(),
            present: 0,
        }
    }
}

impl<K: Ord + Clone, V: Default> Shelf<K, V> {
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.seats.get(key).map(|s| &s.value)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.seats.get_mut(key).map(|s| &mut s.value)
    }

    pub fn ready_of(&self, key: &K) -> Ready {
        self.seats.get(key).map_or([0; 3], |s| s.ready)
    }

    /// Sets what a member has ready, which `ready` says once its value was changed; absolute numbers.
    pub fn set(&mut self, key: &K, weight: u32, ready: impl FnOnce(&mut V) -> Ready) {
        let seat = self.seats.entry(key.clone()).or_default();
        let before = (seat.at, seat.weight, seat.ready);
        seat.ready = ready(&mut seat.value);
        seat.weight = weight;
        if !any(&before.2) {
            self.gone.remove(&(seat.at, key.clone()));
            seat.at = seat.at.max(self.present);
        }
        let after = (seat.at, seat.weight, seat.ready);
        self.line_up(key, before, after);
    }

    /// Takes out what a member got by itself, and charges it.
    pub fn charge(&mut self, key: &K, class: Class, count: u64) {
        let Some(seat) = self.seats.get_mut(key) else { return };
        let before = (seat.at, seat.weight, seat.ready);
        let ready = &mut seat.ready[class as usize];
        *ready = ready.saturating_sub(count);
        seat.at = seat.at.saturating_add(span(count, seat.weight));
        let after = (seat.at, seat.weight, seat.ready);
        self.line_up(key, before, after);
    }

    /// Deals up to `count` of a class out by weight, least served first, and charges. `take` hears of every portion; a
    /// member may get several.
    pub fn deal(&mut self, class: Class, count: u32, mut take: impl FnMut(&K, &mut V, u32)) {
        let (line, mut left) = (class as usize, count);
        let (mut each, mut turns) = (0, 0);
        while left > 0 {
            if turns == 0 {
                // Portions for one round at a time, so that few members get few portions.
                each = u64::from(left) / self.weights[line].max(1);
                turns = self.lines[line].len();
            }
            turns = turns.saturating_sub(1);
            let Some((at, key)) = self.lines[line].first().cloned() else { return };
            let Some(seat) = self.seats.get_mut(&key) else { return };
            let before = (seat.at, seat.weight, seat.ready);
            let portion = (each.saturating_mul(u64::from(seat.weight))).max(1);
            let portion = portion.min(seat.ready[line]).min(u64::from(left));
            let got = u32::try_from(portion).unwrap_or(left);
            seat.ready[line] -= portion;
            seat.at = seat.at.saturating_add(span(portion, seat.weight));
            let after = (seat.at, seat.weight, seat.ready);
            take(&key, &mut seat.value, got);
            left -= got;
            self.line_up(&key, before, after);
            self.present = self.present.max(at);
        }
    }

    /// Gives every member the weight that `of` names.
    pub fn weigh(&mut self, of: impl Fn(&K) -> u32) {
        self.weights = [0; 3];
        for (key, seat) in &mut self.seats {
            seat.weight = of(key);
            for (weights, ready) in self.weights.iter_mut().zip(seat.ready) {
                *weights += if ready > 0 { u64::from(seat.weight) } else { 0 };
            }
        }
    }

    /// Moves a member in the lines, the sums and the memory of those that left.
    fn line_up(&mut self, key: &K, before: (u64, u32, Ready), after: (u64, u32, Ready)) {
        for line in 0..3 {
            self.ready[line] = self.ready[line] - before.2[line] + after.2[line];
            let (was, is) = (before.2[line] > 0, after.2[line] > 0);
            if was && (!is || before.0 != after.0) {
                self.lines[line].remove(&(before.0, key.clone()));
            }
            if is && (!was || before.0 != after.0) {
                self.lines[line].insert((after.0, key.clone()));
            }
            self.weights[line] -= if was { u64::from(before.1) } else { 0 };
            self.weights[line] += if is { u64::from(after.1) } else { 0 };
        }
        if !any(&after.2) {
            self.gone.insert((after.0, key.clone()));
        }
    }

    /// Forgets members with nothing ready that the present has caught up with. Not done by the way, because a value may
    /// have to be looked at first.
    pub fn sweep(&mut self) {
        while let Some((at, key)) = self.gone.first().cloned()
            && at <= self.present
        {
            self.gone.remove(&(at, key.clone()));
            self.seats.remove(&key);
        }
    }
}

//! A rolling window: at most `max` arrivals in any half-open interval of length W, by the clumped log.
//!
//! A slot is held from the grant until the answer, and then for W more: the call arrived somewhere between the two, so
//! the slot is never freed too early, whatever the delays (the *answer anchor*). With `anchor = "send"` the slot is
//! held for W + jitter from the grant: exact only while the delays to the provider spread by less than the jitter.
//!
//! Stamps are folded into *clumps* (first, last, count), and a clump is freed as a whole at `last + W`: never before
//! the exact log would free any of its members. The first few dozen stamps stand for themselves, so small limits are
//! counted exactly; beyond, a stamp joins the newest clump while that is younger than W/M and no gap of W/8M lies between; when there would be more than M + 2 clumps, the two neighbours whose union costs least
//! become one. So memory is constant, and saturated traffic, which comes back in the bursts in which it was freed,
//! loses less than 1/(M+1). Measured by `limits_window.rs` in the integration tests.
//! Must never know: reserves, costs, blocks. Next: `limit/state.rs`.

use std::collections::VecDeque;

use super::Denied;
use crate::clock::Timestamp;
use crate::model::provider::Anchor;
use crate::mutant;

/// M: slices of a window. 128 loses at most 0.8 % (reference/rate-limiting.md, section 3.4).
pub const SLICES: usize = 128;
/// Clumps kept per window at most.
pub const CLUMPS_MAX: usize = SLICES + 2;
/// Up to so many stamps are kept one by one, which is exact.
const SINGLE_MAX: usize = CLUMPS_MAX / 2;
/// A gap of this part of a slice opens a new clump: bursts stay apart, so each comes back as early as it may.
const GAPS_PER_SLICE: i64 = 8;

/// Answered calls whose stamps lie close together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clump {
    pub first: Timestamp,
    pub last: Timestamp,
    pub count: u32,
}

/// What of a declared window the arithmetic needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub max: u32,
    /// W in microseconds, the jitter of a send anchor included.
    pub hold_us: i64,
    pub by_send: bool,
}

impl Rule {
    pub fn new(max: u32, per: std::time::Duration, anchor: Anchor) -> Self {
        let us = |d: std::time::Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
        let max = if mutant::on("off-by-one-window") { max + 1 } else { max };
        match anchor {
            Anchor::Answer => Rule { max, hold_us: us(per), by_send: false },
            Anchor::Send { jitter } => Rule { max, hold_us: us(per) + us(jitter), by_send: true },
        }
    }
}

/// The counts of one window. Without any it is the same as a fresh one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Granted and not settled; none under a send anchor.
    in_flight: u32,
    /// Sum over the clumps.
    used: u32,
    /// Apart from each other and in order.
    clumps: VecDeque<Clump>,
    /// No clump ends before this: spares a look at them.
    ends_from: Timestamp,
    by_send: bool,
    /// When the declared anchor changed last: older permits are counted the old way.
    switched_at: Timestamp,
}

impl Window {
    /// As counted elsewhere; the clumps apart from each other and in order.
    pub fn counted(in_flight: u32, clumps: Vec<Clump>, by_send: bool, switched_at: Timestamp) -> Self {
        let used = clumps.iter().fold(0u32, |sum, c| sum.saturating_add(c.count));
        Window { in_flight, used, clumps: clumps.into(), ends_from: Timestamp::ZERO, by_send, switched_at }
    }

    /// Frees what has aged enough. The other methods expect that this was called with the same `now`.
    pub fn evict(&mut self, rule: Rule, now: Timestamp) {
        if self.by_send != rule.by_send {
            self.switch(rule, now);
        }
        if self.ends_from.0.saturating_add(rule.hold_us) > now.0 {
            return;
        }
        self.ends_from = now;
        while let Some(c) = self.clumps.front() {
            let stamp = if mutant::on("window-too-short") { c.first } else { c.last };
            if stamp.0.saturating_add(rule.hold_us) > now.0 {
                self.ends_from = stamp;
                break;
            }
            self.used = self.used.saturating_sub(c.count);
            self.clumps.pop_front();
        }
    }

    /// Permits not in use.
    pub fn free(&self, rule: Rule) -> u32 {
        rule.max.saturating_sub(self.used).saturating_sub(self.in_flight)
    }

    /// When `need` permits can be had while `kept` stay free. Call only when they cannot be had now.
    pub fn earliest(&self, rule: Rule, kept: u32, need: u32) -> Denied {
        let cap = rule.max.saturating_sub(kept);
        if need > cap {
            return Denied::HOPELESS;
        }
        let held = u64::from(self.used) + u64::from(self.in_flight);
        let mut short = (held + u64::from(need)).saturating_sub(u64::from(cap));
        for c in &self.clumps {
            short = short.saturating_sub(u64::from(c.count));
            if short == 0 {
                return Denied { earliest: Timestamp(c.last.0.saturating_add(rule.hold_us)), soft: false };
            }
        }
        // Even with every answered call aged it does not fit: calls in flight must be answered first.
        Denied { earliest: Timestamp::NEVER, soft: true }
    }

    pub fn grant(&mut self, rule: Rule, now: Timestamp, n: u32) {
        if rule.by_send {
            self.add(rule, now, n);
        } else {
            self.in_flight += n;
        }
    }

    /// The end of `held` permits granted at `granted_at`, of which `spent` were used after all: fewer return at once, more
    /// count beside the others, though there was no room for them.
    pub fn settle(&mut self, rule: Rule, now: Timestamp, granted_at: Timestamp, held: u32, spent: u32) {
        let old_way = granted_at < self.switched_at;
        let anchored_by_send = rule.by_send != old_way;
        if anchored_by_send {
            self.remove(granted_at, held.saturating_sub(spent));
            // Counted since the grant. Under an answer anchor declared since, the answer counts as well.
            let more = if rule.by_send { spent.saturating_sub(held) } else { spent };
            self.add(rule, now, more);
        } else if !rule.by_send {
            self.in_flight = self.in_flight.saturating_sub(held);
            self.add(rule, if mutant::on("grant-anchor") { granted_at } else { now }, spent);
        }
        // Else a switch to the send anchor has turned what was in flight into a clump.
    }

    /// A call known from the journal.
    pub fn seed(&mut self, rule: Rule, now: Timestamp, anchored_at: Timestamp, n: u32) {
        if anchored_at.0.saturating_add(rule.hold_us) > now.0 {
            self.add(rule, anchored_at, n);
        }
    }

    pub fn used(&self) -> u32 {
        self.used
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub fn clumps(&self) -> impl ExactSizeIterator<Item = &Clump> {
        self.clumps.iter()
    }

    /// True when nothing would be lost by forgetting it at `now`.
    pub fn is_idle(&self, rule: Rule, now: Timestamp) -> bool {
        self.in_flight == 0 && self.clumps.back().is_none_or(|c| c.last.0.saturating_add(rule.hold_us) <= now.0)
    }

    /// Puts `n` calls stamped `at` into the log. Stamps may come out of order.
    fn add(&mut self, rule: Rule, at: Timestamp, n: u32) {
        if n == 0 {
            return;
        }
        self.used = self.used.saturating_add(n);
        self.ends_from = self.ends_from.min(at);
        // The last clump that begins at or before the stamp. Nearly always the newest.
        let before = self.clumps.iter().rposition(|c| c.first <= at);
        let slice = (rule.hold_us / SLICES as i64).max(1);
        if let Some(i) = before {
            let c = &self.clumps[i];
            let close = at.0 - c.first.0 < slice && at.0 - c.last.0 < (slice / GAPS_PER_SLICE).max(1);
            let near = close && self.clumps.len() >= SINGLE_MAX;
            let c = &mut self.clumps[i];
            if near || at <= c.last {
                c.last = c.last.max(at);
                c.count = c.count.saturating_add(n);
                return;
            }
        }
        self.clumps.insert(before.map_or(0, |i| i + 1), Clump { first: at, last: at, count: n });
        if self.clumps.len() > CLUMPS_MAX {
            self.join_two();
        }
    }

    /// Makes one clump of the two neighbours for which that delays the fewest permits the least.
    fn join_two(&mut self) {
        let cost = |i: usize| {
            let (a, b) = (&self.clumps[i], &self.clumps[i + 1]);
            i128::from(a.count) * i128::from(b.last.0 - a.last.0)
        };
        let Some(i) = (0..self.clumps.len() - 1).min_by_key(|&i| cost(i)) else {
            return;
        };
        let b = self.clumps[i + 1];
        let a = &mut self.clumps[i];
        a.last = b.last;
        a.count = a.count.saturating_add(b.count);
        self.clumps.remove(i + 1);
    }

    /// Takes back `n` calls stamped `at`, if they still count.
    fn remove(&mut self, at: Timestamp, n: u32) {
        if n == 0 {
            return;
        }
        let Some(i) = self.clumps.iter().rposition(|c| c.first <= at && at <= c.last) else {
            return;
        };
        let n = n.min(self.clumps[i].count);
        self.clumps[i].count -= n;
        self.used = self.used.saturating_sub(n);
        if self.clumps[i].count == 0 {
            self.clumps.remove(i);
        }
    }

    /// The declaration changed its anchor. What is in flight counts from now on under a send anchor.
    fn switch(&mut self, rule: Rule, now: Timestamp) {
        self.by_send = rule.by_send;
        let fresh = self.in_flight == 0 && self.clumps.is_empty();
        if fresh {
            return;
        }
        self.switched_at = now;
        if rule.by_send {
            let n = std::mem::take(&mut self.in_flight);
            self.add(rule, now, n);
        }
    }
}

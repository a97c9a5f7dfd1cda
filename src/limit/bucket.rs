//! A token bucket: `capacity` permits, `refill` of them back per `per`.
//!
//! The provider keeps the same bucket where the calls arrive, and arrivals are moved against grants by up to the
//! jitter. A bucket here that is smaller by rate x jitter never asks too much: the margin costs burst, not rate
//! (reference/sim/bucket.py). Counted from the grant, so nothing is in flight. Must never know: windows. Next:
//! `limit/state.rs`.

use std::time::Duration;

use super::Denied;
use crate::clock::Timestamp;

/// What of a declared bucket the arithmetic needs. One permit is `per_us` units; a microsecond brings `refill` units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Capacity after the margin for jitter; at least 1.
    pub capacity: u32,
    pub refill: u32,
    pub per_us: i64,
}

impl Rule {
    pub fn new(capacity: u32, refill: u32, per: Duration, jitter: Duration) -> Self {
        let per_us = i64::try_from(per.as_micros()).unwrap_or(i64::MAX).clamp(1, i64::MAX);
        let margin = (u128::from(refill) * jitter.as_micros()).div_ceil(per_us as u128);
        let capacity = u128::from(capacity).saturating_sub(margin).max(1);
        Rule { capacity: u32::try_from(capacity).unwrap_or(u32::MAX), refill: refill.max(1), per_us }
    }

    /// How long an empty bucket takes to fill.
    pub fn fill_time(self) -> Duration {
        let us = u128::from(self.capacity) * self.per_us as u128 / u128::from(self.refill);
        Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX))
    }
}

/// How far below full the bucket is. A fresh one is full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Missing units, as of `at`.
    missing: i128,
    at: Timestamp,
    /// The rate that has applied since `at`.
    refill: u32,
}

impl Bucket {
    /// As counted elsewhere.
    pub fn counted(missing: i128, at: Timestamp, refill: u32) -> Self {
        Bucket { missing, at, refill }
    }

    /// Refills up to `now`. The other methods expect that this was called with the same `now`.
    pub fn advance(&mut self, rule: Rule, now: Timestamp) {
        // A rate that was raised meanwhile counts from now on only.
        let rate = if self.refill == 0 { rule.refill } else { self.refill.min(rule.refill) };
        self.refill = rule.refill;
        if now > self.at {
            let gained = i128::from(now.0.saturating_sub(self.at.0)) * i128::from(rate);
            self.missing = (self.missing - gained).max(0);
            self.at = now;
        }
    }

    pub fn free(&self, rule: Rule) -> u32 {
        let left = i128::from(rule.capacity) * i128::from(rule.per_us) - self.missing;
        u32::try_from((left / i128::from(rule.per_us)).max(0)).unwrap_or(u32::MAX)
    }

    /// When `need` permits can be had while `kept` stay in the bucket.
    pub fn earliest(&self, rule: Rule, kept: u32, need: u32) -> Denied {
        let cap = rule.capacity.saturating_sub(kept);
        if need > cap {
            return Denied::HOPELESS;
        }
        let allowed = i128::from(cap - need) * i128::from(rule.per_us);
        let wait = (self.missing - allowed).max(0);
        let us = (wait + i128::from(rule.refill) - 1) / i128::from(rule.refill);
        Denied { earliest: Timestamp(self.at.0.saturating_add(i64::try_from(us).unwrap_or(i64::MAX))), soft: false }
    }

    pub fn grant(&mut self, rule: Rule, n: u32) {
        self.missing += i128::from(n) * i128::from(rule.per_us);
    }

    /// Gives unsent permits back, less what the bucket regained since: a fuller one would have overflowed meanwhile.
    pub fn refund(&mut self, rule: Rule, granted_at: Timestamp, n: u32) {
        let regained = i128::from(self.at.0.saturating_sub(granted_at.0).max(0)) * i128::from(rule.refill);
        let back = (i128::from(n) * i128::from(rule.per_us) - regained).max(0);
        self.missing = (self.missing - back).max(0);
    }

    /// A call known from the journal: taken at its anchor, which is not before its arrival. In the order of anchors.
    pub fn seed(&mut self, rule: Rule, anchored_at: Timestamp, n: u32) {
        self.advance(rule, anchored_at);
        self.grant(rule, n);
    }

    /// When the bucket will have one more permit than now.
    pub fn next_at(&self, rule: Rule) -> Timestamp {
        if self.missing == 0 { Timestamp::NEVER } else { self.earliest(rule, 0, self.free(rule) + 1).earliest }
    }

    pub fn is_idle(&self, rule: Rule, now: Timestamp) -> bool {
        let gained = i128::from(now.0.saturating_sub(self.at.0).max(0)) * i128::from(rule.refill.min(self.refill));
        self.missing <= gained
    }
}

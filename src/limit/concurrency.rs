//! A cap on calls on the wire. An answer frees a permit at once.
//!
//! Calls left open by a dead process may still be with the provider: they hold their permit until the latest time at
//! which they can have ended. Must never know: windows. Next: `limit/state.rs`.

use super::Denied;
use crate::clock::Timestamp;

/// Groups of calls of a dead process at most; beyond that the two that end last share the later end.
const GHOSTS_MAX: usize = 130;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Concurrency {
    in_flight: u32,
    /// Calls of a dead process: (held until, count), earliest first.
    ghosts: Vec<(Timestamp, u32)>,
}

impl Concurrency {
    /// As counted elsewhere; the ghosts in order.
    pub fn counted(in_flight: u32, ghosts: Vec<(Timestamp, u32)>) -> Self {
        Concurrency { in_flight, ghosts }
    }

    /// Frees ghosts whose time has come. The other methods expect that this was called with the same `now`.
    pub fn evict(&mut self, now: Timestamp) {
        if self.ghosts.first().is_some_and(|g| g.0 <= now) {
            self.ghosts.retain(|g| g.0 > now);
        }
    }

    pub fn in_flight(&self) -> u32 {
        self.ghosts.iter().fold(self.in_flight, |sum, g| sum.saturating_add(g.1))
    }

    /// Calls that this process, or one beside it, will settle.
    pub fn on_the_wire(&self) -> u32 {
        self.in_flight
    }

    pub fn free(&self, max: u32) -> u32 {
        max.saturating_sub(self.in_flight())
    }

    /// When `need` permits can be had while `kept` stay free, if no answer comes.
    pub fn earliest(&self, max: u32, kept: u32, need: u32) -> Denied {
        let cap = max.saturating_sub(kept);
        if need > cap {
            return Denied::HOPELESS;
        }
        let mut short = (u64::from(self.in_flight()) + u64::from(need)).saturating_sub(u64::from(cap));
        let soft = self.in_flight > 0;
        for &(until, count) in &self.ghosts {
            short = short.saturating_sub(u64::from(count));
            if short == 0 {
                return Denied { earliest: until, soft };
            }
        }
        Denied { earliest: Timestamp::NEVER, soft: true }
    }

    pub fn grant(&mut self, n: u32) {
        self.in_flight = self.in_flight.saturating_add(n);
    }

    pub fn settle(&mut self, n: u32) {
        self.in_flight = self.in_flight.saturating_sub(n);
    }

    /// A call of a dead process that may be on the wire until `until`.
    pub fn seed(&mut self, now: Timestamp, until: Timestamp, n: u32) {
        if until <= now || n == 0 {
            return;
        }
        let at = self.ghosts.partition_point(|g| g.0 <= until);
        self.ghosts.insert(at, (until, n));
        if self.ghosts.len() > GHOSTS_MAX
            && let (Some(last), Some(before)) = (self.ghosts.pop(), self.ghosts.pop())
        {
            self.ghosts.push((last.0, last.1.saturating_add(before.1)));
        }
    }

    pub fn ghosts(&self) -> &[(Timestamp, u32)] {
        &self.ghosts
    }

    pub fn is_idle(&self, now: Timestamp) -> bool {
        self.in_flight == 0 && self.ghosts.iter().all(|g| g.0 <= now)
    }
}

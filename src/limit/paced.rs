//! Evenly spaced calls: one per `(per + jitter) / (max - 1)`, never two at once.
//!
//! The shape that every provider accepts, also those that count with two counters or in a way nobody knows
//! (reference/rate-limiting.md, section 3.2). Counted from the grant. Must never know: windows. Next: `limit/state.rs`.

use std::time::Duration;

use super::Denied;
use crate::clock::Timestamp;

/// Microseconds between two permits.
pub fn interval_us(max: u32, per: Duration, jitter: Duration) -> i64 {
    let span = per.saturating_add(jitter).as_micros();
    let us = span.div_ceil(u128::from(max.saturating_sub(1).max(1)));
    i64::try_from(us).unwrap_or(i64::MAX / 4).clamp(1, i64::MAX / 4)
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paced {
    /// The next permit may be had from here on.
    next_at: Timestamp,
}

impl Paced {
    /// As counted elsewhere.
    pub fn counted(next_at: Timestamp) -> Self {
        Paced { next_at }
    }

    /// 1 or 0: there is no burst. A call that costs more than 1 takes as many intervals.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.next_at <= now
    }

    pub fn next_at(&self) -> Timestamp {
        self.next_at
    }

    pub fn denied(&self) -> Denied {
        Denied { earliest: self.next_at, soft: false }
    }

    pub fn grant(&mut self, interval_us: i64, now: Timestamp, n: u32) {
        self.next_at = Timestamp(now.0.saturating_add(interval_us.saturating_mul(i64::from(n))));
    }

    /// Gives an unsent permit back if it was the last one granted; an earlier one has been waited for already.
    pub fn refund(&mut self, interval_us: i64, granted_at: Timestamp, n: u32) {
        let mut without = Paced::default();
        without.grant(interval_us, granted_at, n);
        if *self == without {
            self.next_at = granted_at;
        }
    }

    /// A call has cost `n` permits more than were granted for it.
    pub fn owe(&mut self, interval_us: i64, now: Timestamp, n: u32) {
        let from = self.next_at.max(now);
        self.grant(interval_us, from, n);
    }

    pub fn seed(&mut self, interval_us: i64, anchored_at: Timestamp, n: u32) {
        let mut with = Paced::default();
        with.grant(interval_us, anchored_at, n);
        self.next_at = self.next_at.max(with.next_at);
    }
}

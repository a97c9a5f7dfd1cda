//! The largest number of arrivals in any window of a given length, exactly, as they come.
//!
//! Counts every arrival, refused or not, and knows nothing of enforcement: it is the witness against the enforcer as
//! much as against the client. A window is half-open: two arrivals exactly one window apart are never in the same one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;

/// Stamps that one count holds at most (16 MB). Beyond, the count is a lower bound and says so.
pub const STAMPS_MAX: usize = 2_000_000;

/// A sliding log over one window length.
#[derive(Clone, Debug)]
pub struct Watch {
    window_us: i64,
    /// Arrivals of the last window, oldest first.
    stamps: VecDeque<i64>,
    max: usize,
    max_at: Timestamp,
    overflowed: bool,
}

impl Watch {
    pub fn new(window: Duration) -> Self {
        let window_us = i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
        Watch { window_us, stamps: VecDeque::new(), max: 0, max_at: Timestamp::ZERO, overflowed: false }
    }

    /// Counts one arrival, or one unit of it. Stamps must not go back; one that does counts as the newest seen.
    pub fn arrived(&mut self, at: Timestamp) {
        let at_us = self.stamps.back().map_or(at.0, |&newest| newest.max(at.0));
        self.forget_before(at_us);
        if self.stamps.len() == STAMPS_MAX {
            self.stamps.pop_front();
            self.overflowed = true;
        }
        self.stamps.push_back(at_us);
        if self.stamps.len() > self.max {
            (self.max, self.max_at) = (self.stamps.len(), Timestamp(at_us));
        }
    }

    fn forget_before(&mut self, now_us: i64) {
        while self.stamps.front().is_some_and(|&s| now_us.saturating_sub(s) >= self.window_us) {
            self.stamps.pop_front();
        }
    }

    /// The largest count seen in any window, and the arrival that completed it.
    pub fn max(&self) -> (u32, Timestamp) {
        (u32::try_from(self.max).unwrap_or(u32::MAX), self.max_at)
    }

    /// More arrived in one window than can be held: [`Self::max`] is a lower bound.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// True when no arrival of the last window is held.
    pub fn is_idle(&self, now: Timestamp) -> bool {
        self.stamps.back().is_none_or(|&s| now.0.saturating_sub(s) >= self.window_us)
    }
}

/// The largest number of stamps in any window of a finished list, which need not be sorted.
pub fn max_in_any_window(stamps: &[Timestamp], window: Duration) -> (u32, Timestamp) {
    let mut sorted = stamps.to_vec();
    sorted.sort_unstable();
    let mut watch = Watch::new(window);
    sorted.into_iter().for_each(|at| watch.arrived(at));
    watch.max()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_secs(s)
    }

    #[test]
    fn arrivals_one_window_apart_are_never_counted_together() {
        let w = Duration::from_secs(10);
        assert_eq!(max_in_any_window(&[at(0), at(10), at(20)], w).0, 1);
        assert_eq!(max_in_any_window(&[at(0), at(9), at(18), at(19)], w), (2, at(9)));
        assert_eq!(max_in_any_window(&[at(0), at(10), at(18), at(19)], w), (3, at(19)));
    }

    proptest! {
        #[test]
        fn the_count_equals_the_count_by_hand(mut us in prop::collection::vec(0i64..2_000, 1..120), w in 1u64..500) {
            us.sort_unstable();
            let by_hand = us.iter()
                .map(|&start| us.iter().filter(|&&s| s >= start && s < start + w as i64).count())
                .max().unwrap() as u32;
            let stamps: Vec<Timestamp> = us.iter().map(|&s| Timestamp(s)).collect();
            prop_assert_eq!(max_in_any_window(&stamps, Duration::from_micros(w)).0, by_hand);
        }
    }
}

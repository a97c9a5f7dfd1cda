//! How long a provider that said "not now" is left alone when it did not say how long.
//!
//! The wait doubles with each refusal in a row, but calls that were already granted when the last step began are part of
//! it: seven in flight that are refused together are one refusal, and a good answer to one of them says nothing about
//! what came since. Must never know: limits. Next: `super`, which tells the limiter.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::model::verdict::Health;

/// Wait after a "not now" that names no time; doubles with each in a row.
const PENALTY_FIRST: Duration = Duration::from_secs(1);
const PENALTY_MAX: Duration = Duration::from_secs(60);

/// Refusals of one provider.
#[derive(Debug, Default)]
pub struct Throttles {
    streak: Mutex<Streak>,
    total: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    /// Steps in a row.
    steps: u32,
    /// Steady time at which the last one began.
    began_at: Timestamp,
}

impl Streak {
    /// When the wait of the step ends that a refusal heard at `now` belongs to.
    fn refused(&mut self, granted_at: Timestamp, now: Timestamp) -> Timestamp {
        if self.steps == 0 || granted_at > self.began_at {
            *self = Streak { steps: self.steps.saturating_add(1), began_at: now };
        }
        let doublings = (self.steps - 1).min(16);
        self.began_at + (PENALTY_FIRST * 2u32.pow(doublings)).min(PENALTY_MAX)
    }

    fn good(&mut self, granted_at: Timestamp) {
        if granted_at > self.began_at {
            self.steps = 0;
        }
    }
}

impl Throttles {
    /// Until when (steady) a provider said "not now" to a call that was granted then, whoever heard it.
    pub fn until(&self, clock: &Clock, health: Health, granted_at: Timestamp) -> Option<Timestamp> {
        let mut streak = self.streak.lock().expect("no panic while held");
        let Health::Limiting { until } = health else {
            if health == Health::Good {
                streak.good(granted_at);
            }
            return None;
        };
        self.total.fetch_add(1, Ordering::Relaxed);
        let now = clock.steady();
        let penalty = streak.refused(granted_at, now);
        Some(until.map_or(penalty, |until| now + until.since(clock.now())))
    }

    /// Refusals ever heard.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_secs(s)
    }

    #[test]
    fn a_burst_of_refusals_is_one_step_and_the_next_one_doubles() {
        let mut streak = Streak::default();
        for _ in 0..7 {
            assert_eq!(streak.refused(at(10), at(11)), at(12));
        }
        for _ in 0..7 {
            assert_eq!(streak.refused(at(12), at(13)), at(15), "granted after the first step began");
        }
        assert_eq!(streak.refused(at(12), at(14)), at(15), "a straggler of the second");
    }

    #[test]
    fn only_a_good_answer_to_a_later_call_ends_the_row() {
        let mut streak = Streak::default();
        streak.refused(at(10), at(11));
        streak.good(at(10));
        assert_eq!(streak.refused(at(12), at(13)), at(15));
        streak.good(at(14));
        assert_eq!(streak.refused(at(14), at(16)), at(17));
    }

    #[test]
    fn the_wait_is_bounded() {
        let mut streak = Streak::default();
        for s in 0..100 {
            assert!(streak.refused(at(s * 100 + 50), at(s * 100 + 51)) <= at(s * 100 + 51) + PENALTY_MAX);
        }
    }
}

//! What is known of one access token: was it ever accepted, and has it had its day? Pure.
//!
//! The first 401 under a token that worked spends it; all calls that carried it may go again under the next one. A 401
//! under a token that never worked is the credential's fault, and so is one that comes again and again: forced refreshes
//! grow rarer, so that a provider which answers 401 for reasons of its own costs no token each time. Next: `token`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;

/// A token that is older has surely been accepted by somebody, as one that was read from the store.
const FRESH: Duration = Duration::from_secs(60);
/// A token must be so old to be spent by a 401; doubles with each in a row.
const FORCED_FIRST: Duration = Duration::from_millis(500);
const FORCED_MAX: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Mark {
    /// Steady time.
    pub obtained_at: Timestamp,
    /// Tokens before this one that a 401 ended early, in a row.
    streak: u32,
    accepted: AtomicBool,
    spent: AtomicBool,
}

impl Mark {
    /// `before`: the token that this one replaces.
    pub fn new(obtained_at: Timestamp, before: Option<&Mark>) -> Mark {
        let forced = before.filter(|old| old.is_spent() && obtained_at.since(old.obtained_at) < FORCED_MAX);
        let streak = forced.map_or(0, |old| old.streak.saturating_add(1));
        Mark { obtained_at, streak, accepted: AtomicBool::new(false), spent: AtomicBool::new(false) }
    }

    pub fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// Another one has taken its place.
    pub fn replace(&self) {
        self.spent.store(true, Ordering::Relaxed);
    }

    /// See [`super::credential::Credential::answered`].
    pub fn answered(&self, status: u16, now: Timestamp) -> bool {
        if status != 401 {
            self.accepted.store(true, Ordering::Relaxed);
            return false;
        }
        if self.is_spent() {
            return true;
        }
        let age = now.since(self.obtained_at);
        let worked = self.accepted.load(Ordering::Relaxed) || age >= FRESH;
        let forced = FORCED_FIRST.saturating_mul(1 << self.streak.min(16)).min(FORCED_MAX);
        if worked && age >= forced {
            self.replace();
        }
        self.is_spent()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + ms)
    }

    #[test]
    fn a_token_that_worked_is_spent_once_and_excuses_all_that_carried_it() {
        let mark = Mark::new(at(0), None);
        assert!(!mark.answered(200, at(10)));
        assert!(mark.answered(401, at(5_000)) && mark.answered(401, at(5_001)) && mark.is_spent());
    }

    #[test]
    fn a_token_that_never_worked_is_not_excused() {
        let fresh = Mark::new(at(0), None);
        assert!(!fresh.answered(401, at(5_000)) && !fresh.is_spent());
        assert!(fresh.answered(401, at(60_000)), "it is old enough to have worked somewhere");
    }

    #[test]
    fn refreshes_forced_in_a_row_grow_rarer() {
        let mut mark = Mark::new(at(0), None);
        let mut now = 0;
        let mut ages = Vec::new();
        for _ in 0..6 {
            let born = now;
            mark.answered(200, at(now));
            while !mark.answered(401, at(now)) {
                now += 100;
            }
            ages.push(now - born);
            mark = Mark::new(at(now), Some(&mark));
        }
        assert_eq!(ages, [500, 1_000, 2_000, 4_000, 8_000, 16_000]);
    }
}

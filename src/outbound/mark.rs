//! What is known of one access token: was it ever accepted, and has it had its day? Pure.
//!
//! The first 401 under a token that worked spends it; all calls that carried it may go again under the next one. When that
//! one is refused before it was ever accepted, refreshing does not help: the credential's breaker opens at once. A 401
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

/// What an answer says of the token that its call carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing bad; or the call carried none.
    Fine,
    /// Refused for a token that has had its day: it is not used again, and the same call may well succeed with the next.
    Outdated,
    /// Refused, and no refresh would help.
    Refused,
    /// The token was fetched after the one before it was refused, and is refused as well.
    RefusedAgain,
}

#[derive(Debug)]
pub(super) struct Mark {
    /// Steady time.
    pub obtained_at: Timestamp,
    /// Tokens before this one that a 401 ended early, in a row.
    streak: u32,
    /// The token before this one was refused.
    after_refusal: bool,
    accepted: AtomicBool,
    useless: AtomicBool,
    spent: AtomicBool,
}

impl Mark {
    /// `before`: the token that this one replaces.
    pub fn new(obtained_at: Timestamp, before: Option<&Mark>) -> Mark {
        let forced = before.filter(|old| old.is_spent() && obtained_at.since(old.obtained_at) < FORCED_MAX);
        let streak = forced.map_or(0, |old| old.streak.saturating_add(1));
        let after_refusal = before.is_some_and(Mark::is_spent);
        let [accepted, useless, spent] = [(); 3].map(|()| AtomicBool::new(false));
        Mark { obtained_at, streak, after_refusal, accepted, useless, spent }
    }

    pub fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// It was refused as soon as it was there. Calls that are begun already may carry it; a probe is not to.
    pub fn is_useless(&self) -> bool {
        self.useless.load(Ordering::Relaxed)
    }

    /// Another one has taken its place.
    pub fn replace(&self) {
        self.spent.store(true, Ordering::Relaxed);
    }

    /// See [`super::credential::Credential::answered`].
    pub fn answered(&self, status: u16, now: Timestamp) -> Shown {
        if status != 401 {
            self.accepted.store(true, Ordering::Relaxed);
            return Shown::Fine;
        }
        if self.is_useless() {
            return Shown::RefusedAgain;
        }
        if self.is_spent() {
            return Shown::Outdated;
        }
        let age = now.since(self.obtained_at);
        let worked = self.accepted.load(Ordering::Relaxed) || age >= FRESH;
        let forced = FORCED_FIRST.saturating_mul(1 << self.streak.min(16)).min(FORCED_MAX);
        match worked {
            true if age >= forced => {
                self.replace();
                Shown::Outdated
            }
            false if self.after_refusal => {
                self.useless.store(true, Ordering::Relaxed);
                Shown::RefusedAgain
            }
            _ => Shown::Refused,
        }
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
        assert_eq!(mark.answered(200, at(10)), Shown::Fine);
        assert_eq!([5_000, 5_001].map(|ms| mark.answered(401, at(ms))), [Shown::Outdated; 2]);
        assert!(mark.is_spent());
    }

    #[test]
    fn one_that_took_the_place_of_a_refused_one_and_is_refused_is_useless() {
        let old = Mark::new(at(0), None);
        old.answered(200, at(10));
        old.answered(401, at(3_600_000));
        let next = Mark::new(at(3_600_100), Some(&old));
        assert_eq!([200, 300].map(|ms| next.answered(401, at(3_600_000 + ms))), [Shown::RefusedAgain; 2]);
        assert!(next.is_useless() && !next.is_spent());
        // Accepted in between, it is one that has had its day.
        let next = Mark::new(at(3_600_100), Some(&old));
        next.answered(200, at(3_600_200));
        assert_eq!(next.answered(401, at(3_610_000)), Shown::Outdated);
        // Refreshed in good time: nothing was refused before.
        let fresh = Mark::new(at(0), None);
        let ahead = Mark::new(at(50), Some(&fresh));
        fresh.replace();
        assert_eq!(ahead.answered(401, at(60)), Shown::Refused);
    }

    #[test]
    fn a_token_that_never_worked_is_not_excused() {
        let fresh = Mark::new(at(0), None);
        assert_eq!(fresh.answered(401, at(5_000)), Shown::Refused);
        assert!(!fresh.is_spent());
        assert_eq!(fresh.answered(401, at(60_000)), Shown::Outdated, "it is old enough to have worked somewhere");
    }

    #[test]
    fn refreshes_forced_in_a_row_grow_rarer() {
        let mut mark = Mark::new(at(0), None);
        let mut now = 0;
        let mut ages = Vec::new();
        for _ in 0..6 {
            let born = now;
            mark.answered(200, at(now));
            while mark.answered(401, at(now)) != Shown::Outdated {
                now += 100;
            }
            ages.push(now - born);
            mark = Mark::new(at(now), Some(&mark));
        }
        assert_eq!(ages, [500, 1_000, 2_000, 4_000, 8_000, 16_000]);
    }
}

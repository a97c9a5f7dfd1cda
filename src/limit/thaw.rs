//! How a limit opens again after a refusal: one call goes first, and more follow as they are answered well.
//!
//! While the provider says "not now" nothing leaves. Afterwards nobody knows how much it allows by now, so the limit gives
//! *credit*: one call at first. A good answer gives back two for the one that it took, any other end the one (a slow
//! start: 1, 2, 4, 8 calls on the wire), until [`GOOD_ENOUGH`] good answers have ended it; a refusal begins anew with one.
//! Whoever is told by an answer how much is left needs no more of this: what is said bounds the calls by itself.
//!
//! The same holds back the first calls of a new window when the provider's numbers had run out in the one before, while our
//! own count had room: somebody else spends it too, or it is smaller than declared. Then the first answer says what there is.
//!
//! Nothing waits for ever: a credit that does not come back, as of a daemon that died, is given anew after [`PATIENCE`], and
//! what has seen no call for [`KEPT`] is over. Must never know: counts, kinds of limits. Next: `limit/state.rs`;
//! `limiter/redis/thaw.lua` is the same line by line.

use std::time::Duration;

use crate::clock::Timestamp;

/// A call without an answer for so long is not waited for: another goes in its place. The usual bound of a call.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// After so long without a call a refusal says nothing any more.
pub const KEPT: Duration = Duration::from_secs(600);
/// Good answers after which everything may go: by then so many were on the wire at once.
pub const GOOD_ENOUGH: u32 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thaw {
    /// From then on it binds. Calls granted later are its own: it counts them, and learns from their ends.
    pub since: Timestamp,
    /// The last grant or end of them; at first when the wait ends. `ZERO`: nothing is held back.
    pub moved_at: Timestamp,
    /// Calls that may be granted now.
    pub credit: u32,
    /// Good answers so far.
    pub good: u32,
}

impl Thaw {
    pub const OFF: Thaw = Thaw { since: Timestamp::ZERO, moved_at: Timestamp::ZERO, credit: 0, good: 0 };

    fn new(since: Timestamp, from: Timestamp) -> Thaw {
        Thaw { since, moved_at: from, credit: 1, good: 0 }
    }

    /// Forgets a refusal of long ago. The other methods expect that this was called with the same `now`.
    pub fn pass(&mut self, now: Timestamp) {
        if self.is_on() && self.is_over(now) {
            *self = Thaw::OFF;
        }
    }

    pub fn is_over(self, now: Timestamp) -> bool {
        !self.is_on() || self.moved_at + KEPT <= now
    }

    fn is_on(self) -> bool {
        self.moved_at > Timestamp::ZERO
    }

    fn binds(self, now: Timestamp) -> bool {
        self.is_on() && now >= self.since
    }

    /// Calls that it lets through. Who wants `least` at once gets them when nothing has moved for a while.
    pub fn calls(self, now: Timestamp, least: u32) -> u32 {
        match self.binds(now) {
            false => u32::MAX,
            true if now >= self.opens_at() => self.credit.max(least),
            true => self.credit,
        }
    }

    /// When it lets a call through at the latest, whatever becomes of those on the wire.
    pub fn opens_at(self) -> Timestamp {
        self.moved_at + PATIENCE
    }

    pub fn granted(&mut self, now: Timestamp, calls: u32) {
        if self.binds(now) {
            self.credit = self.credit.saturating_sub(calls);
            self.moved_at = now;
        }
    }

    /// Calls granted then have ended. `good`: by an answer that was no refusal.
    pub fn ended(&mut self, granted_at: Timestamp, now: Timestamp, calls: u32, good: bool) {
        if !self.is_on() || granted_at <= self.since {
            return;
        }
        let back = if good { calls.saturating_mul(2) } else { calls };
        self.credit = self.credit.saturating_add(back);
        self.good = self.good.saturating_add(if good { calls } else { 0 });
        self.moved_at = self.moved_at.max(now);
        if self.good >= GOOD_ENOUGH {
            *self = Thaw::OFF;
        }
    }

    /// A call granted then was refused, and nothing may leave until then. Calls that were on the wire together are refused
    /// together: that is one refusal.
    pub fn refused(&mut self, granted_at: Timestamp, now: Timestamp, until: Timestamp) {
        if until <= now {
            return;
        }
        if self.is_on() && granted_at <= self.since {
            self.moved_at = self.moved_at.max(until);
        } else {
            *self = Thaw::new(now, until);
        }
    }

    /// The answer to a call granted then said how much is left.
    pub fn told(&mut self, granted_at: Timestamp) {
        if granted_at > self.since {
            *self = Thaw::OFF;
        }
    }

    /// The provider's numbers ran out before ours: the window that begins then is asked for with one call.
    pub fn ran_out(&mut self, until: Timestamp) {
        // A call may be granted at the very moment of the reset.
        *self = Thaw::new(Timestamp(until.0.saturating_sub(1)), until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_secs(s)
    }

    /// As many calls as it lets through at once.
    fn grant(thaw: &mut Thaw, now: Timestamp) -> u32 {
        let calls = thaw.calls(now, 1);
        thaw.granted(now, calls);
        calls
    }

    #[test]
    fn one_call_goes_first_and_each_good_round_doubles_until_all_may_go() {
        let mut thaw = Thaw::OFF;
        assert_eq!(thaw.calls(at(5), 1), u32::MAX);
        thaw.refused(at(4), at(5), at(10));
        let mut rounds = Vec::new();
        for s in 10..16 {
            let calls = grant(&mut thaw, at(s));
            rounds.push(calls);
            assert_eq!(thaw.calls(at(s), 1), if calls == u32::MAX { u32::MAX } else { 0 });
            thaw.ended(at(s), at(s + 1), calls, true);
        }
        assert_eq!(rounds, [1, 2, 4, 8, 16, 32]);
        assert_eq!(thaw, Thaw::OFF);
    }

    #[test]
    fn refusals_of_calls_that_were_on_the_wire_together_are_one_and_one_of_its_own_begins_anew() {
        let mut thaw = Thaw::OFF;
        thaw.refused(at(4), at(5), at(10));
        thaw.refused(at(4), at(6), at(11));
        grant(&mut thaw, at(11));
        thaw.refused(at(3), at(12), at(13));
        assert_eq!(thaw.calls(at(13), 1), 0, "the one that went first is still out");
        thaw.ended(at(11), at(14), 1, true);
        assert_eq!(grant(&mut thaw, at(14)), 2);
        thaw.refused(at(14), at(15), at(20));
        thaw.ended(at(14), at(16), 1, true);
        assert_eq!(thaw.calls(at(20), 1), 1, "the good answer is older than the refusal");
    }

    #[test]
    fn an_end_that_says_nothing_gives_the_call_back_and_one_that_never_comes_is_not_waited_for() {
        let mut thaw = Thaw::OFF;
        thaw.refused(at(4), at(5), at(10));
        assert_eq!(grant(&mut thaw, at(10)), 1);
        thaw.ended(at(10), at(11), 1, false);
        assert_eq!(grant(&mut thaw, at(12)), 1);
        assert_eq!((thaw.calls(at(41), 1), thaw.opens_at()), (0, at(42)));
        assert_eq!(grant(&mut thaw, at(42)), 1);
        assert_eq!(thaw.calls(at(42), 1), 0);
        assert_eq!((thaw.calls(at(71), 5), thaw.calls(at(72), 5)), (0, 5), "who wants five at once waits no longer");
        thaw.pass(at(641));
        assert!(thaw != Thaw::OFF);
        thaw.pass(at(642));
        assert_eq!(thaw, Thaw::OFF);
    }

    #[test]
    fn who_is_told_what_is_left_needs_no_more_of_it_and_a_window_that_ran_out_is_asked_for_with_one_call() {
        let mut thaw = Thaw::OFF;
        thaw.refused(at(4), at(5), at(10));
        thaw.told(at(4));
        assert_eq!(thaw.calls(at(10), 1), 1, "of the time before the refusal");
        thaw.told(at(10));
        assert_eq!(thaw, Thaw::OFF);
        thaw.ran_out(at(60));
        assert_eq!((thaw.calls(at(59), 1), thaw.calls(at(60), 1)), (u32::MAX, 1), "what is said binds until then");
    }
}

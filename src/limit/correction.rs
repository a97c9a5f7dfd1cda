//! What the provider said is left of a limit, and until when: `(left, until)`, beside our own count. It only ever takes.
//!
//! An answer tells what was left at some moment between the grant of its call and now. Until the reset that number only
//! falls, so of all that was said of one window **the lowest number is the latest**, in whatever order answers come back.
//! So `left` is the minimum of what was said, and what may still be granted is `left` less the calls in flight: they may
//! have been counted in it or not. A call whose answer says more than `left` had arrived before the lowest number was
//! made, so it is counted there, and its end gives its permit back by leaving the calls in flight; a call whose answer
//! says less lowers `left` itself. A call that ends without a word may have arrived after the lowest number: it is taken
//! from `left`. So whoever shares the account is seen with the first answer after his calls, and nothing that is said
//! stays longer than the window it was said of.
//!
//! Where calls in flight are not counted (buckets, paced limits, windows by send) a grant is taken from `left` at once,
//! and the answer that lowers it does not know of those on the wire: there up to so many calls may be refused.
//!
//! Two statements are of one window when their resets are no further apart than [`SAME_WINDOW`]; of two windows the
//! later one counts. The first reset that was said of a window stays, so that one that is rounded anew with every answer
//! cannot put the end off for ever. Must never know: headers, kinds of limits. Next: `limit/state.rs`; `feedback.rs`
//! reads what was said.

use std::time::Duration;

use crate::clock::Timestamp;

/// Resets in whole seconds from now differ by the second they are rounded to and by how long answers take.
pub const SAME_WINDOW: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// Permits left, calls in flight not taken off.
    pub left: u32,
    /// The provider's reset; `ZERO`: nothing was said.
    pub until: Timestamp,
}

impl Correction {
    pub const NONE: Correction = Correction { left: u32::MAX, until: Timestamp::ZERO };

    /// Forgets what was said of a window that is over. The other methods expect that this was called with the same `now`.
    pub fn pass(&mut self, now: Timestamp) {
        if self.until <= now {
            *self = Correction::NONE;
        }
    }

    pub fn is_in_force(self) -> bool {
        self.until > Timestamp::ZERO
    }

    /// Permits that may be had at most.
    pub fn free(self, in_flight: u32) -> u32 {
        if self.is_in_force() { self.left.saturating_sub(in_flight) } else { u32::MAX }
    }

    /// The provider said that so much is left until then. What is over, or of a window before, is no news.
    pub fn hear(&mut self, now: Timestamp, left: u32, until: Timestamp) {
        if until <= now {
            return;
        }
        if !self.is_in_force() || until > self.until + SAME_WINDOW {
            *self = Correction { left, until };
        } else if until + SAME_WINDOW >= self.until {
            self.left = self.left.min(left);
        }
    }

    /// So many permits were spent of which the provider's number may not know.
    pub fn take(&mut self, permits: u32) {
        if self.is_in_force() {
            self.left = self.left.saturating_sub(permits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_secs(s)
    }

    #[test]
    fn the_lowest_number_of_a_window_counts_whatever_the_order() {
        let mut c = Correction::NONE;
        assert_eq!(c.free(7), u32::MAX);
        c.hear(at(1), 8, at(60));
        c.hear(at(1), 5, at(61));
        c.hear(at(2), 9, at(60));
        assert_eq!((c, c.free(2)), (Correction { left: 5, until: at(60) }, 3));
        c.take(4);
        assert_eq!(c.free(2), 0);
    }

    #[test]
    fn a_later_window_takes_the_place_of_an_earlier_one_and_an_earlier_one_is_no_news() {
        let mut c = Correction::NONE;
        c.hear(at(1), 0, at(60));
        c.hear(at(59), 99, at(120));
        c.hear(at(59), 1, at(60));
        assert_eq!(c, Correction { left: 99, until: at(120) });
        c.hear(at(61), 0, at(61));
        assert_eq!(c.left, 99, "what is over");
        c.pass(at(120));
        assert_eq!(c, Correction::NONE);
    }

    #[test]
    fn a_reset_that_moves_with_every_answer_does_not_put_the_end_off() {
        let mut c = Correction::NONE;
        for s in 0..59 {
            c.pass(at(s));
            c.hear(at(s), 3, at(s + 1));
            assert!(c.until <= at(s + 1));
        }
    }
}

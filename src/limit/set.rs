//! Several limits at once, all or nothing: a call leaves only if every limit it spends has room.
//!
//! The fold over the limits of one decision. Since the room of a limit only grows while nothing happens, the latest of
//! the single `earliest` times is exactly the time from which all agree. Must never know: keys, locks. Next:
//! `limiter/local.rs`.

use super::Denied;
use crate::model::flow::Class;
use crate::model::provider::Reserve;

/// Permits of a limit kept back from a class: `urgent` may have all, `normal` leaves the urgent reserve, `bulk` leaves
/// the reserve of the two together.
pub fn kept_back(reserve: Reserve, class: Class) -> u32 {
    match class {
        Class::Urgent => 0,
        Class::Normal => reserve.urgent,
        Class::Bulk => reserve.urgent.max(reserve.normal),
    }
}

/// Gathers what each limit of a set has to say.
#[derive(Clone, Copy, Debug)]
pub struct Poll {
    min: u32,
    calls: u32,
    /// Position of the limit that binds, and until when.
    binder: Option<(usize, Denied)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All limits have room for this many calls.
    Granted(u32),
    /// Position of the limit that opens last.
    Denied { binder: usize, denied: Denied },
}

impl Poll {
    /// For `min..=max` calls; `min` counts as at least 1.
    pub fn new(min: u32, max: u32) -> Self {
        let min = min.max(1);
        Poll { min, calls: max.max(min), binder: None }
    }

    /// The limit at `position` has room for `calls`; `denied` tells when it has room for `min`, if it has not.
    pub fn hear(&mut self, position: usize, calls: u32, denied: impl FnOnce(u32) -> Denied) {
        self.calls = self.calls.min(calls);
        if calls >= self.min {
            return;
        }
        let new = denied(self.min);
        // Of two that open never, the one without hope binds.
        let later = |old: Denied| (new.earliest, !new.soft) > (old.earliest, !old.soft);
        if self.binder.is_none_or(|(_, old)| later(old)) {
            self.binder = Some((position, new));
        }
    }

    pub fn outcome(self) -> Outcome {
        match self.binder {
            None => Outcome::Granted(self.calls),
            Some((binder, denied)) => Outcome::Denied { binder, denied },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    const SOFT: Denied = Denied { earliest: Timestamp::NEVER, soft: true };

    #[test]
    fn all_limits_must_agree_and_the_smallest_room_counts() {
        let mut poll = Poll::new(1, 10);
        poll.hear(0, 7, |_| unreachable!());
        poll.hear(1, 4, |_| unreachable!());
        assert_eq!(poll.outcome(), Outcome::Granted(4));
    }

    #[test]
    fn the_limit_that_opens_last_binds() {
        let at = |s| Denied { earliest: Timestamp::from_secs(s), soft: false };
        let mut poll = Poll::new(2, 10);
        poll.hear(0, 1, |_| at(5));
        poll.hear(1, 0, |_| at(9));
        poll.hear(2, 1, |_| at(7));
        assert_eq!(poll.outcome(), Outcome::Denied { binder: 1, denied: at(9) });
        poll.hear(3, 0, |_| SOFT);
        poll.hear(4, 0, |_| Denied::HOPELESS);
        assert_eq!(poll.outcome(), Outcome::Denied { binder: 4, denied: Denied::HOPELESS });
    }

    #[test]
    fn reserves_are_kept_back_from_less_urgent_classes() {
        let reserve = Reserve { urgent: 2, normal: 5 };
        assert_eq!(Class::ALL.map(|c| kept_back(reserve, c)), [0, 2, 5]);
        let only_urgent = Reserve { urgent: 3, normal: 0 };
        assert_eq!(Class::ALL.map(|c| kept_back(only_urgent, c)), [0, 3, 3]);
    }
}

//! Two time lines: this daemon's steady one and the server's clock. What comes from the server is put on ours so that
//! it is never early; what goes there goes as an age, and is older there than here by no more than the way there.
//! Must never know: limits, Redis. Next: `frame.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;

/// Grants whose exact server time is remembered. Needed when permits come back unsent; an older one gets back less.
const GRANTS_MAX: usize = 65_536;
/// A repeated answer's grant is looked for among so many.
const LOOK_BACK: usize = 4_096;
/// Steady lines of daemons are aligned to one clock when they start, and agree no better than this: what comes from a
/// journal may have been stamped by another daemon.
const SKEW: Duration = Duration::from_millis(250);
/// An unknown grant is taken for this much older than its stamp says: more than any answer takes.
const SLACK: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Lines {
    /// Server less steady, as of the last answer.
    offset_us: Option<i64>,
    /// (steady, server) of grants; the steady times rise strictly.
    grants: VecDeque<(i64, i64)>,
    slack_us: i64,
    skew_us: i64,
}

impl Lines {
    /// `same`: both lines are one, in a test.
    pub(super) fn new(same: bool) -> Self {
        let us = |d: Duration| if same { 0 } else { d.as_micros() as i64 };
        Lines { offset_us: same.then_some(0), grants: VecDeque::new(), slack_us: us(SLACK), skew_us: us(SKEW) }
    }

    /// An answer that says `server` was read at `steady`.
    pub(super) fn hear(&mut self, server: i64, steady: Timestamp) {
        self.offset_us = Some(server - steady.0);
    }

    /// About what the server's clock says at `steady`. Before the first answer: the wall clocks may agree.
    pub(super) fn server_now(&self, steady: Timestamp) -> i64 {
        steady.0.saturating_add(self.offset_us.unwrap_or(0))
    }

    /// The steady stamp of a grant that happened at `server` and was heard of at `steady`: not before it happened.
    pub(super) fn granted(&mut self, server: i64, steady: Timestamp) -> Timestamp {
        if self.grants.back().is_some_and(|last| server <= last.1)
            && let Some(&(known, _)) = self.grants.iter().rev().take(LOOK_BACK).find(|g| g.1 == server)
        {
            return Timestamp(known);
        }
        let at = self.grants.back().map_or(steady.0, |last| steady.0.max(last.0 + 1));
        if self.grants.len() >= GRANTS_MAX {
            self.grants.pop_front();
        }
        self.grants.push_back((at, server));
        Timestamp(at)
    }

    /// When, on the server's clock, a grant with this stamp happened: exactly, or earlier.
    pub(super) fn server_of(&self, granted: Timestamp) -> i64 {
        match self.grants.binary_search_by_key(&granted.0, |g| g.0) {
            Ok(i) => self.grants[i].1,
            Err(_) => self.server_now(granted) - self.slack_us,
        }
    }

    /// How old an anchor is, for the server to subtract from its own now: younger rather than older. Negative: to come.
    pub(super) fn age(&self, now: Timestamp, at: Timestamp) -> f64 {
        now.0.saturating_sub(at.0).saturating_sub(self.skew_us) as f64
    }

    /// The age of a grant, early rather than late.
    pub(super) fn age_of_grant(&self, now: Timestamp, at: Timestamp) -> f64 {
        (now.0.saturating_sub(at.0)).saturating_add(self.slack_us) as f64
    }
}

/// A server time on the steady line, as seen when an answer that says `server_now` was read at `steady`. The answer
/// is older than `steady`, so this is never early.
pub(super) fn steady_of(server: f64, server_now: i64, steady: Timestamp) -> Timestamp {
    if !(0.0..super::FAR).contains(&server) {
        return Timestamp::NEVER;
    }
    Timestamp(steady.0.saturating_add(server as i64 - server_now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_server_is_never_early_here() {
        // The server said "at 1,500" when its clock said 1,000; the answer took until our 70.
        assert_eq!(steady_of(1_500.0, 1_000, Timestamp(70)), Timestamp(570));
        assert_eq!(steady_of(-1.0, 1_000, Timestamp(70)), Timestamp::NEVER);
    }

    #[test]
    fn grants_have_stamps_of_their_own_and_find_back() {
        let mut lines = Lines::new(false);
        lines.hear(1_000, Timestamp(50));
        let first = lines.granted(1_000, Timestamp(50));
        let second = lines.granted(1_003, Timestamp(50));
        assert_eq!((first, second), (Timestamp(50), Timestamp(51)));
        assert_eq!(lines.granted(1_000, Timestamp(99)), first, "a repeated answer is the same grant");
        assert_eq!((lines.server_of(first), lines.server_of(second)), (1_000, 1_003));
        assert!(lines.server_of(Timestamp(60)) <= 1_010, "an unknown one is early");
    }
}

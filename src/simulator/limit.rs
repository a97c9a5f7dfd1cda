//! The exact enforcers: how a provider counts, in whole numbers, without rounding in anybody's favour.
//!
//! Pure: time goes in with every question. Must never know: requests, sockets. [`super::watch`] counts beside it.

use std::collections::VecDeque;

use super::config::Rule;
use crate::clock::Timestamp;

/// The state of one counted limit.
#[derive(Clone, Debug)]
pub struct Enforcer {
    rule: Rule,
    count: Count,
}

#[derive(Clone, Debug)]
enum Count {
    /// The newest `max` stamps, oldest first.
    Rolling {
        per_us: i64,
        stamps: VecDeque<i64>,
    },
    Fixed {
        per_us: i64,
        window: i64,
        used: u64,
    },
    TwoCounter {
        per_us: i64,
        window: i64,
        before: u64,
        used: u64,
    },
    /// `level` is in tokens x microseconds of `per`, so that refilling is exact.
    Bucket {
        per_us: u128,
        level: u128,
        at_us: i64,
    },
    Concurrency {
        in_flight: u32,
    },
}

/// What is left of a limit now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub left: u32,
    /// When more is left than now; now itself when nothing is used.
    pub more_at: Timestamp,
}

impl Enforcer {
    pub fn new(rule: Rule, now: Timestamp) -> Self {
        let us = |d: std::time::Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX).max(1);
        let count = match rule {
            Rule::Rolling { per, .. } => Count::Rolling { per_us: us(per), stamps: VecDeque::new() },
            Rule::Fixed { per, .. } => Count::Fixed { per_us: us(per), window: i64::MIN, used: 0 },
            Rule::TwoCounter { per, .. } => Count::TwoCounter { per_us: us(per), window: i64::MIN, before: 0, used: 0 },
            Rule::Bucket { capacity, per, .. } => {
                let per_us = us(per) as u128;
                Count::Bucket { per_us, level: u128::from(capacity) * per_us, at_us: now.0 }
            }
            Rule::Concurrency { .. } => Count::Concurrency { in_flight: 0 },
        };
        Enforcer { rule, count }
    }

    /// Would a call of `cost` units at `now` be let through? If not: the earliest time at which one would, if no other comes.
    pub fn ask(&mut self, now: Timestamp, cost: u32) -> Result<(), Timestamp> {
        self.roll(now);
        let (max, cost) = (u64::from(self.rule.max()), u64::from(cost));
        match &self.count {
            Count::Rolling { per_us, stamps } => match (stamps.len() as u64 + cost).saturating_sub(max) {
                0 => Ok(()),
                // So many of the oldest must go. More than are there, if the number was lowered below the cost: it never fits.
                over => {
                    let last = stamps.get(over as usize - 1).or(stamps.back()).copied();
                    Err(Timestamp(last.unwrap_or(now.0) + per_us))
                }
            },
            Count::Fixed { per_us, window, used } => {
                if *used + cost > max {
                    Err(Timestamp((window + 1) * per_us))
                } else {
                    Ok(())
                }
            }
            Count::TwoCounter { per_us, window, before, used } => {
                two_counter(now.0, *per_us, (*window, *before, *used), max, cost)
                    .map_or(Ok(()), |at| Err(Timestamp(at)))
            }
            Count::Bucket { per_us, level, .. } => match (u128::from(cost) * per_us).saturating_sub(*level) {
                0 => Ok(()),
                missing => Err(Timestamp(now.0 + refill_us(missing, self.rule))),
            },
            // An answer frees it, not time: now is as good a guess as any.
            Count::Concurrency { in_flight } => {
                if u64::from(*in_flight) + cost > max {
                    Err(now)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// From now on another number; what was counted counts.
    pub fn set_max(&mut self, now: Timestamp, max: u32) {
        // A bucket fills at the old pace until now.
        self.roll(now);
        self.rule = self.rule.with_max(max);
    }

    /// Counts a call, whether or not it was let through.
    pub fn take(&mut self, now: Timestamp, cost: u32) {
        self.roll(now);
        (0..cost).for_each(|_| self.take_one(now));
    }

    fn take_one(&mut self, now: Timestamp) {
        match (&mut self.count, self.rule) {
            (Count::Rolling { stamps, .. }, rule) => {
                while stamps.len() >= rule.max() as usize {
                    stamps.pop_front();
                }
                stamps.push_back(now.0);
            }
            (Count::Fixed { used, .. } | Count::TwoCounter { used, .. }, _) => *used += 1,
            (Count::Bucket { per_us, level, .. }, _) => *level = level.saturating_sub(*per_us),
            (Count::Concurrency { in_flight }, _) => *in_flight += 1,
        }
    }

    /// A call that was taken has been answered, or its connection is gone.
    pub fn answered(&mut self) {
        if let Count::Concurrency { in_flight } = &mut self.count {
            *in_flight = in_flight.saturating_sub(1);
        }
    }

    pub fn room(&mut self, now: Timestamp) -> Room {
        self.roll(now);
        let max = u64::from(self.rule.max());
        let (left, more_at) = match &self.count {
            Count::Rolling { per_us, stamps } => {
                (max.saturating_sub(stamps.len() as u64), stamps.front().map_or(now.0, |oldest| oldest + per_us))
            }
            Count::Fixed { per_us, window, used } => (max.saturating_sub(*used), (window + 1) * per_us),
            Count::TwoCounter { per_us, window, before, used } => {
                let covered = (u128::from(*before) * ((window + 1) * per_us - now.0) as u128).div_ceil(*per_us as u128);
                let counted = covered as u64 + used;
                (max.saturating_sub(counted), (window + 1) * per_us)
            }
            Count::Bucket { per_us, level, .. } => {
                let full = u128::from(max) * per_us;
                let next = (level / per_us + 1) * per_us;
                let wait = if *level >= full { 0 } else { refill_us(next - level, self.rule) };
                ((level / per_us) as u64, now.0 + wait)
            }
            Count::Concurrency { in_flight } => (max.saturating_sub(u64::from(*in_flight)), now.0),
        };
        Room { left: u32::try_from(left).unwrap_or(u32::MAX), more_at: Timestamp(more_at) }
    }

    /// True when it stands as if new.
    pub fn is_idle(&mut self, now: Timestamp) -> bool {
        self.roll(now);
        match &self.count {
            Count::Rolling { stamps, .. } => stamps.is_empty(),
            Count::Fixed { used, .. } => *used == 0,
            Count::TwoCounter { before, used, .. } => *before == 0 && *used == 0,
            Count::Bucket { per_us, level, .. } => *level >= u128::from(self.rule.max()) * per_us,
            Count::Concurrency { in_flight } => *in_flight == 0,
        }
    }

    /// Lets time pass.
    fn roll(&mut self, now: Timestamp) {
        match &mut self.count {
            Count::Rolling { per_us, stamps } => {
                while stamps.front().is_some_and(|&s| now.0 - s >= *per_us) {
                    stamps.pop_front();
                }
            }
            Count::Fixed { per_us, window, used } => {
                let current = now.0.div_euclid(*per_us);
                if current > *window {
                    (*window, *used) = (current, 0);
                }
            }
            Count::TwoCounter { per_us, window, before, used } => {
                let current = now.0.div_euclid(*per_us);
                if current > *window {
                    *before = if current == window.saturating_add(1) { *used } else { 0 };
                    (*window, *used) = (current, 0);
                }
            }
            Count::Bucket { per_us, level, at_us } => {
                let Rule::Bucket { capacity, refill, .. } = self.rule else { return };
                let passed = u128::try_from(now.0 - *at_us).unwrap_or(0);
                *level = (*level + passed * u128::from(refill)).min(u128::from(capacity) * *per_us);
                *at_us = now.0.max(*at_us);
            }
            Count::Concurrency { .. } => {}
        }
    }
}

/// Microseconds until a bucket has `missing` (tokens x microseconds) more.
fn refill_us(missing: u128, rule: Rule) -> i64 {
    let Rule::Bucket { refill, .. } = rule else { return 0 };
    i64::try_from(missing.div_ceil(u128::from(refill.max(1)))).unwrap_or(i64::MAX / 4)
}

/// `None`: `cost` more fit. Else the earliest time at which they would.
fn two_counter(now: i64, per: i64, (window, before, used): (i64, u64, u64), max: u64, cost: u64) -> Option<i64> {
    // before * (share of the previous window still covered) + used + cost <= max, in microseconds.
    let fits_from = |before: u64, used: u64| -> Option<i64> {
        let free = max.checked_sub(used + cost)?;
        if before == 0 {
            return Some(0);
        }
        let covered = (u128::from(free) * per as u128 / u128::from(before)).min(per as u128);
        Some(per - covered as i64)
    };
    let start = window * per;
    match fits_from(before, used) {
        Some(after) if now - start >= after => None,
        Some(after) => Some(start + after),
        // This window is full by itself: in the next one, what is used now counts as `before`.
        None => Some(start + per + fits_from(used, 0).unwrap_or(per)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn enforcer(rule: &str) -> Enforcer {
        Enforcer::new(rule.parse().unwrap(), Timestamp::ZERO)
    }

    /// Sends a call each time in `at_ms`; says which were let through.
    fn let_through(rule: &str, at_ms: &[i64]) -> Vec<bool> {
        let mut e = enforcer(rule);
        at_ms
            .iter()
            .map(|&ms| {
                let fits = e.ask(Timestamp::from_millis(ms), 1).is_ok();
                if fits {
                    e.take(Timestamp::from_millis(ms), 1);
                }
                fits
            })
            .collect()
    }

    #[test]
    fn a_lowered_number_counts_what_was_let_through_and_a_raised_one_frees_the_rest() {
        for rule in ["rolling:4/1s", "fixed:4/1s"] {
            let mut e = enforcer(rule);
            let at = Timestamp::from_millis;
            (0..4).for_each(|n| e.take(at(n * 100), 1));
            e.set_max(at(400), 2);
            assert_eq!(e.room(at(400)).left, 0, "{rule}");
            // Of a rolling window those of 0, 100 and 200 must go first: one is left, and one more fits.
            let again = e.ask(at(400), 1).unwrap_err();
            assert!(again >= at(1_000), "{rule}: {again}");
            assert!(rule.starts_with("fixed") || e.ask(at(1_199), 1).is_err(), "{rule}");
            assert!(e.ask(at(1_200), 1).is_ok(), "{rule}");
            e.set_max(at(1_200), 4);
            assert!(e.room(at(1_200)).left >= 3, "{rule}");
        }
    }

    #[test]
    fn a_rolling_window_frees_each_slot_exactly_one_window_later() {
        assert_eq!(
            let_through("rolling:2/1s", &[0, 400, 999, 1_000, 1_399, 1_400]),
            [true, true, false, true, false, true]
        );
    }

    #[test]
    fn a_fixed_window_frees_all_at_the_boundary() {
        assert_eq!(
            let_through("fixed:2/1s", &[900, 950, 999, 1_000, 1_001, 1_002]),
            [true, true, false, true, true, false]
        );
    }

    #[test]
    fn a_bucket_gives_its_capacity_and_then_its_rate() {
        let seen = let_through("bucket:3,2/1s", &[0, 0, 0, 0, 499, 500, 999, 1_000]);
        assert_eq!(seen, [true, true, true, false, false, true, false, true]);
    }

    #[test]
    fn two_counters_let_the_previous_window_fade() {
        // 4 in the first second; half-way through the next, 2 of them still count.
        let seen = let_through("two-counter:4/1s", &[0, 1, 2, 3, 4, 1_000, 1_500, 1_500, 1_500]);
        assert_eq!(seen, [true, true, true, true, false, false, true, true, false]);
    }

    #[test]
    fn a_costly_call_waits_until_all_of_it_fits() {
        let at = Timestamp::from_millis;
        // Four of five are used, one each 100 ms. A call of three needs two of them to go.
        for (rule, fits_at) in
            [("rolling:5/1s", 1_100), ("fixed:5/1s", 1_000), ("two-counter:5/1s", 1_500), ("bucket:5,1/1s", 2_000)]
        {
            let mut e = enforcer(rule);
            (0..4).for_each(|n| e.take(at(n * 100), 1));
            assert!(e.ask(at(300), 1).is_ok(), "{rule}");
            assert_eq!(e.ask(at(300), 3), Err(at(fits_at)), "{rule}");
            e.take(at(fits_at), 3);
            assert!(e.ask(at(fits_at), 3).is_err(), "{rule}");
        }
    }

    #[test]
    fn concurrency_is_freed_by_answers_only() {
        let mut e = enforcer("concurrency:1");
        assert!(e.ask(Timestamp::ZERO, 1).is_ok());
        e.take(Timestamp::ZERO, 1);
        assert!(e.ask(Timestamp::from_secs(99), 1).is_err());
        e.answered();
        assert!(e.ask(Timestamp::from_secs(99), 1).is_ok());
    }

    #[test]
    fn refused_calls_that_count_keep_the_window_full() {
        let mut e = enforcer("rolling:1/1s");
        for ms in [0, 600, 1_200] {
            e.take(Timestamp::from_millis(ms), 1);
        }
        assert_eq!(e.ask(Timestamp::from_millis(1_300), 1), Err(Timestamp::from_millis(2_200)));
    }

    proptest! {
        #[test]
        fn a_refused_call_is_let_through_at_the_time_named_and_no_earlier(
            gaps in prop::collection::vec(0i64..400, 1..80),
            rule in prop::sample::select(vec!["rolling:5/1s", "fixed:5/1s", "two-counter:5/1s", "bucket:4,5/1s"]),
            cost in 1u32..4,
        ) {
            let (mut e, mut now) = (enforcer(rule), Timestamp::ZERO);
            for gap in gaps {
                now = Timestamp(now.0 + gap * 977);
                if let Err(at) = e.ask(now, cost) {
                    prop_assert!(at > now);
                    prop_assert!(e.clone().ask(at, cost).is_ok(), "{} still refuses at {:?}", rule, at);
                    prop_assert!(e.clone().ask(Timestamp(at.0 - 1), cost).is_err(), "{} would have let it in earlier", rule);
                } else {
                    e.take(now, cost);
                }
            }
        }

        #[test]
        fn what_is_left_can_be_taken_at_once(
            gaps in prop::collection::vec(0i64..400, 1..40),
            rule in prop::sample::select(vec!["rolling:5/1s", "fixed:5/1s", "two-counter:5/1s", "bucket:4,5/1s", "concurrency:5"]),
        ) {
            let (mut e, mut now) = (enforcer(rule), Timestamp::ZERO);
            for gap in gaps {
                now = Timestamp(now.0 + gap * 977);
                let mut left = 0;
                let mut probe = e.clone();
                while probe.ask(now, 1).is_ok() {
                    probe.take(now, 1);
                    left += 1;
                }
                prop_assert_eq!(e.room(now).left, left);
                if left > 0 {
                    e.take(now, 1);
                }
            }
        }
    }
}

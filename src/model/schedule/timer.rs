//! When a schedule ticks: a cron line read on the clock of a time zone, with a delay that looks random and is not.
//!
//! Where clocks go forward, a line with one hour and one minute that would fall into the gap ticks at its end, and lines
//! that repeat leave the gap out. Where clocks go back, the former ticks once, in the first pass, and the latter in both:
//! what Vixie cron does. Must never know: what a tick starts. Next: `decide`.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use jiff::Zoned;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use super::{ScheduleName, Spec};
use crate::clock::Timestamp;

/// Why a line or a zone cannot be used. `field` is `cron` or `zone`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{said}")]
pub struct BadTimer {
    pub field: &'static str,
    pub said: String,
}

#[derive(Clone, Debug)]
pub struct Timer {
    cron: Cron,
    zone: TimeZone,
    jitter: Duration,
    name: ScheduleName,
}

impl Timer {
    pub fn new(name: &ScheduleName, spec: &Spec) -> Result<Timer, BadTimer> {
        let bad = |field, said| BadTimer { field, said };
        let cron = Cron::from_str(&spec.cron).map_err(|e| {
            let shown: String = spec.cron.chars().take(100).collect();
            bad("cron", format!("expected a cron line such as \"*/15 * * * *\", got {shown:?}: {e}"))
        })?;
        let zone = TimeZone::get(&spec.zone).map_err(|_| {
            let shown: String = spec.zone.chars().take(100).collect();
            bad("zone", format!("expected a time zone such as \"Europe/Berlin\" or \"UTC\", got {shown:?}"))
        })?;
        Ok(Timer { cron, zone, jitter: spec.jitter, name: name.clone() })
    }

    /// The first tick after `at`; `NEVER` when there is none, as for the 31st of February.
    pub fn next_after(&self, at: Timestamp) -> Timestamp {
        let found = self.zoned(at).and_then(|at| self.cron.find_next_occurrence(&at, false).ok());
        found.map_or(Timestamp::NEVER, |at| Timestamp(at.timestamp().as_microsecond()))
    }

    /// The last tick at `at` or before.
    pub fn last_until(&self, at: Timestamp) -> Option<Timestamp> {
        let found = self.cron.find_previous_occurrence(&self.zoned(at)?, true).ok()?;
        Some(Timestamp(found.timestamp().as_microsecond()))
    }

    /// When a tick is acted upon: late by a share of the jitter, but before the next one. Every daemon says the same.
    pub fn fires_at(&self, tick: Timestamp) -> Timestamp {
        if self.jitter.is_zero() || tick == Timestamp::NEVER {
            return tick;
        }
        let gap = self.next_after(tick).since(tick);
        let most = u64::try_from(self.jitter.min(gap).as_micros()).unwrap_or(u64::MAX).max(1);
        let hash = Sha256::new().chain_update(self.name.as_str()).chain_update(tick.0.to_be_bytes()).finalize();
        let dice = u64::from_be_bytes(hash[..8].try_into().expect("a hash has more than eight bytes"));
        tick + Duration::from_micros(dice % most)
    }

    /// Whole seconds: croner walks in them, and a fraction would put the search behind a tick of this second.
    fn zoned(&self, at: Timestamp) -> Option<Zoned> {
        let at = jiff::Timestamp::from_second(at.0.div_euclid(1_000_000)).ok()?;
        Some(at.to_zoned(self.zone.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schedule::{Missed, Overlap, Target};

    fn timer(cron: &str, zone: &str, jitter: u64) -> Timer {
        let spec = Spec {
            cron: cron.into(),
            zone: zone.into(),
            jitter: Duration::from_secs(jitter),
            overlap: Overlap::Skip,
            missed: Missed::One,
            target: Target::Jobs(Vec::new()),
        };
        Timer::new(&ScheduleName::new("x").unwrap(), &spec).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    /// The ticks after `from`, as UTC.
    fn ticks(timer: &Timer, from: &str, count: usize) -> Vec<String> {
        let mut tick = at(from);
        (0..count)
            .map(|_| {
                tick = timer.next_after(tick);
                jiff::Timestamp::from_microsecond(tick.0).unwrap().to_string()
            })
            .collect()
    }

    #[test]
    fn ticks_follow_the_clock_of_their_zone() {
        let berlin = timer("30 8 * * MON-FRI", "Europe/Berlin", 0);
        // Friday, then Monday; winter, UTC+1.
        assert_eq!(ticks(&berlin, "2026-01-09T06:00:00Z", 2), ["2026-01-09T07:30:00Z", "2026-01-12T07:30:00Z"]);
        let quarter = timer("*/15 * * * *", "UTC", 0);
        assert_eq!(ticks(&quarter, "2026-01-09T06:15:00Z", 2), ["2026-01-09T06:30:00Z", "2026-01-09T06:45:00Z"]);
        assert_eq!(timer("0 0 31 2 *", "UTC", 0).next_after(at("2026-01-01T00:00:00Z")), Timestamp::NEVER);
    }

    #[test]
    fn in_the_gap_of_spring_a_daily_tick_comes_at_its_end_and_repeating_ones_leave_it_out() {
        // 29 March 2026: 02:00 to 03:00 does not exist in Berlin; it ends at 01:00 UTC.
        let daily = timer("30 2 * * *", "Europe/Berlin", 0);
        let seen = ticks(&daily, "2026-03-28T12:00:00Z", 2);
        assert_eq!(seen, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        let half_hourly = timer("*/30 * * * *", "Europe/Berlin", 0);
        let seen = ticks(&half_hourly, "2026-03-29T00:00:00Z", 3);
        assert_eq!(seen, ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]);
    }

    #[test]
    fn in_the_fold_of_autumn_a_daily_tick_comes_once_and_repeating_ones_in_both_passes() {
        // 25 October 2026: 02:00 to 03:00 comes twice in Berlin, from 00:00 UTC and from 01:00 UTC.
        let daily = timer("30 2 * * *", "Europe/Berlin", 0);
        assert_eq!(ticks(&daily, "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        let half_hourly = timer("*/30 * * * *", "Europe/Berlin", 0);
        let seen = ticks(&half_hourly, "2026-10-25T00:00:00Z", 3);
        assert_eq!(seen, ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"]);
    }

    #[test]
    fn the_jitter_differs_from_tick_to_tick_and_never_reaches_the_next() {
        let timer = timer("* * * * *", "UTC", 3_600);
        let mut tick = at("2026-01-01T00:00:00Z");
        let mut delays = std::collections::BTreeSet::new();
        for _ in 0..200 {
            tick = timer.next_after(tick);
            let fires_at = timer.fires_at(tick);
            assert!(fires_at >= tick && fires_at < timer.next_after(tick));
            assert_eq!(fires_at, timer.fires_at(tick));
            delays.insert(fires_at.0 - tick.0);
        }
        assert!(delays.len() > 190 && delays.iter().max().unwrap() > &50_000_000, "{delays:?}");
    }

    #[test]
    fn what_cannot_be_read_says_which_part() {
        let bad = |cron: &str, zone: &str| {
            let spec = Spec { cron: cron.into(), zone: zone.into(), ..spec() };
            Timer::new(&ScheduleName::new("x").unwrap(), &spec).unwrap_err()
        };
        assert_eq!(bad("61 * * * *", "UTC").field, "cron");
        assert_eq!(bad("* * *", "UTC").field, "cron");
        assert_eq!(bad("* * * * *", "Mars/Olympus").field, "zone");
    }

    fn spec() -> Spec {
        Spec {
            cron: String::new(),
            zone: String::new(),
            jitter: Duration::ZERO,
            overlap: Overlap::Skip,
            missed: Missed::One,
            target: Target::Jobs(Vec::new()),
        }
    }
}

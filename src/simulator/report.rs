//! What a simulated provider saw: for people, as JSON, and for a demo that computes how well the quota was used.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Slots of one window in a [`Series`].
pub const SLOTS_PER_WINDOW: usize = 100;
/// Slots kept: a thousand windows; the oldest are forgotten.
pub const SLOTS_MAX: usize = 1_000 * SLOTS_PER_WINDOW;
/// Windows shown in the JSON.
const WINDOWS_SHOWN_MAX: usize = 100;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub uptime_us: u64,
    /// Requests whose head was read, control requests not counted.
    pub arrivals: u64,
    /// Those that a limit refused.
    pub refused: u64,
    /// Most requests that were unanswered at one time.
    pub max_in_flight: u32,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    pub records: RecordReport,
    pub faults: FaultReport,
    pub limits: Vec<LimitReport>,
    /// Of the token endpoint, if there is one.
    #[serde(default)]
    pub tokens: super::tokens::TokenReport,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordReport {
    /// Records that took effect, repeats included.
    pub taken: u64,
    /// Of a set: records that were so already.
    #[serde(default)]
    pub unchanged: u64,
    /// Records that failed inside an answered call.
    pub failed: u64,
    /// Different ids among those that took effect.
    pub distinct: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    pub errors: u64,
    pub silences: u64,
    pub resets: u64,
    pub slow: u64,
    pub poisoned: u64,
    /// Requests whose body never came whole.
    pub cut: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitReport {
    pub name: String,
    pub rule: String,
    /// The number it promises.
    pub max: u32,
    pub window_us: Option<u64>,
    /// Arrivals it counted, refused ones included.
    pub arrivals: u64,
    pub refused: u64,
    /// The largest count, in units of cost, in any interval of the window's length, refused ones included; the largest over
    /// accounts.
    pub max_in_any_window: Option<u32>,
    /// When that count was reached, steady microseconds.
    pub max_at_us: i64,
    /// More arrived in one window than could be held.
    pub is_lower_bound: bool,
    pub max_in_flight: u32,
    /// Accounts counted apart at present.
    pub accounts: usize,
    /// Units in consecutive windows from the first arrival on, the newest hundred.
    pub per_window: Vec<u64>,
    /// Share of `max` used over the whole windows after the first; `None` before two are complete.
    pub utilisation: Option<f64>,
    /// The same in hundredths of a window, for callers that know when there was work.
    #[serde(skip)]
    pub series: Series,
}

impl LimitReport {
    pub fn exceeded(&self) -> bool {
        self.max_in_any_window.is_some_and(|seen| seen > self.max)
    }
}

impl Report {
    pub fn limit(&self, name: &str) -> Option<&LimitReport> {
        self.limits.iter().find(|l| l.name == name)
    }
}

/// Arrivals over time, in slots of a hundredth of a window, from the first arrival on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    slot_us: i64,
    first_at: Option<Timestamp>,
    last_at: Timestamp,
    /// Slots that were forgotten at the front.
    forgotten: u64,
    slots: VecDeque<u32>,
}

impl Series {
    pub fn new(window: Duration) -> Self {
        let window_us = i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
        Series { slot_us: (window_us / SLOTS_PER_WINDOW as i64).max(1), ..Series::default() }
    }

    pub fn arrived(&mut self, at: Timestamp) {
        let first = *self.first_at.get_or_insert(at);
        self.last_at = self.last_at.max(at);
        let slot = u64::try_from((at.0 - first.0) / self.slot_us).unwrap_or(0);
        // A long silence must not cost a loop over millions of empty slots.
        if slot > self.forgotten + self.slots.len() as u64 + SLOTS_MAX as u64 {
            self.forgotten = slot - SLOTS_MAX as u64 + 1;
            self.slots = VecDeque::from(vec![0; SLOTS_MAX]);
        }
        while self.forgotten + self.slots.len() as u64 <= slot {
            if self.slots.len() == SLOTS_MAX {
                self.slots.pop_front();
                self.forgotten += 1;
            }
            self.slots.push_back(0);
        }
        if let Some(count) = slot.checked_sub(self.forgotten).and_then(|i| self.slots.get_mut(i as usize)) {
            *count += 1;
        }
    }

    pub fn first_at(&self) -> Option<Timestamp> {
        self.first_at
    }

    /// Arrivals in the slots that begin within `[from, to)`.
    pub fn between(&self, from: Timestamp, to: Timestamp) -> u64 {
        let Some(first) = self.first_at else { return 0 };
        let begin = |i: usize| first.0 + (self.forgotten as i64 + i as i64) * self.slot_us;
        let inside = |&(i, _): &(usize, &u32)| begin(i) >= from.0 && begin(i) < to.0;
        self.slots.iter().enumerate().filter(inside).map(|(_, &n)| u64::from(n)).sum()
    }

    /// Consecutive windows from the first arrival on, the newest hundred; the last one may still be going on.
    pub fn per_window(&self) -> Vec<u64> {
        let skip = (SLOTS_PER_WINDOW - self.forgotten as usize % SLOTS_PER_WINDOW) % SLOTS_PER_WINDOW;
        let slots: Vec<u64> = self.slots.iter().skip(skip).map(|&n| u64::from(n)).collect();
        let windows: Vec<u64> = slots.chunks(SLOTS_PER_WINDOW).map(|w| w.iter().sum()).collect();
        windows[windows.len().saturating_sub(WINDOWS_SHOWN_MAX)..].to_vec()
    }

    /// Share of `max` used in whole windows after the first.
    pub fn utilisation(&self, max: u32) -> Option<f64> {
        let whole = self.per_window();
        // The last window is complete only when a later arrival was seen, that is, never for sure: leave it out.
        let whole = whole.get(1..whole.len().saturating_sub(1)).filter(|w| !w.is_empty())?;
        Some(whole.iter().sum::<u64>() as f64 / (whole.len() as f64 * f64::from(max)))
    }
}

impl fmt::Display for Report {
    /// A few lines for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.uptime_us as f64 / 1e6;
        writeln!(
            f,
            "{} arrivals in {seconds:.1} s, {} refused, at most {} in flight, {} records taken ({} different), {} failed",
            self.arrivals,
            self.refused,
            self.max_in_flight,
            self.records.taken,
            self.records.distinct,
            self.records.failed
        )?;
        if self.records.unchanged > 0 {
            writeln!(f, "  {} records were so already, and nothing changed", self.records.unchanged)?;
        }
        for limit in &self.limits {
            write!(f, "  {:<16} {:<22}", limit.name, limit.rule)?;
            match limit.max_in_any_window {
                Some(seen) => write!(f, " most in any window {seen} of {}", limit.max)?,
                None => write!(f, " most in flight {}", limit.max_in_flight)?,
            }
            write!(f, ", {} arrivals, {} refused", limit.arrivals, limit.refused)?;
            if let Some(share) = limit.utilisation {
                write!(f, ", {:.1} % used", share * 100.0)?;
            }
            writeln!(f, "{}", if limit.exceeded() { "  EXCEEDED" } else { "" })?;
        }
        let statuses: Vec<String> = self.statuses.iter().map(|(s, n)| format!("{s}: {n}")).collect();
        writeln!(f, "  answers {}", if statuses.is_empty() { "none".to_owned() } else { statuses.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(5_000 + ms)
    }

    #[test]
    fn windows_are_counted_from_the_first_arrival() {
        let mut series = Series::new(Duration::from_secs(1));
        for ms in [0, 10, 999, 1_000, 1_500, 2_100, 3_050] {
            series.arrived(at(ms));
        }
        assert_eq!(series.per_window(), [3, 2, 1, 1]);
        assert_eq!(series.between(at(1_000), at(2_000)), 2);
        assert_eq!(series.utilisation(2), Some(0.75));
    }

    #[test]
    fn a_long_silence_costs_no_memory() {
        let mut series = Series::new(Duration::from_secs(1));
        series.arrived(at(0));
        series.arrived(at(86_400_000 * 30));
        series.arrived(at(86_400_000 * 30 + 1));
        assert!(series.slots.len() <= SLOTS_MAX);
        assert_eq!(series.per_window().iter().sum::<u64>(), 2);
    }
}

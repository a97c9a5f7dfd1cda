//! Judges a demo by what the provider saw: delivered, lost, refused, the largest count in any window, quota used, waits.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use super::stage::{Acked, BATCH_MAX, Load, SINGLE_MAX, Seen};
use crate::clock::Timestamp;

#[derive(Debug, Serialize)]
pub struct Tally {
    /// Updates that the daemon acknowledged.
    pub updates_accepted: u64,
    /// Updates whose record, in this state or a newer one, the provider took.
    pub records_delivered: u64,
    /// Of those, updates that left as part of a newer change of the same record.
    pub coalesced: u64,
    /// Acknowledged updates that never reached the provider. While saturated, what still waits is not lost.
    pub lost: u64,
    pub still_waiting: u64,
    /// Answers 429.
    pub refused: u64,
    pub limits: Vec<LimitTally>,
    pub batch_calls_used: u64,
    pub single_calls_used: u64,
    pub wait_seconds: Waits,
}

#[derive(Debug, Serialize)]
pub struct LimitTally {
    pub name: String,
    pub max: u32,
    pub window_seconds: f64,
    /// Counted by the provider over every interval of the window's length.
    pub max_in_any_window: u32,
    /// Share of the limit used in the time in which there was work. Saturated: over the windows after the first.
    pub utilisation: f64,
}

#[derive(Debug, Default, Serialize)]
pub struct Waits {
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Tally {
    /// Nothing lost, nothing refused, never above a limit.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.refused == 0 && self.limits.iter().all(|l| l.max_in_any_window <= l.max)
    }
}

pub fn judge(load: &Load, acked: &[Acked], seen: Seen) -> Tally {
    let departed = departures(&seen);
    let mut waits = Vec::with_capacity(acked.len());
    let (mut coalesced, mut undelivered) = (0, 0);
    for update in acked {
        match departed.get(&update.user).and_then(|all| all.iter().find(|d| d.version >= update.version)) {
            Some(d) => {
                coalesced += u64::from(d.version > update.version);
                waits.push(d.at.since(update.at).as_secs_f64());
            }
            None => undelivered += 1,
        }
    }
    let saturated = load.windows_saturated > 0;
    let calls = |name: &str| seen.report.limit(name).map_or(0, |l| l.arrivals);
    Tally {
        updates_accepted: acked.len() as u64,
        records_delivered: waits.len() as u64,
        coalesced,
        lost: if saturated { 0 } else { undelivered },
        still_waiting: if saturated { undelivered } else { 0 },
        refused: seen.report.refused,
        limits: [("batch", BATCH_MAX), ("single", SINGLE_MAX)].map(|(n, max)| limit(load, acked, &seen, n, max)).into(),
        batch_calls_used: calls("batch"),
        single_calls_used: calls("single"),
        wait_seconds: spread(waits),
    }
}

struct Departure {
    version: i64,
    at: Timestamp,
}

/// What the provider took of each user, oldest first.
fn departures(seen: &Seen) -> HashMap<u32, Vec<Departure>> {
    let mut all: HashMap<u32, Vec<Departure>> = HashMap::new();
    for arrival in &seen.arrivals {
        for (position, id) in arrival.records.iter().enumerate() {
            let user = id.strip_prefix("user-").and_then(|n| n.parse().ok());
            let version = arrival.versions.get(position).copied().flatten();
            if let (true, Some(user), Some(version)) = (arrival.took(position), user, version) {
                all.entry(user).or_default().push(Departure { version, at: Timestamp(arrival.at_us) });
            }
        }
    }
    all
}

fn limit(load: &Load, acked: &[Acked], seen: &Seen, name: &str, max: u32) -> LimitTally {
    let report = seen.report.limit(name);
    let window = load.window;
    let from = acked.first().map_or(Timestamp::ZERO, |a| a.at);
    let count = |from, to| report.map_or(0, |l| l.series.between(from, to)) as f64;
    let utilisation = match load.windows_saturated {
        // The time with work: from the first update to the last arrival; a window's share of it may be used.
        0 => {
            let last = seen.arrivals.last().map_or(from, |a| Timestamp(a.at_us));
            let windows = (last.since(from).as_secs_f64() / window.as_secs_f64()).max(1.0);
            count(Timestamp::ZERO, Timestamp::NEVER) / (f64::from(max) * windows)
        }
        windows => {
            let first = report.and_then(|l| l.series.first_at()).unwrap_or(from);
            count(first + window, first + window * windows) / (f64::from(max) * f64::from(windows - 1))
        }
    };
    LimitTally {
        name: name.to_owned(),
        max,
        window_seconds: window.as_secs_f64(),
        max_in_any_window: report.and_then(|l| l.max_in_any_window).unwrap_or(0),
        utilisation,
    }
}

fn spread(mut waits: Vec<f64>) -> Waits {
    waits.sort_by(f64::total_cmp);
    let Some(&max) = waits.last() else { return Waits::default() };
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    Waits { mean: waits.iter().sum::<f64>() / waits.len() as f64, p50: at(0.5), p99: at(0.99), max }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "updates accepted    {:>9}", self.updates_accepted)?;
        writeln!(
            f,
            "records delivered   {:>9}   ({} as part of a newer change)",
            self.records_delivered, self.coalesced
        )?;
        writeln!(f, "lost                {:>9}", self.lost)?;
        if self.still_waiting > 0 {
            writeln!(f, "still waiting       {:>9}   (the backlog is meant not to end)", self.still_waiting)?;
        }
        writeln!(f, "refused (429)       {:>9}", self.refused)?;
        writeln!(f, "calls used          {:>9} batch, {} single", self.batch_calls_used, self.single_calls_used)?;
        for l in &self.limits {
            writeln!(
                f,
                "limit {:<8} {:>6} per {} s: at most {} in any window, {:.1} % used",
                l.name,
                l.max,
                l.window_seconds,
                l.max_in_any_window,
                l.utilisation * 100.0
            )?;
        }
        let w = &self.wait_seconds;
        writeln!(
            f,
            "wait                mean {:.1} s, p50 {:.1} s, p99 {:.1} s, max {:.1} s",
            w.mean, w.p50, w.p99, w.max
        )?;
        writeln!(f, "{}", if self.is_clean() { "clean: 0 lost, 0 refused, never above a limit" } else { "NOT CLEAN" })
    }
}

//! One checker for every history: which promises of docs/guarantees.md did not hold?
//!
//! Judges by what clients and provider saw; the daemon's own records are only ever used against it. Sets are named as
//! in Jepsen's: lost, unexpected, duplicated, recovered. The checker is itself tested against the hand-made histories
//! in `tests/history/`, each of which breaks one promise.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::simulator::Arrival;
use tidegate::simulator::watch::max_in_any_window;

use super::history::{Declared, Entry, History, JobRow};

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// P1: acknowledged, but the daemon no longer knows it.
    Lost,
    /// P1: recorded as delivered, but the provider never took it or anything newer.
    Phantom,
    /// The provider got something that nobody enqueued.
    Unexpected,
    /// P2: the daemon's counters and its jobs disagree.
    NotConserved,
    /// P3: sent after its delivery was recorded.
    SentAfterSuccess,
    /// P3: sent after its cancellation was acknowledged.
    SentAfterCancel,
    /// P4: sent more often than its attempts allow.
    TooManySends,
    /// P5: more arrivals in some window than the limit.
    WindowExceeded,
    /// P6: the provider took it twice without an excuse.
    Duplicated,
    /// P6: sent again after an answer was lost, where that is not declared safe.
    UnknownRepeated,
    /// P7: an older change of a record arrived after a newer one.
    OrderBroken,
    /// P8: not final at the end.
    Stuck,
}

/// What a history says.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Every broken promise, with one sentence.
    pub violations: Vec<(Kind, String)>,
    /// Acknowledged changes.
    pub acked: usize,
    /// Changes that the provider took.
    pub taken: usize,
    /// Not acknowledged, yet there: allowed.
    pub recovered: usize,
    /// Taken more than once, where that is declared safe and an answer was lost.
    pub duplicated_declared: usize,
    /// Arrivals that the provider refused for a limit.
    pub refused: usize,
    pub kills: usize,
    /// Largest count in any window: limit, account, seen, promised.
    pub windows: Vec<(String, String, u32, u32)>,
}

impl Findings {
    pub fn kinds(&self) -> BTreeSet<Kind> {
        self.violations.iter().map(|(kind, _)| *kind).collect()
    }

    /// Fails the test unless every promise held, naming the first few that did not.
    pub fn assert_clean(&self) {
        assert!(self.violations.is_empty(), "{self}");
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged, {} taken, {} recovered, {} duplicated (declared), {} refused, {} kills",
            self.acked, self.taken, self.recovered, self.duplicated_declared, self.refused, self.kills
        )?;
        for (limit, account, seen, max) in &self.windows {
            let of = if account.is_empty() { String::new() } else { format!(" of {account}") };
            write!(f, "; {limit}{of}: at most {seen} of {max} in any window")?;
        }
        let mut by_kind: BTreeMap<Kind, Vec<&str>> = BTreeMap::new();
        self.violations.iter().for_each(|(kind, text)| by_kind.entry(*kind).or_default().push(text));
        for (kind, texts) in by_kind {
            write!(f, "\n  {kind:?}: {}", texts.len())?;
            texts.iter().take(5).try_for_each(|text| write!(f, "\n    {text}"))?;
        }
        Ok(())
    }
}

/// One change of one record: what identifies a job in all three views.
type Change<'h> = (&'h str, i64);

/// The history, sorted out.
#[derive(Default)]
struct Views<'h> {
    declared: Declared,
    tried: HashSet<Change<'h>>,
    acked: Vec<(Change<'h>, &'h str)>,
    cancelled: HashMap<&'h str, i64>,
    kills: Vec<i64>,
    cuts: Vec<i64>,
    dark: Vec<(i64, i64)>,
    jobs: HashMap<&'h str, &'h JobRow>,
    counted: Option<u64>,
    /// In the order of arrival.
    arrivals: Vec<&'h Arrival>,
    /// Arrivals per change, in order: the request, and whether the provider took the record.
    sends: HashMap<Change<'h>, Vec<(&'h Arrival, bool)>>,
    /// Versions that the provider took, per record.
    taken: HashMap<&'h str, BTreeSet<i64>>,
}

pub fn check(history: &History) -> Findings {
    let views = Views::of(history);
    let mut findings = Findings {
        acked: views.acked.len(),
        taken: views.sends.values().filter(|sends| sends.iter().any(|(_, took)| *took)).count(),
        refused: views.arrivals.iter().filter(|a| a.status == 429).count(),
        kills: views.kills.len(),
        ..Findings::default()
    };
    views.check_acks(&mut findings);
    views.check_sends(&mut findings);
    views.check_order(&mut findings);
    views.check_windows(&mut findings);
    views.check_jobs(&mut findings);
    findings.violations.sort();
    findings
}

impl<'h> Views<'h> {
    fn of(history: &'h History) -> Self {
        let mut views = Views::default();
        views.dark.extend(history.entries.iter().filter_map(|entry| match entry {
            Entry::Dark { from_us, until_us } => Some((*from_us, *until_us)),
            _ => None,
        }));
        for entry in &history.entries {
            match entry {
                Entry::Declared(declared) => views.declared = declared.clone(),
                Entry::Tried { record, version } => {
                    views.tried.insert((record, *version));
                }
                Entry::Acked { at_us, .. } | Entry::Cancelled { at_us, .. } if views.is_dark(*at_us) => {}
                Entry::Acked { job, record, version, .. } => views.acked.push(((record, *version), job)),
                Entry::Cancelled { at_us, job } => {
                    views.cancelled.insert(job, *at_us);
                }
                Entry::Killed { at_us } => views.kills.push(*at_us),
                Entry::Dark { .. } => {}
                Entry::Cut { at_us } => views.cuts.push(*at_us),
                Entry::Job(row) => {
                    views.jobs.insert(&row.job, row);
                }
                Entry::Counted { jobs } => views.counted = Some(*jobs),
                Entry::Arrived(arrival) => views.arrivals.push(arrival),
            }
        }
        views.arrivals.sort_by_key(|a| (a.at_us, a.number));
        for &arrival in &views.arrivals {
            for (i, record) in arrival.records.iter().enumerate() {
                let version = arrival.versions.get(i).copied().flatten().unwrap_or(0);
                let took = arrival.took(i);
                views.sends.entry((record, version)).or_default().push((arrival, took));
                if took {
                    views.taken.entry(record).or_default().insert(version);
                }
            }
        }
        views
    }

    /// A machine without power answers nobody and sends nothing; ours goes on for some milliseconds, on a file system that
    /// is being shut down and may call a flush under way a success though its data are lost (`tests/power_cut.py probe`
    /// shows it without us). What was answered or sent then is no promise and breaks none.
    fn is_dark(&self, at_us: i64) -> bool {
        self.dark.iter().any(|(from, until)| (*from..=*until).contains(&at_us))
    }

    /// P1: what was acknowledged is there, and what is called delivered was delivered.
    fn check_acks(&self, findings: &mut Findings) {
        let mut by_record: BTreeMap<&str, BTreeMap<i64, &str>> = BTreeMap::new();
        for &((record, version), job) in &self.acked {
            by_record.entry(record).or_default().insert(version, job);
        }
        for &((record, version), job) in &self.acked {
            let name = || format!("job {job} ({record} v{version})");
            let Some(row) = self.jobs.get(job) else {
                findings.violations.push((Kind::Lost, format!("{} was acknowledged and is gone", name())));
                continue;
            };
            // A newer change of the same job may stand for it, but not one that became a job of its own. Such a job may
            // come between: one that was cancelled, after which changes went into this one again.
            let next = by_record[record].range(version + 1..).find(|(_, other)| **other != job);
            let coalesces = self.declared.coalesces(record);
            let end = match coalesces {
                true => next.map_or(i64::MAX, |(&v, _)| v),
                false => version + 1,
            };
            let of_this = |v: &i64| coalesces && by_record[record].get(v) == Some(&job);
            let stands = |v: &i64| *v < end || of_this(v);
            let taken = self.taken.get(record).is_some_and(|taken| taken.range(version..).any(stands));
            if row.state == "delivered" && !taken {
                findings.violations.push((Kind::Phantom, format!("{} is delivered, but was never taken", name())));
            }
        }
        let acked: HashSet<Change<'_>> = self.acked.iter().map(|(change, _)| *change).collect();
        for (change, sends) in &self.sends {
            if !acked.contains(change) && self.tried.contains(change) {
                findings.recovered += usize::from(sends.iter().any(|(_, took)| *took));
            } else if !acked.contains(change) {
                let text = format!("{} v{} arrived, but nobody enqueued it", change.0, change.1);
                findings.violations.push((Kind::Unexpected, text));
            }
        }
    }

    /// P3, P4 and P6: per change, one send after the other.
    fn check_sends(&self, findings: &mut Findings) {
        let jobs: HashMap<Change<'_>, &str> = self.acked.iter().copied().collect();
        for (change, sends) in &self.sends {
            let name = || format!("{} v{}", change.0, change.1);
            for pair in sends.windows(2) {
                let ((first, took), (second, took_again)) = (pair[0], pair[1]);
                if self.is_dark(first.at_us) {
                    continue;
                }
                let answer_lost = self.answer_was_lost(first, second);
                // A request that was cut short reached the provider too: without leave to repeat, it must stay alone.
                let in_doubt = answer_lost && (took || first.status == 0);
                if in_doubt && !self.declared.repeat_safe(change.0) {
                    let text = format!("{} was sent again at {} after an answer was lost", name(), second.at_us);
                    findings.violations.push((Kind::UnknownRepeated, text));
                } else if took && took_again && answer_lost {
                    findings.duplicated_declared += 1;
                } else if took && !answer_lost {
                    let text = format!("{} was taken at {} and sent again at {}", name(), first.at_us, second.at_us);
                    findings.violations.push((Kind::Duplicated, text));
                }
            }
            // "Not now" does not count; neither does what a crash cut off before the body was whole.
            let counted = sends.iter().filter(|(a, _)| a.status != 429).count();
            let max = self.declared.attempts_max as usize;
            if max > 0 && counted > max {
                findings.violations.push((Kind::TooManySends, format!("{} was sent {counted} times of {max}", name())));
            }
            if let Some(job) = jobs.get(change) {
                self.check_final_is_final(job, &name(), sends, findings);
            }
        }
    }

    /// The only excuses for sending again what the provider took: it withheld the answer, the daemon was killed or its
    /// connections were cut in between, or the call had been given up (a busy machine can be that slow).
    fn answer_was_lost(&self, first: &Arrival, second: &Arrival) -> bool {
        let skew = self.declared.skew_us;
        let between = |&k: &i64| first.at_us - skew <= k && k <= second.at_us + skew;
        let gave_up = self.declared.give_up_us > 0 && second.at_us - first.at_us + skew >= self.declared.give_up_us;
        first.withheld.is_some() || gave_up || self.kills.iter().chain(&self.cuts).any(between)
    }

    fn check_final_is_final(&self, job: &str, name: &str, sends: &[(&Arrival, bool)], findings: &mut Findings) {
        let skew = self.declared.skew_us;
        let last = sends.last().map_or(i64::MIN, |(a, _)| a.at_us);
        let finished = self.jobs.get(job).filter(|row| row.state == "delivered").and_then(|row| row.finished_at_us);
        if let Some(at) = finished.filter(|at| last > at + skew) {
            let text = format!("{name} was recorded as delivered at {at} and sent at {last}");
            findings.violations.push((Kind::SentAfterSuccess, text));
        }
        if let Some(at) = self.cancelled.get(job).filter(|at| last > *at + skew) {
            let text = format!("{name} was called off at {at} and sent at {last}");
            findings.violations.push((Kind::SentAfterCancel, text));
        }
    }

    /// P7: at the provider the versions of a record never go back.
    fn check_order(&self, findings: &mut Findings) {
        let mut newest: HashMap<&str, (i64, i64)> = HashMap::new();
        for arrival in self.arrivals.iter().filter(|a| !self.is_dark(a.at_us)) {
            for (i, record) in arrival.records.iter().enumerate() {
                let Some(version) = arrival.versions.get(i).copied().flatten() else { continue };
                let (seen, at) = newest.entry(record).or_insert((version, arrival.at_us));
                if version < *seen {
                    let text = format!("{record} v{version} arrived at {} after v{seen} at {at}", arrival.at_us);
                    findings.violations.push((Kind::OrderBroken, text));
                } else {
                    (*seen, *at) = (version, arrival.at_us);
                }
            }
        }
    }

    /// P5: judged by arrivals alone, refused ones included.
    fn check_windows(&self, findings: &mut Findings) {
        for limit in &self.declared.limits {
            let mut stamps: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
            for arrival in self.arrivals.iter().filter(|a| a.limits.contains(&limit.name) && !self.is_dark(a.at_us)) {
                stamps.entry(&arrival.account).or_default().push(Timestamp(arrival.at_us));
            }
            for (account, stamps) in stamps {
                let (seen, at) = max_in_any_window(&stamps, Duration::from_micros(limit.window_us));
                findings.windows.push((limit.name.clone(), account.to_owned(), seen, limit.max));
                if seen > limit.max {
                    let text = format!("{}: {seen} of {} in the window that ended at {}", limit.name, limit.max, at.0);
                    findings.violations.push((Kind::WindowExceeded, text));
                }
            }
        }
    }

    /// P2, P4 and P8 by the daemon's own records.
    fn check_jobs(&self, findings: &mut Findings) {
        let max = self.declared.attempts_max;
        for row in self.jobs.values() {
            if max > 0 && row.attempts > max {
                let text = format!("job {} has {} attempts of {max}", row.job, row.attempts);
                findings.violations.push((Kind::TooManySends, text));
            }
            if self.declared.drained && matches!(row.state.as_str(), "waiting" | "calling") {
                findings.violations.push((Kind::Stuck, format!("job {} is still {}", row.job, row.state)));
            }
        }
        if let Some(counted) = self.counted.filter(|&n| n != self.jobs.len() as u64) {
            let text = format!("the daemon counts {counted} jobs and has {}", self.jobs.len());
            findings.violations.push((Kind::NotConserved, text));
        }
    }
}

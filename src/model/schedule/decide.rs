//! What a schedule does at a moment: which ticks are due, which of them start something, which wait, which are gone.
//!
//! A tick is on time when it is the newest that is due and at most a minute old; others were missed. Must never know: how
//! a start is carried out. Next: `engine/scheduler`.

use std::time::Duration;

use super::{Missed, Overlap, QUEUED_MAX, Schedule, Timer};
use crate::clock::Timestamp;

/// How old a tick may be and still count as on time.
const ON_TIME: Duration = Duration::from_secs(60);

/// What is to be done, and how the schedule stands afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Ticks that start something, oldest first.
    pub starts: Vec<Timestamp>,
    /// The last run is to be called off.
    pub cancels: bool,
    pub queued: Vec<Timestamp>,
    pub next_at: Timestamp,
    /// The newest tick that was looked at.
    pub last_tick_at: Option<Timestamp>,
    /// A sentence.
    pub outcome: String,
}

/// `busy`: the last run has jobs to do. `None`: nothing is to be done now.
pub fn decide(timer: &Timer, schedule: &Schedule, busy: bool, now: Timestamp) -> Option<Decision> {
    if schedule.paused {
        return None;
    }
    let due = due(timer, schedule.next_at, now, schedule.spec.missed);
    let free = !schedule.queued.is_empty() && !busy;
    if due.newest.is_none() && !free {
        return None;
    }
    let mut waiting: Vec<Timestamp> = schedule.queued.iter().copied().chain(due.ticks).collect();
    let newest = waiting.last().copied();
    let mut dropped = 0;
    let (starts, cancels) = match schedule.spec.overlap {
        Overlap::Allow => (std::mem::take(&mut waiting), false),
        Overlap::Queue => {
            let first = if busy || waiting.is_empty() { Vec::new() } else { vec![waiting.remove(0)] };
            dropped = waiting.len().saturating_sub(QUEUED_MAX);
            waiting.drain(..dropped);
            (first, false)
        }
        Overlap::Skip if busy => {
            dropped = waiting.len();
            waiting.clear();
            (Vec::new(), false)
        }
        Overlap::Skip | Overlap::CancelOther => {
            dropped = waiting.len().saturating_sub(1);
            waiting.clear();
            (newest.into_iter().collect(), busy && newest.is_some())
        }
    };
    let outcome = outcome(&starts, dropped, waiting.len(), due.gone, cancels);
    let next_at = due.next_at;
    Some(Decision { starts, cancels, queued: waiting, next_at, last_tick_at: due.newest, outcome })
}

struct Due {
    /// Those that may start something, oldest first.
    ticks: Vec<Timestamp>,
    newest: Option<Timestamp>,
    /// Some were missed and are not made up for.
    gone: bool,
    next_at: Timestamp,
}

/// Looks back from now and not forward from the last tick: a line that ticks each second must not be walked through for
/// a month after a month of rest.
fn due(timer: &Timer, next_at: Timestamp, now: Timestamp, missed: Missed) -> Due {
    let most = match missed {
        Missed::Skip | Missed::One => 1,
        Missed::All(max) => max.max(1) as usize,
    };
    let (mut ticks, mut gone, mut after) = (Vec::new(), false, next_at);
    let mut newest = None;
    let mut at = Some(now);
    while let Some(tick) = at.and_then(|at| timer.last_until(at)).filter(|tick| *tick >= next_at) {
        at = Some(Timestamp(tick.0 - 1));
        if timer.fires_at(tick) > now {
            // Its jitter is not over. There is one such tick at most.
            after = tick;
            continue;
        }
        if newest.is_none() {
            newest = Some(tick);
            after = timer.next_after(tick);
        }
        if ticks.len() == most {
            gone = true;
            break;
        }
        ticks.push(tick);
    }
    let late = |tick: &Timestamp| now.since(timer.fires_at(*tick)) > ON_TIME;
    if missed == Missed::Skip && ticks.first().is_some_and(late) {
        (ticks, gone) = (Vec::new(), true);
    }
    ticks.reverse();
    Due { ticks, newest, gone, next_at: after }
}

fn outcome(starts: &[Timestamp], dropped: usize, queued: usize, gone: bool, cancels: bool) -> String {
    let mut said = Vec::new();
    match starts.len() {
        0 => {}
        1 => said.push("started".to_owned()),
        n => said.push(format!("started {n} times")),
    }
    if cancels {
        said.push("the run before was called off".to_owned());
    }
    if queued > 0 {
        said.push(format!("{queued} wait for the run before"));
    }
    if dropped > 0 {
        said.push(format!("{dropped} skipped because of the run before"));
    }
    if gone {
        said.push("ticks were missed".to_owned());
    }
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::ScheduleName;
    use crate::model::schedule::{Spec, Target};

    const MINUTE: i64 = 60_000_000;
    /// A full hour, UTC.
    const HOUR: Timestamp = Timestamp(1_800_000_000_000_000);

    fn minute(n: i64) -> Timestamp {
        Timestamp(HOUR.0 + n * MINUTE)
    }

    /// Ticks every minute; the next one is minute 1.
    fn schedule(overlap: Overlap, missed: Missed) -> Schedule {
        let spec = Spec {
            cron: "* * * * *".into(),
            zone: "UTC".into(),
            jitter: Duration::ZERO,
            overlap,
            missed,
            target: Target::Jobs(Vec::new()),
        };
        Schedule {
            name: ScheduleName::new("x").unwrap(),
            spec,
            from_file: false,
            actor: String::new(),
            revision: 1,
            version: 1,
            paused: false,
            next_at: minute(1),
            queued: Vec::new(),
            last_tick_at: None,
            last_run: None,
            last_outcome: String::new(),
            created_at: HOUR,
            updated_at: HOUR,
        }
    }

    fn at(schedule: &Schedule, busy: bool, now: Timestamp) -> Option<Decision> {
        decide(&Timer::new(&schedule.name, &schedule.spec).unwrap(), schedule, busy, now)
    }

    #[test]
    fn nothing_happens_before_the_tick_and_one_start_at_it() {
        let schedule = schedule(Overlap::Skip, Missed::One);
        assert_eq!(at(&schedule, false, Timestamp(minute(1).0 - 1)), None);
        let decision = at(&schedule, false, minute(1)).unwrap();
        assert_eq!((decision.starts, decision.next_at), (vec![minute(1)], minute(2)));
        assert_eq!(at(&Schedule { paused: true, ..schedule }, false, minute(1)), None);
    }

    #[test]
    fn missed_ticks_are_dropped_or_made_up_for_once_or_each() {
        let starts = |missed, now| at(&schedule(Overlap::Allow, missed), false, now).unwrap();
        // Ten ticks passed; the newest is half a minute old.
        let now = Timestamp(minute(10).0 + MINUTE / 2);
        assert_eq!(starts(Missed::Skip, now).starts, [minute(10)]);
        assert_eq!(starts(Missed::One, now).starts, [minute(10)]);
        assert_eq!(starts(Missed::All(3), now).starts, [minute(8), minute(9), minute(10)]);
        assert_eq!(starts(Missed::All(50), now).starts, (1..=10).map(minute).collect::<Vec<_>>());
        assert_eq!(starts(Missed::All(3), now).next_at, minute(11));
        assert!(starts(Missed::All(3), now).outcome.contains("missed"));
    }

    #[test]
    fn a_late_tick_is_skipped_only_where_that_was_declared() {
        let hourly = |missed| {
            let mut schedule = schedule(Overlap::Allow, missed);
            schedule.spec.cron = "0 * * * *".into();
            schedule.next_at = HOUR;
            at(&schedule, false, minute(2)).unwrap()
        };
        assert_eq!(hourly(Missed::Skip).starts, []);
        assert_eq!((hourly(Missed::One).starts, hourly(Missed::One).next_at), (vec![HOUR], minute(60)));
    }

    #[test]
    fn a_tick_beside_a_run_is_skipped_or_waits_or_starts_or_calls_it_off() {
        let beside = |overlap| at(&schedule(overlap, Missed::One), true, minute(1)).unwrap();
        assert_eq!((beside(Overlap::Skip).starts, beside(Overlap::Skip).next_at), (vec![], minute(2)));
        assert_eq!((beside(Overlap::Allow).starts, beside(Overlap::Allow).cancels), (vec![minute(1)], false));
        let called_off = beside(Overlap::CancelOther);
        assert_eq!((called_off.starts, called_off.cancels), (vec![minute(1)], true));
        let queued = beside(Overlap::Queue);
        assert_eq!((queued.starts, &*queued.queued), (vec![], &[minute(1)][..]));
        // The run ended: the one that waits starts, without a tick.
        let mut later = schedule(Overlap::Queue, Missed::One);
        (later.queued, later.next_at) = (queued.queued, minute(2));
        assert_eq!(at(&later, true, Timestamp(minute(2).0 - 1)), None);
        let freed = at(&later, false, Timestamp(minute(2).0 - 1)).unwrap();
        assert_eq!((freed.starts, freed.queued.len(), freed.next_at), (vec![minute(1)], 0, minute(2)));
    }

    #[test]
    fn a_month_of_seconds_is_not_walked_through() {
        let mut schedule = schedule(Overlap::Queue, Missed::All(1_000));
        schedule.spec.cron = "* * * * * *".into();
        let now = Timestamp(HOUR.0 + 30 * 86_400 * 1_000_000);
        let decision = at(&schedule, true, now).unwrap();
        assert_eq!((decision.queued.len(), decision.queued.last()), (QUEUED_MAX, Some(&now)));
    }
}

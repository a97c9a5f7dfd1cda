//! What a store is asked to do with a schedule, and what it decides alike in every store. Must never know: cron lines,
//! how a store does it. Next: `memory/schedules.rs`, `sqlite/schedules.rs`, `postgres/schedules.rs`.

use crate::clock::Timestamp;
use crate::model::event::What;
use crate::model::id::RunId;
use crate::model::invalidation::Which;
use crate::model::job::NewJob;
use crate::model::name::ScheduleName;
use crate::model::run::NewRun;
use crate::model::schedule::{Schedule, Spec};
use crate::store::{Change, Changed, RecordOp, Refusal, StartPull};

#[derive(Clone, Debug)]
pub enum ScheduleChange {
    /// Puts a declaration in force. `expect`: the revision it must replace (0: none yet). A pause and what was done so far
    /// stay.
    Apply(Apply),
    Delete {
        name: ScheduleName,
        actor: String,
    },
    /// `next_at`: the first tick after a resume; `NEVER` with a pause. Ticks that wait are forgotten with a pause.
    Pause {
        name: ScheduleName,
        paused: bool,
        next_at: Timestamp,
        actor: String,
    },
    Tick(Tick),
}

#[derive(Clone, Debug)]
pub struct Apply {
    pub name: ScheduleName,
    pub spec: Spec,
    pub from_file: bool,
    pub expect: Option<i64>,
    pub next_at: Timestamp,
    pub actor: String,
}

/// What a tick does, all of it or, when the schedule is no longer as `version` has it, none.
#[derive(Clone, Debug)]
pub struct Tick {
    pub name: ScheduleName,
    pub version: i64,
    pub next_at: Timestamp,
    pub queued: Vec<Timestamp>,
    pub last_tick_at: Option<Timestamp>,
    pub outcome: String,
    /// Each becomes a run that is sealed at once. The last one is remembered.
    pub starts: Vec<Start>,
    /// A run to be called off before; one that has ended is left alone.
    pub cancels: Option<RunId>,
    pub invalidates: Option<Which>,
    /// A pull that starts in the same transaction, unless one of its collection runs.
    pub pull: Option<Box<StartPull>>,
    pub actor: String,
}

#[derive(Clone, Debug)]
pub struct Start {
    pub run: NewRun,
    /// Their `run` is filled in by the store.
    pub jobs: Vec<NewJob>,
}

impl ScheduleChange {
    pub fn name(&self) -> &ScheduleName {
        match self {
            ScheduleChange::Apply(apply) => &apply.name,
            ScheduleChange::Delete { name, .. } | ScheduleChange::Pause { name, .. } => name,
            ScheduleChange::Tick(tick) => &tick.name,
        }
    }
}

/// What the ticks and deliveries of a commit would do to records, each with the place of its change.
pub(super) fn wished_records(changes: &[Change]) -> Vec<(usize, RecordOp)> {
    let wish = |(at, change): (usize, &Change)| match change {
        Change::Receive(delivery) => Some((at, delivery.record.clone()?)),
        Change::Schedule(change) => {
            let ScheduleChange::Tick(Tick { pull: Some(pull), .. }) = &**change else { return None };
            Some((at, RecordOp::StartPull(pull.clone())))
        }
        _ => None,
    };
    changes.iter().enumerate().filter_map(wish).collect()
}

/// Those of them whose change counts. They come after all other records of the commit, and nobody waits for their answers.
pub(super) fn counting_records(
    wished: Vec<(usize, RecordOp)>,
    done: &[Result<Changed, Refusal>],
) -> impl Iterator<Item = RecordOp> {
    let counts = |(at, op): (usize, RecordOp)| done.get(at).is_some_and(Result::is_ok).then_some(op);
    wished.into_iter().filter_map(counts)
}

/// A declaration laid over what was there.
pub(super) fn applied(old: Option<Schedule>, apply: &Apply, now: Timestamp) -> Result<Schedule, Refusal> {
    let Apply { name, spec, from_file, expect, next_at, actor } = apply;
    let current = old.as_ref().map_or(0, |s| s.revision);
    if let Some(expected) = expect.filter(|&expected| expected != current) {
        return Err(Refusal::StaleSchedule { name: name.clone(), current, expected });
    }
    let mut new = old.unwrap_or_else(|| Schedule {
        name: name.clone(),
        spec: spec.clone(),
        from_file: *from_file,
        actor: String::new(),
        revision: 0,
        version: 0,
        paused: false,
        next_at: *next_at,
        queued: Vec::new(),
        last_tick_at: None,
        last_run: None,
        last_outcome: String::new(),
        created_at: now,
        updated_at: now,
    });
    new.spec = spec.clone();
    new.from_file = *from_file;
    new.actor = actor.clone();
    new.revision = current + 1;
    new.next_at = if new.paused { Timestamp::NEVER } else { *next_at };
    new.queued.clear();
    Ok(written(new, now))
}

pub(super) fn paused(mut schedule: Schedule, paused: bool, next_at: Timestamp, now: Timestamp) -> Schedule {
    schedule.paused = paused;
    schedule.next_at = next_at;
    if paused {
        schedule.queued.clear();
    }
    written(schedule, now)
}

/// How the schedule stands after the tick; refused when somebody was faster.
pub(super) fn ticked(old: Schedule, tick: &Tick, now: Timestamp) -> Result<Schedule, Refusal> {
    if old.version != tick.version {
        return Err(Refusal::ScheduleMoved(old.name));
    }
    let new = Schedule {
        next_at: tick.next_at,
        queued: tick.queued.clone(),
        last_tick_at: tick.last_tick_at.or(old.last_tick_at),
        last_outcome: tick.outcome.clone(),
        ..old
    };
    Ok(written(new, now))
}

fn written(schedule: Schedule, now: Timestamp) -> Schedule {
    Schedule { version: schedule.version + 1, updated_at: now, ..schedule }
}

pub(super) fn note(name: &ScheduleName, kind: &str, detail: impl Into<String>, actor: &str) -> What {
    What::Schedule { schedule: name.to_string(), kind: kind.to_owned(), detail: detail.into(), actor: actor.to_owned() }
}

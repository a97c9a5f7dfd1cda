//! A schedule: a cron line in a time zone that starts a run, a pull or an invalidation.
//!
//! Here are its words; `schedule/timer.rs` finds ticks, `schedule/decide.rs` says what a tick does. Pure, so that days of
//! ticks can be tested in a moment. Must never know: stores, clocks. Next: `engine/scheduler`, which carries it out.

use std::time::Duration;

use super::flow::Class;
use super::id::RunId;
use super::invalidation::Which;
use super::job::{Labels, Payload};
use super::name::{Account, CollectionName, Key, OperationName, ProviderName, ScheduleName, Tenant};
use crate::clock::Timestamp;

mod decide;
mod timer;

pub use decide::{Decision, decide};
pub use timer::{BadTimer, Timer};

/// Schedules of one store.
pub const SCHEDULES_MAX: usize = 10_000;
/// Jobs that one tick starts.
pub const JOBS_MAX: usize = 1_000;
/// Longest random delay of a tick.
pub const JITTER_MAX: Duration = Duration::from_secs(3_600);
/// Missed ticks that are made up for at most.
pub const MISSED_MAX: u32 = 1_000;
/// Ticks that wait for the run before them; the oldest goes when one more comes.
pub const QUEUED_MAX: usize = 100;

/// What was declared.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Spec {
    /// Five fields (minute hour day month weekday), six with seconds first, or `@daily` and its kin.
    pub cron: String,
    /// IANA name of the zone whose clock the line is about.
    pub zone: String,
    /// Each tick is late by a part of this, the same part on every daemon.
    pub jitter: Duration,
    pub overlap: Overlap,
    pub missed: Missed,
    pub target: Target,
}

/// What a tick does while the run of the one before has jobs to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// Nothing.
    #[default]
    Skip,
    /// It waits for the end of that run.
    Queue,
    /// It starts beside it.
    Allow,
    /// It calls that run off and starts.
    CancelOther,
}

/// What becomes of ticks that passed while no daemon ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// They are gone.
    Skip,
    /// One start for all of them.
    #[default]
    One,
    /// One start for each of the newest so many.
    All(u32),
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A run of these jobs.
    Jobs(Vec<JobSpec>),
    /// Cached answers are thrown away.
    Invalidate(Which),
    /// A pull of a collection; one that runs goes on, and is not started again.
    Pull(PullSpec),
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PullSpec {
    pub collection: CollectionName,
    /// Ask for everything, whatever is known from before.
    pub full: bool,
}

/// A job as a schedule starts it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct JobSpec {
    pub provider: ProviderName,
    pub operation: OperationName,
    pub account: Account,
    pub tenant: Tenant,
    pub key: Option<Key>,
    pub class: Class,
    pub payload: Payload,
    pub labels: Labels,
}

/// A schedule as the store holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub name: ScheduleName,
    pub spec: Spec,
    /// Declared in a file: changed and deleted there.
    pub from_file: bool,
    /// Who declared it last.
    pub actor: String,
    /// 1 for the first; grows with every declaration.
    pub revision: i64,
    /// Grows with everything that is written of it: whoever ticks names the one that it has seen.
    pub version: i64,
    pub paused: bool,
    /// The next tick, without its jitter; `NEVER` when there is none or it is paused.
    pub next_at: Timestamp,
    /// Ticks that wait for the run before them, oldest first.
    pub queued: Vec<Timestamp>,
    pub last_tick_at: Option<Timestamp>,
    pub last_run: Option<RunId>,
    /// What the last tick did, a sentence; empty before the first.
    pub last_outcome: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

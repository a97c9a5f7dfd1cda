//! A run: a set of jobs enqueued together, with shared progress, pause and cancel.

use super::flow::FlowCounts;
use super::id::RunId;
use super::job::Labels;
use super::name::Tenant;
use crate::clock::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum RunState {
    /// Jobs may be added and leave.
    Open = 0,
    /// Jobs may be added, none leaves.
    Paused = 1,
    /// No more jobs will be added; ends when the last one is final.
    Sealed = 2,
    /// Being called off; the sweeper cancels its waiting jobs.
    Cancelling = 3,
    /// All jobs are final, nothing more will come.
    Finished = 4,
    /// Called off.
    Cancelled = 5,
    /// Paused after it was sealed.
    SealedPaused = 6,
}

impl RunState {
    pub const ALL: [RunState; 7] = [
        RunState::Open,
        RunState::Paused,
        RunState::Sealed,
        RunState::Cancelling,
        RunState::Finished,
        RunState::Cancelled,
        RunState::SealedPaused,
    ];

    pub fn name(self) -> &'static str {
        match self {
            RunState::Open => "open",
            RunState::Paused => "paused",
            RunState::Sealed => "sealed",
            RunState::Cancelling => "cancelling",
            RunState::Finished => "finished",
            RunState::Cancelled => "cancelled",
            RunState::SealedPaused => "sealed-paused",
        }
    }

    pub fn from_u8(n: u8) -> Option<RunState> {
        RunState::ALL.into_iter().find(|&s| s as u8 == n)
    }

    /// Nothing of the run may leave.
    pub fn holds_jobs(self) -> bool {
        !matches!(self, RunState::Open | RunState::Sealed)
    }

    pub fn takes_jobs(self) -> bool {
        matches!(self, RunState::Open | RunState::Paused)
    }

    pub fn is_final(self) -> bool {
        matches!(self, RunState::Finished | RunState::Cancelled)
    }

    /// What a wish of a user makes of the state; `None` when it is refused.
    pub fn on(self, wish: RunWish) -> Option<RunState> {
        use RunState::*;
        match (self, wish) {
            (Open, RunWish::Pause) => Some(Paused),
            (Sealed, RunWish::Pause) => Some(SealedPaused),
            (Paused | SealedPaused, RunWish::Pause) => Some(self),
            (Paused, RunWish::Resume) => Some(Open),
            (SealedPaused, RunWish::Resume) => Some(Sealed),
            (Open | Sealed, RunWish::Resume) => Some(self),
            (Open, RunWish::Seal) => Some(Sealed),
            (Paused, RunWish::Seal) => Some(SealedPaused),
            (Sealed | SealedPaused, RunWish::Seal) => Some(self),
            (Open | Paused | Sealed | SealedPaused | Cancelling, RunWish::Cancel) => Some(Cancelling),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunWish {
    Pause,
    Resume,
    /// No more jobs will be added.
    Seal,
    Cancel,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NewRun {
    pub display_name: String,
    pub tenant: Tenant,
    pub labels: Labels,
    /// The run that this one undoes. There is one at most: asking again answers with the first.
    pub undo_of: Option<i64>,
}

/// A run with the counts of all its flows, kept in the transactions that changed them.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub id: RunId,
    pub display_name: String,
    pub tenant: Tenant,
    pub labels: Labels,
    pub state: RunState,
    pub counts: FlowCounts,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// Number of the run that this one undoes.
    pub undo_of: Option<i64>,
}

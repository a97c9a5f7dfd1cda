//! A flow: the waiting jobs of one (operation, account, tenant), of one run where the jobs belong to a run, and of one part
//! where the account is spread over several.
//!
//! The gate takes turns over flows; a store counts by flow, so nothing ever counts jobs. A run is a flow of its own so
//! that pausing it takes its jobs out of the way without touching one of them (docs/decisions/0002). A part is a flow of
//! its own so that another daemon can own it (docs/decisions/0028).

use std::fmt;

use super::id::FlowId;
use super::name::{Account, OperationName, ProviderName, Tenant};

/// What makes a flow. Immutable once it exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    pub provider: ProviderName,
    pub operation: OperationName,
    pub account: Account,
    pub tenant: Tenant,
    /// Sequence number of the run; 0 when the jobs belong to none.
    pub run: i64,
    /// Which of the account's parts ([`super::shard`]); 0 when it is not spread.
    pub part: u16,
}

impl FlowKey {
    /// Do the jobs differ in nothing but the part that they fell into? What may coalesce, may do so across parts.
    pub fn is_like(&self, other: &FlowKey) -> bool {
        self.operation == other.operation
            && self.account == other.account
            && self.tenant == other.tenant
            && self.run == other.run
            && self.provider == other.provider
    }
}

/// Priority class. Within a flow a more urgent class goes first; limits may keep a reserve for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Class {
    Urgent = 0,
    #[default]
    Normal = 1,
    Bulk = 2,
}

impl Class {
    /// Most urgent first.
    pub const ALL: [Class; 3] = [Class::Urgent, Class::Normal, Class::Bulk];

    pub fn name(self) -> &'static str {
        match self {
            Class::Urgent => "urgent",
            Class::Normal => "normal",
            Class::Bulk => "bulk",
        }
    }

    pub fn from_name(name: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|c| c.name() == name)
    }

    pub fn from_u8(n: u8) -> Option<Class> {
        Class::ALL.into_iter().find(|&c| c as u8 == n)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a job of a hot flow stands. Which index holds it; the reason for waiting is derived from this and from the
/// gate's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Place {
    /// Due and first of its key: a gate may take it.
    Ready = 0,
    /// Not due yet.
    Later = 1,
    /// Behind an earlier job of its key.
    Behind = 2,
    /// In a call.
    Calling = 3,
    /// Its call's answer was lost; waits for a person.
    Unknown = 4,
}

impl Place {
    pub const ALL: [Place; 5] = [Place::Ready, Place::Later, Place::Behind, Place::Calling, Place::Unknown];

    pub fn from_u8(n: u8) -> Option<Place> {
        Place::ALL.into_iter().find(|&p| p as u8 == n)
    }
}

/// The jobs of a flow by place and end, as of one commit. Absolute numbers, never deltas: a reader that missed one
/// report is right again with the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Ready jobs per class, most urgent first.
    pub ready: [u64; 3],
    pub later: u64,
    pub behind: u64,
    pub calling: u64,
    pub unknown: u64,
    pub delivered: u64,
    pub dead: u64,
    pub cancelled: u64,
}

impl FlowCounts {
    /// Jobs in state `waiting`.
    pub fn waiting(&self) -> u64 {
        self.ready_all() + self.later + self.behind
    }

    /// Sums up, place by place.
    pub fn add(&mut self, other: &FlowCounts) {
        for (mine, theirs) in self.ready.iter_mut().zip(other.ready) {
            *mine += theirs;
        }
        self.later += other.later;
        self.behind += other.behind;
        self.calling += other.calling;
        self.unknown += other.unknown;
        self.delivered += other.delivered;
        self.dead += other.dead;
        self.cancelled += other.cancelled;
    }

    pub fn ready_all(&self) -> u64 {
        self.ready.iter().sum()
    }

    /// All jobs ever accepted into the flow.
    pub fn accepted(&self) -> u64 {
        self.waiting() + self.calling + self.unknown + self.delivered + self.dead + self.cancelled
    }
}

/// A flow as a gate sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub id: FlowId,
    pub key: FlowKey,
    pub counts: FlowCounts,
    /// True while the flow's run is paused or ended: nothing may leave.
    pub held: bool,
    /// Grows with every change where several processes change it, so that old news are told from new ones; else 0.
    pub version: i64,
}

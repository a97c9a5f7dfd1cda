//! A call: one HTTP request on the wire, carrying 1..n jobs. Journaled before the first byte leaves.

use std::fmt;
use std::sync::Arc;

use super::call_log::Seen;
use super::id::CallId;
use super::name::{Account, OperationName, ProviderName};
use crate::clock::Timestamp;

/// A way to carry out an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// One job per call.
    Single = 0,
    /// Many jobs per call.
    Batch = 1,
}

impl Lane {
    pub const ALL: [Lane; 2] = [Lane::Single, Lane::Batch];

    pub fn name(self) -> &'static str {
        match self {
            Lane::Single => "single",
            Lane::Batch => "batch",
        }
    }

    pub fn from_u8(n: u8) -> Option<Lane> {
        Lane::ALL.into_iter().find(|&l| l as u8 == n)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Identity of one counted limit at run time: provider, declared limit, window and the scope's value, as
/// `crm/core:3600s@acct-7`. Written into the journal, so a limiter can be rebuilt from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitKey(pub Arc<str>);

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one call spends: its limits with their cost, and when leave was given. Steady time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Permit {
    pub spends: Arc<[(LimitKey, u32)]>,
    pub granted_at: Timestamp,
    /// The limiter's epoch; a store refuses to journal a permit of an older one.
    pub epoch: i64,
}

/// How a call ended, as far as the wire is concerned. The order of growing doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Ending {
    /// Journaled; no end recorded yet.
    Open = 0,
    /// Certainly no byte of the request reached the provider.
    NotSent = 1,
    /// A status line came back.
    Answered = 2,
    /// Bytes left, no status came back.
    Lost = 3,
    /// The daemon died while the call was open.
    Crashed = 4,
}

impl Ending {
    pub const ALL: [Ending; 5] = [Ending::Open, Ending::NotSent, Ending::Answered, Ending::Lost, Ending::Crashed];

    pub fn name(self) -> &'static str {
        match self {
            Ending::Open => "open",
            Ending::NotSent => "not-sent",
            Ending::Answered => "answered",
            Ending::Lost => "lost",
            Ending::Crashed => "crashed",
        }
    }

    pub fn from_u8(n: u8) -> Option<Ending> {
        Ending::ALL.into_iter().find(|&e| e as u8 == n)
    }
}

/// A row of the call journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub id: CallId,
    pub provider: ProviderName,
    pub operation: OperationName,
    pub lane: Lane,
    pub account: Account,
    pub permit: Permit,
    /// Steady time after which the sweeper may take the call for dead.
    pub lease_until: Timestamp,
    /// Sequence numbers of its jobs.
    pub jobs: Vec<i64>,
    /// Wall time of the journal entry.
    pub begun_at: Timestamp,
    /// Wall time of the end.
    pub ended_at: Option<Timestamp>,
    /// Steady time of the end: the answer anchor of its permits.
    pub settled_at: Option<Timestamp>,
    pub ending: Ending,
    pub status: Option<u16>,
    pub error: Option<Arc<str>>,
    /// `None`: nothing was sent, or whoever saw it is dead or outside.
    pub seen: Option<Seen>,
    /// Permits that a program outside holds until `lease_until`: what it sends counts from then at the latest, unless it
    /// says more. 0: the daemon makes the call itself.
    pub outside: u32,
}

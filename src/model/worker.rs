//! What workers and the daemon say to each other: programs outside that carry out jobs of external operations.
//!
//! Plain data. Must never know: streams, leases' timers. Next: `engine/desk`, where jobs are handed out.

use std::sync::Arc;

use super::id::{Id, JobId};
use super::job::ClaimedJob;
use super::name::{Account, OperationName, ProviderName};
use crate::clock::Timestamp;

/// What a worker can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// For people.
    pub name: String,
    pub serves: Vec<(ProviderName, OperationName)>,
    /// Jobs that it works on at a time.
    pub seats: u32,
}

/// A job in a worker's hands.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Names the lease; whoever has it speaks for the job.
    pub token: Id,
    pub provider: ProviderName,
    pub operation: OperationName,
    pub account: Account,
    pub job: ClaimedJob,
    /// Wall time by which it must be done, however often its worker is heard.
    pub ends_at: Timestamp,
}

/// What a worker is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Job(Box<Work>),
    Ended(Ended),
    /// The job of this lease was called off: it is not tried again, whatever is said of it.
    CalledOff(Id),
}

/// A lease is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub token: Id,
    /// What the worker said is durable. False: it does not count.
    pub recorded: bool,
    pub reason: Arc<str>,
}

/// What a worker says became of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    Done { result: Option<Arc<str>> },
    Failed { reason: Arc<str>, what: Failed },
}

/// What is to happen to a job that could not be done. Wall times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    Retry {
        not_before: Option<Timestamp>,
    },
    Rejected,
    /// The provider said "not now".
    Throttled {
        until: Option<Timestamp>,
    },
}

/// How far a job is, as its worker says.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// 0 to 1.
    pub fraction: f64,
    pub text: Arc<str>,
    /// Wall time.
    pub said_at: Timestamp,
}

/// How far the jobs of a run are that workers have.
#[derive(Clone, Debug, PartialEq)]
pub struct RunProgress {
    /// Jobs of which something was said.
    pub jobs: u64,
    /// Sum of their fractions.
    pub fractions: f64,
    /// What was said last, the latest first, not all of it.
    pub latest: Vec<(JobId, Progress)>,
}

/// A worker as status pages show it.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerView {
    pub name: String,
    pub serves: Vec<(ProviderName, OperationName)>,
    pub seats: u32,
    /// Seats that are taken.
    pub taken: u32,
    /// Wall times.
    pub joined_at: Timestamp,
    pub heard_at: Timestamp,
    /// What it works on, the oldest first, not all of it.
    pub leases: Vec<LeaseView>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LeaseView {
    pub job: JobId,
    pub provider: ProviderName,
    pub operation: OperationName,
    /// Wall time.
    pub ends_at: Timestamp,
    pub progress: Option<Progress>,
}

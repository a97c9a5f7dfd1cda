//! The whole durable contract, as one trait. `memory` is the reference model, `sqlite` the embedded form, `postgres`
//! the form that many daemons share.
//!
//! One method writes: [`Store::commit`] takes everything that arrived since the last commit and makes it durable in
//! ONE transaction; nothing of a batch is visible before all of it is, and an `Ok` means that it survives a power cut.
//! All reads are indexed; none counts rows, and each is bounded by a page size. Times come in with the batch: a store
//! never asks a clock, but leases end by the clock of the store's database where several daemons share it.
//!
//! Must never know: providers' rules, limits, HTTP. It does know the transition table ([`crate::model::state`]) and
//! refuses what the table refuses. Next: `engine/writer`, its only caller for writes.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::model::alert::Raised;
use crate::model::call::{Call, Permit};
use crate::model::event::Event;
use crate::model::filter::Filter;
use crate::model::flow::{Flow, FlowCounts};
use crate::model::id::{CallId, FlowId, JobId, RunId};
use crate::model::job::{ClaimedJob, Job, Labels};
use crate::model::name::{AlertName, CollectionName, Key, OperationName, ProviderName, ScheduleName, WebhookName};
use crate::model::run::Run;
use crate::model::schedule::Schedule;
use crate::model::state::State;

mod batch;
mod change;
mod filter;
mod finishing;
mod info;
pub mod leases;
mod line;
pub mod memory;
mod notices;
mod packed;
mod packer;
pub mod postgres;
mod reads;
mod records;
mod row;
mod rules;
mod schedules;
pub mod sqlite;
pub mod tokens;

pub use batch::{
    Accepted, Again, Batch, Begin, Begun, BegunCall, Committed, Enqueued, FinishCall, Finished, JobOutcome, Next, Take,
};
pub use change::{AlertChange, AppliedProvider, Change, Changed, Decision, Delivery, JobNow};
pub use info::{Notice, StoreInfo, Touched, Whose};
pub use records::{PageEnd, PageWhat, RecordDone, RecordOp, RecordPage, RecordWrite, Records, StartPull, Written};
pub use schedules::{Apply, ScheduleChange, Start, Tick};

/// Calls kept in [`Job::calls`].
pub const CALLS_KEPT: usize = 32;
/// Largest page of any read.
pub const PAGE_MAX: usize = 1_000;
/// Rows that a filtered list looks at before it returns a short page with a token to go on.
pub const LIST_SCAN_MAX: usize = 10_000;

/// A page size within bounds.
fn page(limit: usize) -> usize {
    limit.clamp(1, PAGE_MAX)
}

/// Labels as stored: `None` when there are none.
fn labels_text(labels: &Labels) -> Option<String> {
    (!labels.is_empty()).then(|| serde_json::to_string(labels).expect("texts are JSON"))
}

/// A refusal that the caller's client should see. Anything else is an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no job {0}")]
    NoJob(JobId),
    #[error("no run {0}")]
    NoRun(RunId),
    #[error("no provider {0}")]
    NoProvider(ProviderName),
    #[error("job {id} is {state}, which does not allow this")]
    WrongState { id: JobId, state: State },
    #[error("run {id} is {state}, which does not allow this")]
    WrongRunState { id: RunId, state: &'static str },
    #[error("idempotency key already used for job {first} with other content")]
    KeyReused { first: JobId },
    #[error("provider {name} is at revision {current}, not {expected}")]
    StaleRevision { name: ProviderName, current: i64, expected: i64 },
    #[error("provider {name} still has {jobs} jobs to do")]
    ProviderBusy { name: ProviderName, jobs: u64 },
    #[error("collection {collection} has no record {id}")]
    NoRecord { collection: CollectionName, id: Key },
    #[error("record {id} of {collection} is at version {current}, not {expected}")]
    StaleRecord { collection: CollectionName, id: Key, current: i64, expected: i64 },
    #[error("no schedule {0}")]
    NoSchedule(ScheduleName),
    #[error("schedule {name} is at revision {current}, not {expected}")]
    StaleSchedule { name: ScheduleName, current: i64, expected: i64 },
    /// Somebody else ticked or changed it first.
    #[error("schedule {0} has moved on")]
    ScheduleMoved(ScheduleName),
    /// Somebody else told it first.
    #[error("alert {0} has moved on")]
    AlertMoved(AlertName),
    #[error("webhook {0} has brought this message before")]
    Repeated(WebhookName),
}

/// A failure of the store itself. The batch did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Worth trying again: locked, out of space, connection lost.
    #[error("the store is not available: {reason}")]
    Unavailable { reason: String },
    /// A failed fsync or a corrupt file: going on could lose what was acknowledged. Stop.
    #[error("the store failed and cannot go on: {reason}")]
    Fatal { reason: String },
    #[error("the store cannot be opened: {reason}")]
    Open { reason: String },
}

/// A page of a list, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPage {
    pub jobs: Vec<Job>,
    /// Pass as `before` to go on; `None` at the end. A page may be short of its size and still have more to come.
    pub next: Option<i64>,
}

/// A job that a run delivered, for undoing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub turn: i64,
    pub seq: i64,
    pub provider: ProviderName,
    pub operation: OperationName,
}

/// A page of the call log, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct CallPage {
    pub calls: Vec<Call>,
    /// As in [`JobPage`].
    pub next: Option<CallId>,
}

/// Journal entry for rebuilding a limiter.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    pub call: CallId,
    pub permit: Permit,
    /// `None` while the call is open.
    pub settled_at: Option<Timestamp>,
    /// False: the permits were given back.
    pub sent: bool,
    /// Until when a program outside may use the permits, if one has them; steady.
    pub outside_until: Option<Timestamp>,
}

/// Sums over all flows of one (provider, operation).
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    pub provider: ProviderName,
    pub operation: OperationName,
    pub counts: FlowCounts,
}

/// See the module documentation for what all methods promise.
#[async_trait]
pub trait Store: Records + Send + Sync + std::fmt::Debug {
    /// The only write. All or nothing, durable on `Ok`.
    async fn commit(&self, batch: Batch) -> Result<Committed, Error>;

    async fn info(&self) -> Result<StoreInfo, Error>;
    /// Remembers the boot and steady offset in use. Once, at start.
    async fn remember_steady(&self, boot: &str, offset_us: i64) -> Result<(), Error>;
    /// Moves the epoch from `expect` to the next and notes the limiter's server that it stands for. Permits of an older
    /// epoch cannot be journaled afterwards. Answers with the epoch now in force: when it was no longer `expect`,
    /// nothing was changed, and [`Store::info`] tells for which server somebody else moved it.
    async fn bump_epoch(&self, expect: i64, limiter_run: &str) -> Result<i64, Error>;
    /// News of what others commit, from now on; `None` for a store that one process owns. Bounded: a slow reader gets
    /// [`Notice::Everything`] in place of what did not fit, and so does everybody after a lost connection. One reader:
    /// asking again ends the former one's channel.
    async fn notices(&self) -> Result<Option<tokio::sync::mpsc::Receiver<Notice>>, Error> {
        Ok(None)
    }

    /// `None` for an id that does not exist or whose creation time does not match.
    async fn job(&self, id: JobId) -> Result<Option<Job>, Error>;
    /// Those that exist, in the order of `seqs`. At most [`PAGE_MAX`].
    async fn jobs(&self, seqs: &[i64]) -> Result<Vec<Job>, Error>;
    /// Newest first, below `before` when given. Looks at no more than [`LIST_SCAN_MAX`] rows.
    async fn list_jobs(&self, filter: &Filter, before: Option<i64>, limit: usize) -> Result<JobPage, Error>;
    /// The job that stands first of those this one stands behind.
    async fn blocker(&self, job: &Job) -> Result<Option<Job>, Error>;
    /// Ready jobs of the same flow that go before this one: exact up to 1,000, estimated beyond.
    async fn ahead(&self, job: &Job) -> Result<u64, Error>;
    /// Creation time of the oldest ready job of a flow.
    async fn oldest_ready(&self, flow: FlowId) -> Result<Option<Timestamp>, Error>;

    async fn call(&self, id: CallId) -> Result<Option<Call>, Error>;
    async fn calls(&self, ids: &[CallId]) -> Result<Vec<Call>, Error>;
    /// Newest first, below `before` when given. Looks at no more than [`LIST_SCAN_MAX`] rows. Bodies are read only on demand.
    async fn list_calls(
        &self,
        filter: &Filter,
        before: Option<CallId>,
        limit: usize,
        bodies: bool,
    ) -> Result<CallPage, Error>;
    /// Calls without an end, oldest first, above `after`.
    async fn open_calls(&self, whose: Whose, after: CallId, limit: usize) -> Result<Vec<Call>, Error>;
    /// Claimed jobs of an open call, for judging it after a crash.
    async fn claimed(&self, call: CallId) -> Result<Vec<ClaimedJob>, Error>;
    /// Journal entries above `after` that spent limits and were open or settled at `since` (steady) or later.
    async fn journal(&self, since: Timestamp, after: CallId, limit: usize) -> Result<Vec<JournalEntry>, Error>;

    /// Flows with anything waiting, calling or unknown, above `after`.
    async fn flows(&self, after: FlowId, limit: usize) -> Result<Vec<Flow>, Error>;
    async fn flow(&self, id: FlowId) -> Result<Option<Flow>, Error>;
    async fn tallies(&self) -> Result<Vec<Tally>, Error>;
    async fn next_due(&self) -> Result<Timestamp, Error>;

    async fn run(&self, id: RunId) -> Result<Option<Run>, Error>;
    /// Newest first, below `before` when given.
    async fn list_runs(&self, before: Option<i64>, limit: usize) -> Result<Vec<Run>, Error>;
    /// The flows of a run that have work left.
    async fn run_flows(&self, run: RunId, limit: usize) -> Result<Vec<Flow>, Error>;
    /// The delivered jobs of a run that are still kept, the last one first, below this turn and number when given.
    async fn run_delivered(&self, run: RunId, below: Option<(i64, i64)>, limit: usize)
    -> Result<Vec<Delivered>, Error>;
    async fn providers(&self) -> Result<Vec<AppliedProvider>, Error>;
    /// All of them, by name: [`crate::model::schedule::SCHEDULES_MAX`] at most.
    async fn schedules(&self) -> Result<Vec<Schedule>, Error>;
    async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>, Error>;

    /// Alerts that are raised, by name: as many as there are rules.
    async fn alerts(&self) -> Result<Vec<Raised>, Error>;

    /// Events above `after`, oldest first.
    async fn events(&self, after: i64, limit: usize) -> Result<Vec<Event>, Error>;
    /// First and last sequence number in the log; (1, 0) when it is empty.
    async fn event_bounds(&self) -> Result<(i64, i64), Error>;

    /// Copies the store to `path` while it is in use. Refused by stores that have no file.
    async fn backup(&self, path: &std::path::Path) -> Result<(), Error>;
    /// Flushes and closes. Later calls fail.
    async fn close(&self);
}

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

use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::model::call::{Call, Ending, Lane, LimitKey, Permit};
use crate::model::event::{Event, What};
use crate::model::filter::Filter;
use crate::model::flow::{Class, Flow, FlowCounts};
use crate::model::id::{CallId, FlowId, JobId, RunId};
use crate::model::job::{ClaimedJob, Job, Labels, NewJob, Payload};
use crate::model::name::{Account, Key, OperationName, ProviderName};
use crate::model::run::{NewRun, Run, RunWish};
use crate::model::state::State;

mod filter;
mod info;
pub mod leases;
pub mod memory;
mod packed;
mod packer;
pub mod postgres;
mod row;
mod rules;
pub mod sqlite;

pub use info::{Notice, StoreInfo, Touched, Whose};

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

/// Everything that one transaction does. The parts are applied in the order of the fields: outcomes first, because
/// they free keys and decide what a cancel may still reach; begins last, because they may take what came before.
#[derive(Debug, Default)]
pub struct Batch {
    /// Wall time for all records of this commit.
    pub now: Timestamp,
    /// Steady time of this commit; remembered as the floor of the steady line.
    pub steady: Timestamp,
    pub finishes: Vec<FinishCall>,
    pub changes: Vec<Change>,
    pub enqueues: Vec<NewJob>,
    pub begins: Vec<Begin>,
}

/// One result per part, in the order of the parts.
#[derive(Debug, Default)]
pub struct Committed {
    pub finishes: Vec<Finished>,
    pub changes: Vec<Result<Changed, Refusal>>,
    pub enqueues: Vec<Result<Enqueued, Refusal>>,
    pub begins: Vec<Begun>,
    /// Every flow that the commit touched, as it stands after it.
    pub flows: Vec<Flow>,
    /// What was written to the event log.
    pub events: Vec<Event>,
    /// Earliest `due_at` of all jobs that stand in `Place::Later`; `NEVER` when there is none.
    pub next_due: Timestamp,
}

/// An accepted enqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueued {
    pub id: JobId,
    pub how: Accepted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// A job of its own.
    Created,
    /// Merged into the waiting job `id` of the same key. The job keeps its place and takes the more urgent class.
    Coalesced,
    /// The idempotency key was seen before with the same content: `id` is the first job.
    Repeated,
}

/// Take up to `count` jobs of one class of a flow, oldest turn first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Take {
    pub flow: FlowId,
    pub class: Class,
    pub count: u32,
}

/// Journal calls and claim their jobs. A flow that is held yields nothing.
#[derive(Clone, Debug)]
pub struct Begin {
    pub provider: ProviderName,
    pub operation: OperationName,
    pub lane: Lane,
    pub account: Account,
    /// In the order of the turns; all of the same (operation, account).
    pub takes: Vec<Take>,
    /// Single lane: calls to begin at most, one job each. Batch lane: 1.
    pub calls_max: u32,
    /// Batch lane: payload bytes of the call at most; at least one job is taken whatever its size.
    pub bytes_max: usize,
    /// What each call spends. A permit of an epoch older than the store's is refused: nothing begins.
    pub permit: Permit,
    /// Limits that count by key: each job's key is appended to the first part, and both parts go into the journal row
    /// of its call, beside `permit`. A job without a key spends none of them.
    pub keyed: Arc<[(Arc<str>, u32)]>,
    /// Steady time until which the calls belong to this daemon.
    pub lease_until: Timestamp,
    /// Partition of the account ([`crate::model::shard`]); embedded stores have one, 0.
    pub shard: u16,
    /// The holder's lease of the partition ([`leases::Leases::claim`]); a stale fence begins nothing. Embedded stores
    /// have one partition and fence 0, which is also the fence of a partition that nobody ever claimed.
    pub fence: i64,
}

/// The calls that began: journaled, their jobs `calling`. May be fewer than asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Begun {
    pub calls: Vec<BegunCall>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BegunCall {
    pub id: CallId,
    pub jobs: Vec<ClaimedJob>,
}

/// The end of a call. The call's id is the fencing token: a job that is not `calling` under it is left alone.
#[derive(Clone, Debug)]
pub struct FinishCall {
    pub call: CallId,
    pub ending: Ending,
    /// Steady time of the end: the answer anchor.
    pub settled_at: Timestamp,
    pub status: Option<u16>,
    pub error: Option<Arc<str>>,
    pub outcomes: Vec<JobOutcome>,
    /// What the call spent after all, when some of its jobs did not go with it: takes the place of the journaled spends.
    pub spends: Option<Arc<[(LimitKey, u32)]>>,
}

impl Begin {
    /// What a call of these jobs spends, as it is journaled.
    fn spends(&self, jobs: &[ClaimedJob]) -> Arc<[(LimitKey, u32)]> {
        if self.keyed.is_empty() {
            return self.permit.spends.clone();
        }
        let keys = jobs.iter().filter_map(|job| job.key.as_ref());
        let of_key = |key: &Key| {
            let spend = |(prefix, cost): &(Arc<str>, u32)| (LimitKey(format!("{prefix}{key}").into()), *cost);
            self.keyed.iter().map(spend).collect::<Vec<_>>()
        };
        self.permit.spends.iter().cloned().chain(keys.flat_map(of_key)).collect()
    }
}

#[derive(Clone, Debug)]
pub struct JobOutcome {
    /// Sequence number of the job.
    pub job: i64,
    pub next: Next,
    pub error: Option<Arc<str>>,
    pub result: Option<Arc<str>>,
}

/// What becomes of a job whose call ended. `job.cancel_requested` turns every `Wait` into `cancelled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Delivered,
    /// Back to `waiting`; ready at once when `due_at` has passed.
    Wait {
        due_at: Timestamp,
        why: Again,
    },
    Dead,
    Unknown,
}

/// Which counter a return to `waiting` touches. The attempt was counted when the call began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The attempt counts.
    Retry,
    /// The provider said "not now": the attempt is given back, `throttles` grows.
    Throttled,
    /// Certainly not sent, or to be split: the attempt is given back.
    NotSent,
    /// The daemon died: the attempt counts, `crashes` grows.
    Crashed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// False when the call is not known or had ended before.
    pub applied: bool,
    /// Jobs that were no longer `calling` under this call. Their late success is adopted when no newer attempt has
    /// begun (the job waits or is `unknown`, and its payload is still the one that was sent); else it is written down
    /// as `DuplicateObserved`.
    pub stale: Vec<i64>,
    /// Those of `stale` whose late success was adopted: they are `delivered`.
    pub adopted: Vec<i64>,
}

/// A change that a person, the sweeper or the gate asks for.
#[derive(Clone, Debug)]
pub enum Change {
    /// `waiting` and `unknown` jobs end as cancelled; a `calling` one is marked so that it is not tried again.
    CancelJobs {
        jobs: Vec<JobId>,
    },
    /// Dead jobs go back to waiting, at the end of their key's order. `fresh`: attempts start at 0 and the version
    /// grows, so that the outbound idempotency key changes ("run again as new"). Without it the counters go on, so a
    /// job that used up its attempts gets one more. A finished run is `sealed` again until the job is final; jobs of
    /// a run that was called off are refused.
    ReviveJobs {
        jobs: Vec<JobId>,
        fresh: bool,
    },
    /// Waiting jobs that are not due become due now.
    ExpediteJobs {
        jobs: Vec<JobId>,
    },
    /// `Again` keeps the job's turn: it is still first of its key.
    ResolveJobs {
        jobs: Vec<JobId>,
        decision: Decision,
    },
    /// Only while `waiting`. A new payload grows the version.
    EditJob {
        job: JobId,
        payload: Option<Payload>,
        class: Option<Class>,
        due_at: Option<Timestamp>,
    },
    /// Jobs in `Later` whose `due_at <= batch.now` become ready, at most `limit` of them.
    PromoteDue {
        limit: u32,
    },
    CreateRun {
        run: NewRun,
    },
    WishRun {
        run: RunId,
        wish: RunWish,
    },
    /// Cancels up to `limit` waiting or unknown jobs of a `Cancelling` run, and ends the run when none is left.
    CancelRunJobs {
        run: RunId,
        limit: u32,
    },
    /// Sets the current revision of a provider's declaration. `expect`: the revision it must replace (0: none yet).
    ApplyProvider {
        name: ProviderName,
        source: String,
        expect: Option<i64>,
        actor: String,
    },
    /// Refused while jobs of the provider wait, call or are unknown, unless `force`.
    DeleteProvider {
        name: ProviderName,
        force: bool,
        actor: String,
    },
    PauseProvider {
        name: ProviderName,
        paused: bool,
        actor: String,
    },
    /// The gate's own small memory (breaker, tide credits) as JSON, for the next process.
    /// `news`: other daemons should hear of it at once, as when a breaker opened.
    SaveGate {
        provider: ProviderName,
        memory: String,
        news: bool,
    },
    /// A limiter's state as of a journal position, so that a start need not read the whole journal.
    SaveLimits {
        entries: Vec<(String, String)>,
        upto: CallId,
    },
    /// Removes up to `limit` finished jobs, ended calls, events and idempotency records older than the bounds.
    /// Calls that a limiter may still need (`calls_before` is steady time) and dead jobs younger than
    /// `dead_before` stay. The limit holds for each kind by itself; an idempotency record goes with its job.
    ///
    /// Flows and runs go last, once nothing can name them any more: only when this change found fewer than `limit` old
    /// jobs of each kind, and only those that ended before all of `finished_before`, `dead_before` and the oldest event
    /// that is left. A flow ends with the last commit that touched it, by the latest wall time seen there, and must have
    /// nothing to do; a run must be final with no flow left. Sums per operation keep what the flows counted.
    Prune {
        finished_before: Timestamp,
        dead_before: Timestamp,
        calls_before: Timestamp,
        events_before: Timestamp,
        limit: u32,
    },
    /// Writes an event and nothing else.
    Note {
        what: What,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It happened.
    Delivered,
    /// Send again.
    Again,
    /// Give up.
    Dead,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// One entry per job of the request, in order.
    Jobs(Vec<Result<JobNow, Refusal>>),
    /// How many rows a bounded chore moved; fewer than its limit means that nothing is left to do.
    Count(u64),
    Run(Run),
    Provider(AppliedProvider),
    Done,
}

/// A job after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobNow {
    pub id: JobId,
    pub state: State,
    pub cancel_requested: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AppliedProvider {
    pub name: ProviderName,
    /// TOML source of the declaration.
    pub source: String,
    /// 1 for the first; grows with every apply.
    pub revision: i64,
    pub paused: bool,
    pub applied_at: Timestamp,
    pub actor: String,
    /// What the gate saved last.
    pub memory: Option<String>,
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

/// Journal entry for rebuilding a limiter.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    pub call: CallId,
    pub permit: Permit,
    /// `None` while the call is open.
    pub settled_at: Option<Timestamp>,
    /// False: the permits were given back.
    pub sent: bool,
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
pub trait Store: Send + Sync + std::fmt::Debug {
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
    /// Calls without an end, oldest first, above `after`.
    async fn open_calls(&self, whose: Whose, after: CallId, limit: usize) -> Result<Vec<Call>, Error>;
    /// Claimed jobs of an open call, for judging it after a crash.
    async fn claimed(&self, call: CallId) -> Result<Vec<ClaimedJob>, Error>;
    /// Journal entries above `after` that spent limits and were open or settled at `since` (steady) or later.
    async fn journal(&self, since: Timestamp, after: CallId, limit: usize) -> Result<Vec<JournalEntry>, Error>;
    /// What [`Change::SaveLimits`] saved last.
    async fn saved_limits(&self) -> Result<(Vec<(String, String)>, CallId), Error>;

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
    async fn providers(&self) -> Result<Vec<AppliedProvider>, Error>;

    /// Events above `after`, oldest first.
    async fn events(&self, after: i64, limit: usize) -> Result<Vec<Event>, Error>;
    /// First and last sequence number in the log; (1, 0) when it is empty.
    async fn event_bounds(&self) -> Result<(i64, i64), Error>;

    /// Copies the store to `path` while it is in use. Refused by stores that have no file.
    async fn backup(&self, path: &std::path::Path) -> Result<(), Error>;
    /// Flushes and closes. Later calls fail.
    async fn close(&self);
}

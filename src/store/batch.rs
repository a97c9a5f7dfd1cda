//! What one commit carries and what it answers, apart from the changes that somebody asks for (`change`). Must never
//! know: how a store does it. Next: `change`.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::model::call::{Ending, Lane, LimitKey, Permit};
use crate::model::call_log::Seen;
use crate::model::event::Event;
use crate::model::flow::{Class, Flow};
use crate::model::id::{CallId, FlowId, JobId};
use crate::model::job::{ClaimedJob, NewJob};
use crate::model::name::{Account, Key, OperationName, ProviderName};
use crate::model::notify::Subscription;
use crate::model::shard::Hold;
use crate::store::{Change, Changed, PageEnd, RecordDone, RecordOp, Refusal};

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
    /// Pages that ended calls fetched. Each counts if the end of its call does.
    pub pages: Vec<PageEnd>,
    /// After the pages. What they enqueue comes after `enqueues`.
    pub records: Vec<RecordOp>,
    pub enqueues: Vec<NewJob>,
    pub begins: Vec<Begin>,
    /// Who is told of what comes to an end here: their notices are enqueued last, by the same transaction.
    pub notify: Arc<Vec<Subscription>>,
}

/// One result per part, in the order of the parts.
#[derive(Debug, Default)]
pub struct Committed {
    pub finishes: Vec<Finished>,
    pub changes: Vec<Result<Changed, Refusal>>,
    pub enqueues: Vec<Result<Enqueued, Refusal>>,
    pub records: Vec<Result<RecordDone, Refusal>>,
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
    /// The holder's lease of the partition of the flow's account and part ([`crate::model::shard`]): under a stale fence
    /// nothing is taken. Embedded stores have one partition and fence 0, which is also the fence of a partition that nobody
    /// ever claimed.
    pub hold: Hold,
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
    /// Journals `calls_max` calls that carry no job: somebody waits for their answers. Any daemon may begin them, so they
    /// need no partition; `takes` is empty.
    pub bare: bool,
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
    /// Permits of each call that go to a program outside; see [`crate::model::call::Call::outside`].
    pub outside: u32,
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
    /// For the call log.
    pub seen: Option<Seen>,
}

impl Begin {
    /// What a call of these jobs spends, as it is journaled.
    pub(super) fn spends(&self, jobs: &[ClaimedJob]) -> Arc<[(LimitKey, u32)]> {
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

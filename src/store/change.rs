//! What a person, the sweeper or the gate asks a store to change, and what became of it. Must never know: how a store
//! does it. Next: `../rules`, what the reference model and the databases decide alike.

use crate::clock::Timestamp;
use crate::model::alert::{Raised, Step};
use crate::model::event::What;
use crate::model::flow::Class;
use crate::model::id::{JobId, RunId};
use crate::model::invalidation::Which;
use crate::model::job::{NewJob, Payload};
use crate::model::name::{ProviderName, WebhookName};
use crate::model::run::{NewRun, Run, RunWish};
use crate::model::schedule::Schedule;
use crate::model::state::State;
use crate::store::{RecordOp, Refusal, ScheduleChange};

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
    /// Notes the run at those of its delivered jobs that a version of before wrote without it, among the next `limit` jobs
    /// above number `after`: an index finds the others. Answers with [`Changed::Filled`].
    FillRun {
        run: RunId,
        after: i64,
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
    /// Removes up to `limit` finished jobs, ended calls, events and idempotency records older than the bounds.
    /// Calls that a limiter may still need (`calls_before` is steady time) and dead jobs younger than
    /// `dead_before` stay. The limit holds for each kind by itself; an idempotency record goes with its job.
    ///
    /// Flows and runs go last, once nothing can name them any more: only when this change found fewer than `limit` old
    /// jobs of each kind, and only those that ended before all of `finished_before`, `dead_before` and the oldest event
    /// that is left. A flow ends with the last commit that touched it, by the latest wall time seen there, and must have
    /// nothing to do; a run must be final with no flow left. Sums per operation keep what the flows counted.
    ///
    /// Messages of webhooks are forgotten when their own time has come.
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
    /// Declares, pauses, deletes or ticks a schedule.
    Schedule(Box<ScheduleChange>),
    /// A message that a webhook brought, and what it starts, unless it was there before.
    Receive(Box<Delivery>),
    /// An alert is raised, told again or cleared, unless somebody else has told it meanwhile.
    Alert(Box<AlertChange>),
    /// Tells everybody to throw cached answers away, and writes it to the event log.
    Invalidate {
        which: Which,
        actor: String,
    },
}

/// A message that a webhook brought. All of it or, when its mark is known, nothing.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub webhook: WebhookName,
    /// Stands for the message, whoever brings it again.
    pub mark: [u8; 32],
    /// Its mark is kept until then; wall time.
    pub forget_at: Timestamp,
    /// Without a run and without an idempotency key, so that nothing refuses it.
    pub job: Option<NewJob>,
    /// After all other records of the commit; nobody waits for its answer.
    pub record: Option<RecordOp>,
}

#[derive(Clone, Debug)]
pub struct AlertChange {
    pub step: Step,
    /// As it stands afterwards; of a cleared one, as it stood, with what is to be said.
    pub alert: Raised,
    /// When it was told last; `None`: it is not raised.
    pub expect: Option<Timestamp>,
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
    /// The number up to which jobs were looked at; `None`: there are no more.
    Filled {
        upto: Option<i64>,
    },
    Provider(AppliedProvider),
    /// As it stands afterwards.
    Schedule(Box<Schedule>),
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

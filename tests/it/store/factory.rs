//! Makes stores and shows only what matters of the batches that go in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::model::call::{Ending, Lane, Permit};
use tidegate::model::filter::Filter;
use tidegate::model::flow::{Class, FlowCounts, Place};
use tidegate::model::id::{CallId, FlowId, JobId};
use tidegate::model::job::{Job, NewJob};
use tidegate::model::name::{Account, Key, OperationName, ProviderName};
use tidegate::model::shard::Hold;
use tidegate::model::state::State;
use tidegate::store::memory::MemoryStore;
use tidegate::store::sqlite::{SqliteOptions, SqliteStore};
use tidegate::store::*;

use crate::support::servers::Database;

/// A store under test with a clock of its own.
pub struct Bench {
    pub store: Arc<dyn Store>,
    pub now: Timestamp,
    /// Kept so that the folder lives as long as the store.
    _folder: Option<tempfile::TempDir>,
    /// The same for a database.
    _database: Option<Database>,
}

pub const START: Timestamp = Timestamp(1_800_000_000_000_000);

pub fn memory() -> Bench {
    Bench { store: Arc::new(MemoryStore::new()), now: START, _folder: None, _database: None }
}

pub async fn sqlite() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await.unwrap();
    Bench { store: Arc::new(store), now: START, _folder: Some(folder), _database: None }
}

pub async fn postgres() -> Bench {
    let database = Database::new().await;
    let store = Arc::new(database.open().await);
    Bench { store, now: START, _folder: None, _database: Some(database) }
}

pub async fn open(folder: &std::path::Path) -> Result<SqliteStore, Error> {
    SqliteStore::open(SqliteOptions::new(folder.join("tidegate.db"))).await
}

pub fn job(payload: &str) -> NewJob {
    let provider = ProviderName::new("crm").unwrap();
    NewJob::new(provider, OperationName::new("sync").unwrap(), payload)
}

pub fn keyed(key: &str, payload: &str) -> NewJob {
    NewJob { key: Some(Key::new(key).unwrap()), ..job(payload) }
}

/// The same under this lease.
pub fn held_by(hold: Hold, mut begin: Begin) -> Begin {
    begin.takes.iter_mut().for_each(|take| take.hold = hold);
    begin
}

pub fn permit() -> Permit {
    Permit { spends: Arc::from([]), granted_at: START, epoch: 0 }
}

impl Bench {
    pub fn over(store: impl Store + 'static) -> Self {
        Bench { store: Arc::new(store), now: START, _folder: None, _database: None }
    }

    pub fn over_shared(store: Arc<dyn Store>) -> Self {
        Bench { store, now: START, _folder: None, _database: None }
    }

    pub fn pass(&mut self, d: Duration) {
        self.now = self.now + d;
    }

    pub fn batch(&self) -> Batch {
        Batch { now: self.now, steady: self.now, ..Batch::default() }
    }

    /// Commits, then holds the store to what must be true after every commit.
    pub async fn commit(&self, batch: Batch) -> Committed {
        let done = self.store.commit(batch).await.unwrap();
        for flow in &done.flows {
            assert_eq!(self.store.flow(flow.id).await.unwrap().as_ref(), Some(flow));
        }
        audit(&*self.store).await;
        done
    }

    pub async fn enqueue(&self, jobs: Vec<NewJob>) -> Vec<Result<Enqueued, Refusal>> {
        self.commit(Batch { enqueues: jobs, ..self.batch() }).await.enqueues
    }

    pub async fn add(&self, job: NewJob) -> JobId {
        self.enqueue(vec![job]).await.remove(0).unwrap().id
    }

    pub async fn change(&self, change: Change) -> Result<Changed, Refusal> {
        self.commit(Batch { changes: vec![change], ..self.batch() }).await.changes.remove(0)
    }

    pub fn take(&self, flow: FlowId, class: Class, count: u32) -> Begin {
        Begin {
            provider: ProviderName::new("crm").unwrap(),
            operation: OperationName::new("sync").unwrap(),
            lane: Lane::Single,
            account: Account::default(),
            takes: vec![Take { flow, class, count, hold: Hold::ALONE }],
            bare: false,
            calls_max: count,
            bytes_max: usize::MAX,
            permit: permit(),
            keyed: Arc::from([]),
            outside: 0,
            lease_until: self.now + Duration::from_secs(60),
        }
    }

    pub async fn begin(&self, begin: Begin) -> Vec<BegunCall> {
        self.commit(Batch { begins: vec![begin], ..self.batch() }).await.begins.remove(0).calls
    }

    pub fn end(&self, call: CallId, outcomes: Vec<(i64, Next)>) -> FinishCall {
        let outcome = |(job, next)| JobOutcome { job, next, error: None, result: None };
        FinishCall {
            call,
            ending: Ending::Answered,
            settled_at: self.now,
            status: Some(200),
            error: None,
            outcomes: outcomes.into_iter().map(outcome).collect(),
            spends: None,
            seen: None,
        }
    }

    pub async fn finish(&self, call: FinishCall) -> Finished {
        self.commit(Batch { finishes: vec![call], ..self.batch() }).await.finishes.remove(0)
    }

    pub async fn job(&self, id: JobId) -> Job {
        self.store.job(id).await.unwrap().expect("the job exists")
    }

    pub async fn state(&self, id: JobId) -> State {
        self.job(id).await.state
    }

    pub async fn counts(&self, flow: FlowId) -> FlowCounts {
        self.store.flow(flow).await.unwrap().expect("the flow exists").counts
    }
}

/// P2, conservation: every counter equals a recount of the jobs, and the event log has no gap.
pub async fn audit(store: &dyn Store) {
    let jobs = all_jobs(store).await;
    let mut flows: BTreeMap<FlowId, FlowCounts> = BTreeMap::new();
    for job in &jobs {
        count(flows.entry(job.flow).or_default(), job);
    }
    let mut tallies: BTreeMap<(String, String), FlowCounts> = BTreeMap::new();
    let mut runs: BTreeMap<i64, FlowCounts> = BTreeMap::new();
    for (id, counts) in &flows {
        let flow = store.flow(*id).await.unwrap().expect("a job's flow exists");
        assert_eq!(flow.counts, *counts, "flow {id:?}");
        let operation = (flow.key.provider.to_string(), flow.key.operation.to_string());
        add(tallies.entry(operation).or_default(), counts);
        add(runs.entry(flow.key.run).or_default(), counts);
    }
    for tally in store.tallies().await.unwrap() {
        let operation = (tally.provider.to_string(), tally.operation.to_string());
        assert_eq!(tallies.remove(&operation).unwrap_or_default(), tally.counts, "{operation:?}");
    }
    assert!(tallies.is_empty());
    for run in store.list_runs(None, PAGE_MAX).await.unwrap() {
        assert_eq!(runs.remove(&run.id.seq).unwrap_or_default(), run.counts, "run {}", run.id);
    }
    let later = jobs.iter().filter(|job| job.state == State::Waiting && job.place == Place::Later);
    let due = later.map(|job| job.due_at).min().unwrap_or(Timestamp::NEVER);
    assert_eq!(store.next_due().await.unwrap(), due);
    let (first, last) = store.event_bounds().await.unwrap();
    let events = store.events(0, PAGE_MAX).await.unwrap();
    let seqs: Vec<i64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (first..=last).take(PAGE_MAX).collect::<Vec<_>>());
}

pub async fn all_jobs(store: &dyn Store) -> Vec<Job> {
    let mut jobs = Vec::new();
    let mut before = None;
    loop {
        let page = store.list_jobs(&Filter::everything(), before, PAGE_MAX).await.unwrap();
        jobs.extend(page.jobs);
        match page.next {
            Some(next) => before = Some(next),
            None => return jobs,
        }
    }
}

fn count(counts: &mut FlowCounts, job: &Job) {
    let counter = match (job.state, job.place) {
        (State::Waiting, Place::Ready) => &mut counts.ready[job.class as usize],
        (State::Waiting, Place::Later) => &mut counts.later,
        (State::Waiting, Place::Behind) => &mut counts.behind,
        (State::Calling, _) => &mut counts.calling,
        (State::Unknown, _) => &mut counts.unknown,
        (State::Delivered, _) => &mut counts.delivered,
        (State::Dead, _) => &mut counts.dead,
        (State::Cancelled, _) => &mut counts.cancelled,
        (state, place) => panic!("{} is {state} at {place:?}", job.id),
    };
    *counter += 1;
}

fn add(sum: &mut FlowCounts, part: &FlowCounts) {
    for (a, b) in sum.ready.iter_mut().zip(part.ready) {
        *a += b;
    }
    sum.later += part.later;
    sum.behind += part.behind;
    sum.calling += part.calling;
    sum.unknown += part.unknown;
    sum.delivered += part.delivered;
    sum.dead += part.dead;
    sum.cancelled += part.cancelled;
}

//! Makes stores and shows only what matters of the batches that go in.

use std::sync::Arc;
use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::model::call::{Ending, Lane, Permit};
use tidegate::model::flow::{Class, FlowCounts};
use tidegate::model::id::{CallId, FlowId, JobId};
use tidegate::model::job::{Job, NewJob};
use tidegate::model::name::{Account, Key, OperationName, ProviderName};
use tidegate::model::state::State;
use tidegate::store::memory::MemoryStore;
use tidegate::store::*;

/// A store under test with a clock of its own.
pub struct Bench {
    pub store: Arc<dyn Store>,
    pub now: Timestamp,
    /// Kept so that the folder lives as long as the store.
    _folder: Option<tempfile::TempDir>,
}

pub const START: Timestamp = Timestamp(1_800_000_000_000_000);

pub fn memory() -> Bench {
    Bench { store: Arc::new(MemoryStore::new()), now: START, _folder: None }
}

pub fn job(payload: &str) -> NewJob {
    let provider = ProviderName::new("crm").unwrap();
    NewJob::new(provider, OperationName::new("sync").unwrap(), payload)
}

pub fn keyed(key: &str, payload: &str) -> NewJob {
    NewJob { key: Some(Key::new(key).unwrap()), ..job(payload) }
}

pub fn permit() -> Permit {
    Permit { spends: Arc::from([]), granted_at: START, epoch: 0 }
}

impl Bench {
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
            takes: vec![Take { flow, class, count }],
            calls_max: count,
            bytes_max: usize::MAX,
            permit: permit(),
            lease_until: self.now + Duration::from_secs(60),
            fence: 0,
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

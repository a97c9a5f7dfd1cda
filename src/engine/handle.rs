//! The engine's front door. Cheap to clone; every edge goes through it.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::status::{ActorInfo, Explanation, ProviderStatus};
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::model::event::Event;
use crate::model::id::{JobId, RunId};
use crate::model::job::NewJob;
use crate::model::name::ProviderName;
use crate::model::provider::Provider;
use crate::store::{Change, Changed, Enqueued, Refusal, Store};

/// Why the engine could not do what was asked. A [`Refusal`] is for the client; the rest passes.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store is away or full; nothing was done.
    #[error("{0}")]
    Unavailable(String),
    /// Too much is waiting to be written; try again soon.
    #[error("the writer is busy: {waiting} requests wait")]
    Busy { waiting: usize },
    #[error("the daemon is shutting down")]
    Draining,
}

#[derive(Clone, Debug)]
pub struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    store: Arc<dyn Store>,
}

impl Handle {
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// For reading. Writes go through the methods below, which share transactions.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Durable when it returns. One result per job, in order; the good ones are committed whatever the others are.
    /// Providers and operations must exist: `api/` has checked that.
    pub async fn enqueue(&self, _jobs: Vec<NewJob>) -> Result<Vec<Result<Enqueued, Refusal>>, EngineError> {
        Err(EngineError::Draining)
    }

    /// Applies one change durably and wakes whom it concerns.
    pub async fn change(&self, _change: Change) -> Result<Changed, EngineError> {
        Err(EngineError::Draining)
    }

    /// The declaration in force.
    pub fn provider(&self, _name: &ProviderName) -> Option<Arc<Provider>> {
        None
    }

    /// All declarations in force, by name, with revision and whether they are paused.
    pub fn providers(&self) -> Vec<(Arc<Provider>, i64, bool)> {
        Vec::new()
    }

    /// Puts a checked declaration in force: stores its source, then hands it to its gate. Returns the revision.
    pub async fn apply_provider(
        &self,
        _provider: Arc<Provider>,
        _source: String,
        _expect: Option<i64>,
        _actor: &str,
    ) -> Result<i64, EngineError> {
        Err(EngineError::Draining)
    }

    pub async fn delete_provider(&self, _name: &ProviderName, _force: bool, _actor: &str) -> Result<(), EngineError> {
        Err(EngineError::Draining)
    }

    pub async fn pause_provider(&self, _name: &ProviderName, _paused: bool, _actor: &str) -> Result<(), EngineError> {
        Err(EngineError::Draining)
    }

    pub async fn reset_breaker(&self, _name: &ProviderName, _actor: &str) -> Result<(), EngineError> {
        Err(EngineError::Draining)
    }

    pub async fn provider_status(&self, _name: &ProviderName) -> Option<ProviderStatus> {
        None
    }

    /// Why the job waits and when it will go. `None`: no such job.
    pub async fn explain(&self, _job: JobId) -> Result<Option<Explanation>, EngineError> {
        Err(EngineError::Draining)
    }

    /// When the run is through, as wall time; `None` when it cannot be said.
    pub async fn run_forecast(&self, _run: RunId) -> Result<Option<Timestamp>, EngineError> {
        Err(EngineError::Draining)
    }

    pub async fn test_provider(
        &self,
        _name: &ProviderName,
        _path: &str,
    ) -> Result<super::status::TestReport, EngineError> {
        Err(EngineError::Draining)
    }

    pub fn in_flight(&self) -> u32 {
        0
    }

    /// Committed events as they come, in groups, in order. A reader that lags goes on from the store.
    pub fn events(&self) -> broadcast::Receiver<Arc<Vec<Event>>> {
        broadcast::channel(1).1
    }

    pub fn actors(&self) -> Vec<ActorInfo> {
        Vec::new()
    }

    /// True once shutdown began: enqueues are refused.
    pub fn is_draining(&self) -> bool {
        false
    }

    /// Resolves when shutdown begins. Streams end then.
    pub async fn draining(&self) {
        std::future::pending::<()>().await;
    }

    /// Stops accepting and releasing; calls in flight may finish. What AdminService.Drain does.
    pub fn drain(&self) {}
}

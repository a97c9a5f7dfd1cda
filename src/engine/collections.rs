//! Collections in force, and what the engine does for them: writes with their pushes, the start of pulls.
//!
//! The pages of a pull are ordinary jobs, so they share the provider's limits, breaker and retries with everything else.
//! `collections/chores.rs` is the actor that sweeps, reshapes and forgets. Must never know: SQL, wires, schedules. Next:
//! `caller/pages`, where answers become records.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{EngineError, Handle};
use crate::model::collection::{Collection, PushRule};
use crate::model::job::{Coalesce, NewJob};
use crate::model::name::{CollectionName, OperationName};
use crate::model::record::{Pull, PullState};
use crate::model::state::State;
use crate::store::{RecordDone, RecordOp, Refusal, StartPull};

pub mod chores;

/// Collections by name. Cheap to clone; a reader never waits for a writer.
#[derive(Clone, Debug, Default)]
pub struct Collections(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    all: ArcSwap<BTreeMap<CollectionName, Arc<Collection>>>,
    /// There may be something to sweep or to reshape.
    chores: Notify,
}

impl Collections {
    pub fn new(all: impl IntoIterator<Item = Collection>) -> Collections {
        let collections = Collections::default();
        collections.replace(all);
        collections
    }

    pub fn get(&self, name: &CollectionName) -> Option<Arc<Collection>> {
        self.0.all.load().get(name).cloned()
    }

    pub fn all(&self) -> Arc<BTreeMap<CollectionName, Arc<Collection>>> {
        self.0.all.load_full()
    }

    /// Puts these in force in place of all others. Records of one that is no longer declared stay, out of reach.
    pub fn replace(&self, all: impl IntoIterator<Item = Collection>) {
        let all = all.into_iter().map(|collection| (collection.name.clone(), Arc::new(collection)));
        self.0.all.store(Arc::new(all.collect()));
        self.wake();
    }

    pub(super) fn wake(&self) {
        self.0.chores.notify_one();
    }
}

/// Why a pull cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("collection {0} is not declared")]
    NoCollection(CollectionName),
    #[error("collection {0} has no pull; declare [collections.{0}.pull]")]
    NoPull(CollectionName),
    #[error("collection {collection} is pulled by {operation}, which {what}")]
    NoPages { collection: CollectionName, operation: String, what: &'static str },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Handle {
    pub fn collections(&self) -> &Collections {
        &self.0.parts.collections
    }

    /// Durable when it returns. One result per thing to do, in order; what they push is enqueued by the same commit.
    pub async fn records(&self, ops: Vec<RecordOp>) -> Result<Vec<Result<RecordDone, Refusal>>, EngineError> {
        if self.is_draining() {
            return Err(EngineError::Draining);
        }
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        self.writer().records(ops).await
    }

    /// The push of a collection with the operation's rule for waiting jobs. Pushes of a record are always coalesced:
    /// what waits is out of date when it changes again.
    pub fn push_rule(&self, collection: &Collection) -> Option<Arc<PushRule>> {
        let rule = collection.push.as_ref()?;
        let provider = self.provider(&rule.provider);
        let coalesce = |name: &OperationName| {
            let declared = provider.as_ref().and_then(|p| p.operations.get(name)).map(|o| o.coalesce);
            declared.filter(|c| *c != Coalesce::Never).unwrap_or(Coalesce::Replace)
        };
        let delete = rule.delete.as_ref().map(|(name, _)| (name.clone(), coalesce(name)));
        Some(Arc::new(PushRule { coalesce: coalesce(&rule.operation), delete, ..PushRule::clone(rule) }))
    }

    /// Starts a pull of the collection, or finds the one that is running: the flag says which. `full`: ask for
    /// everything, whatever is known from before.
    pub async fn start_pull(&self, name: &CollectionName, full: bool, actor: &str) -> Result<(Pull, bool), PullError> {
        let start = self.pull_to_start(name, full, actor).await?;
        let done = self.records(vec![RecordOp::StartPull(Box::new(start))]).await?;
        match done.into_iter().next() {
            Some(Ok(RecordDone::Pulling { pull, started })) => Ok((pull, started)),
            Some(Err(refusal)) => Err(EngineError::Refused(refusal).into()),
            _ => Err(EngineError::Unavailable("the store answered a pull with something else".to_owned()).into()),
        }
    }

    /// What a commit needs to start a pull.
    pub(super) async fn pull_to_start(
        &self,
        name: &CollectionName,
        full: bool,
        actor: &str,
    ) -> Result<StartPull, PullError> {
        let collection = self.collections().get(name).ok_or_else(|| PullError::NoCollection(name.clone()))?;
        let rule = collection.pull.as_ref().ok_or_else(|| PullError::NoPull(name.clone()))?;
        let no_pages = |what| PullError::NoPages {
            collection: name.clone(),
            operation: format!("{}/{}", rule.provider, rule.operation),
            what,
        };
        let provider = self.provider(&rule.provider).ok_or_else(|| no_pages("has no provider"))?;
        let operation = provider.operations.get(&rule.operation).ok_or_else(|| no_pages("is not declared"))?;
        let pages = operation.pages.as_ref().ok_or_else(|| no_pages("declares no pages"))?;
        let mut job = NewJob::new(rule.provider.clone(), rule.operation.clone(), "null");
        job.account = rule.account.clone();
        job.labels.insert("collection".to_owned(), name.to_string());
        Ok(StartPull {
            collection: name.clone(),
            shape: collection.shape.clone(),
            actor: actor.to_owned(),
            full,
            sweep: rule.sweep,
            marks: rule.updated.is_some() && pages.since.is_some(),
            full_before: self.clock().now() - rule.full_every,
            job,
            replace: self.stuck_pull(name).await?,
        })
    }

    /// A pull that says it runs, while the job of its page is no more.
    async fn stuck_pull(&self, name: &CollectionName) -> Result<Option<i64>, EngineError> {
        let known = self.store().collection(name).await?;
        let Some(pull) = known.and_then(|set| set.pull).filter(|pull| pull.state == PullState::Running) else {
            return Ok(None);
        };
        let job = match pull.job_id() {
            Some(id) => self.store().job(id).await?,
            None => None,
        };
        // A delivered one is no end: the next page's number may not have been read with it.
        let gone = job.is_none_or(|job| matches!(job.state, State::Dead | State::Cancelled));
        Ok(gone.then_some(pull.id))
    }
}

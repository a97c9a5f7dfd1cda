//! The actor behind collections: deletes what a full pull did not see, puts records into the indexes of a changed
//! declaration, forgets what was deleted long ago. All in bounded steps, each a commit of its own, so a crash in between
//! costs nothing but the step. Must never know: SQL, HTTP. Next: `engine/collections`.

use std::sync::Arc;
use std::time::Duration;

use super::Handle;
use crate::engine::EngineError;
use crate::engine::supervisor::BEAT_EVERY;
use crate::model::collection::Collection;
use crate::model::record::{CollectionInfo, PullState};
use crate::store::{RecordDone, RecordOp};

/// Records of one step.
const STEP: u32 = 500;
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Starts the actor.
pub(in crate::engine) fn start(handle: &Handle) {
    let supervisor = handle.supervisor().clone();
    let handle = handle.clone();
    supervisor.actor("collections", Default::default(), move |beat| {
        let handle = handle.clone();
        async move {
            let mut forget_at = handle.clock().steady();
            loop {
                beat.beat();
                let forget = handle.clock().steady() >= forget_at;
                for collection in handle.collections().all().values() {
                    if let Err(e) = tend(&handle, collection, forget).await {
                        // A chore that failed is done at the next turn: nothing depends on when.
                        tracing::warn!(collection = %collection.name, error = %e, "a chore of a collection is put off");
                    }
                }
                if forget {
                    forget_at = handle.clock().steady() + FORGET_EVERY;
                }
                tokio::select! {
                    biased;
                    () = beat.stop.cancelled() => return Ok(()),
                    () = handle.collections().0.chores.notified() => {}
                    () = tokio::time::sleep(BEAT_EVERY) => {}
                }
            }
        }
    });
}

async fn tend(handle: &Handle, collection: &Arc<Collection>, forget: bool) -> Result<(), EngineError> {
    let Some(known) = handle.store().collection(&collection.name).await? else { return Ok(()) };
    if handle.is_draining() {
        return Ok(());
    }
    if known.shape != collection.shape {
        reshape(handle, collection).await?;
    }
    if let Some(pull) = known.pull.as_ref().filter(|pull| pull.state == PullState::Sweeping) {
        let rule = handle.push_rule(collection);
        let pulled_from = collection.pull.as_ref().map(|pull| pull.provider.clone());
        // What a provider deleted is not deleted there again.
        let push = rule.filter(|rule| Some(&rule.provider) != pulled_from.as_ref());
        let sweep =
            || RecordOp::Sweep { collection: collection.name.clone(), pull: pull.id, push: push.clone(), limit: STEP };
        repeat(handle, sweep).await?;
    }
    if forget && known.last_change > known.forgotten {
        let before = handle.clock().now() - collection.tombstones;
        repeat(handle, || RecordOp::Forget { collection: collection.name.clone(), before, limit: STEP }).await?;
    }
    Ok(())
}

/// Repeats a bounded step until it finds nothing more to do.
async fn repeat(handle: &Handle, step: impl Fn() -> RecordOp) -> Result<(), EngineError> {
    while let Some(RecordDone::Count(moved)) = one(handle, step()).await? {
        if moved < u64::from(STEP) {
            break;
        }
    }
    Ok(())
}

async fn one(handle: &Handle, op: RecordOp) -> Result<Option<RecordDone>, EngineError> {
    Ok(handle.records(vec![op]).await?.into_iter().next().transpose()?)
}

/// Puts every record into the indexes and aggregates as they are declared now. Records that no longer fit the declaration
/// keep what they have until they change.
async fn reshape(handle: &Handle, collection: &Arc<Collection>) -> Result<(), EngineError> {
    tracing::info!(collection = %collection.name, "its indexes and aggregates are being built");
    let mut after = String::new();
    loop {
        let page = handle.store().list_records(&collection.name, None, &after, STEP as usize).await?;
        after = page.records.last().map(|record| record.id.to_string()).unwrap_or(after);
        let items = page.records.iter().filter_map(|record| {
            let checked = collection.check(record.data.clone()).ok()?;
            Some((record.id.clone(), record.version, checked.facts))
        });
        let (items, done) = (items.collect(), (!page.more).then(|| collection.shape.clone()));
        one(handle, RecordOp::Reshape { collection: collection.name.clone(), items, done }).await?;
        if !page.more {
            return Ok(());
        }
    }
}

/// Are the collection's indexes and aggregates those of its declaration?
pub fn is_built(collection: &Collection, known: Option<&CollectionInfo>) -> bool {
    known.is_none_or(|known| known.shape.is_empty() || known.shape == collection.shape)
}

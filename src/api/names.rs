//! Small lookups that never change once made: the key of a flow, the id of a run. Bounded memory.
//!
//! Must never know: jobs. Next: `api/watch`, which asks for flows at every event.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::Result;
use crate::model::flow::FlowKey;
use crate::model::id::{FlowId, RunId};
use crate::store::Store;

/// Entries of one lookup; when it is full it starts afresh.
const ENTRIES_MAX: usize = 50_000;

#[derive(Debug, Default)]
pub struct Names {
    flows: Lookup<FlowId, Arc<FlowKey>>,
    runs: Lookup<i64, RunId>,
}

impl Names {
    /// `None`: the flow is not kept any more.
    pub async fn flow(&self, store: &dyn Store, id: FlowId) -> Result<Option<Arc<FlowKey>>> {
        if let Some(found) = self.flows.get(&id) {
            return Ok(Some(found));
        }
        let found = store.flow(id).await?.map(|flow| Arc::new(flow.key));
        Ok(found.inspect(|key| self.flows.put(id, Arc::clone(key))))
    }

    /// Runs are listed newest first below a number, so the first below `seq + 1` is the one, if it is there.
    pub async fn run(&self, store: &dyn Store, seq: i64) -> Result<Option<RunId>> {
        if seq == 0 {
            return Ok(None);
        }
        if let Some(found) = self.runs.get(&seq) {
            return Ok(Some(found));
        }
        let below = store.list_runs(Some(seq + 1), 1).await?;
        let found = below.first().map(|run| run.id).filter(|id| id.seq == seq);
        Ok(found.inspect(|id| self.runs.put(seq, *id)))
    }
}

#[derive(Debug)]
struct Lookup<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Lookup<K, V> {
    fn default() -> Self {
        Lookup(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash, V: Clone> Lookup<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: K, value: V) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= ENTRIES_MAX {
            map.clear();
        }
        map.insert(key, value);
    }
}

//! Which flow a number means. Numbers are never used again and a flow's key never changes, so this may be remembered from
//! one commit to the next, unlike its counters. Next: `work`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use crate::model::flow::FlowKey;
use crate::model::id::FlowId;

/// Flows remembered at most; then all over again.
const KEPT_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<HashMap<FlowId, FlowKey>>);

impl Keys {
    fn known(&self) -> MutexGuard<'_, HashMap<FlowId, FlowKey>> {
        self.0.lock().expect("nothing panics while it holds the keys")
    }

    pub(super) fn of(&self, flow: FlowId) -> Option<FlowKey> {
        self.known().get(&flow).cloned()
    }

    pub(super) fn learn(&self, flow: FlowId, key: &FlowKey) {
        let mut known = self.known();
        if known.len() >= KEPT_MAX {
            known.clear();
        }
        known.insert(flow, key.clone());
    }

    /// A commit found a flow gone: no reason to trust the others.
    pub(super) fn forget(&self) {
        self.known().clear();
    }
}

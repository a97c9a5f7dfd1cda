//! The providers in force and their gates. Read by everybody, changed only by applying, pausing and deleting.
//!
//! Must never know: where declarations come from. Next: `gate`, one per entry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::gate::GateHandle;
use crate::model::name::{OperationName, ProviderName};
use crate::model::provider::{CalendarPeriod, LimitKind, Operation, Provider};

#[derive(Clone, Debug)]
pub struct Entry {
    pub provider: Arc<Provider>,
    pub revision: i64,
    pub paused: bool,
    pub gate: GateHandle,
}

/// Cheap to clone; a reader never waits for a writer.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<ArcSwap<BTreeMap<ProviderName, Entry>>>);

impl Registry {
    pub fn get(&self, name: &ProviderName) -> Option<Entry> {
        self.0.load().get(name).cloned()
    }

    pub fn all(&self) -> Arc<BTreeMap<ProviderName, Entry>> {
        self.0.load_full()
    }

    pub fn put(&self, entry: Entry) {
        self.0.rcu(|map| {
            let mut map = BTreeMap::clone(map);
            map.insert(entry.provider.name.clone(), entry.clone());
            map
        });
    }

    pub fn remove(&self, name: &ProviderName) {
        self.0.rcu(|map| {
            let mut map = BTreeMap::clone(map);
            map.remove(name);
            map
        });
    }

    pub fn operation(
        &self,
        provider: &ProviderName,
        operation: &OperationName,
    ) -> Option<(Arc<Provider>, Arc<Operation>)> {
        let map = self.0.load();
        let entry = map.get(provider)?;
        Some((entry.provider.clone(), entry.provider.operations.get(operation)?.clone()))
    }

    /// How long an ended call may still count against a limit: the journal must remember at least that far back.
    pub fn longest_window(&self) -> Duration {
        self.0.load().values().map(|e| longest_window(&e.provider)).max().unwrap_or_default()
    }
}

/// The longest time for which a call of the provider counts against one of its limits.
pub fn longest_window(provider: &Provider) -> Duration {
    let lanes = provider.operations.values().flat_map(|o| o.single.iter().chain(o.batch.iter()));
    let limits = provider.limits.iter().chain(lanes.flat_map(|l| l.limits.iter()));
    limits.map(|l| reach(&l.kind)).max().unwrap_or_default()
}

fn reach(kind: &LimitKind) -> Duration {
    const HOUR: Duration = Duration::from_secs(3_600);
    match kind {
        LimitKind::Window { per, .. } | LimitKind::Paced { per, .. } => *per * 2,
        LimitKind::Bucket { capacity, refill, per, .. } => {
            per.mul_f64(f64::from(*capacity) / f64::from((*refill).max(1)))
        }
        LimitKind::Concurrency { .. } => Duration::ZERO,
        LimitKind::Calendar { period: CalendarPeriod::Hour, .. } => HOUR * 2,
        LimitKind::Calendar { period: CalendarPeriod::Day, .. } => HOUR * 49,
        LimitKind::Calendar { period: CalendarPeriod::Month, .. } => HOUR * 24 * 32,
    }
}

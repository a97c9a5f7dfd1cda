//! Wake-ups: what a commit changed, told to the actors it concerns. A lost wake costs time, never a job.
//!
//! Nothing here can grow without bound: flows are absolute counts, the newest replaces the last; due times are one
//! number; event readers that lag go on from the store. Must never know what the woken do. Next: `gate`, `sweeper`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::{Notify, broadcast, watch};

use crate::clock::Timestamp;
use crate::model::event::Event;
use crate::model::flow::Flow;
use crate::model::id::FlowId;
use crate::model::name::ProviderName;
use crate::store::Committed;

/// Groups of events that a reader may be behind before it has to go on from the store.
const EVENT_GROUPS_MAX: usize = 1_024;

/// Flows of one provider that changed since its gate looked last.
#[derive(Debug, Default)]
pub struct FlowBox {
    changed: Mutex<BTreeMap<FlowId, Flow>>,
    pub wake: Notify,
}

impl FlowBox {
    /// The newer of what is known and this: other daemons' news may come late.
    pub fn put(&self, flow: Flow) {
        let mut changed = self.changed.lock().expect("no panic while held");
        if changed.get(&flow.id).is_none_or(|known| known.version <= flow.version) {
            changed.insert(flow.id, flow);
        }
    }

    pub fn take(&self) -> BTreeMap<FlowId, Flow> {
        std::mem::take(&mut *self.changed.lock().expect("no panic while held"))
    }
}

#[derive(Debug)]
pub struct Signals {
    gates: RwLock<BTreeMap<ProviderName, Arc<FlowBox>>>,
    events: broadcast::Sender<Arc<Vec<Event>>>,
    next_due: watch::Sender<Timestamp>,
}

impl Signals {
    pub fn new() -> Self {
        Signals {
            gates: RwLock::default(),
            events: broadcast::channel(EVENT_GROUPS_MAX).0,
            next_due: watch::channel(Timestamp::NEVER).0,
        }
    }

    /// The box of a provider's gate; made when it is asked for first.
    pub fn flow_box(&self, provider: &ProviderName) -> Arc<FlowBox> {
        if let Some(found) = self.gates.read().expect("no panic while held").get(provider) {
            return found.clone();
        }
        self.gates.write().expect("no panic while held").entry(provider.clone()).or_default().clone()
    }

    pub fn forget(&self, provider: &ProviderName) {
        self.gates.write().expect("no panic while held").remove(provider);
    }

    /// Takes the flows and events out of a commit's report and passes them on.
    pub fn committed(&self, committed: &mut Committed) {
        let gates = self.gates.read().expect("no panic while held");
        let mut last: Option<(ProviderName, Arc<FlowBox>)> = None;
        for flow in committed.flows.drain(..) {
            if last.as_ref().is_none_or(|(name, _)| *name != flow.key.provider) {
                let Some(found) = gates.get(&flow.key.provider) else { continue };
                if let Some((_, full)) = last.replace((flow.key.provider.clone(), found.clone())) {
                    full.wake.notify_one();
                }
            }
            if let Some((_, flows)) = &last {
                flows.put(flow);
            }
        }
        if let Some((_, full)) = last {
            full.wake.notify_one();
        }
        drop(gates);
        self.next_due.send_if_modified(|due| std::mem::replace(due, committed.next_due) != committed.next_due);
        if !committed.events.is_empty() {
            // Nobody listening is fine.
            let _ = self.events.send(Arc::new(std::mem::take(&mut committed.events)));
        }
    }

    /// Does anybody watch the events?
    pub fn is_watched(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// Passes events on that were committed elsewhere. Nobody listening is fine.
    pub fn broadcast(&self, events: Vec<Event>) {
        let _ = self.events.send(Arc::new(events));
    }

    pub fn events(&self) -> broadcast::Receiver<Arc<Vec<Event>>> {
        self.events.subscribe()
    }

    pub fn next_due(&self) -> watch::Receiver<Timestamp> {
        self.next_due.subscribe()
    }

    pub fn set_next_due(&self, due: Timestamp) {
        self.next_due.send_replace(due);
    }
}

impl Default for Signals {
    fn default() -> Self {
        Signals::new()
    }
}

//! A group: the flows of one (operation, account). They share lanes, permits and batches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::super::caller::Completion;
use crate::limiter::{Keyed, Spend};
use crate::model::call::Lane;
use crate::model::flow::{Flow, FlowKey};
use crate::model::id::FlowId;
use crate::model::name::{Account, OperationName};
use crate::plan::batcher::Splitter;
use crate::plan::fairness::Share;
use crate::plan::lanes::Tide;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    pub operation: OperationName,
    pub account: Account,
}

impl GroupKey {
    pub fn of(key: &FlowKey) -> Self {
        GroupKey { operation: key.operation.clone(), account: key.account.clone() }
    }
}

/// What the gate keeps of a group while it has work or calls.
#[derive(Debug, Default)]
pub struct Group {
    /// Ready jobs of its flows, per class, most urgent first; less what was planned since the last commit's report.
    pub ready: [u64; 3],
    /// What each flow adds to `ready`.
    flows: BTreeMap<FlowId, [u64; 3]>,
    pub tide: Tide,
    /// Shared with the callers, who must know at once whether a refused batch is to be tried in halves.
    pub splitter: Arc<Mutex<Splitter>>,
    /// Per lane, made on first use and after a new declaration.
    pub spends: [Option<Arc<[Spend]>>; 2],
    /// Limits by key, per lane, likewise; acquired by the caller, who knows the keys.
    pub keyed: [Option<Arc<[Keyed]>>; 2],
    pub in_flight: [u32; 2],
}

impl Group {
    /// Takes a flow's ready jobs in; `alive`: it has work of any kind left. Returns true when a class that had nothing
    /// ready has something now.
    pub fn take_in(&mut self, flow: &Flow, ready: [u64; 3], alive: bool) -> bool {
        let known = if alive { self.flows.insert(flow.id, ready) } else { self.flows.remove(&flow.id) };
        let (known, before) = (known.unwrap_or_default(), self.ready);
        let now = if alive { ready } else { [0; 3] };
        for class in 0..3 {
            self.ready[class] = self.ready[class] - known[class] + now[class];
        }
        before.iter().zip(self.ready).any(|(&was, is)| was == 0 && is > 0)
    }

    /// These jobs are about to leave; the next report says whether they did.
    pub fn planned(&mut self, shares: &[Share]) {
        for share in shares {
            let class = share.class as usize;
            let Some(ready) = self.flows.get_mut(&share.flow).map(|r| &mut r[class]) else { continue };
            let left = ready.saturating_sub(u64::from(share.count));
            self.ready[class] -= *ready - left;
            *ready = left;
        }
    }

    /// Nothing to do and nothing on the wire: can be forgotten, but for a tide that is still out.
    pub fn is_idle(&self) -> bool {
        self.flows.is_empty() && self.in_flight == [0; 2]
    }

    pub fn call_ended(&mut self, completion: &Completion) {
        let lane = completion.lane as usize;
        self.in_flight[lane] = self.in_flight[lane].saturating_sub(1);
    }

    /// Jobs that the next batch may take; 0 while a search for a bad record waits for its last part's answer.
    pub fn batch_size(&self, size_max: u32) -> u32 {
        let splitter = self.splitter.lock().expect("no panic while held");
        if splitter.is_active() && self.in_flight[Lane::Batch as usize] > 0 { 0 } else { splitter.cap(size_max) }
    }

    /// Is the next batch a part of a refused one, and how many jobs of it are to go by the single lane instead, if
    /// that is better?
    pub fn search(&self) -> (bool, Option<u32>) {
        let splitter = self.splitter.lock().expect("no panic while held");
        (splitter.is_active(), splitter.is_hopeless().then(|| splitter.suspects()))
    }

    /// Forgets what was derived from the old declaration.
    pub fn redeclare(&mut self) {
        self.spends = [None, None];
        self.keyed = [None, None];
    }
}

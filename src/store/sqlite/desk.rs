//! What the writer remembers between commits: next numbers, the flows in use, the jobs on the wire.
//!
//! Changed only after a commit succeeded; whenever the outcome of one is in doubt, it is read anew from the database.
//! Next: `work`, one commit under way.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::row::{self, Columns};
use super::{error, sql};
use crate::clock::Timestamp;
use crate::model::flow::{Flow, FlowCounts, FlowKey};
use crate::model::id::{CallId, FlowId};
use crate::model::name::{OperationName, ProviderName};
use crate::store::Error;
use crate::store::rules::Core;

/// Flows kept in memory, about 500 bytes each.
const FLOWS_KEPT: usize = 8_192;
/// Jobs on the wire kept in memory, about 250 bytes each; others are read again when their call ends.
const CALLING_KEPT: usize = 65_536;

/// The next numbers to give out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub seq: i64,
    pub call: i64,
    pub flow: i64,
    pub run: i64,
    pub event: i64,
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    pub numbers: Numbers,
    pub epoch: i64,
    pub steady_floor: Timestamp,
    pub next_due: Timestamp,
    pub tallies: BTreeMap<(ProviderName, OperationName), FlowCounts>,
    pub flows: Recent<FlowId, Flow>,
    pub flow_ids: Recent<FlowKey, FlowId>,
    pub calling: HashMap<i64, Core>,
    pub open_calls: HashMap<CallId, Vec<i64>>,
}

impl Desk {
    /// Reads everything that cannot be looked up later.
    pub(super) async fn read(conn: &mut SqliteConnection) -> Result<Desk, Error> {
        let meta = sqlx::query(sql::META).fetch_one(&mut *conn).await.map_err(error::of)?;
        let mut meta = Columns::of(&meta);
        let epoch = meta.int()?;
        let (_boot, _offset) = (meta.opt_str()?, meta.opt_int()?);
        let steady_floor = meta.time()?;
        let (seq, call) = (meta.int()?, meta.int()?);
        let last = sqlx::query(sql::LAST_NUMBERS).fetch_one(&mut *conn).await.map_err(error::of)?;
        let mut last = Columns::of(&last);
        let mut next = || last.opt_int().map(|n| n.unwrap_or(0) + 1);
        let numbers =
            Numbers { seq: next()?.max(seq), call: next()?.max(call), flow: next()?, run: next()?, event: next()? };
        let mut tallies = BTreeMap::new();
        for tally in sqlx::query(sql::TALLIES).fetch_all(&mut *conn).await.map_err(error::of)? {
            let tally = row::tally(&tally)?;
            tallies.insert((tally.provider, tally.operation), tally.counts);
        }
        let next_due = earliest(&sqlx::query(sql::NEXT_DUE).fetch_all(conn).await.map_err(error::of)?)?;
        Ok(Desk { numbers, epoch, steady_floor, next_due, tallies, ..Desk::default() })
    }

    pub(super) fn keep_flow(&mut self, flow: Flow) {
        self.flow_ids.put(flow.key.clone(), flow.id);
        self.flows.put(flow.id, flow);
    }

    /// Some flows are gone for good: those still in use are read again.
    pub(super) fn forget_flows(&mut self) {
        self.flows = Recent::default();
        self.flow_ids = Recent::default();
    }

    pub(super) fn keep_calling(&mut self, core: Core) {
        if self.calling.len() < CALLING_KEPT {
            self.calling.insert(core.id.seq, core);
        }
    }

    pub(super) fn keep_call(&mut self, id: CallId, jobs: Vec<i64>) {
        if self.open_calls.len() < CALLING_KEPT {
            self.open_calls.insert(id, jobs);
        }
    }
}

/// The answer to `next_due.sql`.
pub(super) fn earliest(rows: &[SqliteRow]) -> Result<Timestamp, Error> {
    let due = rows.first().map(|row| Columns::of(row).opt_int()).transpose()?;
    Ok(due.flatten().map_or(Timestamp::NEVER, Timestamp))
}

/// Keeps what was used lately: two generations, the older of which is dropped as a whole when the younger is full.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Recent { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Recent<K, V> {
    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.put(key.clone(), value.clone());
        Some(value)
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= FLOWS_KEPT / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_lately_stays_and_the_rest_goes() {
        let mut recent = Recent::default();
        for n in 0..FLOWS_KEPT {
            recent.put(n, n);
            assert_eq!(recent.get(&0), Some(0));
        }
        assert_eq!(recent.get(&1), None);
        assert!(recent.young.len() + recent.old.len() <= FLOWS_KEPT);
    }
}

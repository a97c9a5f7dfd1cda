//! Forgetting what is old. Next: `read`.

use std::collections::BTreeSet;

use super::{Row, Work};
use crate::clock::Timestamp;
use crate::model::call::Ending;
use crate::model::id::{CallId, FlowId};
use crate::store::rules::{self, Stand};

impl Work<'_> {
    /// Returns how many went, and whether no old one is left.
    pub(super) fn prune_jobs(
        &mut self,
        finished_before: Timestamp,
        dead_before: Timestamp,
        limit: usize,
    ) -> (u64, bool) {
        let dead = self.oldest_final(dead_before, limit, |stand| stand == Stand::Dead);
        let done = self.oldest_final(finished_before, limit, |stand| stand != Stand::Dead);
        for seq in dead.iter().chain(&done) {
            self.world.jobs.remove(seq);
        }
        let jobs = &self.world.jobs;
        self.world.idempotency.retain(|_, (_, id)| jobs.contains_key(&id.seq));
        ((dead.len() + done.len()) as u64, dead.len() < limit && done.len() < limit)
    }

    /// Flows that nothing can name any more: their jobs are gone, and so are the events about them.
    pub(super) fn prune_flows(&mut self, before: Timestamp, limit: usize) -> u64 {
        let before = self.before_events(before);
        let idle = self.world.flows.iter().filter(|(id, (_, counts))| {
            rules::hot(counts) == 0 && self.world.touched_at[*id] < before && !self.touched.contains(id)
        });
        let mut idle: Vec<(Timestamp, FlowId)> = idle.map(|(id, _)| (self.world.touched_at[id], *id)).collect();
        idle.sort_unstable();
        idle.truncate(limit);
        for (_, id) in &idle {
            let (key, _) = self.world.flows.remove(id).expect("it was just found");
            self.world.flow_ids.remove(&key);
            self.world.touched_at.remove(id);
        }
        idle.len() as u64
    }

    /// Ended runs without a flow. After the flows.
    pub(super) fn prune_runs(&mut self, before: Timestamp, limit: usize) -> u64 {
        let before = self.before_events(before);
        let named: BTreeSet<i64> = self.world.flows.values().map(|(key, _)| key.run).collect();
        let over = self.world.runs.values().filter(|run| run.state.is_final() && !named.contains(&run.id.seq));
        let over = over.filter_map(|run| Some((run.finished_at.filter(|at| *at < before)?, run.id.seq)));
        let mut over: Vec<(Timestamp, i64)> = over.collect();
        over.sort_unstable();
        over.truncate(limit);
        for (_, seq) in &over {
            self.world.runs.remove(seq);
        }
        over.len() as u64
    }

    /// Messages whose time has come, the oldest first.
    pub(super) fn prune_deliveries(&mut self, limit: usize) -> u64 {
        let old = self.world.deliveries.iter().filter(|(_, forget_at)| **forget_at < self.now);
        let mut old: Vec<(Timestamp, [u8; 32])> = old.map(|(mark, at)| (*at, *mark)).collect();
        old.sort_unstable();
        old.truncate(limit);
        for (_, mark) in &old {
            self.world.deliveries.remove(mark);
        }
        old.len() as u64
    }

    fn before_events(&self, before: Timestamp) -> Timestamp {
        self.world.events.front().map_or(before, |oldest| before.min(oldest.at))
    }

    fn oldest_final(&self, before: Timestamp, limit: usize, which: impl Fn(Stand) -> bool) -> Vec<i64> {
        let old = |row: &&Row| which(row.core.stand) && row.core.finished_at.is_some_and(|at| at < before);
        let rows = self.world.jobs.values().filter(old);
        let mut found: Vec<(Option<Timestamp>, i64)> = rows.map(|r| (r.core.finished_at, r.core.id.seq)).collect();
        found.sort_unstable();
        found.into_iter().take(limit).map(|(_, seq)| seq).collect()
    }

    /// Looks at the oldest `limit` calls only: they end about in the order in which they began.
    pub(super) fn prune_calls(&mut self, before: Timestamp, limit: usize) -> u64 {
        let old = self.world.calls.values().take(limit);
        let old = old.filter(|c| c.ending != Ending::Open && c.settled_at.is_some_and(|at| at < before));
        let old: Vec<CallId> = old.map(|call| call.id).collect();
        for id in &old {
            self.world.calls.remove(id);
        }
        old.len() as u64
    }

    /// Looks at the oldest `limit` groups, which is what the log is made of. The newest stays: it carries the sequence
    /// on.
    pub(super) fn prune_events(&mut self, before: Timestamp, limit: usize) -> u64 {
        let had = self.world.events.len();
        let newest = self.world.last_event;
        let mut looked = 0;
        self.world.events.retain(|group| {
            looked += 1;
            looked > limit || group.at >= before || group.last() == newest
        });
        (had - self.world.events.len()) as u64
    }
}

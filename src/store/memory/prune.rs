//! Forgetting what is old. Next: `read`.

use super::{Row, Work};
use crate::clock::Timestamp;
use crate::model::call::Ending;
use crate::model::id::CallId;
use crate::store::rules::Stand;

impl Work<'_> {
    pub(super) fn prune_jobs(&mut self, finished_before: Timestamp, dead_before: Timestamp, limit: usize) -> u64 {
        let dead = self.oldest_final(dead_before, limit, |stand| stand == Stand::Dead);
        let done = self.oldest_final(finished_before, limit, |stand| stand != Stand::Dead);
        for seq in dead.iter().chain(&done) {
            self.world.jobs.remove(seq);
        }
        let jobs = &self.world.jobs;
        self.world.idempotency.retain(|_, (_, id)| jobs.contains_key(&id.seq));
        (dead.len() + done.len()) as u64
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

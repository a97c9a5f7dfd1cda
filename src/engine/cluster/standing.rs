//! How a daemon stands among the others: what its actors saw last, for whoever asks.
//!
//! `members` notes the daemons and whether it can beat, `truth` whether the shared limits may be used; probes, status pages
//! and explanations read. A photograph, at most a beat old while the database answers: nothing decides by it. Must never
//! know: SQL, scripts. Next: `members`.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{Cluster, Owned, truth};
use crate::engine::status::{ClusterView, HeldView, MemberView};
use crate::limiter::RedisLimiter;
use crate::model::id::DaemonId;
use crate::model::name::{Account, ProviderName};
use crate::model::shard::{SHARDS, shard_of};
use crate::store::leases::DaemonNow;

#[derive(Debug)]
pub struct Standing {
    daemon: DaemonId,
    limiter: Arc<RedisLimiter>,
    owned: Owned,
    daemons: ArcSwap<Vec<DaemonNow>>,
    /// Why the last beat failed.
    unbeaten: ArcSwapOption<String>,
    /// Why the counts in Redis cannot be used.
    untrusted: ArcSwapOption<String>,
}

impl Standing {
    pub fn new(cluster: &Cluster, owned: Owned) -> Self {
        Standing {
            daemon: cluster.daemon,
            limiter: cluster.limiter.clone(),
            owned,
            daemons: ArcSwap::default(),
            unbeaten: ArcSwapOption::empty(),
            // Until they were compared with the journal once.
            untrusted: ArcSwapOption::from_pointee(truth::REBUILDING.to_owned()),
        }
    }

    pub fn saw(&self, daemons: Vec<DaemonNow>) {
        self.daemons.store(Arc::new(daemons));
        self.unbeaten.store(None);
    }

    pub fn could_not_beat(&self, reason: String) {
        self.unbeaten.store(Some(Arc::new(reason)));
    }

    /// `None`: the counts are all there.
    pub fn limits_are_in_doubt(&self, reason: Option<String>) {
        self.untrusted.store(reason.map(Arc::new));
    }

    /// Why the database cannot be reached, when so.
    pub fn store_fault(&self) -> Option<String> {
        self.unbeaten.load().as_deref().map(|reason| format!("PostgreSQL does not answer: {reason}"))
    }

    /// Why no limit can be had, when so: jobs are held, and waiting costs them only time.
    pub fn limiter_fault(&self) -> Option<String> {
        if self.limiter_away() {
            return Some("held: Redis does not answer".to_owned());
        }
        self.untrusted.load().as_deref().map(|reason| format!("held: {reason}"))
    }

    /// Why nothing leaves at all, when so. The database comes first: without it nothing is accepted either.
    pub fn fault(&self) -> Option<String> {
        self.store_fault().or_else(|| self.limiter_fault())
    }

    pub fn limiter_away(&self) -> bool {
        self.limiter.is_away()
    }

    pub fn partitions_held(&self, provider: &ProviderName) -> usize {
        self.owned.of(provider).map_or(0, |shards| shards.len())
    }

    /// Daemons on record whose heartbeat had ended when the list was read.
    pub fn dead(&self) -> Vec<DaemonId> {
        self.daemons.load().iter().filter(|daemon| !daemon.alive && daemon.id != self.daemon).map(|d| d.id).collect()
    }

    /// Daemons that lived when the list was read.
    pub fn alive(&self) -> usize {
        self.daemons.load().iter().filter(|daemon| daemon.alive).count()
    }

    pub fn daemon(&self) -> DaemonId {
        self.daemon
    }

    /// The others that lived within a day, and whether they live.
    pub fn others(&self) -> Vec<(DaemonId, bool)> {
        self.daemons.load().iter().filter(|d| d.id != self.daemon).map(|d| (d.id, d.alive)).collect()
    }

    /// Whose a part of an account is, when it is not ours: a sentence.
    pub fn elsewhere(&self, provider: &ProviderName, account: &Account, part: u16) -> Option<(Option<String>, String)> {
        if self.owned.hold(provider, account, part).is_some() {
            return None;
        }
        let shard = shard_of(account, part);
        let daemons = self.daemons.load();
        let holds = |d: &&DaemonNow| d.leases.iter().any(|l| l.shard == shard && l.provider == *provider);
        let owner = daemons.iter().filter(|d| d.alive && d.id != self.daemon).find(holds);
        Some(match owner {
            Some(owner) => (Some(owner.name.clone()), format!("its account is served by daemon {}", owner.name)),
            None => (None, "its account is served by no daemon at the moment; one takes it within seconds".to_owned()),
        })
    }

    pub fn view(&self) -> ClusterView {
        ClusterView {
            daemon: self.daemon.to_string(),
            daemons: self.daemons.load().iter().map(member).collect(),
            partitions: SHARDS,
            store_fault: self.store_fault(),
            limiter_fault: self.limiter_fault(),
        }
    }
}

fn member(daemon: &DaemonNow) -> MemberView {
    let mut held: Vec<HeldView> = Vec::new();
    for lease in &daemon.leases {
        let partition = (lease.shard, lease.fence);
        match held.iter_mut().find(|h| h.provider == lease.provider) {
            Some(known) => known.partitions.push(partition),
            None => held.push(HeldView { provider: lease.provider.clone(), partitions: vec![partition] }),
        }
    }
    MemberView {
        id: daemon.id.to_string(),
        name: daemon.name.clone(),
        started_at: daemon.started_at,
        heartbeat_until: daemon.heartbeat_until,
        alive: daemon.alive,
        held,
    }
}

//! What an engine needs to know when it is one of many: whose accounts are its own, what the others did, and whether the
//! shared limits can be trusted.
//!
//! `members` leases partitions of the accounts and keeps them, `relay` passes on what others committed, `truth` rebuilds
//! the shared limits from the journal whenever Redis has forgotten, `undertaker` gives what the dead hold of them a time to
//! end, `inherit` takes up what workers of a dead daemon hold, `standing` tells how all that stands. A daemon alone
//! has none of them and owns everything. Must never know: SQL, Redis commands. Next: `cluster/members`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::limiter::RedisLimiter;
use crate::model::id::DaemonId;
use crate::model::name::{Account, ProviderName};
use crate::model::provider::Provider;
use crate::model::shard::{Hold, shard_of};
use crate::store::leases::Leases;

pub mod inherit;
pub mod members;
pub mod relay;
pub mod standing;
pub mod truth;
pub mod undertaker;

/// Reads a declaration from the store: name and TOML source to provider, or why not.
pub type ReadDeclaration = Arc<dyn Fn(&ProviderName, &str) -> Result<Provider, String> + Send + Sync>;

/// What an engine among many is made of, beside what every engine is.
#[derive(Clone)]
pub struct Cluster {
    pub leases: Arc<dyn Leases>,
    pub limiter: Arc<RedisLimiter>,
    pub daemon: DaemonId,
    /// As the others show it.
    pub name: String,
    pub read: ReadDeclaration,
    /// Rung when another daemon gave partitions back.
    pub given_back: Arc<Notify>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("daemon", &self.daemon).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Partitions of one provider that are held, each with its fence.
pub type Shards = BTreeMap<u16, i64>;

/// Everything that is held.
type Held = BTreeMap<ProviderName, Arc<Shards>>;

/// Which accounts this process sends for. Cheap to clone; read at every release, changed a few times an hour.
#[derive(Clone, Debug, Default)]
pub struct Owned(Option<Arc<ArcSwap<Held>>>);

impl Owned {
    /// A daemon alone: one partition, never fenced.
    pub fn everything() -> Self {
        Owned(None)
    }

    /// Nothing yet.
    pub fn nothing() -> Self {
        Owned(Some(Arc::default()))
    }

    pub fn is_shared(&self) -> bool {
        self.0.is_some()
    }

    /// What is held of a provider; `None` when this process owns everything.
    pub fn of(&self, provider: &ProviderName) -> Option<Arc<Shards>> {
        self.0.as_ref().map(|all| all.load().get(provider).cloned().unwrap_or_default())
    }

    /// Under which lease this process sends for a part of an account, if under any.
    pub fn hold(&self, provider: &ProviderName, account: &Account, part: u16) -> Option<Hold> {
        match self.of(provider) {
            None => Some(Hold::ALONE),
            Some(shards) => {
                let shard = shard_of(account, part);
                shards.get(&shard).map(|&fence| Hold { shard, fence })
            }
        }
    }

    /// How many of an account's parts are held.
    pub fn parts_held(&self, provider: &ProviderName, account: &Account, spread: u16) -> u16 {
        let held = self.of(provider);
        let ours = |part: &u16| held.as_ref().is_none_or(|held| held.contains_key(&shard_of(account, *part)));
        (0..spread).filter(ours).count() as u16
    }

    /// Replaces what is held. True when that is something else than before.
    fn replace(&self, held: Held) -> bool {
        let Some(all) = &self.0 else { return false };
        if **all.load() == held {
            return false;
        }
        all.store(Arc::new(held));
        true
    }
}

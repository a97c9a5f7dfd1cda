//! Sharing the work: which daemon holds which partition of which provider, on a database that several daemons use.
//!
//! A daemon lives by its heartbeat and owns partitions while it does; all by the database's clock. Every change of owner
//! bumps the partition's fence, and a begin under an older fence begins nothing, so a daemon that slept through its lease
//! can do no harm. Must never know: accounts, jobs. Next: `store/postgres/leases.rs`.

use std::time::Duration;

use async_trait::async_trait;

use super::Error;
use crate::clock::Timestamp;
use crate::model::id::DaemonId;
use crate::model::name::ProviderName;

/// A partition and the fence under which it is held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    pub provider: ProviderName,
    pub shard: u16,
    pub fence: i64,
}

/// A daemon as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonNow {
    pub id: DaemonId,
    pub name: String,
    /// Times by the database's clock.
    pub started_at: Timestamp,
    pub heartbeat_until: Timestamp,
    /// Its heartbeat has not ended.
    pub alive: bool,
    pub leases: Vec<Lease>,
}

#[async_trait]
pub trait Leases: Send + Sync + std::fmt::Debug {
    /// Registers the daemon or prolongs its heartbeat. False: the heartbeat had ended meanwhile, so others may have
    /// taken partitions over; ask [`Leases::owned`].
    async fn beat(&self, daemon: DaemonId, name: &str, lease: Duration) -> Result<bool, Error>;

    /// Takes up to `shards_max` more partitions of the provider that are free or whose owner's heartbeat has ended, and
    /// returns those with their new fences. A daemon without a heartbeat gets none.
    async fn claim(
        &self,
        daemon: DaemonId,
        provider: &ProviderName,
        shards_max: usize,
    ) -> Result<Vec<(u16, i64)>, Error>;

    /// Gives partitions back, and tells the others; those that it does not own are left alone.
    async fn release(&self, daemon: DaemonId, provider: &ProviderName, shards: &[u16]) -> Result<(), Error>;

    /// What the daemon owns, by provider and shard.
    async fn owned(&self, daemon: DaemonId) -> Result<Vec<Lease>, Error>;

    /// All daemons on record, the living and those whose heartbeat ended within a day, by start.
    async fn daemons(&self) -> Result<Vec<DaemonNow>, Error>;
}

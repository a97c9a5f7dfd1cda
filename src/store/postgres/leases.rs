//! Partitions and heartbeats in SQL, each method one short transaction by the database's clock. Next: `read`.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::row::Columns;
use super::{PgStore, error, notices, sql};
use crate::clock::Timestamp;
use crate::model::id::DaemonId;
use crate::model::name::ProviderName;
use crate::model::shard::SHARDS;
use crate::store::Error;
use crate::store::leases::{DaemonNow, Lease, Leases};

#[async_trait]
impl Leases for PgStore {
    async fn beat(&self, daemon: DaemonId, name: &str, lease: Duration) -> Result<bool, Error> {
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX / 4);
        let lender = self.lender()?;
        let beat = sqlx::query(sql::BEAT).bind(daemon.to_string()).bind(name).bind(lease);
        let row = lender.ask_one(beat).await.map_err(error::of)?;
        lender.ask(sqlx::query(sql::FORGET_DAEMONS)).await.map_err(error::of)?;
        Ok(Columns::of(&row).int()? != 0)
    }

    async fn claim(
        &self,
        daemon: DaemonId,
        provider: &ProviderName,
        shards_max: usize,
    ) -> Result<Vec<(u16, i64)>, Error> {
        let lender = self.lender()?;
        // All on record, so that a claim is one statement over rows that exist.
        let shards: Vec<i64> = (0..i64::from(SHARDS)).collect();
        let providers = vec![provider.as_str(); shards.len()];
        let make = sqlx::query(sql::MAKE_PARTITIONS).bind(providers).bind(shards);
        lender.ask(make).await.map_err(error::of)?;
        let claim = sqlx::query(sql::CLAIM_PARTITIONS).bind(daemon.to_string()).bind(provider.as_str());
        let claim = claim.bind(shards_max.min(usize::from(SHARDS)) as i64);
        let rows = lender.ask(claim).await.map_err(error::of)?;
        let mut claimed = Vec::with_capacity(rows.len());
        for row in rows {
            let mut columns = Columns::of(&row);
            claimed.push((shard(columns.int()?)?, columns.int()?));
        }
        claimed.sort_unstable();
        Ok(claimed)
    }

    async fn release(&self, daemon: DaemonId, provider: &ProviderName, shards: &[u16]) -> Result<(), Error> {
        let shards: Vec<i64> = shards.iter().map(|shard| i64::from(*shard)).collect();
        let release = sqlx::query(sql::RELEASE_PARTITIONS).bind(daemon.to_string()).bind(provider.as_str());
        let release = release.bind(shards).bind(notices::given_back(daemon));
        self.lender()?.ask(release).await.map(drop).map_err(error::of)
    }

    async fn owned(&self, daemon: DaemonId) -> Result<Vec<Lease>, Error> {
        let mut owned = self.leases_of(vec![daemon.to_string()]).await?;
        Ok(owned.remove(&daemon.to_string()).unwrap_or_default())
    }

    async fn daemons(&self) -> Result<Vec<DaemonNow>, Error> {
        let rows = self.lender()?.ask(sqlx::query(sql::DAEMONS)).await.map_err(error::of)?;
        let mut daemons = Vec::with_capacity(rows.len());
        for row in rows {
            let mut columns = Columns::of(&row);
            let id = columns.str()?;
            let id = uuid::Uuid::parse_str(id).map_err(|_| error::strange("the id of a daemon", id))?;
            daemons.push(DaemonNow {
                id: DaemonId(id),
                name: columns.str()?.to_owned(),
                started_at: columns.time()?,
                heartbeat_until: columns.time()?,
                alive: columns.int()? != 0,
                leases: Vec::new(),
            });
        }
        let mut leases = self.leases_of(daemons.iter().map(|daemon| daemon.id.to_string()).collect()).await?;
        for daemon in &mut daemons {
            daemon.leases = leases.remove(&daemon.id.to_string()).unwrap_or_default();
        }
        Ok(daemons)
    }
}

impl PgStore {
    async fn leases_of(&self, daemons: Vec<String>) -> Result<BTreeMap<String, Vec<Lease>>, Error> {
        let rows = self.lender()?.ask(sqlx::query(sql::OWNED_PARTITIONS).bind(daemons)).await;
        let mut leases: BTreeMap<String, Vec<Lease>> = BTreeMap::new();
        for row in rows.map_err(error::of)? {
            let mut columns = Columns::of(&row);
            let owner = columns.str()?.to_owned();
            let lease = Lease { provider: columns.provider()?, shard: shard(columns.int()?)?, fence: columns.int()? };
            leases.entry(owner).or_default().push(lease);
        }
        Ok(leases)
    }

    /// The database's time.
    pub(super) async fn db_now(&self) -> Result<Timestamp, Error> {
        let now = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
        let row = self.lender()?.ask_one(sqlx::query(now)).await.map_err(error::of)?;
        Columns::of(&row).time()
    }
}

fn shard(n: i64) -> Result<u16, Error> {
    u16::try_from(n).map_err(|_| error::strange("a partition", n))
}

//! What everything stands on: the store and the limiter, embedded or shared. The only place that chooses.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::StartError;
use super::vault::StoreVault;
use crate::clock::Clock;
use crate::config::{self, Address, Config};
use crate::engine::cluster::Cluster;
use crate::limiter::redis::{Level, Settings};
use crate::limiter::{Limiter, LocalLimiter, RedisLimiter};
use crate::model::id::DaemonId;
use crate::model::name::ProviderName;
use crate::model::provider::Provider;
use crate::outbound::read_secret;
use crate::store::postgres::{PgOptions, PgStore};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{self, Store};

/// Below systemd's TimeoutStartSec, and long enough for a database to start.
const STORE_WAIT: Duration = Duration::from_secs(60);
const STORE_AGAIN: Duration = Duration::from_millis(500);

pub(super) struct Base {
    pub store: Arc<dyn Store>,
    pub limiter: Arc<dyn Limiter>,
    /// `None`: this daemon is alone.
    pub cluster: Option<Cluster>,
    /// Where tokens are kept, if there is a key.
    pub vault: StoreVault,
}

/// Opens what the configuration names; it accepts only pairs that keep their promises.
pub(super) async fn open(config: &Config, clock: &Clock) -> Result<Base, StartError> {
    match (&config.store, &config.limiter) {
        (config::Store::File(path), _) => {
            let store = Arc::new(SqliteStore::open(SqliteOptions::new(path)).await?);
            let epoch = store.info().await?.epoch;
            let vault = StoreVault { tokens: store.clone(), holder: "alone".to_owned(), clock: clock.clone() };
            Ok(Base { store, limiter: Arc::new(LocalLimiter::new(epoch)), cluster: None, vault })
        }
        (config::Store::Postgres { url, connections_max }, config::Limiter::Redis { url: redis, ca_file }) => {
            let mut options = PgOptions::new(reveal(url)?.expose_secret());
            options.connections_max = *connections_max;
            let store = Arc::new(open_postgres(options, clock).await?);
            let limiter = connect_redis(redis, ca_file.as_ref(), clock, store.daemon()).await?;
            let cluster = Cluster {
                leases: store.clone(),
                limiter: limiter.clone(),
                daemon: store.daemon(),
                name: config.cluster.name.clone(),
                given_back: Default::default(),
                read: Arc::new(read),
            };
            let holder = store.daemon().to_string();
            let vault = StoreVault { tokens: store.clone(), holder, clock: clock.clone() };
            Ok(Base { store, limiter, cluster: Some(cluster), vault })
        }
        (config::Store::Postgres { .. }, config::Limiter::Local) => {
            Err(StartError::Shared("expected limiter.kind = \"redis\" with store.kind = \"postgres\"".to_owned()))
        }
    }
}

/// After a power cut the daemon may be up before its database; one that answers and does not fit is refused at once.
async fn open_postgres(options: PgOptions, clock: &Clock) -> Result<PgStore, StartError> {
    let give_up_at = clock.steady() + STORE_WAIT;
    let mut said = false;
    loop {
        match PgStore::open(options.clone()).await {
            Ok(store) => return Ok(store),
            Err(store::Error::Open { reason }) => {
                return Err(StartError::Shared(format!("the store cannot be opened: {reason}")));
            }
            Err(e) if clock.steady() >= give_up_at => return Err(e.into()),
            Err(e) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(error = %e, "waiting for PostgreSQL, {} s at most", STORE_WAIT.as_secs());
                }
                clock.sleep_until(clock.steady() + STORE_AGAIN).await;
            }
        }
    }
}

/// Redis that is away now is waited for with jobs held; one whose settings would break a promise is refused.
async fn connect_redis(
    address: &Address,
    ca_file: Option<&PathBuf>,
    clock: &Clock,
    daemon: DaemonId,
) -> Result<Arc<RedisLimiter>, StartError> {
    let away = |e: crate::limiter::Error| StartError::Shared(e.to_string());
    let settings = Settings { ca_file: ca_file.cloned(), ..Settings::default() };
    let limiter = RedisLimiter::connect(reveal(address)?.expose_secret(), clock.clone(), settings);
    let limiter = Arc::new(limiter.map_err(away)?.known_as(daemon));
    match limiter.check().await {
        Ok(findings) => {
            for finding in findings {
                let said = format!("Redis {}: {}", finding.about, finding.text);
                match finding.level {
                    Level::Fine => {}
                    Level::Warning => tracing::warn!("{said}"),
                    Level::Refused => return Err(StartError::Shared(said)),
                }
            }
        }
        Err(e) => tracing::warn!(error = %e, "Redis does not answer yet; jobs are held until it does"),
    }
    Ok(limiter)
}

/// The URL itself. An error names where it should be.
pub fn reveal(address: &Address) -> Result<SecretString, StartError> {
    match address {
        Address::Plain(url) => Ok(SecretString::from(url.as_str())),
        Address::Secret(reference) => read_secret(reference).map_err(StartError::Shared),
    }
}

/// A declaration as the store keeps it.
fn read(name: &ProviderName, source: &str) -> Result<Provider, String> {
    let all = config::provider::parse(source, "store").map_err(|e| e.to_string())?;
    all.into_iter().find(|p| p.name == *name).ok_or_else(|| format!("it does not declare {name}"))
}

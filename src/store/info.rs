//! What a store says of itself and of the others that share its database. Next: `leases`.

use crate::clock::Timestamp;
use crate::model::id::{DaemonId, FlowId};
use crate::model::invalidation::Which;
use crate::model::name::ProviderName;
#[cfg(doc)]
use crate::store::Store;

/// Facts about the store, read back and not assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// `memory`, `sqlite 3.51.3`, ...
    pub kind: String,
    pub schema_version: i64,
    /// What makes a commit durable, as the database reports it: `wal, synchronous=FULL`.
    pub durability: String,
    /// Limiter epoch; permits of an older one are refused.
    pub epoch: i64,
    /// Boot and steady offset that the previous process used, and the latest steady stamp on record.
    pub steady: Option<(String, i64)>,
    pub steady_floor: Timestamp,
    pub size_bytes: u64,
    /// The database's own time, where several daemons share it: they align their steady lines to it, and it ends leases.
    pub db_now: Option<Timestamp>,
    /// This opening of the store among all that share it.
    pub daemon: Option<DaemonId>,
    /// Run id of the limiter's server that the epoch stands for ([`Store::bump_epoch`]).
    pub limiter_run: Option<String>,
}

/// Which open calls to read. A store that one process owns knows neither daemons nor a time of its own, and gives all:
/// whoever asks compares the leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Anyone,
    /// Begun by this daemon.
    Daemon(DaemonId),
    /// Their lease is over by the database's clock: nobody will finish them.
    Nobody,
}

/// News of another daemon's commits on the same database. A hint, never the truth: look at what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Changed(Touched),
    /// Something may have been missed: look at everything.
    Everything,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub flows: Vec<FlowId>,
    /// Named in place of their flows where those would have been too many.
    pub providers: Vec<ProviderName>,
    /// The event log has grown.
    pub events: bool,
    /// A provider's declaration was applied, deleted, paused or resumed.
    pub declarations: bool,
    /// A job came to or left `Place::Later`.
    pub due: bool,
    /// Cached answers that somebody threw away.
    pub invalidated: Vec<Which>,
    /// Jobs whose calls are open were called off, or a run was.
    pub called_off: bool,
    /// Partitions were given back: there are some to claim ([`super::leases::Leases::claim`]).
    pub given_back: bool,
}

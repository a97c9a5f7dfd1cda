//! From defaults, files, environment and flags to one checked [`Config`]; or to all that is wrong, at once.
//!
//! Later layers win: `config/default.toml` (embedded, and the manual), the file, `providers.d/*.toml`, the environment
//! (`TIDEGATE__SERVER__LISTEN`), flags. Secrets stay references. Must never know: what the settings do elsewhere.
//! Next: `config/load.rs` lays the layers, `config/server.rs` and `config/provider.rs` read them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::alert::Rule;
use crate::model::collection::Collection;
use crate::model::name::ScheduleName;
use crate::model::notify::Subscription;
use crate::model::provider::{Provider, SecretRef};
use crate::model::schedule::Spec;
use crate::model::webhook::Webhook;

mod alerts;
mod auth;
mod collection;
mod explain;
mod external;
mod file;
mod limit_headers;
mod limits;
mod load;
mod notify;
mod operation;
mod pages;
mod problem;
pub mod provider;
mod reader;
mod redact;
mod rules;
mod schedules;
mod server;
mod tree;
mod values;
mod warnings;
mod webhooks;

pub use load::{LoadOptions, Loaded, SecretCheck, load};
pub use problem::{Problem, Problems};
pub use values::{read_time, show_time};

/// The defaults, and the manual: every key with unit, bounds and default.
pub const DEFAULT_TOML: &str = include_str!("config/default.toml");

/// Everything the daemon was told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: Server,
    pub http: Http,
    pub store: Store,
    pub limiter: Limiter,
    pub cluster: Cluster,
    pub engine: Engine,
    pub retention: Retention,
    pub log: Log,
    pub telemetry: Telemetry,
    pub secrets: Secrets,
    pub providers: Vec<DeclaredProvider>,
    pub collections: Vec<Collection>,
    pub schedules: Vec<DeclaredSchedule>,
    pub webhooks: Vec<Webhook>,
    /// Their providers are among `providers`.
    pub notify: Vec<Subscription>,
    pub alerts: Vec<Rule>,
}

/// A schedule of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredSchedule {
    pub name: ScheduleName,
    pub spec: Spec,
    /// File and line.
    pub origin: String,
}

/// A provider with the text it came from.
#[derive(Clone, Debug)]
pub struct DeclaredProvider {
    pub provider: Arc<Provider>,
    /// TOML of this provider alone; [`provider::parse`] reads it.
    pub source: String,
    /// File and line.
    pub origin: String,
}

/// gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Loopback only, until TLS and authentication exist.
    pub listen: SocketAddr,
    /// `None`: no socket.
    pub socket: Option<PathBuf>,
    pub payload_bytes_max: usize,
    pub connections_max: u32,
    /// Streams of one connection.
    pub streams_max: u32,
}

/// REST, health, metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    pub listen: SocketAddr,
}

/// Where jobs are kept. Only pairs that keep their promises are accepted: [`Store::File`] with [`Limiter::Local`], and
/// [`Store::Postgres`] with [`Limiter::Redis`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// File of the embedded database: one daemon.
    File(PathBuf),
    /// A database that many daemons share.
    Postgres { url: Address, connections_max: u32 },
}

/// Where permits are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limiter {
    Local,
    /// `ca_file`: authorities to trust with `rediss://`; `None`: those of the machine.
    Redis {
        url: Address,
        ca_file: Option<PathBuf>,
    },
}

/// The URL of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Without a password.
    Plain(String),
    /// A secret that is the URL, because there is a password in it.
    Secret(SecretRef),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// This daemon's name, as the others see it.
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// How long calls may finish at shutdown.
    pub grace: Duration,
}

/// How long what is over is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    pub finished: Duration,
    pub dead: Duration,
    pub events: Duration,
    /// Ended calls, beyond what limits may still count.
    pub calls: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    /// As `info` or `info,tidegate=debug`.
    pub level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    Text,
    Json,
}

/// How secrets that the daemon itself comes by are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// Seals tokens in the store; `None`: they are in memory only.
    pub key: Option<SecretRef>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Where traces go by OTLP over gRPC; `None`: nowhere.
    pub otlp: Option<url::Url>,
}

#[cfg(test)]
mod tests;

//! What Tidegate offers, free of any wire: jobs, runs, providers, the daemon. One [`Error`] with one [`Code`].
//!
//! Here stands policy: which requests are well formed, what exists, how much may be asked for. Everything durable goes
//! through [`crate::engine::Handle`]; reads go to its store. Must never know: proto types, HTTP, SQL. Next:
//! `api/enqueue`, the way of a job into the house.

use std::sync::Arc;

use crate::clock::{Clock, Timestamp};
use crate::engine::Handle;
use crate::model::job::PAYLOAD_BYTES_MAX;
use crate::telemetry::Metrics;

pub mod admin;
pub mod bulk;
pub mod call_log;
pub mod calls;
pub mod enqueue;
pub mod error;
mod feed;
pub mod filter;
pub mod health;
pub mod jobs;
mod names;
pub mod page;
pub mod permits;
pub mod providers;
pub mod records;
pub mod reload;
mod repeat;
pub mod runs;
pub mod schedules;
pub mod undo;
pub mod watch;
pub mod webhooks;
pub mod workers;

pub use error::{Code, Error, Result};

/// What the frame decides about the edges.
#[derive(Clone, Debug)]
pub struct Options {
    /// Cap of one payload, bytes: `server.payload_bytes_max`.
    pub payload_bytes_max: usize,
    /// Version of the daemon, for people.
    pub version: &'static str,
    /// Whom to ask for a reload; `None`: there is nothing to reload.
    pub reload: Option<tokio::sync::mpsc::Sender<reload::Reload>>,
    /// Webhooks that come in. Shared with whoever puts others in force.
    pub webhooks: webhooks::Webhooks,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            version: env!("CARGO_PKG_VERSION"),
            reload: None,
            webhooks: webhooks::Webhooks::default(),
        }
    }
}

/// Who asks, for the record: `unix uid=1000`, `tcp 127.0.0.1:51234`, `file providers.d/crm.toml`.
pub type Actor = Arc<str>;

/// The offer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Handle,
    options: Options,
    started_at: Timestamp,
    names: names::Names,
    repeats: repeat::Repeats,
    looks: undo::fill::Looks,
    readers: feed::Readers,
}

impl Api {
    pub fn new(engine: Handle, options: Options) -> Self {
        let started_at = engine.clock().now();
        Api(Arc::new(Inner {
            engine,
            options,
            started_at,
            names: names::Names::default(),
            repeats: repeat::Repeats::default(),
            looks: undo::fill::Looks::default(),
            readers: feed::Readers::default(),
        }))
    }

    fn engine(&self) -> &Handle {
        &self.0.engine
    }

    pub fn clock(&self) -> &Clock {
        self.0.engine.clock()
    }

    /// Where the edges count what they do.
    pub fn metrics(&self) -> &Metrics {
        self.0.engine.metrics()
    }

    /// Live readers of the event log, and how many events the slowest has not read yet.
    pub async fn event_lag(&self) -> Result<(usize, u64)> {
        let (_, last) = self.engine().store().event_bounds().await?;
        Ok(self.0.readers.lag(last))
    }

    /// True once shutdown began.
    pub fn is_draining(&self) -> bool {
        self.0.engine.is_draining()
    }

    /// Resolves when shutdown begins.
    pub async fn draining(&self) {
        self.0.engine.draining().await;
    }
}

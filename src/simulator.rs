//! A provider that enforces its limits exactly and misbehaves on request: `tidegate simulate`, and a library for the
//! demo, the benches and the tests.
//!
//! Every arrival is stamped with the simulator's own steady clock as soon as the request head is read, counted in a
//! sliding window per declared limit, and only then judged; so the largest count in any window and the number of
//! refusals are two independent witnesses. Must never know: jobs, stores, the engine. Read on in `core` (what happens
//! to one request, pure), `limit` (the exact enforcers), `server` (the wire), `report` (what it says at the end).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub mod config;
pub mod core;
pub mod dice;
pub mod documents;
pub mod limit;
pub mod lists;
pub mod log;
pub mod records;
pub mod report;
mod server;
pub mod tokens;
pub mod watch;

pub use config::{Faults, HeaderStyle, Latency, LimitRule, Records, Rule, SimulatorConfig};
pub use core::{Core, Reply};
pub use documents::Documents;
pub use lists::{ListRule, Shape};
pub use log::Arrival;
pub use report::Report;
pub use tokens::{TokenFault, TokenRules};

use crate::clock::Clock;

/// Why the simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: std::io::Error },
    #[error("cannot write the arrival log {path}: {source}")]
    Log { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Config(#[from] config::BadConfig),
}

/// Starts simulated providers.
#[derive(Debug)]
pub struct Simulator;

impl Simulator {
    /// Listens, and serves until [`SimulatorHandle::stop`] or until the handle is dropped. Call inside a runtime.
    pub async fn start(config: SimulatorConfig) -> Result<SimulatorHandle, StartError> {
        Self::start_on(config, Clock::system()).await
    }

    /// The same with a clock of the caller's.
    pub async fn start_on(config: SimulatorConfig, clock: Clock) -> Result<SimulatorHandle, StartError> {
        config.check()?;
        let listen = config.listen;
        let failed = |source| StartError::Listen { addr: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let log = log::Log::open(config.log.as_deref(), config.keep_arrivals)
            .map_err(|source| StartError::Log { path: config.log.clone().unwrap_or_default(), source })?;
        let shared = Arc::new(server::Shared::new(config, clock, log));
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(server::accept(listener, shared.clone(), tasks.clone(), stopping.clone()));
        tasks.spawn(server::flush_regularly(shared.clone(), stopping.clone()));
        Ok(SimulatorHandle { addr, shared, tasks, _stop_on_drop: stopping.clone().drop_guard(), stopping })
    }
}

/// A running simulator.
#[derive(Debug)]
pub struct SimulatorHandle {
    addr: SocketAddr,
    shared: Arc<server::Shared>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    _stop_on_drop: tokio_util::sync::DropGuard,
}

impl SimulatorHandle {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What happened so far.
    pub fn report(&self) -> Report {
        self.shared.report()
    }

    /// The newest arrivals, oldest first, at most `keep_arrivals` of the configuration.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.shared.arrivals()
    }

    /// The newest version that was accepted of each record, and how often it was; needs `records.keep`.
    pub fn records(&self) -> Vec<(String, core::Seen)> {
        self.shared.records()
    }

    /// Puts an item into a list: `fields` is the inside of its JSON object but for `id` and `updated`.
    pub fn put_item(&self, path: &str, id: &str, fields: &str) -> bool {
        self.shared.lists().put(path, id, fields)
    }

    /// Deletes an item of a list.
    pub fn delete_item(&self, path: &str, id: &str) -> bool {
        self.shared.lists().delete(path, id)
    }

    /// From now on the provider misbehaves like this.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.set_faults(faults);
    }

    /// From now on a limit has another number, and nobody is told. False: there is no such limit.
    pub fn set_max(&self, limit: &str, max: u32) -> bool {
        self.shared.set_max(limit, max)
    }

    /// All access tokens end now, as in the middle of a run.
    pub fn revoke_tokens(&self) {
        self.shared.with_tokens(tokens::Tokens::revoke);
    }

    /// From now on the token endpoint misbehaves like this.
    pub fn set_token_fault(&self, fault: TokenFault) {
        self.shared.with_tokens(|tokens| tokens.set_fault(fault));
    }

    /// All documents change (`documents` of the configuration).
    pub fn change_documents(&self) {
        self.shared.version.bump();
    }

    /// Forgets arrivals, counts and the state of the limits; keeps the configuration.
    pub fn reset(&self) {
        self.shared.reset();
    }

    /// Closes all connections, flushes the log and returns the last report.
    pub async fn stop(self) -> Report {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.shared.flush();
        self.shared.report()
    }
}

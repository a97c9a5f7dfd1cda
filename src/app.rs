//! The composition root: from a checked configuration to a running daemon, and back down again. The only file that
//! knows every room.
//!
//! Up: store, limits from the journal, engine, edges, then READY. Down, in steps: stop accepting, stop releasing, let
//! calls finish within the grace, cancel the rest (journaled, so the next start judges them), flush, say what is left.
//! Next: `app/systemd` for the service manager's side, `engine` for what runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api};
use crate::clock::Clock;
use crate::config::{Config, DeclaredSchedule, LoadOptions, Loaded};
use crate::engine::dice::Dice;
use crate::engine::{self, Declared, EngineError, Handle};
use crate::grpc;
use crate::model::name::ProviderName;
use crate::outbound::RealConnect;
use crate::store::{self, Store};
use crate::telemetry::metrics::Metrics;

mod base;
mod reload;
mod serve;
mod systemd;
mod vault;

pub use crate::outbound::install_crypto;
pub use base::reveal;
pub use reload::{Reload, ReloadError, Reloaded};
pub use serve::{ServeError, serve};

/// Connections that the kernel keeps for us until they are taken (it has its own bound, too: `net.core.somaxconn`). A burst of
/// a thousand must fit whole: what does not is reset, and its sender cannot know what became of its request.
const BACKLOG: u32 = 4_096;

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Grpc(#[from] grpc::server::ServeError),
    #[error("cannot listen on {what}: {source}")]
    Listen { what: String, source: std::io::Error },
    /// The servers that daemons share: where they are, or what is wrong with them.
    #[error("{0}")]
    Shared(String),
    /// A declaration in the store that this version cannot read any more.
    #[error("provider {name} is in the store with a declaration that cannot be read: {reason}")]
    Declaration { name: ProviderName, reason: String },
}

/// A running daemon.
#[derive(Debug)]
pub struct App {
    handle: Handle,
    grpc: Option<SocketAddr>,
    http: Option<SocketAddr>,
    edges: CancellationToken,
    grace: Duration,
    reload: Reload,
}

/// What a stop left behind. All of it is in the store.
#[derive(Debug, Default)]
pub struct Left {
    /// Calls that were still on the wire after the grace: the next start judges them.
    pub calls_cut: u32,
    pub jobs_waiting: u64,
}

impl App {
    /// Starts everything. When it returns, jobs are accepted and leave. `options` are for reading it all again.
    pub async fn start(loaded: Loaded, options: LoadOptions) -> Result<App, StartError> {
        install_crypto();
        let config = loaded.config;
        let clock = Clock::system();
        let metrics = Arc::new(Metrics::new());
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let base::Base { store, limiter, cluster, vault } = base::open(&config, &clock).await?;
        let connect = RealConnect::new(clock.clone());
        let connect = match vault::open(&config, vault)? {
            Some(vault) => connect.keeping_tokens(vault),
            None => connect,
        };
        let parts = engine::Parts {
            clock: clock.clone(),
            store: store.clone(),
            limiter,
            connect: Arc::new(connect),
            metrics: metrics.clone(),
            dice: Dice::fresh(),
            retention: engine::Retention {
                finished: config.retention.finished,
                dead: config.retention.dead,
                events: config.retention.events,
                calls: config.retention.calls,
            },
            collections: engine::collections::Collections::new(config.collections.iter().cloned()),
            alerts: engine::alerts::Alerts::new(config.alerts.clone()),
            subscriptions: engine::subscriptions::Subscriptions::new(config.notify.clone()),
            cluster,
        };
        // Addresses first: a port that is taken should be known before calls leave.
        let tcp = listen(config.server.listen)?;
        let web = listen(config.http.listen)?;
        let unix = config.server.socket.as_deref().map(listen_unix).transpose()?;
        let alone = parts.cluster.is_none();
        let handle = engine::start(parts, declared(&config, &store).await?).await?;
        declare_schedules(&handle, &config, alone).await?;
        let limits = grpc::server::Limits {
            connections_max: config.server.connections_max as usize,
            streams_max: config.server.streams_max,
            ..grpc::server::Limits::default()
        };
        let (ask_reload, reloads) = api::reload::channel();
        let webhooks = api::webhooks::Webhooks::default();
        webhooks.replace(api::webhooks::arm(&config.webhooks, &clock).map_err(StartError::Shared)?);
        let api_options = api::Options {
            payload_bytes_max: config.server.payload_bytes_max,
            reload: Some(ask_reload),
            webhooks: webhooks.clone(),
            ..api::Options::default()
        };
        let api = Api::new(handle.clone(), api_options);
        let app = App {
            grpc: tcp.local_addr().ok(),
            http: web.local_addr().ok(),
            edges: CancellationToken::new(),
            grace: config.engine.grace,
            reload: Reload::new(handle.clone(), webhooks, options, config),
            handle,
        };
        app.reload.answer_from(reloads);
        app.edge("grpc", grpc::server::serve(api.clone(), Some(tcp), unix, limits, app.edges.clone()));
        let methods = grpc::transcode::Transcoder::new(&api, &limits, &app.edges).await?;
        let router = crate::http::router(api, Metrics::clone(&metrics), methods);
        let stop = app.edges.clone();
        app.edge("http", async move {
            crate::http::serve(router, web, Default::default(), stop).await;
            Ok::<(), std::convert::Infallible>(())
        });
        Ok(app)
    }

    /// Serves until told to stop; an edge that fails by itself takes the daemon down.
    fn edge<E: std::fmt::Display>(
        &self,
        name: &'static str,
        serving: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let supervisor = self.handle.supervisor().clone();
        self.handle.supervisor().task(async move {
            if let Err(e) = serving.await {
                supervisor.fail(format!("{name} ended: {e}"));
            }
        });
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where gRPC listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.grpc
    }

    /// Where health and metrics are.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    pub fn reload(&self) -> &Reload {
        &self.reload
    }

    /// Goes down in steps and says what is left for the next start.
    pub async fn stop(self) -> Left {
        self.handle.drain();
        // What is still on the wire after the grace is counted below.
        let _ = tokio::time::timeout(self.grace, self.handle.landed()).await;
        let calls_cut = self.handle.in_flight();
        self.edges.cancel();
        let supervisor = self.handle.supervisor().clone();
        supervisor.stop();
        if calls_cut > 0 {
            tracing::warn!(calls = calls_cut, "calls were cut off after the grace; the next start judges them");
        }
        let ended = tokio::time::timeout(grpc::server::Limits::default().grace * 2, supervisor.ended());
        if calls_cut > 0 || ended.await.is_err() {
            supervisor.kill();
        }
        let tallies = self.handle.store().tallies().await.unwrap_or_default();
        self.handle.store().close().await;
        Left { calls_cut, jobs_waiting: tallies.iter().map(|t| t.counts.waiting()).sum() }
    }
}

/// Declarations of the files, and those in the store that no file has: applied by RPC, or from a file now gone.
async fn declared(config: &Config, store: &Arc<dyn Store>) -> Result<Vec<Declared>, StartError> {
    let mut all: BTreeMap<ProviderName, Declared> = BTreeMap::new();
    for applied in store.providers().await? {
        let origin = format!("store, revision {}", applied.revision);
        let from_file = config.providers.iter().any(|d| d.provider.name == applied.name);
        let provider = match crate::config::provider::parse(&applied.source, &origin) {
            Ok(list) => list.into_iter().find(|p| p.name == applied.name),
            // The file replaces it anyway.
            Err(_) if from_file => None,
            Err(e) => return Err(StartError::Declaration { name: applied.name, reason: e.to_string() }),
        };
        if let Some(provider) = provider {
            all.insert(applied.name, Declared { provider: Arc::new(provider), source: applied.source, actor: None });
        }
    }
    for d in &config.providers {
        let actor = Some(format!("file {}", d.origin));
        let declared = Declared { provider: d.provider.clone(), source: d.source.clone(), actor };
        all.insert(d.provider.name.clone(), declared);
    }
    Ok(all.into_values().collect())
}

/// Puts the schedules of the files in force. Those of a file that has them no more go, unless other daemons may have them.
async fn declare_schedules(handle: &Handle, config: &Config, alone: bool) -> Result<(), StartError> {
    for schedule in &config.schedules {
        declare_schedule(handle, schedule).await?;
    }
    for stored in handle.store().schedules().await?.into_iter().filter(|s| alone && s.from_file) {
        if !config.schedules.iter().any(|declared| declared.name == stored.name) {
            handle.delete_schedule(&stored.name, "start").await?;
        }
    }
    Ok(())
}

/// False: it is in force already, and goes on from where it stood.
async fn declare_schedule(handle: &Handle, schedule: &DeclaredSchedule) -> Result<bool, EngineError> {
    let stored = handle.store().schedule(&schedule.name).await?;
    if stored.is_some_and(|stored| stored.from_file && stored.spec == schedule.spec) {
        return Ok(false);
    }
    let actor = format!("file {}", schedule.origin);
    handle.apply_schedule(schedule.name.clone(), schedule.spec.clone(), true, None, &actor).await?;
    Ok(true)
}

fn listen(addr: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|source| StartError::Listen { what: addr.to_string(), source })
}

/// A socket file that a dead process left is replaced; the store's lock has made sure that it is dead.
fn listen_unix(path: &Path) -> Result<UnixListener, StartError> {
    let failed = |source| StartError::Listen { what: path.display().to_string(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // The owner and the group of the daemon may drive it, nobody else.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o660);
    std::fs::set_permissions(path, mode).map_err(failed)?;
    Ok(listener)
}

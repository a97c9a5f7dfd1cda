//! The heart: actors that carry decisions out. [`Handle`] is all that the edges see of it.
//!
//! `gate` (one per provider) decides what leaves, `caller` runs one call, `writer` commits for everybody, `sweeper`
//! brings back what is due or was left behind, `supervisor` keeps them alive, `signal` wakes. Signals make it fast, the
//! store makes it sure: a lost wake costs time, never a job. Must never know: gRPC, HTTP servers, SQL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::limiter::{Limiter, Seed};
use crate::model::event::What;
use crate::model::id::CallId;
use crate::model::name::ProviderName;
use crate::model::provider::Provider;
use crate::outbound::Connect;
use crate::store::{Change, JournalEntry, PAGE_MAX, Store};
use crate::telemetry::metrics::Metrics;

pub mod alerts;
pub mod call;
pub mod caller;
pub mod calloff;
pub mod cluster;
pub mod collections;
pub mod desk;
pub mod dice;
pub mod gate;
pub mod handle;
pub mod lender;
pub mod open_calls;
pub mod outcome;
pub mod permits;
pub mod recover;
pub mod registry;
pub mod scheduler;
pub mod signal;
pub mod spread;
pub mod status;
pub mod subscriptions;
pub mod supervisor;
pub mod sweeper;
mod trial;
pub mod webhooks;
pub mod writer;

pub use handle::{EngineError, Handle};

use alerts::Alerts;
use cluster::standing::Standing;
use cluster::{Cluster, Owned};
use collections::Collections;
use desk::Desk;
use dice::Dice;
use gate::GateParts;
use lender::Lender;
use registry::Registry;
use signal::Signals;
use subscriptions::Subscriptions;
use supervisor::Supervisor;
use sweeper::Sweeper;
use writer::Writer;

/// How long history is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Delivered and cancelled jobs.
    pub finished: Duration,
    /// Dead letters.
    pub dead: Duration,
    pub events: Duration,
    /// Ended calls, beyond what the limits need.
    pub calls: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Retention { finished: DAY, dead: DAY * 30, events: DAY * 7, calls: DAY }
    }
}

/// What an engine is made of.
#[derive(Debug)]
pub struct Parts {
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub limiter: Arc<dyn Limiter>,
    pub connect: Arc<dyn Connect>,
    pub metrics: Arc<Metrics>,
    pub dice: Dice,
    pub retention: Retention,
    pub collections: Collections,
    /// Who is told of what comes to an end.
    pub subscriptions: Subscriptions,
    /// What is watched.
    pub alerts: Alerts,
    /// What an engine among many has beside; `None`: this process is alone and owns everything.
    pub cluster: Option<Cluster>,
}

/// A declaration to start with.
#[derive(Clone, Debug)]
pub struct Declared {
    pub provider: Arc<Provider>,
    /// TOML source, for the store.
    pub source: String,
    /// Who declared it, as `file providers.d/crm.toml`; `None`: it came from the store and is not applied again.
    pub actor: Option<String>,
}

/// Added to a provider's total timeout: a lease must outlive the call, its settle and a slow commit.
pub const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// The latest steady time at which a call that nobody will finish can have arrived: its deadline, as 3-limits.md has
/// it for every lost answer, or now if that is later. What the kernel took over from a dead process travels on.
pub(crate) fn latest_arrival(now: Timestamp, granted_at: Timestamp, total_timeout: Duration) -> Timestamp {
    now.max(granted_at + total_timeout)
}

/// The same for what the journal has open: a program outside may use its permits until its lease ends.
pub(crate) fn open_until(entry: &JournalEntry, now: Timestamp, total_timeout: Duration) -> Timestamp {
    match entry.outside_until {
        Some(until) => now.max(until),
        None => latest_arrival(now, entry.permit.granted_at, total_timeout),
    }
}

/// Brings the engine up: takes the steady line up again, rebuilds the limits from the journal, judges what a dead
/// process left open, applies declarations that changed, and opens the gates. When it returns, jobs leave.
pub async fn start(parts: Parts, declared: Vec<Declared>) -> Result<Handle, EngineError> {
    let Parts { clock, store, limiter, connect, metrics, dice, retention, collections, subscriptions, alerts, cluster } =
        parts;
    let info = store.info().await?;
    match info.db_now {
        Some(shared) => clock.align(shared),
        None => {
            clock.resume_steady(info.steady.as_ref().map(|(b, o)| (b.as_str(), *o)), info.steady_floor);
            let (boot, offset) = clock.boot();
            store.remember_steady(&boot, offset).await?;
        }
    }

    let supervisor = Supervisor::new(clock.clone(), metrics.clone());
    let signals = Arc::new(Signals::new());
    signals.set_next_due(store.next_due().await?);
    let news = (signals.clone(), metrics.clone(), subscriptions.clone());
    let writer = Writer::start(&supervisor, clock.clone(), store.clone(), news.0, news.1, news.2);
    let registry = Registry::default();
    let lender = Lender::new(clock.clone(), store.clone(), limiter.clone(), writer.clone());
    let lender = Arc::new(lender);
    let desk = Arc::new(Desk::new(clock.clone(), registry.clone()));
    let sweeper = Sweeper {
        desk: desk.clone(),
        lender: lender.clone(),
        clock: clock.clone(),
        store: store.clone(),
        writer: writer.clone(),
        registry: registry.clone(),
        signals: signals.clone(),
        retention,
    };
    let owned = if cluster.is_some() { Owned::nothing() } else { Owned::everything() };
    let standing = cluster.as_ref().map(|cluster| Arc::new(Standing::new(cluster, owned.clone())));
    let gate_parts = GateParts {
        clock: clock.clone(),
        store: store.clone(),
        limiter: limiter.clone(),
        connect,
        writer: writer.clone(),
        signals,
        supervisor: supervisor.clone(),
        dice,
        metrics,
        owned,
        doubts: Default::default(),
        standing: standing.clone(),
        open_calls: Arc::default(),
        lender,
        collections,
        desk,
    };

    if cluster.is_none() && !crate::mutant::on("forgotten-seed") {
        seed_limits(&clock, &store, &limiter, &declared).await?;
    }
    // Gates are made before the dead process's calls are judged, because judging needs the operations' rules; they
    // open after it.
    let handle = Handle(Arc::new(handle::Inner {
        parts: gate_parts,
        registry: registry.clone(),
        sweeper: sweeper.start(&supervisor),
        scheduler: Default::default(),
        calls: Default::default(),
        subscriptions,
        alerts,
        spread: Default::default(),
        draining: CancellationToken::new(),
    }));
    let current: BTreeMap<ProviderName, crate::store::AppliedProvider> =
        store.providers().await?.into_iter().map(|p| (p.name.clone(), p)).collect();
    for Declared { provider, source, actor } in declared {
        let name = provider.name.clone();
        let known = current.get(&name);
        let transport = handle.0.parts.connect.connect(&provider);
        if let Err(e) = &transport {
            tracing::error!(error = %e, "the provider's jobs wait until this is mended");
        }
        let mut revision = known.map_or(0, |k| k.revision);
        if let Some(actor) = actor
            && known.is_none_or(|k| k.source != source)
        {
            let change = Change::ApplyProvider { name: name.clone(), source, expect: None, actor };
            if let crate::store::Changed::Provider(applied) = handle.change(change).await? {
                revision = applied.revision;
            }
        }
        let memory = known.and_then(|k| k.memory.clone());
        handle.open_gate(provider, revision, known.is_some_and(|k| k.paused), transport, memory, true);
    }
    // Among many, what a dead daemon left open is judged when its lease is over.
    let crashed = match cluster {
        None => recover::recover_all(&store, &writer, &registry, &clock, &handle.0.parts.lender).await?,
        Some(cluster) => {
            if let Some(standing) = standing {
                join_cluster(&handle, cluster, standing);
            }
            0
        }
    };
    collections::chores::start(&handle);
    alerts::start(&handle);
    let what = What::Daemon { kind: "started".to_owned(), detail: format!("{crashed} calls were left open") };
    handle.change(Change::Note { what }).await?;
    handle.0.registry.all().values().for_each(|e| e.gate.open());
    handle.0.scheduler.start(handle.clone(), &supervisor);
    Ok(handle)
}

/// Starts what makes a daemon one of many.
fn join_cluster(handle: &Handle, cluster: Cluster, standing: Arc<Standing>) {
    let parts = &handle.0.parts;
    let (clock, registry) = (parts.clock.clone(), handle.0.registry.clone());
    let truth = cluster::truth::Truth {
        clock: clock.clone(),
        store: parts.store.clone(),
        limiter: cluster.limiter.clone(),
        registry: registry.clone(),
        doubts: parts.doubts.clone(),
        standing: standing.clone(),
        said: Default::default(),
        built: Default::default(),
    };
    truth.start(&parts.supervisor);
    let undertaker = cluster::undertaker::Undertaker {
        clock: clock.clone(),
        store: parts.store.clone(),
        limiter: cluster.limiter.clone(),
        registry: registry.clone(),
        standing: standing.clone(),
    };
    undertaker.start(&parts.supervisor);
    cluster::relay::Relay { handle: handle.clone(), cluster: cluster.clone() }.start(&parts.supervisor);
    let (owned, draining) = (parts.owned.clone(), handle.0.draining.clone());
    cluster::members::Members { clock, cluster, registry, owned, standing, draining }.start(&parts.supervisor);
}

/// Rebuilds the limits from the journal. What was settled counts from its answer; what was left open may have arrived
/// as late as its lease allowed, so it counts from then.
async fn seed_limits(
    clock: &Clock,
    store: &Arc<dyn Store>,
    limiter: &Arc<dyn Limiter>,
    declared: &[Declared],
) -> Result<(), EngineError> {
    let deadline = declared.iter().map(|d| d.provider.timeouts.total).max().unwrap_or_default();
    let reach = declared.iter().map(|d| registry::longest_window(&d.provider)).max().unwrap_or_default();
    let now = clock.steady();
    let since = now - reach;
    let mut after = CallId(0);
    loop {
        let page = store.journal(since, after, PAGE_MAX).await?;
        let short = page.len() < PAGE_MAX;
        after = page.last().map_or(after, |e| e.call);
        let counted = page.into_iter().filter(|e| e.sent || e.settled_at.is_none());
        let anchor = |e: &JournalEntry| e.settled_at.unwrap_or_else(|| open_until(e, now, deadline));
        let seeds: Vec<Seed> = counted.map(|e| Seed { anchored_at: anchor(&e), permit: e.permit }).collect();
        let away = |e: crate::limiter::Error| EngineError::Unavailable(e.to_string());
        let limits: Vec<crate::limiter::Spend> = Vec::new();
        limiter.seed(now, &limits, &seeds).await.map_err(away)?;
        if short {
            return Ok(());
        }
    }
}

/// Steady times in wall terms, for people.
pub(crate) fn wall_of(clock: &Clock, steady: Timestamp) -> Timestamp {
    let (now, base) = (clock.now(), clock.steady());
    if steady >= base { now + steady.since(base) } else { now - base.since(steady) }
}

//! The engine's front door. Cheap to clone; every edge goes through it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::alerts::Alerts;
use super::call::Calls;
use super::cluster::standing::Standing;
use super::desk::Desk;
use super::gate::GateParts;
use super::registry::{Entry, Registry};
use super::scheduler::SchedulerHandle;
use super::signal::Signals;
use super::spread::Spread;
use super::status::{ActorInfo, Explanation, ProviderStatus, WaitingOn};
use super::subscriptions::Subscriptions;
use super::supervisor::Supervisor;
use super::sweeper::SweeperHandle;
use super::writer::Writer;
use crate::clock::{Clock, Timestamp};
use crate::model::event::Event;
use crate::model::flow::{FlowKey, Place};
use crate::model::id::{JobId, RunId};
use crate::model::job::{Job, NewJob};
use crate::model::name::ProviderName;
use crate::model::provider::Provider;
use crate::model::run::RunWish;
use crate::model::state::State;
use crate::model::worker::RunProgress;
use crate::outbound::ConnectError;
use crate::outbound::cache::Cache;
use crate::store::{AppliedProvider, Change, Changed, Enqueued, PAGE_MAX, Refusal, Store};
use crate::telemetry::Metrics;

/// Why the engine could not do what was asked. A [`Refusal`] is for the client; the rest passes.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store is away or full; nothing was done.
    #[error("{0}")]
    Unavailable(String),
    /// Too much is waiting to be written; try again soon.
    #[error("the writer is busy: {waiting} requests wait")]
    Busy { waiting: usize },
    /// The declaration is well formed but cannot be used here, as a secret that is missing.
    #[error(transparent)]
    Unusable(#[from] ConnectError),
    #[error("the daemon is shutting down")]
    Draining,
}

impl From<crate::store::Error> for EngineError {
    fn from(e: crate::store::Error) -> Self {
        EngineError::Unavailable(e.to_string())
    }
}

#[derive(Clone, Debug)]
pub struct Handle(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub parts: GateParts,
    pub registry: Registry,
    pub sweeper: SweeperHandle,
    pub scheduler: SchedulerHandle,
    pub calls: Calls,
    pub subscriptions: Subscriptions,
    pub alerts: Alerts,
    pub spread: Spread,
    /// Cancelled when draining begins.
    pub draining: CancellationToken,
}

impl Handle {
    pub fn clock(&self) -> &Clock {
        &self.0.parts.clock
    }

    /// For reading. Writes go through the methods below, which share transactions.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.parts.store
    }

    pub fn supervisor(&self) -> &Supervisor {
        &self.0.parts.supervisor
    }

    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.parts.metrics
    }

    /// Who is told of what comes to an end.
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.0.subscriptions
    }

    /// What is watched.
    pub fn alerts(&self) -> &Alerts {
        &self.0.alerts
    }

    pub(super) fn writer(&self) -> &Writer {
        &self.0.parts.writer
    }

    pub(super) fn scheduler(&self) -> &SchedulerHandle {
        &self.0.scheduler
    }

    pub(super) fn calls(&self) -> &Calls {
        &self.0.calls
    }

    /// Answers that are kept for callers who wait.
    pub fn cache(&self) -> &Cache {
        self.0.calls.cache()
    }

    /// A run that is to be called off: its jobs go in bounded steps.
    pub(super) fn call_off(&self, run: RunId) {
        self.0.sweeper.cancel_run(run);
    }

    pub(super) fn dice(&self) -> f64 {
        self.0.parts.dice.roll()
    }

    pub(super) fn signals(&self) -> &Arc<Signals> {
        &self.0.parts.signals
    }

    /// Durable when it returns. One result per job, in order; the good ones are committed whatever the others are.
    /// Providers and operations must exist: `api/` has checked that.
    pub async fn enqueue(&self, mut jobs: Vec<NewJob>) -> Result<Vec<Result<Enqueued, Refusal>>, EngineError> {
        if self.is_draining() {
            return Err(EngineError::Draining);
        }
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        self.place(&mut jobs);
        self.writer().enqueue(jobs).await
    }

    /// Puts jobs into the parts of their accounts. In a store that one process owns an account is one part, whatever is
    /// declared.
    pub(super) fn place(&self, jobs: &mut [NewJob]) {
        if self.0.parts.owned.is_shared() {
            self.0.spread.place(jobs, &self.0.registry);
        }
    }

    /// Applies one change durably and wakes whom it concerns.
    pub async fn change(&self, change: Change) -> Result<Changed, EngineError> {
        let called_off = match &change {
            Change::WishRun { run, wish: RunWish::Cancel } => Some(*run),
            _ => None,
        };
        let cancels = matches!(change, Change::CancelJobs { .. });
        let changed = self.writer().change(change).await?;
        if let Some(run) = called_off {
            self.call_off(run);
        }
        if let (true, Changed::Jobs(jobs)) = (cancels, &changed) {
            let marked = jobs.iter().flatten().filter(|job| job.cancel_requested);
            marked.for_each(|job| self.desk().call_off(job.id.seq));
        }
        Ok(changed)
    }

    /// The declaration in force.
    pub fn provider(&self, name: &ProviderName) -> Option<Arc<Provider>> {
        self.0.registry.get(name).map(|e| e.provider)
    }

    /// All declarations in force, by name, with revision and whether they are paused.
    pub fn providers(&self) -> Vec<(Arc<Provider>, i64, bool)> {
        self.0.registry.all().values().map(|e| (e.provider.clone(), e.revision, e.paused)).collect()
    }

    /// Puts a checked declaration in force: stores its source, then hands it to its gate. Returns the revision.
    ///
    /// Refused without a trace when the declaration cannot be used, as when a secret is missing.
    pub async fn apply_provider(
        &self,
        provider: Arc<Provider>,
        source: String,
        expect: Option<i64>,
        actor: &str,
    ) -> Result<i64, EngineError> {
        let transport = self.0.parts.connect.connect(&provider)?;
        let change = Change::ApplyProvider { name: provider.name.clone(), source, expect, actor: actor.to_owned() };
        let Changed::Provider(applied) = self.change(change).await? else {
            return Err(EngineError::Unavailable("the store answered an apply with something else".to_owned()));
        };
        match self.0.registry.get(&provider.name) {
            Some(entry) => {
                entry.gate.apply(provider.clone(), transport);
                self.0.registry.put(Entry { provider, revision: applied.revision, ..entry });
            }
            None => self.open_gate(provider, applied.revision, applied.paused, Ok(transport), None, false),
        }
        Ok(applied.revision)
    }

    /// Would `apply_provider` be able to use this declaration here?
    pub fn try_connect(&self, provider: &Arc<Provider>) -> Result<(), EngineError> {
        self.0.parts.connect.connect(provider)?;
        Ok(())
    }

    /// Starts the gate of a provider that is new in this process. While the engine is starting it stays shut.
    pub(super) fn open_gate(
        &self,
        provider: Arc<Provider>,
        revision: i64,
        paused: bool,
        transport: Result<Arc<dyn crate::outbound::Transport>, ConnectError>,
        memory: Option<String>,
        starting: bool,
    ) {
        let held = self.is_draining() || starting;
        let gate = super::gate::start(self.0.parts.clone(), provider.clone(), paused, held, transport, memory);
        self.0.registry.put(Entry { provider, revision, paused, gate });
    }

    pub async fn delete_provider(&self, name: &ProviderName, force: bool, actor: &str) -> Result<(), EngineError> {
        self.change(Change::DeleteProvider { name: name.clone(), force, actor: actor.to_owned() }).await?;
        self.forget_provider(name);
        Ok(())
    }

    /// Ends the gate of a provider that is declared no more.
    pub(super) fn forget_provider(&self, name: &ProviderName) {
        self.0.registry.remove(name);
        self.signals().forget(name);
        self.supervisor().end_actor(&super::gate::actor_name(name));
    }

    /// Puts a declaration in force that another daemon applied. One that cannot be used here holds its jobs.
    pub(super) fn follow(&self, provider: Arc<Provider>, applied: &AppliedProvider) {
        let transport = self.0.parts.connect.connect(&provider);
        match (self.0.registry.get(&applied.name), transport) {
            (Some(entry), Ok(transport)) => {
                entry.gate.apply(provider.clone(), transport);
                entry.gate.pause(applied.paused);
                let (revision, paused) = (applied.revision, applied.paused);
                self.0.registry.put(Entry { provider, revision, paused, gate: entry.gate });
            }
            (Some(_), Err(e)) => {
                tracing::error!(error = %e, "another daemon's declaration cannot be used here; the former one stays");
            }
            (None, transport) => {
                let memory = applied.memory.clone();
                self.open_gate(provider, applied.revision, applied.paused, transport, memory, false);
            }
        }
    }

    pub async fn pause_provider(&self, name: &ProviderName, paused: bool, actor: &str) -> Result<(), EngineError> {
        self.change(Change::PauseProvider { name: name.clone(), paused, actor: actor.to_owned() }).await?;
        self.set_paused(name, paused);
        Ok(())
    }

    pub(super) fn set_paused(&self, name: &ProviderName, paused: bool) {
        if let Some(entry) = self.0.registry.get(name) {
            entry.gate.pause(paused);
            self.0.registry.put(Entry { paused, ..entry });
        }
    }

    pub async fn reset_breaker(&self, name: &ProviderName, actor: &str) -> Result<(), EngineError> {
        let Some(entry) = self.0.registry.get(name) else { return Err(Refusal::NoProvider(name.clone()).into()) };
        entry.gate.reset_breaker().await;
        let what = crate::model::event::What::provider(name, "breaker-reset", "closed by hand", actor);
        self.change(Change::Note { what }).await.map(drop)
    }

    pub async fn provider_status(&self, name: &ProviderName) -> Option<ProviderStatus> {
        let entry = self.0.registry.get(name)?;
        let mut status = entry.gate.status().await?;
        status.revision = entry.revision;
        // Ends are counted by the store; the gate knows only what is left to do.
        for tally in self.store().tallies().await.unwrap_or_default().into_iter().filter(|t| t.provider == *name) {
            if let Some(operation) = status.operations.iter_mut().find(|o| o.name == tally.operation) {
                operation.counts = tally.counts.clone();
            }
            status.counts.add(&tally.counts);
        }
        Some(status)
    }

    /// Why the job waits and when it will go. `None`: no such job.
    pub async fn explain(&self, id: JobId) -> Result<Option<Explanation>, EngineError> {
        let Some(job) = self.store().job(id).await? else { return Ok(None) };
        Ok(Some(self.explain_job(&job).await?))
    }

    async fn explain_job(&self, job: &Job) -> Result<Explanation, EngineError> {
        let says = |waiting_on, sentence: String, next_attempt_at| Explanation {
            job: job.id,
            waiting_on,
            sentence,
            next_attempt_at,
            ahead: 0,
        };
        match job.state {
            State::Delivered | State::Dead | State::Cancelled => {
                return Ok(says(WaitingOn::Nothing, format!("it is {} and waits for nothing", job.state), None));
            }
            State::Calling => return Ok(says(WaitingOn::Nothing, "it is on the wire".to_owned(), None)),
            State::Unknown => {
                let text = "its call was sent but the answer was lost; decide with `tidegate jobs resolve`";
                return Ok(says(WaitingOn::Decision, text.to_owned(), None));
            }
            State::Waiting => {}
        }
        let Some(entry) = self.0.registry.get(&job.flow_key.provider) else {
            let text = format!("provider {} is not declared any more", job.flow_key.provider);
            return Ok(says(WaitingOn::UnknownProvider, text, None));
        };
        if job.place == Place::Behind
            && let Some(first) = self.store().blocker(job).await?
        {
            let text = format!("it stands behind job {} of the same key, which is {}", first.id, first.state);
            return Ok(says(WaitingOn::Key { behind: first.id }, text, None));
        }
        if job.place == Place::Later && job.due_at > self.clock().now() {
            let text = format!("it is due at {}", job.due_at);
            return Ok(says(WaitingOn::NotDue { due_at: job.due_at }, text, Some(job.due_at)));
        }
        if self.is_draining() {
            return Ok(says(
                WaitingOn::Draining,
                "the daemon is shutting down; it leaves after the restart".into(),
                None,
            ));
        }
        let standing = self.standing().filter(|_| !entry.paused);
        if let Some((name, text)) =
            standing.and_then(|s| s.elsewhere(&entry.provider.name, &job.flow_key.account, job.flow_key.part))
        {
            return Ok(says(WaitingOn::OtherDaemon { name }, text, None));
        }
        let ahead = self.store().ahead(job).await?;
        let mut explanation = match entry.gate.explain(job.flow, job.class, ahead).await {
            Some((waiting_on, sentence, at)) => says(waiting_on, sentence, at),
            None => says(WaitingOn::Turn, "its gate is starting".to_owned(), None),
        };
        explanation.ahead = ahead;
        Ok(explanation)
    }

    /// When the run is through, as wall time; `None` when it cannot be said. Of an account that is spread over several
    /// daemons the parts that this one has speak for all.
    pub async fn run_forecast(&self, run: RunId) -> Result<Option<Timestamp>, EngineError> {
        let (mut through, mut told, mut untold) = (None, BTreeSet::new(), BTreeSet::new());
        for flow in self.store().run_flows(run, PAGE_MAX).await? {
            let Some(entry) = self.0.registry.get(&flow.key.provider) else { return Ok(None) };
            let FlowKey { provider, operation, account, part, .. } = flow.key;
            if self.0.parts.owned.hold(&provider, &account, part).is_none() {
                untold.insert((provider, operation, account));
                continue;
            }
            match entry.gate.drains_at(flow.id).await {
                Some(at) => through = through.max(Some(at)),
                None => return Ok(None),
            }
            told.insert((provider, operation, account));
        }
        let all_told = untold.is_subset(&told);
        Ok(through.or(Some(self.clock().now())).filter(|_| all_told))
    }

    /// How far the jobs of a run are that workers have here.
    pub async fn run_progress(&self, run: RunId) -> Result<Option<RunProgress>, EngineError> {
        let desk = self.desk();
        if desk.notes(0, 1).is_empty() {
            return Ok(None);
        }
        let flows = self.store().run_flows(run, PAGE_MAX).await?;
        Ok(desk.progress_of(&flows.iter().map(|flow| flow.id).collect::<Vec<_>>()))
    }

    /// Where workers take jobs.
    pub fn desk(&self) -> &Arc<Desk> {
        &self.0.parts.desk
    }

    /// Committed events as they come, in groups, in order. A reader that lags goes on from the store.
    pub fn events(&self) -> broadcast::Receiver<Arc<Vec<Event>>> {
        self.signals().events()
    }

    /// How this daemon stands among others; `None`: it is alone.
    pub fn standing(&self) -> Option<&Standing> {
        self.0.parts.standing.as_deref()
    }

    /// Epoch of the limits in use.
    pub fn limiter_epoch(&self) -> i64 {
        self.0.parts.limiter.epoch()
    }

    pub fn actors(&self) -> Vec<ActorInfo> {
        self.supervisor().actors()
    }

    /// True once shutdown began: enqueues are refused.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Resolves when shutdown begins. Streams end then.
    pub async fn draining(&self) {
        self.0.draining.cancelled().await;
    }

    /// Stops accepting and releasing; calls in flight may finish. What AdminService.Drain does.
    pub fn drain(&self) {
        self.0.draining.cancel();
        for entry in self.0.registry.all().values() {
            entry.gate.hold();
        }
    }

    /// Resolves when no call is open and all outcomes are recorded. After [`Handle::drain`].
    pub async fn landed(&self) {
        self.0.parts.open_calls.landed().await;
    }

    /// Calls on the wire, all providers together.
    pub fn in_flight(&self) -> u32 {
        self.0.registry.all().values().map(|e| e.gate.in_flight()).sum()
    }
}

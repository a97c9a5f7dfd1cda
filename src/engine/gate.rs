//! The gate: the actor that owns one provider and decides what leaves, when, by which lane.
//!
//! This file is its door: the handle that others hold and what both sides share. `gate/actor` is the loop,
//! `gate/release` the decision, `gate/caps` the lines of those whom a limit refuses, `gate/begins` what is being journaled, `gate/report` what it tells about itself. A gate sleeps until the limiter's `earliest`
//! or until something changes; it never polls. Must never know: SQL, HTTP, who asked for the jobs.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, oneshot};

use super::caller::told::{Board, Told};
use super::caller::{Completion, Excused, Throttles};
use super::cluster::Owned;
use super::cluster::standing::Standing;
use super::cluster::truth::Doubts;
use super::collections::Collections;
use super::desk::Desk;
use super::dice::Dice;
use super::handle::EngineError;
use super::lender::Lender;
use super::open_calls::OpenCalls;
use super::signal::{FlowBox, Signals};
use super::status::{ProviderStatus, WaitingOn};
use super::supervisor::Supervisor;
use super::writer::Writer;
use crate::clock::{Clock, Timestamp};
use crate::limiter::Limiter;
use crate::model::call::{Call, LimitKey};
use crate::model::flow::Class;
use crate::model::id::FlowId;
use crate::model::job::ClaimedJob;
use crate::model::name::ProviderName;
use crate::model::provider::Provider;
use crate::model::verdict::Health;
use crate::outbound::{Connect, ConnectError, Transport};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

mod actor;
mod begins;
mod caps;
mod credentials;
pub mod direct;
mod forecast;
mod group;
mod learned;
mod leases;
mod outside;
mod release;
mod report;
mod waits;

pub use learned::{Lesson, Lessons};
pub use outside::{Ask, Lending};

/// What every gate is made of.
#[derive(Clone, Debug)]
pub struct GateParts {
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub limiter: Arc<dyn Limiter>,
    pub connect: Arc<dyn Connect>,
    pub writer: Writer,
    pub signals: Arc<Signals>,
    pub supervisor: Supervisor,
    pub dice: Dice,
    pub metrics: Arc<Metrics>,
    /// Whose accounts this process sends for.
    pub owned: Owned,
    /// Where to say that the limiter's counts are in doubt.
    pub doubts: Doubts,
    /// How this process stands among others; `None`: it is alone.
    pub standing: Option<Arc<Standing>>,
    pub open_calls: Arc<OpenCalls>,
    /// Permits of programs outside.
    pub lender: Arc<Lender>,
    /// What pages are kept in.
    pub collections: Collections,
    /// Where workers take jobs.
    pub desk: Arc<Desk>,
}

/// Questions that wait for the gate. More callers than this wait their turn.
const QUESTIONS_MAX: usize = 64;

/// The declaration in force and the way to the provider, replaced as a whole.
#[derive(Debug)]
pub(super) struct Current {
    pub provider: Arc<Provider>,
    /// Or why there is none, as a secret that is missing.
    pub transport: Result<Arc<dyn Transport>, String>,
}

/// Limits and permits, as granted.
type Spent = Arc<[(LimitKey, u32)]>;

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    group: group::GroupKey,
    spent: Spent,
    completion: Completion,
}

/// What the gate, its handle and its callers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub current: ArcSwap<Current>,
    pub paused: AtomicBool,
    /// Not open yet, or draining: nothing leaves.
    pub held: AtomicBool,
    /// What the gate of another daemon saved last.
    pub heard: Mutex<Option<String>>,
    /// Permits of a program outside, or of a test, were settled: others may wait for what that freed.
    pub settled: AtomicBool,
    /// Some of them came back unsent: there is room where nobody could foresee it.
    pub returned: AtomicBool,
    /// Workers have free seats again.
    pub seated: AtomicBool,
    /// Flows may have changed unheard: all are to be read again.
    pub reload: AtomicBool,
    /// Calls begun and not answered, per lane.
    pub in_flight: [AtomicU32; 2],
    call_time: forecast::CallTime,
    /// Ended calls that the gate has not looked at. Bounded by the calls in flight.
    pub completions: Mutex<Vec<Ended>>,
    pub throttles: Arc<Throttles>,
    pub told: Arc<Board>,
    pub lessons: Arc<Lessons>,
    pub excused: Arc<Excused>,
    pub last_throttled_at: Mutex<Option<Timestamp>>,
    pub flows: Arc<FlowBox>,
}

impl Shared {
    /// Woken by commits, completions and changed orders alike.
    pub fn wake(&self) -> &Notify {
        &self.flows.wake
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }

    /// A call of the group, which spent these limits, has ended.
    pub fn completed(&self, group: group::GroupKey, spent: Spent, completion: Completion) {
        // What a worker has is not on our wire.
        if !completion.leased {
            self.in_flight[completion.lane as usize].fetch_sub(1, Ordering::Relaxed);
        }
        self.completions.lock().expect("no panic while held").push(Ended { group, spent, completion });
        self.wake().notify_one();
    }

    /// Permits of no job were settled; some came back unsent, if `returned` says so.
    pub fn permits_settled(&self, returned: bool) {
        self.returned.fetch_or(returned, Ordering::Relaxed);
        self.settled.store(true, Ordering::Relaxed);
        self.wake().notify_one();
    }
}

#[derive(Debug)]
enum Question {
    Status(oneshot::Sender<ProviderStatus>),
    Explain { flow: FlowId, class: Class, ahead: u64, reply: oneshot::Sender<(WaitingOn, String, Option<Timestamp>)> },
    DrainsAt { flow: FlowId, reply: oneshot::Sender<Option<Timestamp>> },
    Test { ask: Box<direct::Ask>, reply: oneshot::Sender<Result<(direct::Said, Duration), EngineError>> },
    Permits { ask: Box<Ask>, reply: outside::Reply },
    Direct { ask: Box<direct::Ask>, reply: direct::Reply },
    ResetBreaker(oneshot::Sender<()>),
    TakeUp { call: Box<Call>, jobs: Vec<ClaimedJob>, reply: oneshot::Sender<bool> },
}

/// What others hold of a gate. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GateHandle {
    shared: Arc<Shared>,
    ask: mpsc::Sender<Question>,
}

/// Starts the gate of a provider, held until [`GateHandle::open`] when `held` says so.
pub(super) fn start(
    parts: GateParts,
    provider: Arc<Provider>,
    paused: bool,
    held: bool,
    transport: Result<Arc<dyn Transport>, ConnectError>,
    memory: Option<String>,
) -> GateHandle {
    let name = provider.name.clone();
    let current = Current { provider, transport: transport.map_err(|e| e.reason) };
    let shared = Arc::new(Shared {
        current: ArcSwap::from_pointee(current),
        paused: AtomicBool::new(paused),
        held: AtomicBool::new(held),
        heard: Mutex::default(),
        settled: AtomicBool::new(false),
        returned: AtomicBool::new(false),
        seated: AtomicBool::new(false),
        reload: AtomicBool::new(false),
        in_flight: Default::default(),
        call_time: Default::default(),
        completions: Default::default(),
        throttles: Default::default(),
        told: Default::default(),
        lessons: Default::default(),
        excused: Default::default(),
        last_throttled_at: Default::default(),
        flows: parts.signals.flow_box(&name),
    });
    let (ask, inbox) = mpsc::channel(QUESTIONS_MAX);
    let inbox = Arc::new(tokio::sync::Mutex::new(inbox));
    let handle = GateHandle { shared: shared.clone(), ask };
    let supervisor = parts.supervisor.clone();
    supervisor.actor(actor_name(&name), Default::default(), move |beat| {
        let gate = actor::Gate::new(parts.clone(), shared.clone(), memory.as_deref());
        let inbox = inbox.clone();
        async move { gate.run(beat, &mut *inbox.lock().await).await }
    });
    handle
}

/// Name of the gate's actor.
pub fn actor_name(provider: &ProviderName) -> String {
    format!("gate {provider}")
}

impl GateHandle {
    /// From now on this declaration is in force. Calls on the wire end under the old one.
    pub fn apply(&self, provider: Arc<Provider>, transport: Arc<dyn Transport>) {
        self.shared.current.store(Arc::new(Current { provider, transport: Ok(transport) }));
        self.shared.wake().notify_one();
    }

    pub fn pause(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Relaxed);
        self.shared.wake().notify_one();
    }

    pub fn open(&self) {
        self.shared.held.store(false, Ordering::Relaxed);
        self.shared.wake().notify_one();
    }

    /// Nothing more leaves; what is on the wire may finish.
    pub fn hold(&self) {
        self.shared.held.store(true, Ordering::Relaxed);
    }

    /// Something that the gate looks at has changed.
    pub fn wake(&self) {
        self.shared.wake().notify_one();
    }

    /// A worker has a free seat.
    pub fn seats_freed(&self) {
        self.shared.seated.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// A lease of a dead process is to wait for its worker. False: it cannot be.
    pub async fn take_up(&self, call: Call, jobs: Vec<ClaimedJob>) -> bool {
        let call = Box::new(call);
        self.question(|reply| Question::TakeUp { call, jobs, reply }).await.unwrap_or(false)
    }

    /// Another daemon's gate of this provider saved this.
    pub fn hear(&self, memory: String) {
        *self.shared.heard.lock().expect("no panic while held") = Some(memory);
        self.wake();
    }

    /// Reads all flows again: news of them may have been lost.
    pub fn reload(&self) {
        self.shared.reload.store(true, Ordering::Relaxed);
        self.wake();
    }

    pub fn in_flight(&self) -> u32 {
        self.shared.in_flight()
    }

    pub async fn reset_breaker(&self) {
        self.question(Question::ResetBreaker).await;
    }

    pub async fn status(&self) -> Option<ProviderStatus> {
        self.question(Question::Status).await
    }

    /// Why a ready job with `ahead` jobs of its flow before it waits, in a word and in a sentence, and when it goes.
    pub async fn explain(
        &self,
        flow: FlowId,
        class: Class,
        ahead: u64,
    ) -> Option<(WaitingOn, String, Option<Timestamp>)> {
        self.question(|reply| Question::Explain { flow, class, ahead, reply }).await
    }

    /// When everything that waits in the flow will have been answered; `None` when it cannot be said.
    pub async fn drains_at(&self, flow: FlowId) -> Option<Timestamp> {
        self.question(|reply| Question::DrainsAt { flow, reply }).await.flatten()
    }

    /// What became of one call outside of the queue, and how long it took. `None` when the gate has ended.
    pub async fn test(&self, ask: direct::Ask) -> Option<Result<(direct::Said, Duration), EngineError>> {
        let ask = Box::new(ask);
        self.question(|reply| Question::Test { ask, reply }).await
    }

    /// Stands in line for permits. `None` when the gate has ended.
    pub async fn permits(&self, ask: Ask) -> Option<Result<Lending, EngineError>> {
        let ask = Box::new(ask);
        self.question(|reply| Question::Permits { ask, reply }).await
    }

    /// A program outside was told "not now", or not, with a permit granted then: until when (steady) its limits are to be
    /// blocked.
    pub fn hear_health(&self, clock: &Clock, health: Health, granted_at: Timestamp) -> Option<Timestamp> {
        let Shared { throttles, last_throttled_at, .. } = &*self.shared;
        let until = throttles.until(clock, health, granted_at);
        if until.is_some() {
            *last_throttled_at.lock().expect("no panic while held") = Some(clock.now());
        }
        until
    }

    /// And this of limits.
    pub fn hear_told(&self, told: Vec<(LimitKey, Told)>) {
        self.shared.told.note(told);
    }

    /// And this refusal teaches.
    pub fn learn(&self, lesson: Lesson) {
        self.shared.lessons.tell(lesson);
    }

    /// Permits of a program outside were settled; some came back unsent, if `returned` says so.
    pub fn permits_settled(&self, returned: bool) {
        self.shared.permits_settled(returned);
    }

    /// One call whose answer somebody waits for. `None` when the gate has ended.
    pub async fn direct(&self, ask: direct::Ask) -> Option<Result<direct::Said, EngineError>> {
        let ask = Box::new(ask);
        self.question(|reply| Question::Direct { ask, reply }).await
    }

    /// `None` when the gate has ended.
    async fn question<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.ask.send(make(reply)).await.ok()?;
        answer.await.ok()
    }
}

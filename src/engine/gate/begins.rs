//! Begins under way: what is being journaled while the gate goes on, and what follows when the journal has it.
//!
//! A gate that waited for its begins would miss the commit that is gathered meanwhile: every call would cost two commits
//! of waiting where it costs one. So the gate plans on; slots, jobs and permits of what is under way are taken already.
//! Must never know: which work goes next. Next: `release`, which plans; `caller`, which carries a call out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::super::caller::{Caller, Errand};
use super::super::desk::Seat;
use super::super::handle::EngineError;
use super::super::open_calls;
use super::actor::{AWAY_WAIT, Gate};
use super::release::Planned;
use crate::clock::Timestamp;
use crate::limiter::Settle;
use crate::model::id::FlowId;
use crate::outbound::{Transport, breaker};
use crate::store::{Begun, BegunCall};

/// Begins under way at most: one in the commit that is being made, one in the next, and two that are answered.
pub(super) const BEGINS_MAX: usize = 4;
/// Wait before the next turn when one began nothing.
const TURN_AGAIN: Duration = Duration::from_millis(1);

/// The journal's answer.
pub(super) struct Journaled {
    planned: Vec<Planned>,
    begun: Result<Vec<Begun>, EngineError>,
    /// A stop waits until the calls are launched, which hold themselves open.
    _turn: open_calls::Held,
}

#[derive(Default)]
pub(super) struct Begins {
    pub under_way: FuturesUnordered<BoxFuture<'static, Journaled>>,
    /// Calls among them at most.
    pub calls: u32,
    /// Jobs that they are to take, which the store still counts as ready.
    jobs: BTreeMap<FlowId, [u64; 3]>,
    /// The last one began nothing: not before this steady time again.
    pub again_at: Timestamp,
}

impl Begins {
    /// What is left of a flow's ready jobs.
    pub fn less(&self, flow: FlowId, ready: [u64; 3]) -> [u64; 3] {
        let Some(taken) = self.jobs.get(&flow) else { return ready };
        std::array::from_fn(|class| ready[class].saturating_sub(taken[class]))
    }

    fn note(&mut self, planned: &[Planned]) {
        for begin in planned.iter().map(|p| &p.begin) {
            self.calls += begin.calls_max;
            for take in &begin.takes {
                self.jobs.entry(take.flow).or_default()[take.class as usize] += u64::from(take.count);
            }
        }
    }

    fn forget(&mut self, planned: &[Planned]) {
        for begin in planned.iter().map(|p| &p.begin) {
            self.calls -= begin.calls_max;
            for take in &begin.takes {
                let Some(taken) = self.jobs.get_mut(&take.flow) else { continue };
                taken[take.class as usize] -= u64::from(take.count);
                if *taken == [0; 3] {
                    self.jobs.remove(&take.flow);
                }
            }
        }
    }
}

impl Gate {
    /// Hands what was planned to the journal; [`Gate::begun`] hears of it.
    pub fn begin(&mut self, planned: Vec<Planned>, turn: open_calls::Held) {
        self.begins.note(&planned);
        let (writer, begins) = (self.parts.writer.clone(), planned.iter().map(|p| p.begin.clone()).collect());
        let under_way = async move { Journaled { begun: writer.begin(begins).await, planned, _turn: turn } };
        self.begins.under_way.push(under_way.boxed());
    }

    /// Starts a caller for each call that began.
    pub async fn begun(&mut self, journaled: Journaled) {
        let Journaled { planned, begun, _turn } = journaled;
        self.begins.forget(&planned);
        // The commit's report of the flows came before its answer.
        self.absorb();
        let flows = planned.iter().flat_map(|p| p.begin.takes.iter()).map(|take| take.flow);
        let flows: std::collections::BTreeSet<FlowId> = flows.collect();
        for flow in flows {
            // What was not taken after all is there again.
            if let Some(flow) = self.flows.get(&flow).cloned() {
                self.take_in(flow);
            }
        }
        let begun = begun.unwrap_or_else(|e| {
            tracing::warn!(provider = %self.current.provider.name, error = %e, "calls could not be journaled");
            self.held_until = self.now() + AWAY_WAIT;
            // Whether it was done is not known: what is remembered of the flows may be wrong.
            self.shared.reload.store(true, Ordering::Relaxed);
            vec![Begun::default(); planned.len()]
        });
        let mut calls = 0;
        for (plan, begun) in planned.into_iter().zip(begun) {
            calls += begun.calls.len();
            self.launch_all(plan, begun).await;
        }
        if calls == 0 {
            self.begins.again_at = self.now() + TURN_AGAIN;
        }
    }

    async fn launch_all(&mut self, mut plan: Planned, begun: Begun) {
        let unused = plan.begin.calls_max.saturating_sub(begun.calls.len() as u32);
        if unused > 0 {
            self.give_back(&plan, unused).await;
            if let Some(group) = self.groups.get_mut(&plan.group) {
                let in_flight = &mut group.in_flight[plan.begin.lane as usize];
                *in_flight = in_flight.saturating_sub(unused);
            }
        }
        let jobs = begun.calls.iter().map(|c| c.jobs.len()).sum();
        self.rates.left(self.parts.clock.steady(), &plan.group, plan.begin.lane, begun.calls.len(), jobs);
        if plan.probe && begun.calls.is_empty() {
            self.credential_probe_ended(&plan.group.account);
        } else if plan.probe {
            self.probe_began();
        }
        for call in begun.calls {
            let seat = plan.seats.pop();
            self.launch(&plan, call, seat);
        }
    }

    async fn give_back(&mut self, plan: &Planned, count: u32) {
        let settle = Settle::new(plan.begin.permit.clone(), count, false);
        if let Err(e) = self.parts.limiter.settle(self.now(), &[settle]).await {
            tracing::warn!(error = %e, "unused permits could not be given back");
        }
        // Nobody hears of an answer that will not come.
        self.freed(&plan.begin.permit.spends);
    }

    pub fn probe_began(&mut self) {
        if self.host.state() != breaker::State::Closed {
            self.host.began(self.now());
        }
    }

    pub fn caller(&self, transport: Arc<dyn Transport>) -> Caller {
        Caller {
            clock: self.parts.clock.clone(),
            provider: self.current.provider.clone(),
            transport,
            limiter: self.parts.limiter.clone(),
            store: self.parts.store.clone(),
            writer: self.parts.writer.clone(),
            dice: self.parts.dice.clone(),
            metrics: self.parts.metrics.clone(),
            collections: self.parts.collections.clone(),
            throttles: self.shared.throttles.clone(),
            told: self.shared.told.clone(),
            lessons: self.shared.lessons.clone(),
            excused: self.shared.excused.clone(),
        }
    }

    fn launch(&self, plan: &Planned, call: BegunCall, seat: Option<Seat>) {
        let Ok(transport) = self.current.transport.clone() else { return };
        let tenant = call.jobs.first().and_then(|j| self.flows.get(&j.flow)).map(|f| f.key.tenant.clone());
        let errand = Errand {
            call,
            operation: plan.operation.clone(),
            lane: plan.begin.lane,
            account: plan.begin.account.clone(),
            tenant: tenant.unwrap_or_default(),
            permit: plan.begin.permit.clone(),
            lease_until: plan.begin.lease_until,
            keyed: plan.keyed.clone(),
            probe: plan.probe,
            splitter: self.groups.get(&plan.group).map(|g| g.splitter.clone()).unwrap_or_default(),
        };
        let (shared, group, spent) = (self.shared.clone(), plan.group.clone(), plan.begin.permit.spends.clone());
        let open = self.parts.open_calls.hold();
        if let Some(external) = plan.operation.external {
            return self.launch_lease(external, group, errand, seat, open);
        }
        self.shared.in_flight[plan.begin.lane as usize].fetch_add(1, Ordering::Relaxed);
        let caller = self.caller(transport);
        let (clock, began_at) = (self.parts.clock.clone(), self.now());
        let completed = move |completion| {
            shared.call_time.saw(clock.steady().since(began_at));
            shared.completed(group, spent, completion);
        };
        self.parts.supervisor.task(async move {
            // Until the outcome is recorded.
            let _open = open;
            caller.run(errand, completed).await;
        });
    }
}

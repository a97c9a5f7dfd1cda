//! What a gate tells about itself: status, explanations, forecasts, test calls. Reads, never decides.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::LEASE_MARGIN;
use super::super::caller::Completion;
use super::super::caller::direct::{Direct, Errand};
use super::super::caller::told::Told;
use super::super::handle::EngineError;
use super::super::status::{
    BreakerState, BreakerView, LaneStatus, LimitStatus, OperationStatus, ProviderStatus, WaitingOn,
};
use super::super::wall_of;
use super::Question;
use super::actor::Gate;
use super::direct::{Ask, Said};
use super::group::GroupKey;
use crate::clock::Timestamp;
use crate::limit::LimitView;
use crate::limiter::{Acquire, Answer, Spend};
use crate::model::call::Lane;
use crate::model::flow::{Class, FlowCounts};
use crate::model::id::FlowId;
use crate::model::name::{Account, OperationName};
use crate::outbound::breaker::{Breaker, State};

/// Limits shown in a status; with many accounts, those of the first groups.
const LIMITS_SHOWN_MAX: usize = 100;
/// Seconds over which the present rate is measured.
const RATE_SECONDS: i64 = 60;

/// Counters of what left, for status pages.
#[derive(Debug, Default)]
pub(super) struct Rates {
    totals: BTreeMap<(OperationName, Lane), (u64, u64)>,
    /// (second, jobs), the last minute.
    recent: VecDeque<(i64, u64)>,
}

impl Rates {
    pub fn left(&mut self, now: Timestamp, group: &GroupKey, lane: Lane, calls: usize, jobs: usize) {
        let total = self.totals.entry((group.operation.clone(), lane)).or_default();
        total.0 += calls as u64;
        total.1 += jobs as u64;
        let second = now.0 / 1_000_000;
        match self.recent.back_mut() {
            Some(last) if last.0 == second => last.1 += jobs as u64,
            _ => self.recent.push_back((second, jobs as u64)),
        }
        while self.recent.front().is_some_and(|f| f.0 <= second - RATE_SECONDS) {
            self.recent.pop_front();
        }
    }

    fn per_second(&self, now: Timestamp) -> f64 {
        let second = now.0 / 1_000_000;
        let jobs: u64 = self.recent.iter().filter(|f| f.0 > second - RATE_SECONDS).map(|f| f.1).sum();
        jobs as f64 / RATE_SECONDS as f64
    }
}

impl Gate {
    pub async fn answer(&mut self, question: Question) {
        // Who asked may have gone away; that is fine.
        match question {
            Question::Status(reply) => drop(reply.send(self.status().await)),
            Question::Explain { flow, class, ahead, reply } => {
                drop(reply.send(self.explain(flow, class, ahead).await));
            }
            Question::DrainsAt { flow, reply } => drop(reply.send(self.drains_at(flow).await)),
            Question::Test { ask, reply } => self.test(*ask, reply).await,
            Question::Permits { ask, reply } => self.join_outside(*ask, reply),
            Question::Direct { ask, reply } => self.stand_in_line(*ask, reply),
            Question::TakeUp { call, jobs, reply } => drop(reply.send(self.take_up(*call, jobs))),
            Question::ResetBreaker(reply) => {
                self.reset_breakers();
                self.shared.wake().notify_one();
                let _ = reply.send(());
            }
        }
    }

    async fn status(&mut self) -> ProviderStatus {
        let now = self.now();
        let provider = self.current.provider.clone();
        let limits = self.limits(now).await;
        let forecast = self.forecast(None).await;
        let mut status = ProviderStatus {
            name: provider.name.clone(),
            revision: 0,
            paused: self.shared.paused.load(Ordering::Relaxed),
            fault: self.fault(),
            partitions_held: self.parts.standing.as_ref().map(|s| s.partitions_held(&provider.name)),
            breaker: self.breaker_view(),
            credentials: self.credential_views(),
            limits,
            operations: Vec::new(),
            counts: FlowCounts::default(),
            in_flight: self.shared.in_flight(),
            in_flight_max: provider.in_flight_max,
            sending_per_second: self.rates.per_second(now),
            allowed_per_second: forecast.allowed_per_second,
            drains_at: forecast.through_at.map(|at| wall_of(&self.parts.clock, at)),
            bound_by: forecast.bound_by,
            oldest_ready_at: self.oldest_ready().await,
            throttled_total: self.shared.throttles.total(),
            last_throttled_at: *self.shared.last_throttled_at.lock().expect("no panic while held"),
        };
        for (name, operation) in &provider.operations {
            let lanes = Lane::ALL.into_iter().filter(|l| operation.lane(*l).is_some());
            let lanes = lanes.map(|lane| self.lane_status(name, lane)).collect();
            status.operations.push(OperationStatus { name: name.clone(), counts: FlowCounts::default(), lanes });
        }
        status
    }

    /// Why nothing can leave at all, when so.
    fn fault(&self) -> Option<String> {
        let unusable = self.current.transport.as_ref().err().cloned();
        unusable.or_else(|| self.parts.standing.as_ref().and_then(|s| s.fault()))
    }

    fn lane_status(&self, operation: &OperationName, lane: Lane) -> LaneStatus {
        let groups = || self.groups.iter().filter(|(k, _)| k.operation == *operation).map(|(_, g)| g);
        let (calls_total, jobs_total) = self.rates.totals.get(&(operation.clone(), lane)).copied().unwrap_or_default();
        let tide = (lane == Lane::Batch).then(|| groups().next()).flatten().map(|g| &g.tide);
        LaneStatus {
            lane,
            in_flight: groups().map(|g| g.in_flight[lane as usize]).sum(),
            calls_total,
            jobs_total,
            credits: tide.map(|t| t.credits()),
            interval: tide.and_then(|t| t.interval()),
        }
    }

    fn breaker_view(&self) -> BreakerView {
        // Of those that speak for everybody the one that holds most back.
        let worse = |b: &&Breaker| match b.state() {
            State::Closed => 0,
            State::HalfOpen { .. } => 1,
            State::Open { .. } => 2,
        };
        let own = self.credentials.get(&Account::default());
        let breaker = own.into_iter().chain([&self.host]).max_by_key(worse).expect("there is one");
        self.view_of(breaker)
    }

    pub fn view_of(&self, breaker: &Breaker) -> BreakerView {
        let wall = |at| wall_of(&self.parts.clock, at);
        let (state, probe_at) = match breaker.state() {
            State::Closed => (BreakerState::Closed, None),
            State::Open { until: Timestamp::NEVER } => (BreakerState::Open, None),
            State::Open { until } => (BreakerState::Open, Some(wall(until))),
            State::HalfOpen { .. } => (BreakerState::HalfOpen, None),
        };
        BreakerView {
            state,
            failures_in_a_row: breaker.bad_in_a_row(),
            probe_at,
            opened_at: breaker.opened_at().map(wall),
            last_error: breaker.last_error().cloned(),
        }
    }

    /// Every declared limit with its count, for the groups that have one.
    async fn limits(&mut self, now: Timestamp) -> Vec<LimitStatus> {
        let provider = self.current.provider.clone();
        let mut spends: BTreeMap<_, Spend> = BTreeMap::new();
        let mut keys: Vec<GroupKey> = self.groups.keys().take(LIMITS_SHOWN_MAX).cloned().collect();
        let shown = |name: &OperationName| keys.iter().any(|k| k.operation == *name);
        let fresh: Vec<_> = provider.operations.keys().filter(|o| !shown(o)).cloned().collect();
        keys.extend(fresh.into_iter().map(|operation| GroupKey { operation, account: Default::default() }));
        for key in keys {
            let Some(operation) = provider.operations.get(&key.operation) else { continue };
            for lane in Lane::ALL.into_iter().filter(|l| operation.lane(*l).is_some()) {
                let of_lane = crate::limiter::spends(&provider, operation, lane, &key.account, None);
                spends.extend(of_lane.iter().map(|s| (s.key.clone(), s.clone())));
            }
        }
        let spends: std::sync::Arc<[Spend]> = spends.into_values().take(LIMITS_SHOWN_MAX).collect();
        let applied = self.learned.apply(spends.clone());
        let views = self.parts.limiter.peek(now, &applied).await.unwrap_or_default();
        let status = |(spend, view): (&Spend, LimitView)| LimitStatus {
            name: spend.limit.name.to_string(),
            declared: spend.limit.kind.to_string(),
            refused_at_max: self.learned.of(spend).map(|learned| learned.refused_at_max),
            // What another daemon was told binds this one too.
            told: self.shared.told.of(&spend.key).or_else(|| {
                let said = view.said?;
                Some(Told { left: Some(said.left), reset_at: Some(said.until), ..Told::default() })
            }),
            view,
        };
        spends.iter().zip(views).map(status).collect()
    }

    /// Creation time of the oldest ready job, over the flows that were looked at.
    async fn oldest_ready(&mut self) -> Option<Timestamp> {
        let ready = self.flows.values().filter(|f| f.counts.ready_all() > 0).map(|f| f.id);
        let ready: Vec<FlowId> = ready.take(LIMITS_SHOWN_MAX).collect();
        let mut oldest = None;
        for flow in ready {
            if let Ok(Some(at)) = self.parts.store.oldest_ready(flow).await {
                oldest = Some(oldest.map_or(at, |o: Timestamp| o.min(at)));
            }
        }
        oldest
    }

    async fn explain(&mut self, flow: FlowId, class: Class, ahead: u64) -> (WaitingOn, String, Option<Timestamp>) {
        let clock = self.parts.clock.clone();
        if self.shared.paused.load(Ordering::Relaxed) {
            return (WaitingOn::Paused, "its provider is paused".to_owned(), None);
        }
        if let Err(reason) = &self.current.transport {
            return (WaitingOn::UnknownProvider, format!("its provider cannot be called: {reason}"), None);
        }
        if let Some(held) = self.parts.standing.as_ref().and_then(|s| s.limiter_fault()) {
            return (WaitingOn::Limiter, held, None);
        }
        let Some((held, key)) = self.flows.get(&flow).map(|f| (f.held, GroupKey::of(&f.key))) else {
            return (WaitingOn::Turn, "it is next in turn".to_owned(), Some(clock.now()));
        };
        if held {
            return (WaitingOn::RunPaused, "its run is paused or ended".to_owned(), None);
        }
        let breaker = self.breaker_view();
        if breaker.state != BreakerState::Closed {
            let why = breaker.last_error.as_deref().unwrap_or("the provider failed").to_owned();
            return (WaitingOn::Breaker, format!("the breaker is open: {why}"), breaker.probe_at);
        }
        if self.seatless.contains(&key) {
            return (WaitingOn::Worker, "no worker has a free seat for it".to_owned(), None);
        }
        let is_ours = self.current.provider.operations.get(&key.operation).is_none_or(|o| o.external.is_none());
        if let Some((sentence, at)) = self.explain_credential(&key.account).filter(|_| is_ours) {
            return (WaitingOn::Breaker, sentence, at);
        }
        let forecast = self.forecast(Some((flow, class, ahead))).await;
        let at = forecast.through_at.map(|at| wall_of(&clock, at));
        if let Some(name) = forecast.bound_by {
            let when = at.map_or_else(|| "at a time that cannot be said".to_owned(), |at| format!("about {at}"));
            let text = format!("limit {name} is used up for now; {ahead} jobs go before it; it leaves {when}");
            return (WaitingOn::Limit { name }, text, at);
        }
        if self.shared.in_flight() >= self.current.provider.in_flight_max {
            let text = format!("{} calls are on the wire, as many as in_flight_max allows", self.shared.in_flight());
            return (WaitingOn::InFlight, text, at);
        }
        (WaitingOn::Turn, format!("{ahead} jobs of its flow go before it"), at.or(Some(clock.now())))
    }

    async fn drains_at(&mut self, flow: FlowId) -> Option<Timestamp> {
        let found = self.flows.get(&flow)?;
        if found.held || self.shared.paused.load(Ordering::Relaxed) || self.current.transport.is_err() {
            return None;
        }
        let ahead = found.counts.waiting().saturating_sub(1);
        let forecast = self.forecast(Some((flow, Class::Bulk, ahead))).await;
        let call_time = self.shared.call_time.get();
        forecast.through_at.map(|at| wall_of(&self.parts.clock, at + call_time))
    }

    /// One call outside of the queue: it goes although a breaker is open, and no breaker hears of it. Refused at once
    /// where a limit has no room.
    async fn test(&mut self, ask: Ask, reply: oneshot::Sender<Result<(Said, Duration), EngineError>>) {
        // Before the look at what holds the gate, so that a stop waits for it.
        let open = self.parts.open_calls.hold();
        let transport = match self.current.transport.clone() {
            _ if self.shared.held.load(Ordering::Relaxed) => return drop(reply.send(Err(EngineError::Draining))),
            Err(reason) => {
                let why = format!("the provider cannot be called: {reason}");
                return drop(reply.send(Err(EngineError::Unavailable(why))));
            }
            Ok(transport) => transport,
        };
        let now = self.now();
        let spends = crate::limiter::spends(&ask.provider, &ask.operation, Lane::Single, &ask.account, None);
        let spends = self.learned.apply(spends);
        let acquire = Acquire { spends, min: 1, max: 1, class: ask.class, request: 0 };
        let permit = match self.parts.limiter.acquire(now, &[acquire]).await.map(|a| a.into_iter().next()) {
            Ok(Some(Answer::Granted { permit, .. })) => permit,
            Ok(Some(Answer::Wait { earliest, binder, .. })) => {
                let at = wall_of(&self.parts.clock, earliest);
                let why = format!("limit {binder} has no room before {at}");
                return drop(reply.send(Err(EngineError::Unavailable(why))));
            }
            _ => {
                let why = "the limiter is not available".to_owned();
                return drop(reply.send(Err(EngineError::Unavailable(why))));
            }
        };
        let lease_until = now + self.current.provider.timeouts.total + LEASE_MARGIN;
        let direct = Direct { caller: self.caller(transport), open };
        let (shared, clock) = (self.shared.clone(), self.parts.clock.clone());
        let completed = move |completion: Completion| {
            if completion.throttled_until.is_some() {
                *shared.last_throttled_at.lock().expect("no panic while held") = Some(clock.now());
            }
            // Others may wait for what it spent, or did not spend.
            shared.permits_settled(true);
        };
        self.parts.supervisor.task(async move {
            let (tell, said) = oneshot::channel();
            let took = direct.carry(Errand { ask, permit, lease_until, probe: false, reply: tell }, completed).await;
            let said = said.await.unwrap_or(Err(EngineError::Draining));
            let _ = reply.send(said.map(|said| (said, took)));
        });
    }
}

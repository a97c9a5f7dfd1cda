//! The loop of a gate: take in what changed, release what may leave, sleep until something can.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use super::super::caller::{Caller, Completion, Errand};
use super::super::cluster::Shards;
use super::super::supervisor::{ActorResult, BEAT_EVERY, Beat};
use super::group::{Group, GroupKey};
use super::release::Released;
use super::{Current, GateParts, Question, Shared};
use crate::clock::Timestamp;
use crate::limiter::Settle;
use crate::model::call::Lane;
use crate::model::flow::Flow;
use crate::model::id::FlowId;
use crate::model::name::{Account, OperationName};
use crate::model::verdict::Health;
use crate::outbound::breaker::{self, Breaker};
use crate::plan::fairness::Turns;
use crate::plan::lanes::Tide;
use crate::store::{Begun, Change, PAGE_MAX};

/// Groups without work are remembered up to this number, for the credits of their tides.
const GROUPS_KEPT: usize = 10_000;
/// Wait before trying again when the store or the limiter is away.
pub(super) const AWAY_WAIT: Duration = Duration::from_millis(200);
/// How often the gate's small memory is saved while it changes.
const SAVE_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Gate {
    pub parts: GateParts,
    pub shared: Arc<Shared>,
    pub current: Arc<Current>,
    /// Every flow with work left to do.
    pub flows: BTreeMap<FlowId, Flow>,
    pub groups: BTreeMap<GroupKey, Group>,
    pub turns: Turns<GroupKey>,
    /// Of the host and of the credential.
    pub breakers: [Breaker; 2],
    /// Nothing may leave before this steady time, whatever the limits say.
    pub held_until: Timestamp,
    pub rates: super::report::Rates,
    pub waits: super::waits::Waits,
    /// Partitions that were held when flows were last read; `None`: this process owns everything.
    shards: Option<Arc<Shards>>,
    saved: String,
    save_at: Timestamp,
}

/// What a gate remembers across restarts.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct Memory {
    host: Option<breaker::Memory>,
    credential: Option<breaker::Memory>,
    /// By operation and account.
    tides: Vec<(String, String, Tide)>,
}

/// Tides saved at most; what is beyond starts again with full credits.
const TIDES_SAVED_MAX: usize = 1_000;

impl Gate {
    pub fn new(parts: GateParts, shared: Arc<Shared>, memory: Option<&str>) -> Self {
        let current = shared.current.load_full();
        let memory: Memory = memory.and_then(|m| serde_json::from_str(m).ok()).unwrap_or_default();
        let policy = current.provider.breaker;
        let host = memory.host.map_or_else(|| Breaker::new(policy), |m| Breaker::resume(policy, m));
        let mut credential = Breaker::for_credential(policy);
        if let Some(kept) = memory.credential {
            credential.recall(kept);
        }
        let mut groups: BTreeMap<GroupKey, Group> = BTreeMap::new();
        for (operation, account, tide) in memory.tides {
            if let (Ok(operation), Ok(account)) = (OperationName::new(operation), Account::new(account)) {
                groups.entry(GroupKey { operation, account }).or_default().tide = tide;
            }
        }
        let mut turns = Turns::default();
        turns.set_weights(current.provider.tenants.clone());
        Gate {
            parts,
            shared,
            current,
            flows: BTreeMap::new(),
            groups,
            turns,
            breakers: [host, credential],
            held_until: Timestamp::ZERO,
            rates: Default::default(),
            waits: Default::default(),
            shards: None,
            saved: String::new(),
            save_at: Timestamp::ZERO,
        }
    }

    pub async fn run(mut self, beat: Beat, inbox: &mut mpsc::Receiver<Question>) -> ActorResult {
        self.shards = self.parts.owned.of(&self.current.provider.name);
        self.load().await.map_err(|e| e.to_string())?;
        loop {
            beat.beat();
            self.absorb();
            if let Err(e) = self.follow_leases().await {
                tracing::warn!(provider = %self.current.provider.name, error = %e, "flows could not be read");
                self.shared.reload.store(true, Ordering::Relaxed);
                self.held_until = self.now() + AWAY_WAIT;
            }
            let turn = self.parts.open_calls.hold();
            let released = self.release().await;
            drop(turn);
            self.note_wait(matches!(released, Released::Calls));
            let wake_at = match released {
                Released::Calls => self.now(),
                Released::Nothing { wake_at } => wake_at,
            };
            self.save().await;
            // After a release the gate looks again at once, but not before it has answered who asks.
            let wake_at = wake_at.min(self.now() + BEAT_EVERY);
            tokio::select! {
                biased;
                () = beat.stop.cancelled() => return Ok(()),
                question = inbox.recv() => match question {
                    Some(question) => self.answer(question).await,
                    None => return Ok(()),
                },
                () = self.parts.clock.sleep_until(wake_at) => {}
                () = self.shared.flows.wake.notified() => {}
            }
        }
    }

    pub fn now(&self) -> Timestamp {
        self.parts.clock.steady()
    }

    /// After a restart of the actor: everything from the store, which is never wrong.
    async fn load(&mut self) -> Result<(), crate::store::Error> {
        let mut after = FlowId(0);
        loop {
            let page = self.parts.store.flows(after, PAGE_MAX).await?;
            let short = page.len() < PAGE_MAX;
            after = page.last().map_or(after, |f| f.id);
            let name = self.current.provider.name.clone();
            page.into_iter().filter(|f| f.key.provider == name).for_each(|f| self.take_in(f));
            if short {
                return Ok(());
            }
        }
    }

    fn absorb(&mut self) {
        let current = self.shared.current.load_full();
        if !Arc::ptr_eq(&current, &self.current) {
            self.current = current;
            self.breakers[0].set_policy(self.current.provider.breaker);
            // Limits and lanes may have changed: every group is looked at anew.
            self.groups.values_mut().for_each(Group::redeclare);
            self.turns.set_weights(self.current.provider.tenants.clone());
            self.turns.unpark_all();
        }
        for (_, flow) in self.shared.flows.take() {
            self.take_in(flow);
        }
        let ended = std::mem::take(&mut *self.shared.completions.lock().expect("no panic while held"));
        // Answers may have freed what others wait for; they are asked once, however many answers came.
        if !ended.is_empty() {
            self.turns.unpark_soft();
        }
        for (group, completion) in ended {
            self.call_ended(&group, completion);
        }
    }

    /// Lets go of accounts that are another daemon's now and takes up those that have become ours.
    async fn follow_leases(&mut self) -> Result<(), crate::store::Error> {
        let held = self.parts.owned.of(&self.current.provider.name);
        let moved = held != self.shards;
        if moved {
            self.shards = held;
            let gone: Vec<Flow> = self.flows.values().filter(|f| !self.is_ours(f)).cloned().collect();
            gone.iter().for_each(|flow| self.let_go(flow));
        }
        if self.shared.reload.swap(false, Ordering::Relaxed) || moved {
            self.load().await?;
        }
        Ok(())
    }

    fn is_ours(&self, flow: &Flow) -> bool {
        self.parts.owned.hold(&self.current.provider.name, &flow.key.account).is_some()
    }

    fn let_go(&mut self, flow: &Flow) {
        let key = GroupKey::of(&flow.key);
        self.turns.update(flow.id, &flow.key.tenant, &key, [0; 3]);
        if let Some(group) = self.groups.get_mut(&key) {
            group.take_in(flow, [0; 3], false);
        }
        self.flows.remove(&flow.id);
    }

    fn take_in(&mut self, flow: Flow) {
        if self.flows.get(&flow.id).is_some_and(|known| known.version > flow.version) {
            return;
        }
        if !self.is_ours(&flow) {
            return self.let_go(&flow);
        }
        let key = GroupKey::of(&flow.key);
        let ready = if flow.held { [0; 3] } else { flow.counts.ready };
        let alive = flow.counts.waiting() + flow.counts.calling + flow.counts.unknown > 0;
        self.turns.update(flow.id, &flow.key.tenant, &key, ready);
        let group = self.groups.entry(key.clone()).or_default();
        let awake = group.take_in(&flow, ready, alive);
        let tide = self.current.provider.operations.get(&key.operation).is_some_and(|o| o.batch.is_some());
        // A class that had nothing may have a reserve; and with two lanes every arrival can change the decision.
        if awake || tide {
            self.turns.unpark(&key);
        }
        if alive {
            self.flows.insert(flow.id, flow);
        } else {
            self.flows.remove(&flow.id);
        }
    }

    fn call_ended(&mut self, key: &GroupKey, completion: Completion) {
        let now = self.now();
        let classes = [breaker::Class::for_host(completion.health), breaker::Class::for_credential(completion.health)];
        for (breaker, class) in self.breakers.iter_mut().zip(classes) {
            let dice = self.parts.dice.roll();
            if breaker.record(now, class, completion.probe, dice, completion.error.as_ref()) {
                tracing::warn!(provider = %self.current.provider.name, state = ?breaker.state(), "a breaker moved");
            }
        }
        if matches!(completion.health, Health::Limiting { .. }) {
            *self.shared.last_throttled_at.lock().expect("no panic while held") = Some(self.parts.clock.now());
        }
        if let Some(until) = completion.throttled_until {
            // Limits that the call spent are blocked in the limiter; this holds what spends none.
            if self.spends_nothing(key, completion.lane) {
                self.held_until = self.held_until.max(until);
            }
        }
        if let Some(group) = self.groups.get_mut(key) {
            group.call_ended(&completion);
        }
        if self.groups.len() > GROUPS_KEPT {
            self.groups.retain(|_, g| !g.is_idle());
        }
        // The answer may have freed what this group waits for.
        self.turns.unpark(key);
    }

    fn spends_nothing(&mut self, key: &GroupKey, lane: Lane) -> bool {
        let operation = self.current.provider.operations.get(&key.operation).cloned();
        operation.is_none_or(|operation| self.spends(key, &operation, lane).is_empty())
    }

    /// Journals what was planned and starts a caller for each call that began. Returns how many did.
    pub async fn begin(&mut self, planned: Vec<super::release::Planned>) -> usize {
        let begins = planned.iter().map(|p| p.begin.clone()).collect();
        let begun = match self.parts.writer.begin(begins).await {
            Ok(begun) => begun,
            Err(e) => {
                tracing::warn!(provider = %self.current.provider.name, error = %e, "calls could not be journaled");
                self.held_until = self.now() + AWAY_WAIT;
                // What was planned is deducted from its flows, and nobody reports those again if nothing was done.
                self.shared.reload.store(true, Ordering::Relaxed);
                self.shared.wake().notify_one();
                vec![Begun::default(); planned.len()]
            }
        };
        let mut calls = 0;
        for (plan, begun) in planned.into_iter().zip(begun) {
            self.take_back(&plan, &begun).await;
            let unused = plan.begin.calls_max.saturating_sub(begun.calls.len() as u32);
            if unused > 0 {
                self.give_back(&plan, unused).await;
                if let Some(group) = self.groups.get_mut(&plan.group) {
                    let in_flight = &mut group.in_flight[plan.begin.lane as usize];
                    *in_flight = in_flight.saturating_sub(unused);
                }
            }
            calls += begun.calls.len();
            let jobs = begun.calls.iter().map(|c| c.jobs.len()).sum();
            self.rates.left(self.parts.clock.steady(), &plan.group, plan.begin.lane, begun.calls.len(), jobs);
            if plan.probe && !begun.calls.is_empty() {
                let now = self.now();
                self.breakers.iter_mut().filter(|b| b.state() != breaker::State::Closed).for_each(|b| b.began(now));
            }
            for call in begun.calls {
                self.launch(&plan, call);
            }
        }
        calls
    }

    /// Flows that were to give jobs and gave none are not touched by the commit, so it does not report them: what was
    /// deducted from them comes back here.
    async fn take_back(&mut self, plan: &super::release::Planned, begun: &Begun) {
        if self.shared.reload.load(Ordering::Relaxed) {
            return;
        }
        let gave: BTreeSet<FlowId> = begun.calls.iter().flat_map(|c| &c.jobs).map(|j| j.flow).collect();
        let spared: BTreeSet<FlowId> = plan.begin.takes.iter().map(|t| t.flow).filter(|f| !gave.contains(f)).collect();
        for id in spared {
            // Where nothing began at all, what is known of the flow may be wrong.
            let flow = if gave.is_empty() { self.parts.store.flow(id).await } else { Ok(self.flows.get(&id).cloned()) };
            match flow {
                Ok(Some(flow)) => self.take_in(flow),
                Ok(None) => {}
                Err(_) => self.shared.reload.store(true, Ordering::Relaxed),
            }
        }
        if gave.is_empty() {
            // Whatever refused it may refuse it again: not in a circle.
            self.turns.park(&plan.group, self.now() + AWAY_WAIT, false);
        }
    }

    async fn give_back(&self, plan: &super::release::Planned, count: u32) {
        let settle =
            Settle { permit: plan.begin.permit.clone(), count, sent: false, blocked_until: None, blocked_limit: None };
        if let Err(e) = self.parts.limiter.settle(self.now(), &[settle]).await {
            tracing::warn!(error = %e, "unused permits could not be given back");
        }
    }

    fn launch(&self, plan: &super::release::Planned, call: crate::store::BegunCall) {
        let Ok(transport) = self.current.transport.clone() else { return };
        self.shared.in_flight[plan.begin.lane as usize].fetch_add(1, Ordering::Relaxed);
        let caller = Caller {
            clock: self.parts.clock.clone(),
            provider: self.current.provider.clone(),
            transport,
            limiter: self.parts.limiter.clone(),
            store: self.parts.store.clone(),
            writer: self.parts.writer.clone(),
            dice: self.parts.dice.clone(),
            metrics: self.parts.metrics.clone(),
            throttles_in_a_row: self.shared.throttles_in_a_row.clone(),
            throttled_total: self.shared.throttled_total.clone(),
        };
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
        let (shared, group) = (self.shared.clone(), plan.group.clone());
        let open = self.parts.open_calls.hold();
        self.parts.supervisor.task(async move {
            // Until the outcome is recorded.
            let _open = open;
            caller.run(errand, move |completion| shared.completed(group, completion)).await;
        });
    }

    /// Saves breaker and tides when they changed, at most every few seconds: losing them costs a little time.
    async fn save(&mut self) {
        let now = self.now();
        if now < self.save_at {
            return;
        }
        self.save_at = now + SAVE_EVERY;
        let tide = |(key, group): (&GroupKey, &Group)| {
            let (operation, account) = (key.operation.to_string(), key.account.to_string());
            let two_lanes = self.current.provider.operations.get(&key.operation).is_some_and(|o| o.batch.is_some());
            two_lanes.then(|| (operation, account, group.tide.clone()))
        };
        let memory = Memory {
            host: Some(self.breakers[0].memory().clone()),
            credential: Some(self.breakers[1].memory().clone()),
            tides: self.groups.iter().filter_map(tide).take(TIDES_SAVED_MAX).collect(),
        };
        let memory = serde_json::to_string(&memory).unwrap_or_default();
        if memory != self.saved {
            let change = Change::SaveGate { provider: self.current.provider.name.clone(), memory: memory.clone() };
            if self.parts.writer.change(change).await.is_ok() {
                self.saved = memory;
            }
        }
    }
}

//! The loop of a gate: take in what changed, release what may leave, sleep until something can.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::super::caller::Completion;
use super::super::cluster::Shards;
use super::super::supervisor::{ActorResult, BEAT_EVERY, Beat};
use super::begins::Begins;
use super::group::{Group, GroupKey};
use super::release::Released;
use super::{Current, GateParts, Question, Shared};
use crate::clock::Timestamp;
use crate::limit::learned::Learned;
use crate::model::call::Lane;
use crate::model::flow::Flow;
use crate::model::id::FlowId;
use crate::model::name::{Account, OperationName};
use crate::model::verdict::Health;
use crate::outbound::breaker::{self, Breaker};
use crate::plan::fairness::Turns;
use crate::plan::lanes::Tide;
use crate::store::{Change, PAGE_MAX};

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
    /// The breaker of the host.
    pub host: Breaker,
    /// Of credentials, those with anything to tell.
    pub credentials: BTreeMap<Account, Breaker>,
    /// Nothing may leave before this steady time, whatever the limits say.
    pub held_until: Timestamp,
    /// What is being journaled.
    pub begins: Begins,
    pub rates: super::report::Rates,
    pub waits: super::waits::Waits,
    /// Programs that ask for permits.
    pub outside: super::outside::Outside,
    /// Groups that wait for a free seat of a worker.
    pub seatless: BTreeSet<GroupKey>,
    /// Numbers that refusals have taught.
    pub learned: super::learned::Memory,
    /// Callers who wait for an answer.
    pub line: super::direct::Line,
    /// Partitions that were held when flows were last read; `None`: this process owns everything.
    shards: Option<Arc<Shards>>,
    saved: String,
    save_at: Timestamp,
    /// Since the last save.
    has_news: bool,
}

/// What a gate remembers across restarts.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct Memory {
    host: Option<breaker::Memory>,
    /// By account; "" is the provider's own credential.
    credentials: Vec<(String, breaker::Memory)>,
    /// By operation and account.
    tides: Vec<(String, String, Tide)>,
    /// By limit key.
    learned: Vec<(String, Learned)>,
}

/// Tides saved at most; what is beyond starts again with full credits.
const TIDES_SAVED_MAX: usize = 1_000;

impl Gate {
    pub fn new(parts: GateParts, shared: Arc<Shared>, memory: Option<&str>) -> Self {
        let current = shared.current.load_full();
        let memory: Memory = memory.and_then(|m| serde_json::from_str(m).ok()).unwrap_or_default();
        let policy = current.provider.breaker;
        let host = memory.host.map_or_else(|| Breaker::new(policy), |m| Breaker::resume(policy, m));
        let credentials = super::credentials::recall(policy, memory.credentials);
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
            host,
            credentials,
            held_until: Timestamp::ZERO,
            begins: Begins::default(),
            rates: Default::default(),
            waits: Default::default(),
            outside: Default::default(),
            seatless: BTreeSet::new(),
            learned: super::learned::Memory::recall(memory.learned),
            line: Default::default(),
            shards: None,
            saved: String::new(),
            save_at: Timestamp::ZERO,
            has_news: false,
        }
    }

    pub async fn run(mut self, beat: Beat, inbox: &mut mpsc::Receiver<Question>) -> ActorResult {
        self.shards = self.parts.owned.of(&self.current.provider.name);
        if let Err(e) = beat.through(self.load()).await {
            // Read again below. Not a failure of the actor: a store that is away must not spend its restarts.
            tracing::warn!(provider = %self.current.provider.name, error = %e, "flows could not be read");
            self.shared.reload.store(true, Ordering::Relaxed);
        }
        loop {
            beat.beat();
            self.absorb();
            self.learn().await;
            if let Err(e) = beat.through(self.follow_leases()).await {
                tracing::warn!(provider = %self.current.provider.name, error = %e, "flows could not be read");
                self.shared.reload.store(true, Ordering::Relaxed);
                self.held_until = self.now() + AWAY_WAIT;
            }
            let turn = self.parts.open_calls.hold();
            // First: somebody waits for them.
            let line_at = self.serve_line().await;
            let released = self.release(turn).await;
            self.note_wait(matches!(released, Released::Calls));
            let wake_at = match released {
                Released::Calls => self.now(),
                Released::Nothing { wake_at } => wake_at,
            };
            beat.through(self.save()).await;
            // After a release the gate looks again at once, but not before it has answered who asks.
            let wake_at = wake_at.min(line_at).min(self.now() + BEAT_EVERY);
            tokio::select! {
                biased;
                () = beat.stop.cancelled() => {
                    // What is in the journal is on its way.
                    while let Some(journaled) = self.begins.under_way.next().await {
                        self.begun(journaled).await;
                    }
                    return Ok(());
                }
                question = inbox.recv() => match question {
                    Some(question) => self.answer(question).await,
                    None => return Ok(()),
                },
                Some(journaled) = self.begins.under_way.next() => self.begun(journaled).await,
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

    pub fn absorb(&mut self) {
        let current = self.shared.current.load_full();
        if !Arc::ptr_eq(&current, &self.current) {
            self.current = current;
            self.host.set_policy(self.current.provider.breaker);
            // Limits and lanes may have changed: every group is looked at anew.
            self.groups.values_mut().for_each(Group::redeclare);
            self.turns.set_weights(self.current.provider.tenants.clone());
            self.turns.unpark_all();
            self.outside.unpark_all();
            self.line.unpark();
        }
        let heard = self.shared.heard.lock().expect("no panic while held").take();
        if let Some(memory) = heard {
            self.hear(&memory);
        }
        for (_, flow) in self.shared.flows.take() {
            self.take_in(flow);
        }
        if self.shared.seated.swap(false, Ordering::Relaxed) {
            self.seats_were_freed();
        }
        let ended = std::mem::take(&mut *self.shared.completions.lock().expect("no panic while held"));
        // Answers may have freed what others wait for; they are asked once, however many answers came.
        if self.shared.returned.swap(false, Ordering::Relaxed) {
            self.turns.unpark_all();
            self.outside.unpark_all();
        }
        if !ended.is_empty() || self.shared.settled.swap(false, Ordering::Relaxed) {
            self.turns.unpark_soft();
            self.outside.unpark_soft();
            self.line.unpark();
        }
        for (group, completion) in ended {
            self.call_ended(&group, completion);
        }
    }

    /// What the gate of another daemon remembers of the same provider.
    fn hear(&mut self, memory: &str) {
        let Ok(memory) = serde_json::from_str::<Memory>(memory) else { return };
        if memory.host.is_some_and(|heard| self.host.follow(heard)) {
            let state = self.host.state();
            tracing::warn!(provider = %self.current.provider.name, ?state, "a breaker moved elsewhere");
        }
        self.hear_credentials(memory.credentials);
        self.learned.follow(memory.learned);
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
        self.parts.owned.hold(&flow.key.provider, &flow.key.account, flow.key.part).is_some()
    }

    fn let_go(&mut self, flow: &Flow) {
        let key = GroupKey::of(&flow.key);
        self.turns.update(flow.id, &flow.key.tenant, &key, [0; 3]);
        if let Some(group) = self.groups.get_mut(&key) {
            group.take_in(flow, [0; 3], false);
        }
        self.flows.remove(&flow.id);
    }

    pub fn take_in(&mut self, flow: Flow) {
        if self.flows.get(&flow.id).is_some_and(|known| known.version > flow.version) {
            return;
        }
        if !self.is_ours(&flow) {
            return self.let_go(&flow);
        }
        let key = GroupKey::of(&flow.key);
        let ready = if flow.held { [0; 3] } else { self.begins.less(flow.id, flow.counts.ready) };
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
        let (class, dice) = (breaker::Class::for_host(completion.health), self.parts.dice.roll());
        let moved = self.host.record(now, class, completion.probe, dice, completion.error.as_ref());
        if moved {
            let state = self.host.state();
            tracing::warn!(provider = %self.current.provider.name, ?state, "a breaker moved");
        }
        if self.credential_answered(&key.account, &completion, now) || moved {
            self.tell_memory();
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

    /// Saved at once: the gates of other daemons need not find out by failures of their own.
    pub fn tell_memory(&mut self) {
        (self.has_news, self.save_at) = (true, Timestamp::ZERO);
    }

    fn spends_nothing(&mut self, key: &GroupKey, lane: Lane) -> bool {
        let operation = self.current.provider.operations.get(&key.operation).cloned();
        operation.is_none_or(|operation| self.spends(key, &operation, lane).is_empty())
    }

    /// Saves breakers, tides and learned numbers when they changed, at most every few seconds: losing them costs a little time.
    async fn save(&mut self) {
        let now = self.now();
        if now < self.save_at {
            return;
        }
        self.save_at = now + SAVE_EVERY;
        let credentials = self.remember_credentials(now);
        let tide = |(key, group): (&GroupKey, &Group)| {
            let (operation, account) = (key.operation.to_string(), key.account.to_string());
            let two_lanes = self.current.provider.operations.get(&key.operation).is_some_and(|o| o.batch.is_some());
            two_lanes.then(|| (operation, account, group.tide.clone()))
        };
        let memory = Memory {
            host: Some(self.host.memory().clone()),
            credentials,
            tides: self.groups.iter().filter_map(tide).take(TIDES_SAVED_MAX).collect(),
            learned: self.learned.remember(),
        };
        let memory = serde_json::to_string(&memory).unwrap_or_default();
        if memory != self.saved {
            let provider = self.current.provider.name.clone();
            let change = Change::SaveGate { provider, memory: memory.clone(), news: self.has_news };
            if self.parts.writer.change(change).await.is_ok() {
                self.saved = memory;
                self.has_news = false;
            }
        }
    }
}

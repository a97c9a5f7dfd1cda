//! What leaves now: turns, lanes and permits put together. Decides and acquires; `actor` carries out.
//!
//! Every group whose turn it is either gets permits and a plan, or is parked until the steady time at which it can
//! have them. A parked group costs nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::LEASE_MARGIN;
use super::super::desk::Seat;
use super::super::open_calls;
use super::actor::{AWAY_WAIT, Gate};
use super::begins::BEGINS_MAX;
use super::group::GroupKey;
use super::learned::full;
use crate::clock::Timestamp;
use crate::limiter::{Acquire, Answer, Keyed, LimitView, Spend, keyed, spends};
use crate::model::call::{Lane, LimitKey, Permit};
use crate::model::flow::Class;
use crate::model::provider::Operation;
use crate::model::shard::Hold;
use crate::outbound::breaker::Admit;
use crate::plan::fairness::{Share, Turn};
use crate::plan::lanes::{Lanes, TideDecision, TideView};
use crate::store::{Begin, Take};

/// Calls begun in one transaction, so that one turn of the gate stays short.
const BEGIN_CALLS_MAX: u32 = 256;
/// Turns taken in one transaction.
const TURNS_MAX: usize = 64;

/// How often a limit is asked again that calls of other daemons may fill: their answers are not heard here.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Wait before the next turn when one released nothing.
const TURN_AGAIN: Duration = Duration::from_millis(1);

pub(super) enum Released {
    Calls,
    Nothing { wake_at: Timestamp },
}

/// Permits in hand and what they are for.
pub(super) struct Planned {
    pub group: GroupKey,
    pub operation: Arc<Operation>,
    pub begin: Begin,
    /// Limits by key, to be acquired once the jobs are known.
    pub keyed: Arc<[Keyed]>,
    pub probe: bool,
    /// Of workers, one per call of an external operation.
    pub seats: Vec<Seat>,
}

impl Gate {
    /// One turn of the gate, for its own jobs and for programs outside.
    pub async fn release(&mut self, held: open_calls::Held) -> Released {
        let now = self.now();
        let outside_first = self.outside.goes_first();
        if outside_first {
            self.lend(now).await;
        }
        let released = self.release_own(held, now).await;
        if !outside_first {
            self.lend(now).await;
        }
        match released {
            Released::Nothing { wake_at } => Released::Nothing { wake_at: wake_at.min(self.outside.wake_at()) },
            calls @ Released::Calls => calls,
        }
    }

    /// As many calls as turns, lanes, permits and the breakers allow.
    async fn release_own(&mut self, held: open_calls::Held, now: Timestamp) -> Released {
        let (mut slots, probe) = match self.slots(now) {
            Ok(slots) => slots,
            Err(wake_at) => return Released::Nothing { wake_at },
        };
        let mut planned = Vec::new();
        for _ in 0..TURNS_MAX {
            if slots == 0 {
                break;
            }
            let Some(turn) = self.turns.next(now) else { break };
            let plans = self.serve(&turn, slots, probe, now).await;
            slots -= plans.iter().map(|p| p.begin.calls_max).sum::<u32>().min(slots);
            planned.extend(plans);
            if now < self.held_until {
                break;
            }
        }
        if !planned.is_empty() {
            self.begin(planned, held);
            return Released::Calls;
        }
        // With no slot free, the next answer wakes the gate.
        let wake_at = if slots == 0 { Timestamp::NEVER } else { self.turns.wake_at().max(self.held_until) };
        // Turns that are left over go on soon. Never at once: nothing left, so something must happen first, and a gate
        // that asked again in the same instant could ask for ever.
        Released::Nothing { wake_at: wake_at.max(now + TURN_AGAIN) }
    }

    /// How many calls may begin at all and whether they are probes, or when to look again.
    fn slots(&mut self, now: Timestamp) -> Result<(u32, bool), Timestamp> {
        let wake_at = self.turns.wake_at();
        if wake_at > now {
            return Err(wake_at.max(self.held_until));
        }
        self.room(now)
    }

    /// The same, whoever asks.
    pub fn room(&mut self, now: Timestamp) -> Result<(u32, bool), Timestamp> {
        let stopped = self.shared.held.load(Ordering::Relaxed) || self.shared.paused.load(Ordering::Relaxed);
        if stopped || self.current.transport.is_err() {
            return Err(Timestamp::NEVER);
        }
        let held_until = self.held_until.max(self.begins.again_at);
        if now < held_until {
            return Err(held_until);
        }
        if self.begins.under_way.len() >= BEGINS_MAX {
            // The journal's answer wakes the gate.
            return Err(Timestamp::NEVER);
        }
        // Begins under way have their slots.
        let in_flight = self.shared.in_flight() + self.begins.calls;
        let free = self.current.provider.in_flight_max.saturating_sub(in_flight).min(BEGIN_CALLS_MAX);
        let (mut probe, mut ramped) = (false, false);
        match self.host.admits(now, self.parts.dice.roll()) {
            Admit::Yes => ramped = self.host.is_ramping(now),
            Admit::Probe => probe = true,
            Admit::No { until } => return Err(until),
        }
        match (probe, ramped) {
            // One real job is the probe, paid by a permit like any other.
            (true, _) => Ok((u32::from(in_flight == 0), true)),
            // The dice are thrown per call, so calls go one by one while the ramp lasts.
            (false, true) => Ok((free.min(1), false)),
            (false, false) => Ok((free, false)),
        }
    }

    /// Asks for what the tenant whose turn it is may send. Parks the group when nothing of it may leave now.
    async fn serve(&mut self, turn: &Turn<GroupKey>, slots: u32, probe: bool, now: Timestamp) -> Vec<Planned> {
        let key = &turn.group;
        let Some(operation) = self.current.provider.operations.get(&key.operation).cloned() else {
            // Not declared any more: its jobs wait until it is.
            self.turns.park(key, Timestamp::NEVER, false);
            return Vec::new();
        };
        // Seats before permits: a permit in hand is spent time, a seat is not.
        let external = operation.external.is_some();
        let seats = if external { self.take_seats(key, slots) } else { Vec::new() };
        let admitted = match external {
            true if seats.is_empty() => return Vec::new(),
            true => Ok((seats.len() as u32, false)),
            false => self.credential_admits(&key.account, slots, now),
        };
        let (slots, credential_probe) = match admitted {
            Ok(admitted) => admitted,
            Err(until) => {
                self.turns.park(key, until, false);
                return Vec::new();
            }
        };
        let decision = self.decide(key, &operation, slots, now).await;
        let mut planned = Vec::new();
        if let Some((size, class)) = decision.batch {
            planned.extend(self.batch(key, &operation, size, class, now).await);
        }
        // Others have turns too: a fair share of the slots, all of them when nobody else has work.
        let quantum = (slots.saturating_sub(planned.len() as u32) / self.turns.tenants_ready() as u32).max(1);
        if planned.len() < slots as usize {
            planned.extend(self.singles(turn, &operation, decision.singles, quantum, now).await);
        }
        if planned.is_empty() && !self.turns.is_parked(key) {
            self.turns.park(key, decision.wake_at.max(now), false);
        }
        if credential_probe && !planned.is_empty() {
            self.credential_probe_began(&key.account, now);
        }
        for plan in &mut planned {
            // What a worker says, says nothing of the host.
            plan.probe = !external && (probe || credential_probe);
        }
        self.seat(&mut planned, seats);
        planned
    }

    /// The tide rule, with the limits as they stand.
    async fn decide(&mut self, key: &GroupKey, operation: &Arc<Operation>, slots: u32, now: Timestamp) -> TideDecision {
        if let Some(decision) = self.decide_blindly(key, operation, slots, now) {
            self.waits.look(&[]);
            return decision;
        }
        let [single, batch] = self.views(key, operation, now).await;
        for (lane, views) in [(Lane::Single, &single), (Lane::Batch, &batch)] {
            if let Some(views) = views {
                self.waits.look(views);
                self.press(key, operation, lane, full(views), now);
            }
        }
        let mut lanes = Lanes::new(now, single.as_deref(), batch.as_deref());
        let size_declared = operation.batch.as_ref().map_or(1, |b| b.size_max);
        let group = self.groups.entry(key.clone()).or_default();
        let size_max = group.batch_size(size_declared);
        let waits_for_part = operation.batch.is_some() && size_max == 0;
        let (is_part, suspects) = group.search();
        let mut slots = slots;
        if let (Some(suspects), true) = (suspects, lanes.single.is_some()) {
            // Most records of the refused batch seem to be bad: each is asked for by itself.
            lanes.batch = None;
            slots = slots.min(suspects);
        }
        let view = TideView {
            now,
            ready: group.ready,
            lanes: &lanes,
            size_max: size_max.max(1),
            calls_max: slots,
            batches_in_flight: group.in_flight[Lane::Batch as usize],
            is_part,
        };
        let mut decision = group.tide.decide(&view);
        if waits_for_part {
            // Its answer wakes the group.
            decision.batch = None;
            if decision.is_empty() {
                decision.wake_at = Timestamp::NEVER;
            }
        }
        decision
    }

    /// Where there is nothing to weigh, the permits need not be looked at before they are asked for: one way to a shared
    /// limiter less. `None`: the tide rule is needed.
    fn decide_blindly(
        &mut self,
        key: &GroupKey,
        operation: &Arc<Operation>,
        slots: u32,
        now: Timestamp,
    ) -> Option<TideDecision> {
        let group = self.groups.entry(key.clone()).or_default();
        let ready: u64 = group.ready.iter().sum();
        if ready == 0 || slots == 0 {
            return None;
        }
        let mut decision = TideDecision { batch: None, singles: [0; 3], wake_at: now };
        match (operation.lane(Lane::Single).is_some(), &operation.batch) {
            (true, None) => {
                let mut left = slots;
                for (singles, ready) in decision.singles.iter_mut().zip(group.ready) {
                    *singles = u32::try_from(ready).unwrap_or(u32::MAX).min(left);
                    left -= *singles;
                }
            }
            (false, Some(batch)) => {
                let size = group.batch_size(batch.size_max);
                if group.search().0 || size == 0 || ready < u64::from(size) {
                    return None;
                }
                let class = Class::ALL.into_iter().find(|&class| group.ready[class as usize] > 0)?;
                decision.batch = Some((size, class));
            }
            _ => return None,
        }
        Some(decision)
    }

    /// Of the single lane and of the batch lane, by one question; `None` when the operation has no such lane.
    async fn views(
        &mut self,
        key: &GroupKey,
        operation: &Arc<Operation>,
        now: Timestamp,
    ) -> [Option<Vec<LimitView>>; 2] {
        let spends = [Lane::Single, Lane::Batch]
            .map(|lane| operation.lane(lane).is_some().then(|| self.spends(key, operation, lane)));
        let all: Vec<Spend> = spends.iter().flatten().flat_map(|spends| spends.iter().cloned()).collect();
        let mut views = self.parts.limiter.peek(now, &all).await.unwrap_or_default().into_iter();
        spends.map(|lane| lane.map(|spends| views.by_ref().take(spends.len()).collect()))
    }

    pub fn spends(&mut self, key: &GroupKey, operation: &Arc<Operation>, lane: Lane) -> Arc<[Spend]> {
        let provider = &self.current.provider;
        let group = self.groups.entry(key.clone()).or_default();
        let slot = &mut group.spends[lane as usize];
        let declared = slot.get_or_insert_with(|| spends(provider, operation, lane, &key.account, None)).clone();
        self.learned.apply(declared)
    }

    /// There is work for more calls than these limits let through: learned numbers may grow.
    fn press<'a>(
        &mut self,
        key: &GroupKey,
        operation: &Operation,
        lane: Lane,
        full: impl Iterator<Item = &'a LimitKey>,
        now: Timestamp,
    ) {
        if !self.learned.is_empty() {
            let declared = spends(&self.current.provider, operation, lane, &key.account, None);
            self.learned.press(&declared, full, now);
        }
    }

    async fn batch(
        &mut self,
        key: &GroupKey,
        operation: &Arc<Operation>,
        size: u32,
        class: Class,
        now: Timestamp,
    ) -> Option<Planned> {
        let (_, permit) = self.acquire(key, operation, Lane::Batch, 1, class, now).await?;
        let shares = self.turns.fill(key, size);
        let group = self.groups.entry(key.clone()).or_default();
        group.tide.batch_left(now);
        Some(self.plan(key, operation, Lane::Batch, shares, 1, permit))
    }

    /// Single calls of the turn's tenant, class by class of permit; a permit of a class may carry a more urgent job.
    async fn singles(
        &mut self,
        turn: &Turn<GroupKey>,
        operation: &Arc<Operation>,
        allowed: [u32; 3],
        quantum: u32,
        now: Timestamp,
    ) -> Vec<Planned> {
        let (mut planned, mut left, mut ready) = (Vec::new(), quantum, turn.ready);
        for class in Class::ALL {
            let carried: u64 = ready[..=class as usize].iter().sum();
            let of_turn = u32::try_from(carried).unwrap_or(u32::MAX);
            let wanted = allowed[class as usize].min(left).min(if of_turn > 0 { of_turn } else { u32::MAX });
            if wanted == 0 {
                continue;
            }
            let Some((count, permit)) = self.acquire(&turn.group, operation, Lane::Single, wanted, class, now).await
            else {
                break;
            };
            let (mut shares, mut open) = (Vec::new(), count);
            if of_turn == 0 {
                // The permits are for a class of which only other tenants have jobs.
                shares = self.turns.fill(&turn.group, count);
                open = 0;
            }
            for carried in &Class::ALL[..=class as usize] {
                let got = if open > 0 { self.turns.share(turn, *carried, open) } else { Vec::new() };
                let taken: u32 = got.iter().map(|s| s.count).sum();
                open -= taken;
                ready[*carried as usize] -= u64::from(taken).min(ready[*carried as usize]);
                shares.extend(got);
            }
            let group = self.groups.entry(turn.group.clone()).or_default();
            group.tide.singles_left(count);
            group.splitter.lock().expect("no panic while held").left_singly(count);
            planned.push(self.plan(&turn.group, operation, Lane::Single, shares, count, permit));
            left -= count;
        }
        planned
    }

    /// Permits for 1 to `max` calls of a lane. `None`: not now, and the group is parked until then.
    async fn acquire(
        &mut self,
        key: &GroupKey,
        operation: &Arc<Operation>,
        lane: Lane,
        max: u32,
        class: Class,
        now: Timestamp,
    ) -> Option<(u32, Permit)> {
        let spends = self.spends(key, operation, lane);
        let request = Acquire { spends, min: 1, max, class, request: 0 };
        match self.parts.limiter.acquire(now, &[request]).await {
            Ok(answers) => match answers.into_iter().next()? {
                Answer::Granted { count, permit } => {
                    self.outside.own(count);
                    Some((count, permit))
                }
                Answer::Wait { earliest, binder, soft } => {
                    self.waits.bound(&binder);
                    self.press(key, operation, lane, std::iter::once(&binder), now);
                    // Only an answer can free it, and another daemon may get that answer.
                    let unheard = soft && self.parts.owned.is_shared();
                    let until = if unheard { earliest.min(now + LOOK_EVERY) } else { earliest };
                    self.turns.park(key, until, soft);
                    None
                }
            },
            Err(e) => {
                // Hold: waiting costs a durable queue only time.
                tracing::warn!(provider = %self.current.provider.name, error = %e, "holding");
                self.parts.doubts.raise(&e);
                self.held_until = now + AWAY_WAIT;
                None
            }
        }
    }

    fn plan(
        &mut self,
        key: &GroupKey,
        operation: &Arc<Operation>,
        lane: Lane,
        shares: Vec<Share>,
        calls_max: u32,
        permit: Permit,
    ) -> Planned {
        let longest = operation.external.map_or(self.current.provider.timeouts.total, |e| e.within);
        let lease_until = self.now() + longest + LEASE_MARGIN;
        let takes = shares.iter().map(|share| self.take(share)).collect();
        let provider = self.current.provider.clone();
        let group = self.groups.entry(key.clone()).or_default();
        group.planned(&shares);
        let slot = &mut group.keyed[lane as usize];
        let by_key = slot.get_or_insert_with(|| keyed(&provider, operation, lane, &key.account)).clone();
        group.in_flight[lane as usize] += calls_max;
        let begin = Begin {
            provider: self.current.provider.name.clone(),
            operation: key.operation.clone(),
            lane,
            account: key.account.clone(),
            takes,
            bare: false,
            calls_max,
            bytes_max: operation.lane(lane).map_or(usize::MAX, |l| l.bytes_max),
            permit,
            keyed: by_key.iter().map(|k| (k.prefix.clone(), k.limit.cost)).collect(),
            // What a worker does may reach the provider until its lease ends.
            outside: u32::from(operation.external.is_some()),
            lease_until,
        };
        Planned {
            group: key.clone(),
            operation: operation.clone(),
            begin,
            keyed: by_key,
            probe: false,
            seats: Vec::new(),
        }
    }

    fn take(&self, share: &Share) -> Take {
        let key = self.flows.get(&share.flow).map(|flow| &flow.key);
        let hold = key.and_then(|key| self.parts.owned.hold(&key.provider, &key.account, key.part));
        // A lease that was lost in this very moment begins nothing.
        Take { flow: share.flow, class: share.class, count: share.count, hold: hold.unwrap_or(Hold::NONE) }
    }
}

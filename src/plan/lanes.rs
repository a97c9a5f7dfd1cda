//! The tide rule: how an operation with a single and a batch lane uses both budgets and keeps waiting short.
//!
//! 1. A full batch leaves at once, when its lane has a permit above its reserve.
//! 2. Between partial batches lies the *sustainable interval* (`lanes/view.rs`): what the limiter says can be kept up,
//!    not a fixed share of the window, so an early burst does not empty the hour.
//! 3. A partial batch costs one credit. Credits accrue at one per interval, at most [`CREDITS_MAX`]; full batches take
//!    one too, but never below zero.
//! 4. Singles go when they can clear the whole backlog, or right after a batch (in the first quarter of the interval,
//!    when a job would wait longest for the next) while more than one interval's worth is in hand; and with all they
//!    have when a full batch waits and the batch lane has no permit: then both budgets are needed.
//! 5. Urgent jobs go single first, from the reserve if need be, and never wait for a batch to fill.
//!
//! Keys and coalescing (rule 6) live in the store, splitting (rule 7) in `plan/batcher.rs`; its parts are partial batches
//! here, whatever their size. Where one limit slows both
//! lanes, a single costs as much as a batch, so singles go only for a lone job, and take a credit. A batch lane without
//! limits fills while its last batch is in flight: what is ready leaves when none is (no lingering), and a lone job goes
//! single. An operation with a single lane only sends what its limits allow.
//!
//! Proven and measured by reference/sim/planner.py; `cargo bench --bench plan` prints our figures. Must never know:
//! limiters, jobs. Next: `engine/gate`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::model::flow::Class;

pub mod view;

pub use view::{LaneView, Lanes, NO_PERMIT, Pace, opens_at};

/// More credits let more partial batches go in a row, and empty the lane sooner: 1 makes bursts wait, 8 makes the p99
/// at 97 % load five times as long (reference/rate-limiting.md, section 5).
pub const CREDITS_MAX: f64 = 4.0;
/// Part of a window's singles that may go at once.
const SINGLES_AT_ONCE: f64 = 0.1;
/// Part of the interval after a batch in which singles go with what they have in hand.
const AFTER_BATCH: f64 = 0.25;
/// The gate is not woken more often than this by the passing of time alone.
const WAKE_MIN: Duration = Duration::from_millis(1);
/// Rounding must not make a whole credit look like less.
const ROUNDING: f64 = 1e-6;

/// What the tide of one (operation, account) looks at.
#[derive(Clone, Debug)]
pub struct TideView<'a> {
    /// Steady.
    pub now: Timestamp,
    /// Ready jobs per class, most urgent first.
    pub ready: [u64; 3],
    pub lanes: &'a Lanes,
    /// Jobs in one batch at most; at least 1.
    pub size_max: u32,
    /// Calls that may begin now for other reasons than limits (cap on calls in flight, ramp of a breaker).
    pub calls_max: u32,
    /// Batches of this (operation, account) on the wire.
    pub batches_in_flight: u32,
    /// The next batch is a part of one that was refused as a whole: it takes a credit like a partial one, however full
    /// it is (rule 7).
    pub is_part: bool,
}

/// What should leave now. Ask again right after it left, until nothing should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TideDecision {
    /// Jobs of one batch, and the class that its permit is asked for.
    pub batch: Option<(u32, Class)>,
    /// Single calls per class of their permits. Those of a class carry jobs of this class or a more urgent one.
    pub singles: [u32; 3],
    /// Steady time at which to ask again if no job comes and no call ends before: later than now when nothing leaves,
    /// `NEVER` when only an arrival or an answer can change the decision.
    pub wake_at: Timestamp,
}

impl TideDecision {
    pub fn is_empty(&self) -> bool {
        self.batch.is_none() && self.singles == [0; 3]
    }

    pub fn singles_all(&self) -> u32 {
        self.singles.iter().sum()
    }
}

/// The memory of the rule for one (operation, account). Small and serializable, so that a restart goes on with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tide {
    credits: f64,
    /// Credits per microsecond as of `seen_at`; 0 while no permit is to be had.
    credit_rate: f64,
    /// Singles sent that have not grown back yet.
    singles_spent: f64,
    /// Singles that may go at once.
    singles_max: f64,
    /// Singles that grow back per microsecond.
    singles_rate: f64,
    /// One limit slows both lanes.
    contended: bool,
    seen_at: Timestamp,
    batch_left_at: Option<Timestamp>,
}

impl Default for Tide {
    fn default() -> Self {
        Tide {
            credits: CREDITS_MAX,
            credit_rate: 0.0,
            singles_spent: 0.0,
            singles_max: 0.0,
            singles_rate: 0.0,
            contended: false,
            seen_at: Timestamp::ZERO,
            batch_left_at: None,
        }
    }
}

/// One question, prepared.
struct Question<'a> {
    view: &'a TideView<'a>,
    single: &'a LaneView,
    batch: &'a LaneView,
    /// Most urgent class of the jobs that are not urgent.
    class: Class,
    /// Jobs left after the urgent singles of this decision.
    rest: u64,
    urgent: u32,
}

impl Tide {
    /// What should leave now.
    pub fn decide(&mut self, view: &TideView<'_>) -> TideDecision {
        self.advance(view);
        let nothing = TideDecision { batch: None, singles: [0; 3], wake_at: Timestamp::NEVER };
        let total: u64 = view.ready.iter().sum();
        if total == 0 || view.calls_max == 0 {
            return nothing;
        }
        let mut decision = match (&view.lanes.single, &view.lanes.batch) {
            (None, None) => nothing,
            (Some(single), None) => only_singles(view, single),
            (None, Some(batch)) => self.only_batches(view, batch),
            (Some(single), Some(batch)) => self.both(view, single, batch),
        };
        if decision.is_empty() {
            decision.wake_at = decision.wake_at.max(view.now + WAKE_MIN);
        } else {
            decision.wake_at = view.now;
        }
        decision
    }

    /// A batch left, whatever its size.
    pub fn batch_left(&mut self, now: Timestamp) {
        self.credits = (self.credits - 1.0).max(0.0);
        self.batch_left_at = Some(now);
    }

    /// `n` singles left, of any class.
    pub fn singles_left(&mut self, n: u32) {
        self.singles_spent = (self.singles_spent + f64::from(n)).min(self.singles_max);
        if self.contended {
            self.credits = (self.credits - f64::from(n)).max(0.0);
        }
    }

    /// Partial batches that may go at once.
    pub fn credits(&self) -> f64 {
        self.credits
    }

    /// The sustainable interval as of the last question; `None` while no permit is to be had, or where no limit
    /// counts over time.
    pub fn interval(&self) -> Option<Duration> {
        (self.credit_rate > 0.0 && self.credit_rate < CREDITS_MAX)
            .then(|| Duration::from_micros((1.0 / self.credit_rate) as u64))
    }

    /// Lets credits and singles grow up to now, and takes up how the limits stand.
    fn advance(&mut self, view: &TideView<'_>) {
        let elapsed = view.now.since(self.seen_at).as_micros() as f64;
        self.seen_at = self.seen_at.max(view.now);
        self.credits = (self.credits + elapsed * self.credit_rate).min(CREDITS_MAX);
        self.singles_spent = (self.singles_spent - elapsed * self.singles_rate).max(0.0);
        self.contended = view.lanes.contended;
        if let Some(batch) = &view.lanes.batch {
            self.credit_rate = match batch.interval {
                NO_PERMIT => 0.0,
                // Without limits credits mean nothing; they stay full.
                Duration::ZERO => CREDITS_MAX,
                interval => 1.0 / (interval.as_secs_f64() * 1e6),
            };
        }
        if let Some(pace) = view.lanes.single.as_ref().and_then(|s| s.pace) {
            self.singles_rate = pace.per_us();
            self.singles_max = (SINGLES_AT_ONCE * f64::from(pace.calls)).max(1.0);
            self.singles_spent = self.singles_spent.min(self.singles_max);
        }
    }

    fn only_batches(&self, view: &TideView<'_>, batch: &LaneView) -> TideDecision {
        let class = most_urgent(view.ready);
        let mut decision = TideDecision { batch: None, singles: [0; 3], wake_at: Timestamp::NEVER };
        let total: u64 = view.ready.iter().sum();
        if batch.free[class as usize] == 0 {
            decision.wake_at = batch.opens_at[class as usize];
        } else if (total >= u64::from(view.size_max) && !view.is_part)
            || class == Class::Urgent
            || self.partial_may_go(view, batch)
        {
            decision.batch = Some((clamp(total).min(view.size_max), class));
        } else {
            decision.wake_at = self.credit_at(view.now, batch);
        }
        decision
    }

    fn both(&self, view: &TideView<'_>, single: &LaneView, batch: &LaneView) -> TideDecision {
        let urgent = clamp(view.ready[0]).min(single.free[0]).min(view.calls_max);
        let total: u64 = view.ready.iter().sum();
        let class = match view.ready {
            [_, 0, 0] => Class::Urgent,
            [_, normal, bulk] => most_urgent([0, normal, bulk]),
        };
        let q = Question { view, single, batch, class, rest: total - u64::from(urgent), urgent };
        let mut decision = TideDecision { batch: None, singles: [urgent, 0, 0], wake_at: Timestamp::NEVER };
        if q.rest == 0 || view.calls_max == urgent {
            return decision;
        }
        // Urgent jobs that found no single permit go with the next batch, and do not wait for it to fill.
        let stranded = view.ready[0] > u64::from(urgent);
        let batch_class = if stranded { Class::Urgent } else { class };
        let full = q.rest >= u64::from(view.size_max) && !view.is_part;
        if (full || stranded) && batch.free[batch_class as usize] > 0 {
            decision.batch = Some((clamp(q.rest).min(view.size_max), batch_class));
            return decision;
        }
        decision.singles[class as usize] += self.singles(&q);
        if decision.is_empty() && batch.free[class as usize] > 0 && self.partial_may_go(view, batch) {
            decision.batch = Some((clamp(q.rest).min(view.size_max), class));
        }
        if decision.is_empty() {
            decision.wake_at = self.wake_at(&q, batch_class);
        }
        decision
    }

    /// Singles for jobs that are not urgent (rule 4).
    fn singles(&self, q: &Question<'_>) -> u32 {
        let most = q.single.free[q.class as usize].saturating_sub(q.urgent).min(q.view.calls_max - q.urgent);
        if most == 0 {
            return 0;
        }
        let rest = clamp(q.rest);
        if q.batch.pace.is_none() && q.batch.free[q.class as usize] > 0 {
            // Batches cost nothing: only a job that would be alone in one goes by itself.
            return u32::from(rest == 1);
        }
        if q.view.lanes.contended {
            return u32::from(rest == 1 && self.credits >= 1.0 - ROUNDING);
        }
        let in_hand = self.in_hand(q.single);
        if q.rest <= u64::from(most.min(clamp_f(in_hand))) {
            return rest;
        }
        if q.rest >= u64::from(q.view.size_max) {
            // A full batch waits and has no permit. Singles go at their own pace while the next permit is near, and with
            // all they have when it is far.
            let near = q.batch.pace.map_or(Duration::ZERO, Pace::interval);
            let far = q.batch.opens_at[q.class as usize] > q.view.now + near;
            return if far { rest.min(most) } else { rest.min(most).min(clamp_f(in_hand)) };
        }
        if self.is_after_batch(q) { rest.min(most).min(clamp_f(in_hand - surplus(q))) } else { 0 }
    }

    fn in_hand(&self, single: &LaneView) -> f64 {
        if single.pace.is_none() { f64::MAX } else { self.singles_max - self.singles_spent + ROUNDING }
    }

    /// In the first quarter of the interval after a batch; always, when no batch permit is to be had.
    fn is_after_batch(&self, q: &Question<'_>) -> bool {
        q.batch.free[q.class as usize] == 0
            || self.batch_left_at.is_some_and(|at| q.view.now.since(at) < q.batch.interval.mul_f64(AFTER_BATCH))
    }

    /// Has a batch that is not full its credit? Without limits: is none on the wire?
    fn partial_may_go(&self, view: &TideView<'_>, batch: &LaneView) -> bool {
        if batch.pace.is_none() { view.batches_in_flight == 0 } else { self.credits >= 1.0 - ROUNDING }
    }

    /// When the next partial batch has its credit.
    fn credit_at(&self, now: Timestamp, batch: &LaneView) -> Timestamp {
        if batch.pace.is_none() || self.credit_rate <= 0.0 {
            return Timestamp::NEVER;
        }
        after(now, (1.0 - self.credits) / self.credit_rate)
    }

    /// The first time at which another decision is possible.
    fn wake_at(&self, q: &Question<'_>, batch_class: Class) -> Timestamp {
        let (now, class) = (q.view.now, q.class as usize);
        let by_batch = match q.batch.free[batch_class as usize].min(q.batch.free[class]) {
            0 => q.batch.opens_at[batch_class as usize].min(q.batch.opens_at[class]),
            _ => self.credit_at(now, q.batch),
        };
        if q.view.lanes.contended || (q.batch.pace.is_none() && q.batch.free[class] > 0) {
            return by_batch;
        }
        if q.single.free[class] == 0 {
            let opens_at = if batch_class == Class::Urgent { q.single.opens_at[0] } else { Timestamp::NEVER };
            return by_batch.min(q.single.opens_at[class]).min(opens_at);
        }
        let in_hand = self.in_hand(q.single);
        let grown = |wanted: f64| {
            let grows = self.singles_rate > 0.0 && wanted <= self.singles_max;
            if grows { after(now, (wanted - in_hand) / self.singles_rate) } else { Timestamp::NEVER }
        };
        // The singles can clear the backlog: when enough are in hand, and the window has as many.
        let mut by_single = grown(q.rest as f64);
        if u64::from(q.single.free[class]) < q.rest {
            by_single = by_single.max(q.single.next_return_at);
        }
        if self.is_after_batch(q) {
            by_single = by_single.min(grown(surplus(q) + 1.0));
        }
        if q.rest >= u64::from(q.view.size_max) {
            by_single = by_single.min(grown(1.0));
        }
        by_batch.min(by_single)
    }
}

fn only_singles(view: &TideView<'_>, single: &LaneView) -> TideDecision {
    let mut decision = TideDecision { batch: None, singles: [0; 3], wake_at: Timestamp::NEVER };
    let mut left = 0;
    for class in Class::ALL {
        let i = class as usize;
        let given: u32 = decision.singles.iter().sum();
        left += view.ready[i];
        let n = clamp(left).min(single.free[i].saturating_sub(given)).min(view.calls_max - given);
        decision.singles[i] = n;
        left -= u64::from(n);
        if left > 0 && n == 0 {
            decision.wake_at = decision.wake_at.min(single.opens_at[i]);
        }
    }
    decision
}

/// Singles that grow back in one interval of evenly spaced batches: kept in hand for the next lone job.
fn surplus(q: &Question<'_>) -> f64 {
    match (q.single.pace, q.batch.pace) {
        (Some(single), Some(batch)) => {
            let kept = single.per_us() / batch.per_us();
            kept.min(SINGLES_AT_ONCE * f64::from(single.calls) / 2.0)
        }
        _ => 0.0,
    }
}

fn most_urgent(ready: [u64; 3]) -> Class {
    Class::ALL.into_iter().find(|&c| ready[c as usize] > 0).unwrap_or(Class::Bulk)
}

fn clamp(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Whole calls in a number of them.
fn clamp_f(n: f64) -> u32 {
    n.max(0.0) as u32
}

/// A microsecond late rather than early, or the wake-up would find nothing to do.
fn after(now: Timestamp, us: f64) -> Timestamp {
    now + Duration::from_micros(us.clamp(0.0, 1e15) as u64 + 1)
}

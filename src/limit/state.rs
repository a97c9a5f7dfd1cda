//! One limit of any kind at run time: its counts, and until when the provider said "not now".
//!
//! The declaration comes with every question, so a changed one applies at once: a lowered maximum without a burst, a
//! raised one without a gift, because the counts stay. What response headers say (permits left, until when) stands beside
//! `blocked_until` and, like it, may only tighten (`correction.rs`); after a refusal one call goes first (`thaw.rs`). Must
//! never know: keys, other limits.
//! Next: `limit/set.rs`.

use std::time::Duration;

use super::Denied;
use super::bucket::{self, Bucket};
use super::calendar::Calendar;
use super::concurrency::Concurrency;
use super::correction::Correction;
use super::paced::{self, Paced};
use super::set::kept_back;
use super::thaw::Thaw;
use super::view::LimitView;
use super::window::{self, Window};
use crate::clock::Timestamp;
use crate::model::call::LimitKey;
use crate::model::flow::Class;
use crate::model::provider::{Anchor, CalendarPeriod, Limit, LimitKind};

/// Returns listed in a view at most.
pub const RETURNS_MAX: usize = window::CLUMPS_MAX;

#[derive(Clone, Debug, PartialEq)]
pub struct State {
    kind: Kind,
    /// `ZERO`: the provider has said nothing.
    blocked_until: Timestamp,
    said: Correction,
    thaw: Thaw,
}

/// The end of calls of one permit, as one limit counts it.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub granted_at: Timestamp,
    pub calls: u32,
    /// Permits counted since the grant.
    pub held: u32,
    /// Permits used after all; 0 if no byte left the process. May be more than were held.
    pub spent: u32,
    /// An answer came that was no refusal.
    pub good: bool,
}

/// The counts of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Window(Window),
    Bucket(Bucket),
    Concurrency(Concurrency),
    Calendar(Calendar),
    Paced(Paced),
}

/// A call known from the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub granted_at: Timestamp,
    /// The answer, or the latest time at which an unanswered call can have arrived.
    pub anchored_at: Timestamp,
    pub permits: u32,
}

impl State {
    /// Nothing used.
    pub fn new(limit: &Limit) -> Self {
        let kind = match limit.kind {
            LimitKind::Window { .. } => Kind::Window(Window::default()),
            LimitKind::Bucket { .. } => Kind::Bucket(Bucket::default()),
            LimitKind::Concurrency { .. } => Kind::Concurrency(Concurrency::default()),
            LimitKind::Calendar { .. } => Kind::Calendar(Calendar::default()),
            LimitKind::Paced { .. } => Kind::Paced(Paced::default()),
        };
        State { kind, blocked_until: Timestamp::ZERO, said: Correction::NONE, thaw: Thaw::OFF }
    }

    /// As counted elsewhere.
    pub fn counted(kind: Kind, blocked_until: Timestamp, said: Correction, thaw: Thaw) -> Self {
        State { kind, blocked_until, said, thaw }
    }

    /// Is this the state of such a limit?
    pub fn fits(&self, limit: &Limit) -> bool {
        std::mem::discriminant(&self.kind) == std::mem::discriminant(&State::new(limit).kind)
    }

    /// Calls that may be granted now to a class, who wants `least` at once. Lets time pass: frees what has aged.
    pub fn room(&mut self, limit: &Limit, now: Timestamp, class: Class, least: u32) -> u32 {
        let free = self.free(limit, now).min(self.said_free());
        if now < self.blocked_until {
            return 0;
        }
        let calls = free.saturating_sub(kept(limit, class)) / limit.cost.max(1);
        let calls = calls.min(self.thaw.calls(now, least));
        match self.kind {
            Kind::Paced(_) => calls.min(1),
            _ => calls,
        }
    }

    /// When `calls` may be granted to a class. Call right after [`State::room`] said fewer.
    pub fn denied(&self, limit: &Limit, now: Timestamp, class: Class, calls: u32) -> Denied {
        let kept = kept(limit, class);
        let need = calls.saturating_mul(limit.cost.max(1));
        let mut denied = match (&self.kind, &limit.kind) {
            (Kind::Window(w), &LimitKind::Window { max, per, anchor }) => {
                let rule = window::Rule::new(max, per, anchor);
                if need.saturating_add(kept) <= w.free(rule) { OPEN } else { w.earliest(rule, kept, need) }
            }
            (Kind::Bucket(b), &LimitKind::Bucket { capacity, refill, per, jitter }) => {
                b.earliest(bucket::Rule::new(capacity, refill, per, jitter), kept, need)
            }
            (Kind::Concurrency(c), &LimitKind::Concurrency { max }) => {
                if need.saturating_add(kept) <= c.free(max) {
                    OPEN
                } else {
                    c.earliest(max, kept, need)
                }
            }
            (Kind::Calendar(c), &LimitKind::Calendar { max, .. }) => {
                if need.saturating_add(kept) <= c.free(max) {
                    OPEN
                } else {
                    c.earliest(max, kept, need)
                }
            }
            (Kind::Paced(p), _) if calls <= 1 => p.denied(),
            _ => Denied::HOPELESS,
        };
        if need.saturating_add(kept) > self.said_free() && self.said.until >= denied.earliest {
            denied = Denied { earliest: self.said.until, soft: self.in_flight() > 0 };
        }
        if calls > self.thaw.calls(now.max(self.thaw.since), calls) && self.thaw.opens_at() >= denied.earliest {
            denied = Denied { earliest: self.thaw.opens_at(), soft: true };
        }
        denied.earliest = denied.earliest.max(self.blocked_until);
        denied
    }

    /// Takes leave for `calls`. Call right after [`State::room`] said that many.
    pub fn grant(&mut self, limit: &Limit, now: Timestamp, calls: u32) {
        let n = calls.saturating_mul(limit.cost.max(1));
        if !counts_in_flight(limit) {
            self.said.take(n);
        }
        self.thaw.granted(now, calls);
        match (&mut self.kind, &limit.kind) {
            (Kind::Window(w), &LimitKind::Window { max, per, anchor }) => {
                w.grant(window::Rule::new(max, per, anchor), now, n);
            }
            (Kind::Bucket(b), &LimitKind::Bucket { capacity, refill, per, jitter }) => {
                b.grant(bucket::Rule::new(capacity, refill, per, jitter), n);
            }
            (Kind::Concurrency(c), _) => c.grant(n),
            (Kind::Calendar(c), _) => c.grant(n),
            (Kind::Paced(p), &LimitKind::Paced { max, per, jitter }) => {
                p.grant(paced::interval_us(max, per, jitter), now, n);
            }
            _ => {}
        }
    }

    pub fn settle(&mut self, limit: &Limit, now: Timestamp, end: End) {
        let End { granted_at, calls, held, spent, good } = end;
        self.free(limit, now);
        self.thaw.ended(granted_at, now, calls, good);
        match (&mut self.kind, &limit.kind) {
            (Kind::Window(w), &LimitKind::Window { max, per, anchor }) => {
                w.settle(window::Rule::new(max, per, anchor), now, granted_at, held, spent);
            }
            (Kind::Bucket(b), &LimitKind::Bucket { capacity, refill, per, jitter }) => {
                let rule = bucket::Rule::new(capacity, refill, per, jitter);
                match held.checked_sub(spent) {
                    Some(0) => {}
                    Some(back) => b.refund(rule, granted_at, back),
                    None => b.grant(rule, spent - held),
                }
            }
            (Kind::Concurrency(c), _) => c.settle(held),
            (Kind::Calendar(c), _) => c.settle(held, spent),
            (Kind::Paced(p), &LimitKind::Paced { max, per, jitter }) => {
                let interval = paced::interval_us(max, per, jitter);
                if spent == 0 {
                    p.refund(interval, granted_at, held);
                } else if spent > held {
                    p.owe(interval, now, spent - held);
                }
            }
            _ => {}
        }
    }

    /// A call granted at `granted_at` was refused: "not now" until this time. Never shortens what was said before.
    pub fn block(&mut self, now: Timestamp, granted_at: Timestamp, until: Timestamp) {
        self.blocked_until = self.blocked_until.max(until);
        self.thaw.refused(granted_at, now, until);
    }

    /// The answer to a call that was just settled, and granted then, said that so many permits are left until then.
    pub fn hear(&mut self, limit: &Limit, now: Timestamp, granted_at: Timestamp, left: u32, until: Timestamp) {
        let own = self.free(limit, now);
        self.said.hear(now, left, until);
        let cost = limit.cost.max(1);
        if self.said.is_in_force() && self.said.left < cost && own >= cost {
            self.thaw.ran_out(self.said.until);
        } else if until > now {
            self.thaw.told(granted_at);
        }
    }

    /// A call that was sent has just been settled, and nothing was said: its permits may be those that the provider said
    /// are left.
    pub fn unheard(&mut self, limit: &Limit, permits: u32) {
        if counts_in_flight(limit) {
            self.said.take(permits);
        }
    }

    /// Counts a call known from the journal. Calls must come in the order of their anchors.
    pub fn seed(&mut self, limit: &Limit, now: Timestamp, call: Known) {
        let Known { granted_at, anchored_at, permits } = call;
        match (&mut self.kind, &limit.kind) {
            (Kind::Window(w), &LimitKind::Window { max, per, anchor }) => {
                let rule = window::Rule::new(max, per, anchor);
                w.evict(rule, now);
                w.seed(rule, now, anchored_at, permits);
            }
            (Kind::Bucket(b), &LimitKind::Bucket { capacity, refill, per, jitter }) => {
                b.seed(bucket::Rule::new(capacity, refill, per, jitter), anchored_at, permits);
            }
            (Kind::Concurrency(c), _) => c.seed(now, anchored_at, permits),
            (Kind::Calendar(c), LimitKind::Calendar { period, zone, .. }) => {
                c.roll(*period, zone, now);
                c.seed(granted_at, anchored_at, permits);
            }
            (Kind::Paced(p), &LimitKind::Paced { max, per, jitter }) => {
                p.seed(paced::interval_us(max, per, jitter), anchored_at, permits);
            }
            _ => {}
        }
    }

    /// True when a fresh state would give the same answers from `now` on.
    pub fn is_idle(&self, limit: &Limit, now: Timestamp) -> bool {
        self.blocked_until <= now
            && self.said.until <= now
            && self.thaw.is_over(now)
            && match (&self.kind, &limit.kind) {
                (Kind::Window(w), &LimitKind::Window { max, per, anchor }) => {
                    w.is_idle(window::Rule::new(max, per, anchor), now)
                }
                (Kind::Bucket(b), &LimitKind::Bucket { capacity, refill, per, jitter }) => {
                    b.is_idle(bucket::Rule::new(capacity, refill, per, jitter), now)
                }
                (Kind::Concurrency(c), _) => c.is_idle(now),
                (Kind::Calendar(c), _) => c.is_idle(now),
                (Kind::Paced(p), _) => p.is_open(now),
                _ => false,
            }
    }

    /// Clumps, slots or ghosts held: what bounds the memory of one state.
    pub fn entries(&self) -> usize {
        match &self.kind {
            Kind::Window(w) => w.clumps().len(),
            Kind::Concurrency(c) => c.ghosts().len(),
            Kind::Calendar(c) => c.slots().len(),
            Kind::Bucket(_) | Kind::Paced(_) => 0,
        }
    }

    /// How the limit stands at `now`.
    pub fn view(&mut self, key: LimitKey, limit: &Limit, now: Timestamp) -> LimitView {
        let own = self.free(limit, now);
        let free = own.min(self.said_free());
        // Nothing left for a single call is as good as "not now".
        let spent = self.said.is_in_force() && self.said.left < limit.cost.max(1);
        let opens_at = if spent { self.blocked_until.max(self.said.until) } else { self.blocked_until };
        let is_probing = self.thaw.calls(now, 1) == 0;
        let opens_at = if is_probing { opens_at.max(self.thaw.opens_at()) } else { opens_at };
        let blocked = now < opens_at;
        // What is free, not what goes first: the planner spreads work by it.
        let free_by_class = Class::ALL.map(|c| if blocked { 0 } else { free.saturating_sub(kept(limit, c)) });
        let (max, per) = pace(limit, &self.kind);
        let (used, in_flight) = match &self.kind {
            Kind::Window(w) => (w.used(), w.in_flight()),
            Kind::Concurrency(c) => (0, c.in_flight()),
            Kind::Calendar(c) => (c.used(), c.in_flight()),
            Kind::Bucket(_) | Kind::Paced(_) => (max.saturating_sub(own), 0),
        };
        let returns = self.returns(limit, now, max);
        LimitView {
            key,
            max,
            used,
            in_flight,
            free: free_by_class[Class::Bulk as usize],
            free_by_class,
            kept_by_class: Class::ALL.map(|c| kept(limit, c)),
            cost: limit.cost.max(1),
            per,
            next_free_at: returns.first().map_or(Timestamp::NEVER, |r| r.0),
            blocked_until: blocked.then_some(opens_at),
            is_probing,
            said: self.said.is_in_force().then_some(self.said),
            returns,
        }
    }

    /// Permits not in use, whoever asks and whatever the provider said. Frees what has aged.
    fn free(&mut self, limit: &Limit, now: Timestamp) -> u32 {
        self.said.pass(now);
        self.thaw.pass(now);
        match (&mut self.kind, &limit.kind) {
            (Kind::Window(w), &LimitKind::Window { max, per, anchor }) => {
                let rule = window::Rule::new(max, per, anchor);
                w.evict(rule, now);
                w.free(rule)
            }
            (Kind::Bucket(b), &LimitKind::Bucket { capacity, refill, per, jitter }) => {
                let rule = bucket::Rule::new(capacity, refill, per, jitter);
                b.advance(rule, now);
                b.free(rule)
            }
            (Kind::Concurrency(c), &LimitKind::Concurrency { max }) => {
                c.evict(now);
                c.free(max)
            }
            (Kind::Calendar(c), LimitKind::Calendar { max, period, zone }) => {
                c.roll(*period, zone, now);
                c.free(*max)
            }
            // One call at a time, whatever it costs.
            (Kind::Paced(p), _) => u32::from(p.is_open(now)) * limit.cost.max(1),
            _ => 0,
        }
    }

    /// Permits that what the provider said leaves room for.
    fn said_free(&self) -> u32 {
        self.said.free(self.in_flight())
    }

    /// Calls on the wire, in permits, where they are counted as such.
    fn in_flight(&self) -> u32 {
        match &self.kind {
            Kind::Window(w) => w.in_flight(),
            Kind::Concurrency(c) => c.on_the_wire(),
            Kind::Calendar(c) => c.in_flight(),
            Kind::Bucket(_) | Kind::Paced(_) => 0,
        }
    }

    fn returns(&self, limit: &Limit, now: Timestamp, max: u32) -> Vec<(Timestamp, u32)> {
        match (&self.kind, &limit.kind) {
            (Kind::Window(w), &LimitKind::Window { max, per, anchor }) => {
                let hold = window::Rule::new(max, per, anchor).hold_us;
                w.clumps().map(|c| (Timestamp(c.last.0.saturating_add(hold)), c.count)).collect()
            }
            (Kind::Bucket(b), &LimitKind::Bucket { capacity, refill, per, jitter }) => {
                let rule = bucket::Rule::new(capacity, refill, per, jitter);
                let (free, missing) = (b.free(rule), max.saturating_sub(b.free(rule)));
                let step = missing.div_ceil(RETURNS_MAX as u32).max(1);
                let mut given = 0;
                let mut returns = Vec::new();
                while given < missing {
                    let n = step.min(missing - given);
                    given += n;
                    returns.push((b.earliest(rule, 0, free + given).earliest, n));
                }
                returns
            }
            (Kind::Concurrency(c), _) => c.ghosts().to_vec(),
            (Kind::Calendar(c), _) => {
                let used = |s: &&super::calendar::Slot| s.used > 0;
                c.slots().iter().filter(used).map(|s| (s.end + super::calendar::CLOCK_ERROR, s.used)).take(1).collect()
            }
            (Kind::Paced(p), _) if !p.is_open(now) => vec![(p.next_at(), limit.cost.max(1))],
            _ => Vec::new(),
        }
    }
}

const OPEN: Denied = Denied { earliest: Timestamp::ZERO, soft: false };

/// Does the state of such a limit know what is on the wire? Else a grant counts as arrived.
fn counts_in_flight(limit: &Limit) -> bool {
    match limit.kind {
        LimitKind::Window { anchor, .. } => anchor == Anchor::Answer,
        LimitKind::Concurrency { .. } | LimitKind::Calendar { .. } => true,
        LimitKind::Bucket { .. } | LimitKind::Paced { .. } => false,
    }
}

/// Permits kept back from a class. Where there is never more than one permit, nothing can be kept.
fn kept(limit: &Limit, class: Class) -> u32 {
    match limit.kind {
        LimitKind::Paced { .. } => 0,
        _ => kept_back(limit.reserve, class),
    }
}

/// `max` permits per time in the long run.
fn pace(limit: &Limit, kind: &Kind) -> (u32, Duration) {
    match &limit.kind {
        LimitKind::Window { max, per, anchor } => {
            let rule = window::Rule::new(*max, *per, *anchor);
            (rule.max, Duration::from_micros(rule.hold_us.unsigned_abs()))
        }
        LimitKind::Bucket { capacity, refill, per, jitter } => {
            let rule = bucket::Rule::new(*capacity, *refill, *per, *jitter);
            (rule.capacity, rule.fill_time())
        }
        LimitKind::Concurrency { max } => (*max, Duration::ZERO),
        LimitKind::Calendar { max, period, .. } => {
            let nominal = match period {
                CalendarPeriod::Hour => Duration::from_secs(3_600),
                CalendarPeriod::Day => Duration::from_secs(86_400),
                CalendarPeriod::Month => Duration::from_secs(30 * 86_400),
            };
            let exact = match kind {
                Kind::Calendar(c) => c.slots().first().map(|s| s.end.since(s.start)),
                _ => None,
            };
            (*max, exact.unwrap_or(nominal))
        }
        LimitKind::Paced { max, per, jitter } => {
            let us = paced::interval_us(*max, *per, *jitter).saturating_mul(i64::from(limit.cost.max(1)));
            (limit.cost.max(1), Duration::from_micros(us.unsigned_abs()))
        }
    }
}

//! The breaker: while a provider fails, jobs wait without spending its quota.
//!
//! A pure state machine on the steady time line; dice are thrown by the caller. The gate owns one for the provider's
//! host and one per credential, asks [`Breaker::admits`] before it spends permits, says [`Breaker::began`] for a probe
//! and [`Breaker::record`] for every end. It serializes, so that a restart does not forget. Must never know: HTTP,
//! permits. Next: `engine/gate`.
//!
//! ```text
//! closed --failures--> open --time is up--> half-open --good probes--> closed (ramp)
//!                        ^---------- bad probe ----------|
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::model::provider::BreakerPolicy;
use crate::model::verdict::Health;

/// Parts of the window that forget one by one.
const BUCKETS: u32 = 12;
/// Share of calls let through right after closing.
const RAMP_FROM: f64 = 0.1;
/// Open times are spread by this share either way, so that many gates do not probe at once.
const OPEN_SPREAD: f64 = 0.2;
/// Refusals in a row that open the breaker of a credential.
const REFUSALS_IN_A_ROW: u32 = 3;

/// May a call leave?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    Yes,
    /// One call, to see whether the provider works again. Say [`Breaker::began`] when it leaves.
    Probe,
    /// Ask again at this steady time, or when the probe under way has ended.
    No {
        until: Timestamp,
    },
}

/// What the end of a call means to one breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Good,
    Bad,
    /// Says nothing; a probe that ends so is tried again.
    Neutral,
}

impl Class {
    /// To the breaker of the host: a refused credential is a sign of life, a "not now" is none either way.
    pub fn for_host(health: Health) -> Class {
        match health {
            Health::Good | Health::Refusing => Class::Good,
            Health::Failing => Class::Bad,
            Health::Limiting { .. } | Health::Silent => Class::Neutral,
        }
    }

    /// To the breaker of the credential: only an answer that looked at it counts.
    pub fn for_credential(health: Health) -> Class {
        match health {
            Health::Good => Class::Good,
            Health::Refusing => Class::Bad,
            Health::Failing | Health::Limiting { .. } | Health::Silent => Class::Neutral,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Closed,
    Open { until: Timestamp },
    HalfOpen { good: u32 },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    policy: BreakerPolicy,
    memory: Memory,
    /// When the probe under way left. Not remembered: a probe of a dead process has no end to wait for.
    probe_at: Option<Timestamp>,
}

/// All that a restart must not forget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    state: State,
    bad_in_a_row: u32,
    /// Openings in a row, each twice as long as the one before.
    openings: u32,
    opened_at: Option<Timestamp>,
    /// Start of the ramp.
    closed_at: Option<Timestamp>,
    /// When a person closed it.
    #[serde(default)]
    reset_at: Option<Timestamp>,
    /// Start of the bucket, calls, bad ones.
    recent: VecDeque<(Timestamp, u32, u32)>,
    last_error: Option<Arc<str>>,
}

impl Memory {
    /// When it moved last; a probe is no move.
    fn happened_at(&self) -> Option<Timestamp> {
        self.opened_at.max(self.closed_at).max(self.reset_at)
    }
}

impl Breaker {
    pub fn new(policy: BreakerPolicy) -> Self {
        let memory = Memory {
            state: State::Closed,
            bad_in_a_row: 0,
            openings: 0,
            opened_at: None,
            closed_at: None,
            reset_at: None,
            recent: VecDeque::new(),
            last_error: None,
        };
        Breaker { policy, memory, probe_at: None }
    }

    /// The breaker of a credential: opens after three refusals in a row, whatever the share.
    pub fn for_credential(policy: BreakerPolicy) -> Self {
        // A share above 1 is never reached.
        Breaker::new(BreakerPolicy { failures_in_a_row: REFUSALS_IN_A_ROW, failure_share: 2.0, ..policy })
    }

    /// Goes on where an earlier process left off.
    pub fn resume(policy: BreakerPolicy, memory: Memory) -> Self {
        Breaker { memory, ..Breaker::new(policy) }
    }

    /// Takes up what an earlier process remembered, under the present policy.
    pub fn recall(&mut self, memory: Memory) {
        self.memory = memory;
    }

    /// Takes over what the breaker of another daemon saw happen after the last thing that happened here. A probe of the
    /// other's is its own affair: until it has closed, the time of opening stands. True when the state moved.
    pub fn follow(&mut self, other: Memory) -> bool {
        if other.happened_at() <= self.memory.happened_at() || matches!(other.state, State::HalfOpen { .. }) {
            return false;
        }
        let before = self.memory.state;
        self.memory = Memory { recent: VecDeque::new(), bad_in_a_row: 0, ..other };
        self.probe_at = None;
        self.memory.state != before
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    pub fn state(&self) -> State {
        self.memory.state
    }

    pub fn bad_in_a_row(&self) -> u32 {
        self.memory.bad_in_a_row
    }

    /// Steady time of the last opening while not closed.
    pub fn opened_at(&self) -> Option<Timestamp> {
        self.memory.opened_at
    }

    pub fn last_error(&self) -> Option<&Arc<str>> {
        self.memory.last_error.as_ref()
    }

    /// May a call leave now? `dice` is uniform in `[0, 1)` and decides who goes during the ramp.
    pub fn admits(&self, now: Timestamp, dice: f64) -> Admit {
        match self.memory.state {
            State::Open { until } if now < until => Admit::No { until },
            State::Open { .. } | State::HalfOpen { .. } => match self.probe_at {
                None => Admit::Probe,
                // Ends within its deadline, and then the gate is told; this is only the time to look again.
                Some(at) => Admit::No { until: at.max(now) + self.policy.open_base },
            },
            State::Closed => match self.ramp_share(now) {
                Some(share) if dice >= share => {
                    let step = (self.policy.ramp / 100).max(Duration::from_millis(10));
                    Admit::No { until: now + step }
                }
                _ => Admit::Yes,
            },
        }
    }

    /// Just closed: calls should leave one by one, each with dice of its own.
    pub fn is_ramping(&self, now: Timestamp) -> bool {
        self.memory.state == State::Closed && self.ramp_share(now).is_some()
    }

    /// Share of calls let through; `None`: all.
    fn ramp_share(&self, now: Timestamp) -> Option<f64> {
        let since = now.since(self.memory.closed_at?);
        if since >= self.policy.ramp {
            return None;
        }
        Some(RAMP_FROM + (1.0 - RAMP_FROM) * since.as_secs_f64() / self.policy.ramp.as_secs_f64())
    }

    /// A probe left. Until it ends nothing else does.
    pub fn began(&mut self, now: Timestamp) {
        if let State::Open { .. } = self.memory.state {
            self.memory.state = State::HalfOpen { good: 0 };
        }
        self.probe_at = Some(now);
    }

    /// A call ended. `probe`: it was admitted as [`Admit::Probe`]. Ends of calls that left before the breaker opened
    /// change nothing while it is not closed. Returns true when the state moved.
    pub fn record(&mut self, now: Timestamp, class: Class, probe: bool, dice: f64, error: Option<&Arc<str>>) -> bool {
        let before = self.memory.state;
        if class == Class::Bad {
            self.memory.last_error = error.cloned();
        }
        match self.memory.state {
            State::Closed => self.record_closed(now, class, dice),
            State::HalfOpen { good } if probe => {
                self.probe_at = None;
                match class {
                    Class::Good if good + 1 >= self.policy.probes => self.close(now),
                    Class::Good => self.memory.state = State::HalfOpen { good: good + 1 },
                    Class::Bad => self.open(now, dice),
                    Class::Neutral => {}
                }
            }
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
        self.memory.state != before
    }

    fn record_closed(&mut self, now: Timestamp, class: Class, dice: f64) {
        match class {
            Class::Neutral => return,
            Class::Good => self.memory.bad_in_a_row = 0,
            Class::Bad => self.memory.bad_in_a_row = self.memory.bad_in_a_row.saturating_add(1),
        }
        let bad = u32::from(class == Class::Bad);
        self.forget(now);
        let width = self.policy.window / BUCKETS;
        match self.memory.recent.back_mut() {
            Some((start, calls, bads)) if now.since(*start) < width => {
                *calls = calls.saturating_add(1);
                *bads = bads.saturating_add(bad);
            }
            _ => self.memory.recent.push_back((now, 1, bad)),
        }
        let sum =
            |f: fn(&(Timestamp, u32, u32)) -> u32| self.memory.recent.iter().map(|b| u64::from(f(b))).sum::<u64>();
        let (calls, bads) = (sum(|b| b.1), sum(|b| b.2));
        let often =
            calls >= u64::from(self.policy.calls_min) && bads as f64 >= self.policy.failure_share * calls as f64;
        if bad == 1 && (self.memory.bad_in_a_row >= self.policy.failures_in_a_row || often) {
            self.open(now, dice);
        }
    }

    fn forget(&mut self, now: Timestamp) {
        while let Some((start, ..)) = self.memory.recent.front()
            && now.since(*start) >= self.policy.window
        {
            self.memory.recent.pop_front();
        }
    }

    fn open(&mut self, now: Timestamp, dice: f64) {
        // A failure during the ramp is the same trouble going on; after it, a new one.
        let again = self.memory.state != State::Closed || self.ramp_share(now).is_some();
        self.memory.openings = if again { self.memory.openings.saturating_add(1) } else { 0 };
        let doubled = self.policy.open_base.saturating_mul(1 << self.memory.openings.min(20));
        let spread = 1.0 - OPEN_SPREAD + 2.0 * OPEN_SPREAD * dice.clamp(0.0, 1.0);
        let open = doubled.min(self.policy.open_max).mul_f64(spread);
        self.memory.state = State::Open { until: now + open };
        self.memory.opened_at = Some(now);
        self.memory.recent.clear();
        self.probe_at = None;
    }

    fn close(&mut self, now: Timestamp) {
        self.memory.state = State::Closed;
        self.memory.bad_in_a_row = 0;
        self.memory.opened_at = None;
        self.memory.closed_at = Some(now);
        self.memory.recent.clear();
    }

    /// A person knows better: closed at once, without a ramp. Other daemons hear of it by the time.
    pub fn reset(&mut self, now: Timestamp) {
        *self = Breaker::new(self.policy);
        self.memory.reset_at = Some(now);
    }

    /// A closed one opens without waiting for more of the same. Returns true when the state moved.
    pub fn open_at_once(&mut self, now: Timestamp, dice: f64) -> bool {
        let closed = self.memory.state == State::Closed;
        if closed {
            self.open(now, dice);
        }
        closed
    }

    /// Only a person can help: open until [`Breaker::reset`]. Returns true when that is news.
    pub fn open_until_reset(&mut self, now: Timestamp, error: &Arc<str>) -> bool {
        let news = self.memory.state != State::Open { until: Timestamp::NEVER };
        if news {
            self.memory.state = State::Open { until: Timestamp::NEVER };
            self.memory.opened_at = Some(now);
            self.memory.last_error = Some(error.clone());
            self.probe_at = None;
        }
        news
    }

    /// Nothing in it is worth keeping: closed, with nothing bad behind it for so long.
    pub fn is_idle(&self, now: Timestamp, quiet: Duration) -> bool {
        let memory = &self.memory;
        memory.state == State::Closed
            && memory.bad_in_a_row == 0
            && memory.happened_at().is_none_or(|at| now.since(at) >= quiet)
    }

    /// The declaration changed.
    pub fn set_policy(&mut self, policy: BreakerPolicy) {
        self.policy = policy;
    }
}

#[cfg(test)]
mod tests;

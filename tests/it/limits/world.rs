//! A provider with two lanes in virtual time, driven by the real limiter and the real tide rule.
//!
//! Jobs arrive, wait in one queue, and leave by a policy; calls take a while and are settled. Everything happens at
//! events, never by steps of time. Used by `benches/plan.rs` and by the tests of the rule.

#![allow(dead_code, unreachable_pub, missing_debug_implementations)]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::limiter::{Acquire, Answer, LocalLimiter, Settle, Spend};
use tidegate::model::call::{LimitKey, Permit};
use tidegate::model::flow::Class;
use tidegate::model::name::LimitName;
use tidegate::model::provider::{Anchor, Limit, LimitKind, Reserve, Scope};
use tidegate::plan::lanes::{Lanes, Tide, TideView};

/// Times of arrival in seconds, with their classes.
#[derive(Clone)]
pub struct Load(Vec<(f64, Class)>);

/// A small generator of random numbers: the same on every machine.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> f64 {
        // splitmix64 (Steele, Lea, Flood 2014)
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.roll()).ln()
    }
}

impl Load {
    /// Poisson arrivals.
    pub fn steady(per_hour: f64, hours: f64) -> Load {
        Load::seeded(11, per_hour, hours)
    }

    pub fn seeded(seed: u64, per_hour: f64, hours: f64) -> Load {
        let mut dice = Dice(seed);
        let (mut t, mut times) = (0.0, Vec::new());
        loop {
            t += dice.exponential(3_600.0 / per_hour);
            if t >= hours * 3_600.0 {
                return Load(times);
            }
            times.push((t, Class::Normal));
        }
    }

    /// The same arrivals, all of a class.
    pub fn of(mut self, class: Class) -> Load {
        self.0.iter_mut().for_each(|job| job.1 = class);
        self
    }

    pub fn burst(at: f64, jobs: usize) -> Load {
        Load(vec![(at, Class::Normal); jobs])
    }

    pub fn repeated(each: f64, jobs: usize, hours: f64) -> Load {
        let bursts = (hours * 3_600.0 / each) as usize;
        let job = |k| (k as f64 * each + 1.0, Class::Normal);
        Load((0..bursts).flat_map(|k| std::iter::repeat_n(job(k), jobs)).collect())
    }

    pub fn and(mut self, other: Load) -> Load {
        self.0.extend(other.0);
        self.0.sort_by(|a, b| f64::total_cmp(&a.0, &b.0));
        self
    }

    /// The same load in a world whose windows are shorter by this factor.
    pub fn faster(mut self, factor: f64) -> Load {
        self.0.iter_mut().for_each(|job| job.0 /= factor);
        self
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Policy {
    Tide,
    /// A batch only when it is full; no singles.
    WhenFull,
    /// A batch when it is full or its oldest job has waited this long, in seconds; no singles.
    Linger(f64),
}

pub struct World {
    policy: Policy,
    limiter: LocalLimiter,
    tide: Tide,
    /// What a call of each lane spends; `None`: there is no such lane.
    single: Option<Arc<[Spend]>>,
    batch: Option<Arc<[Spend]>>,
    arrivals: VecDeque<(i64, Class)>,
    /// Per class, most urgent first.
    queues: [VecDeque<i64>; 3],
    /// (time of the answer, permit, is a batch)
    calls: BinaryHeap<Reverse<(i64, u64)>>,
    open: std::collections::HashMap<u64, (Permit, bool)>,
    begun: u64,
    batches_in_flight: u32,
    pub answer_after: Duration,
    pub size_max: u32,
    now: i64,
    done: Done,
}

#[derive(Default)]
pub struct Done {
    /// Seconds from arrival to departure.
    waits: Vec<f64>,
    /// Those of urgent jobs.
    pub urgent: Vec<f64>,
    /// Jobs in each batch.
    pub batch_sizes: Vec<u32>,
    pub in_flight_most: usize,
    pub batches: u64,
    pub singles: u64,
    pub batch_at: Vec<i64>,
    pub single_at: Vec<i64>,
    pub decisions: u64,
    /// Wake-ups that found nothing to do although the rule had asked for them.
    pub idle_wakes: u64,
    seconds: f64,
}

impl Done {
    pub fn jobs(&self) -> usize {
        self.waits.len()
    }

    pub fn mean(&self) -> f64 {
        self.waits.iter().sum::<f64>() / self.waits.len().max(1) as f64
    }

    pub fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.waits.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((q * sorted.len() as f64) as usize).copied().unwrap_or(0.0)
    }

    pub fn urgent_most(&self) -> f64 {
        self.urgent.iter().copied().fold(0.0, f64::max)
    }

    pub fn batches_per_hour(&self) -> f64 {
        self.batches as f64 * 3_600.0 / self.seconds.max(3_600.0)
    }

    pub fn singles_per_hour(&self) -> f64 {
        self.singles as f64 * 3_600.0 / self.seconds.max(3_600.0)
    }
}

pub fn window(name: &str, max: u32, per: Duration) -> Spend {
    reserved(name, max, per, 0)
}

/// A window with permits kept back for urgent jobs.
pub fn reserved(name: &str, max: u32, per: Duration, urgent: u32) -> Spend {
    let limit = Limit {
        name: LimitName::new(name).unwrap(),
        kind: LimitKind::Window { max, per, anchor: Anchor::Answer },
        scope: Scope::Provider,
        methods: Vec::new(),
        cost: 1,
        reserve: Reserve { urgent, normal: 0 },
        not_counted: Vec::new(),
        learned: false,
        cost_from: None,
        headers: None,
    };
    Spend::new(LimitKey(Arc::from(format!("crm/{name}:{}s", per.as_secs()))), Arc::new(limit))
}

impl World {
    /// 50 batches of 1,000 and 3,600 singles an hour.
    pub fn new(policy: Policy, load: &Load) -> World {
        let hour = Duration::from_secs(3_600);
        World::with(policy, load, window("batch", 50, hour), window("single", 3_600, hour))
    }

    pub fn with(policy: Policy, load: &Load, batch: Spend, single: Spend) -> World {
        World::lanes(policy, load, Some(Arc::from([batch])), Some(Arc::from([single])))
    }

    pub fn lanes(policy: Policy, load: &Load, batch: Option<Arc<[Spend]>>, single: Option<Arc<[Spend]>>) -> World {
        World {
            policy,
            limiter: LocalLimiter::new(0),
            tide: Tide::default(),
            single,
            batch,
            // A day after the epoch, so that nothing is special about time zero.
            arrivals: load.0.iter().map(|(t, class)| ((t * 1e6) as i64 + 86_400_000_000, *class)).collect(),
            queues: Default::default(),
            calls: BinaryHeap::new(),
            open: std::collections::HashMap::new(),
            begun: 0,
            batches_in_flight: 0,
            answer_after: Duration::from_millis(50),
            size_max: 1_000,
            now: 86_400_000_000,
            done: Done::default(),
        }
    }

    /// Until every job has left.
    pub fn run(mut self) -> Done {
        let start = self.now;
        let mut wake_at = i64::MAX;
        while !self.arrivals.is_empty() || self.waiting() > 0 {
            let next_call = self.calls.peek().map_or(i64::MAX, |c| c.0.0);
            let next_job = self.arrivals.front().map_or(i64::MAX, |a| a.0);
            let next = wake_at.min(next_call).min(next_job);
            assert!(next < i64::MAX, "{} jobs wait for ever", self.waiting());
            assert!(next >= self.now, "time goes back");
            let (alone, before) = (wake_at < next_call.min(next_job), self.waiting());
            self.now = next;
            while let Some(&(at, class)) = self.arrivals.front().filter(|a| a.0 <= self.now) {
                self.queues[class as usize].push_back(at);
                self.arrivals.pop_front();
            }
            while self.calls.peek().is_some_and(|c| c.0.0 <= self.now) {
                if let Some(Reverse((_, call))) = self.calls.pop() {
                    self.settle(call);
                }
            }
            wake_at = match self.policy {
                Policy::Tide => self.tide(),
                Policy::WhenFull => self.batches(i64::MAX),
                Policy::Linger(s) => self.batches((s * 1e6) as i64),
            };
            self.done.idle_wakes += u64::from(alone && self.waiting() == before);
        }
        self.done.seconds = (self.now - start) as f64 / 1e6;
        self.done
    }

    fn waiting(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    fn tide(&mut self) -> i64 {
        loop {
            self.done.decisions += 1;
            let now = Timestamp(self.now);
            let single = self.single.as_ref().map(|s| self.limiter.look(now, s));
            let batch = self.batch.as_ref().map(|b| self.limiter.look(now, b));
            let lanes = Lanes::new(now, single.as_deref(), batch.as_deref());
            let decision = self.tide.decide(&TideView {
                now,
                ready: [0, 1, 2].map(|class: usize| self.queues[class].len() as u64),
                lanes: &lanes,
                size_max: self.size_max,
                calls_max: 1_000,
                batches_in_flight: self.batches_in_flight,
                is_part: false,
            });
            if decision.is_empty() {
                assert!(decision.wake_at > now, "a busy wake-up");
                return decision.wake_at.0;
            }
            if let Some((jobs, class)) = decision.batch {
                assert!(self.begin(true, 1, jobs, class), "the rule sent a batch without a permit");
                self.tide.batch_left(now);
            }
            for class in Class::ALL {
                let n = decision.singles[class as usize];
                if n > 0 {
                    assert!(self.begin(false, n, 1, class), "the rule sent singles without permits");
                    self.tide.singles_left(n);
                }
            }
        }
    }

    fn batches(&mut self, linger_us: i64) -> i64 {
        while let Some(&oldest) = self.queues[Class::Normal as usize].front() {
            let full = self.waiting() >= self.size_max as usize;
            if !full && (linger_us == i64::MAX || self.now - oldest < linger_us) {
                // The end of the world: what never fills a batch leaves at last.
                let last = self.arrivals.is_empty() && linger_us == i64::MAX;
                return if last { self.flush() } else { oldest.saturating_add(linger_us) };
            }
            let jobs = (self.waiting() as u32).min(self.size_max);
            if !self.begin(true, 1, jobs, Class::Normal) {
                return self.batch_returns_at();
            }
        }
        i64::MAX
    }

    fn flush(&mut self) -> i64 {
        let jobs = (self.waiting() as u32).min(self.size_max);
        if self.begin(true, 1, jobs, Class::Normal) {
            return i64::MAX;
        }
        self.batch_returns_at()
    }

    fn batch_returns_at(&self) -> i64 {
        let batch = self.batch.as_ref().expect("the simple policies need a batch lane");
        self.limiter.look(Timestamp(self.now), batch)[0].next_free_at.0
    }

    /// Begins calls of `jobs` jobs each; false without permits.
    fn begin(&mut self, batch: bool, calls: u32, jobs: u32, class: Class) -> bool {
        let spends = if batch { self.batch.clone() } else { self.single.clone() };
        let spends = spends.expect("the rule sends only by lanes that exist");
        let asked = Acquire { spends, min: calls, max: calls, class, request: 0 };
        let Answer::Granted { count, permit } = self.limiter.decide(Timestamp(self.now), &asked) else {
            return false;
        };
        for _ in 0..count {
            for _ in 0..jobs {
                // A permit of a class carries a job of this class or a more urgent one.
                let filled = self.queues.iter().position(|q| !q.is_empty()).expect("the rule sends only what waits");
                assert!(batch || filled <= class as usize, "a permit for a class that has no jobs");
                let arrived = self.queues[filled].pop_front().expect("it is not empty");
                let wait = (self.now - arrived) as f64 / 1e6;
                self.done.waits.push(wait);
                if filled == 0 {
                    self.done.urgent.push(wait);
                }
            }
            self.begun += 1;
            self.open.insert(self.begun, (permit.clone(), batch));
            let answer_at = self.now + self.answer_after.as_micros() as i64;
            self.calls.push(Reverse((answer_at, self.begun)));
            if batch {
                self.done.batches += 1;
                self.done.batch_sizes.push(jobs);
                self.done.batch_at.push(self.now);
                self.batches_in_flight += 1;
            } else {
                self.done.singles += 1;
                self.done.single_at.push(self.now);
            }
        }
        self.done.in_flight_most = self.done.in_flight_most.max(self.open.len());
        true
    }

    fn settle(&mut self, call: u64) {
        let (permit, batch) = self.open.remove(&call).expect("a call is settled once");
        self.batches_in_flight -= u32::from(batch);
        let settle = Settle::new(permit, 1, true);
        self.limiter.finish(Timestamp(self.now), &settle);
    }
}

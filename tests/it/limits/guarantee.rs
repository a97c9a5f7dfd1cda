//! The guarantee under fire: never more than N arrivals in any half-open window, judged where the calls arrive,
//! whatever the delays, stalls, refunds, grants of many calls and crashes of the daemon.
//!
//! The fuzzers of reference/sim (completion_fuzz.py, clump_fuzz.py), grown by several limits at once, a journal and
//! restarts that rebuild the limiter from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tidegate::clock::Timestamp;
use tidegate::limiter::{Acquire, Answer, Limiter, LocalLimiter, Seed, Settle, Spend};
use tidegate::model::call::{LimitKey, Permit};
use tidegate::model::flow::Class;
use tidegate::model::name::LimitName;
use tidegate::model::provider::{Anchor, Limit, LimitKind, Reserve, Scope};

use super::world::Dice;

const SECOND: i64 = 1_000_000;
/// Hard deadline of a call: what is not answered by then has arrived by then, or never will.
const DEADLINE: i64 = 8 * SECOND;

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    /// (N, W in seconds) of limits that all calls spend.
    windows: Vec<(u32, i64)>,
    concurrent: Option<u32>,
    /// How much faster than the tightest window the demand is.
    demand: f64,
    calls_at_once: u32,
    refunds: f64,
    /// Windows between two crashes; 0: none.
    crash_every: f64,
}

fn case() -> impl Strategy<Value = Case> {
    let n = prop_oneof![Just(3u32), Just(10), Just(60), Just(300)];
    let w = prop_oneof![Just(1i64), Just(10), Just(60), Just(600)];
    (
        any::<u64>(),
        prop::collection::vec((n, w), 1..3),
        prop::option::of(1u32..40),
        prop_oneof![Just(0.6), Just(1.2), Just(3.0), Just(30.0)],
        1u32..40,
        prop_oneof![Just(0.0), Just(0.05), Just(0.3)],
        prop_oneof![Just(0.0), Just(0.7), Just(2.5)],
    )
        .prop_map(|(seed, windows, concurrent, demand, calls_at_once, refunds, crash_every)| {
            let crash_every = if crash_every > 0.0 { crash_every } else { 0.0 };
            Case { seed, windows, concurrent, demand, calls_at_once, refunds, crash_every }
        })
}

fn spend(name: &str, kind: LimitKind) -> Spend {
    let limit = Limit {
        name: LimitName::new(name).unwrap(),
        kind,
        scope: Scope::Provider,
        methods: Vec::new(),
        cost: 1,
        reserve: Reserve::default(),
        not_counted: Vec::new(),
        learned: false,
        cost_from: None,
        headers: None,
    };
    Spend::new(LimitKey(Arc::from(format!("p/{name}"))), Arc::new(limit))
}

/// About 40 ms with a long tail; one in a hundred stalls for up to 3 s.
fn delay(dice: &mut Dice) -> i64 {
    let body = 0.02 + dice.exponential(0.02);
    let stall = if dice.roll() < 0.01 { 0.3 + 2.7 * dice.roll() } else { 0.0 };
    ((body + stall) * SECOND as f64) as i64
}

struct Journaled {
    permit: Permit,
    settled_at: Option<i64>,
    sent: bool,
}

/// Plays the case and returns the arrivals.
fn play(case: &Case) -> Vec<i64> {
    let mut dice = Dice(case.seed);
    let mut spends: Vec<Spend> = Vec::new();
    for (i, &(max, w)) in case.windows.iter().enumerate() {
        let per = Duration::from_secs(w.unsigned_abs());
        spends.push(spend(&format!("w{i}"), LimitKind::Window { max, per, anchor: Anchor::Answer }));
    }
    spends.extend(case.concurrent.map(|max| spend("c", LimitKind::Concurrency { max })));
    let spends: Arc<[Spend]> = spends.into();
    let widest = case.windows.iter().map(|w| w.1).max().unwrap() * SECOND;
    let rate = case.windows.iter().map(|&(n, w)| f64::from(n) / w as f64).fold(f64::MAX, f64::min);
    let start = 1_000_000 * SECOND;
    let end = start + widest * 6;
    let crash_every = (case.crash_every * widest as f64) as i64;
    let mut next_crash = if crash_every > 0 { start + crash_every } else { i64::MAX };

    let mut limiter = LocalLimiter::new(0);
    let mut journal: BTreeMap<u64, Journaled> = BTreeMap::new();
    let mut answers: BTreeMap<(i64, u64), ()> = BTreeMap::new();
    let (mut now, mut calls, mut arrivals) = (start, 0u64, Vec::new());
    while now < end {
        while let Some((&(at, call), ())) = answers.first_key_value()
            && at <= now
        {
            answers.pop_first();
            let entry = journal.get_mut(&call).unwrap();
            entry.settled_at = Some(at);
            let permit = entry.permit.clone();
            let settle = Settle::new(permit, 1, true);
            limiter.finish(Timestamp(at), &settle);
        }
        if now >= next_crash {
            // Dead for a while; answers that come meanwhile reach nobody.
            next_crash = now + crash_every;
            now += (dice.roll() * 3.0 * SECOND as f64) as i64;
            answers.clear();
            limiter = LocalLimiter::new(0);
            let entries: Vec<Seed> = journal
                .values()
                .filter(|j| j.sent)
                .map(|j| {
                    let anchored_at = Timestamp(j.settled_at.unwrap_or(j.permit.granted_at.0 + DEADLINE));
                    Seed { permit: j.permit.clone(), anchored_at }
                })
                .collect();
            let limits = if dice.roll() < 0.5 { &spends[..] } else { &[] };
            block_on(limiter.seed(Timestamp(now), limits, &entries)).unwrap();
        }
        let wanted = 1 + (dice.roll() * f64::from(case.calls_at_once)) as u32;
        let asked = Acquire { spends: spends.clone(), min: 1, max: wanted, class: Class::Normal, request: 0 };
        match limiter.decide(Timestamp(now), &asked) {
            Answer::Wait { earliest, .. } => {
                let event = answers.keys().next().map_or(i64::MAX, |k| k.0);
                now = earliest.0.min(event).min(next_crash).max(now + 1);
            }
            Answer::Granted { count, permit } => {
                for _ in 0..count {
                    calls += 1;
                    if dice.roll() < case.refunds {
                        journal.insert(calls, Journaled { permit: permit.clone(), settled_at: Some(now), sent: false });
                        let permit = permit.clone();
                        let settle = Settle::new(permit, 1, false);
                        limiter.finish(Timestamp(now), &settle);
                        continue;
                    }
                    let to = delay(&mut dice).min(DEADLINE);
                    let back = (to + delay(&mut dice)).min(DEADLINE);
                    arrivals.push(now + to);
                    answers.insert((now + back, calls), ());
                    journal.insert(calls, Journaled { permit: permit.clone(), settled_at: None, sent: true });
                }
                now += 1 + (dice.roll() * 2.0 * f64::from(count) * SECOND as f64 / (rate * case.demand)) as i64;
            }
        }
    }
    arrivals.sort_unstable();
    arrivals
}

/// The most arrivals in any half-open window of `w`.
pub fn most_in_any_window(arrivals: &[i64], w: i64) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (i, at) in arrivals.iter().enumerate() {
        while arrivals[first] <= at - w {
            first += 1;
        }
        most = most.max(i + 1 - first);
    }
    most
}

/// The local limiter never waits.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio_test::block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn no_window_ever_holds_more_arrivals_than_declared(case in case()) {
        let arrivals = play(&case);
        prop_assert!(!arrivals.is_empty());
        for &(n, w) in &case.windows {
            let most = most_in_any_window(&arrivals, w * SECOND);
            prop_assert!(most <= n as usize, "{} arrivals in {} s, {} declared", most, w, n);
        }
    }
}

#[test]
fn a_lowered_maximum_applies_at_once_and_a_raised_one_gives_no_second_quota() {
    let limiter = LocalLimiter::new(0);
    let per = Duration::from_secs(60);
    let ask = |max: u32, wanted: u32, at: i64| {
        let spends: Arc<[Spend]> = Arc::from([spend("w", LimitKind::Window { max, per, anchor: Anchor::Answer })]);
        let asked = Acquire { spends, min: 1, max: wanted, class: Class::Normal, request: 0 };
        match limiter.decide(Timestamp::from_secs(at), &asked) {
            Answer::Granted { count, permit } => {
                let settle = Settle::new(permit, count, true);
                limiter.finish(Timestamp::from_secs(at), &settle);
                count
            }
            Answer::Wait { .. } => 0,
        }
    };
    assert_eq!(ask(10, 6, 100), 6);
    assert_eq!(ask(5, 6, 101), 0, "6 of 5 are used");
    assert_eq!(ask(8, 6, 102), 2, "6 of 8 are used");
    assert_eq!(ask(8, 9, 160), 6, "the first six have aged");
}

#[test]
fn a_changed_anchor_carries_what_is_in_flight_over() {
    let limiter = LocalLimiter::new(0);
    let per = Duration::from_secs(60);
    let window = |anchor| -> Arc<[Spend]> { Arc::from([spend("w", LimitKind::Window { max: 10, per, anchor })]) };
    let send = Anchor::Send { jitter: Duration::from_secs(1) };
    let ask = |anchor, at: i64| {
        let asked = Acquire { spends: window(anchor), min: 1, max: 10, class: Class::Normal, request: 0 };
        limiter.decide(Timestamp::from_secs(at), &asked)
    };
    let finish = |permit: &Permit, at: i64, sent: bool| {
        let permit = permit.clone();
        let settle = Settle::new(permit, 5, sent);
        limiter.finish(Timestamp::from_secs(at), &settle);
    };
    let free = |anchor, at: i64| limiter.look(Timestamp::from_secs(at), &window(anchor))[0].free;
    let Answer::Granted { permit: old, count: 10 } = ask(Anchor::Answer, 100) else { panic!("ten are free") };
    assert_eq!(free(send, 110), 0, "those in flight count from the switch on");
    finish(&old, 111, true);
    assert_eq!((free(send, 170), free(send, 171)), (0, 10));
    let Answer::Granted { permit: new, count: 10 } = ask(send, 171) else { panic!("ten are free again") };
    assert_eq!(free(Anchor::Answer, 180), 0);
    finish(&new, 200, true);
    assert_eq!(free(Anchor::Answer, 240), 5, "five were answered at 200 and count until 260");
    assert_eq!(free(Anchor::Answer, 260), 10);
}

#[test]
fn limits_that_are_no_longer_used_are_forgotten() {
    let limiter = LocalLimiter::new(0);
    for i in 0..20_000i64 {
        let limit =
            spend(&format!("k{i}"), LimitKind::Window { max: 5, per: Duration::from_secs(1), anchor: Anchor::Answer });
        let asked = Acquire { spends: Arc::from([limit]), min: 1, max: 1, class: Class::Normal, request: 0 };
        let now = Timestamp::from_millis(1_000_000 + i * 10);
        let Answer::Granted { permit, count } = limiter.decide(now, &asked) else { panic!("a fresh limit has room") };
        limiter.finish(now, &Settle::new(permit, count, true));
    }
    assert!(limiter.len() <= 400, "{} limits held, about 100 are in use", limiter.len());
}

#[test]
fn a_repeated_request_gets_its_first_answer() {
    let limiter = LocalLimiter::new(7);
    let limit = spend("w", LimitKind::Window { max: 5, per: Duration::from_secs(60), anchor: Anchor::Answer });
    let asked = Acquire { spends: Arc::from([limit.clone()]), min: 1, max: 2, class: Class::Normal, request: 42 };
    let first = limiter.decide(Timestamp::from_secs(100), &asked);
    assert_eq!(limiter.decide(Timestamp::from_secs(101), &asked), first);
    assert_eq!(limiter.look(Timestamp::from_secs(101), &[limit])[0].in_flight, 2);
}

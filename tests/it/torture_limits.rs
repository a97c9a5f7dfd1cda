//! The limiter alone against delays, lost answers and restarts, in virtual time: hours in a moment.
//!
//! What real processes on one machine cannot show: calls that travel for seconds before they arrive, so that a limiter
//! which counts from the grant, or frees a slot too early, is seen at the provider.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::limiter::{Acquire, Answer, Limiter, LocalLimiter, Seed, Settle, Spend};
use tidegate::model::call::{LimitKey, Permit};
use tidegate::model::flow::Class;
use tidegate::model::name::LimitName;
use tidegate::model::provider::{Anchor, Limit, LimitKind, Reserve, Scope};
use tidegate::simulator::Arrival;
use tidegate::simulator::dice::Dice;

use crate::support::checker::check;
use crate::support::history::{Declared, DeclaredLimit, Entry, History};

/// A call that has not been answered by then is given up: it counts as arrived at the deadline.
const DEADLINE: Duration = Duration::from_secs(5);

/// What happens next, in the order of time.
enum Step {
    Arrive,
    /// The answer comes back, or the deadline passes.
    End(Permit),
}

/// One limit under full load for `span`; the arrivals at the provider.
async fn saturate(max: u32, window: Duration, span: Duration, seed: u64) -> Vec<i64> {
    let limit = Arc::new(Limit {
        name: LimitName::new("core").unwrap(),
        kind: LimitKind::Window { max, per: window, anchor: Anchor::Answer },
        scope: Scope::Provider,
        methods: Vec::new(),
        cost: 1,
        reserve: Reserve::default(),
        not_counted: Vec::new(),
        learned: false,
        cost_from: None,
        headers: None,
    });
    let spends: Arc<[Spend]> = Arc::new([Spend::new(LimitKey("p/core".into()), limit)]);
    let (mut dice, mut limiter) = (Dice::new(seed), LocalLimiter::new(0));
    let (mut steps, mut number) = (BTreeMap::<(Timestamp, u64), Step>::new(), 0);
    let (mut arrivals, mut settled) = (Vec::new(), Vec::<Seed>::new());
    let mut open = BTreeMap::<u64, Permit>::new();
    let mut now = Timestamp::from_secs(1_000);
    let end = now + span;
    while now < end {
        let ask = Acquire { spends: spends.clone(), min: 1, max: 4, class: Class::Normal, request: 0 };
        let wake = match limiter.acquire(now, &[ask]).await.unwrap().remove(0) {
            Answer::Granted { count, permit } => {
                for _ in 0..count {
                    number += 1;
                    let (there, back) = (travel(&mut dice), travel(&mut dice));
                    steps.insert((now + there, number), Step::Arrive);
                    let answered = if dice.falls(0.01) { DEADLINE } else { (there + back).min(DEADLINE) };
                    steps.insert((now + answered.max(there), number | 1 << 63), Step::End(permit.clone()));
                    open.insert(number, permit.clone());
                }
                // The dispatcher takes a moment.
                now + Duration::from_micros(200 + dice.below(20_000))
            }
            Answer::Wait { earliest, .. } => earliest.max(now + Duration::from_micros(1)),
        };
        let next = steps.keys().next().map_or(wake, |(at, _)| wake.min(*at));
        now = next.max(now);
        while let Some(entry) = steps.first_entry().filter(|e| e.key().0 <= now) {
            let ((at, id), step) = entry.remove_entry();
            match step {
                Step::Arrive => arrivals.push(at.0),
                Step::End(permit) => {
                    open.remove(&(id & !(1 << 63)));
                    settled.push(Seed { permit: permit.clone(), anchored_at: at });
                    let settle = Settle::new(permit, 1, true);
                    limiter.settle(at, &[settle]).await.unwrap();
                }
            }
        }
        if dice.falls(0.0005) {
            limiter = restarted(now, &spends, &settled, &open, window).await;
        }
    }
    arrivals
}

/// Mostly 5 to 100 ms, sometimes seconds.
fn travel(dice: &mut Dice) -> Duration {
    let ms = if dice.falls(0.02) { 300 + dice.below(2_000) } else { 5 + dice.below(95) };
    Duration::from_millis(ms)
}

/// A fresh limiter that knows only what a journal would know.
async fn restarted(
    now: Timestamp,
    spends: &Arc<[Spend]>,
    settled: &[Seed],
    open: &BTreeMap<u64, Permit>,
    window: Duration,
) -> LocalLimiter {
    let limiter = LocalLimiter::new(0);
    let in_doubt = |permit: &Permit| Seed { permit: permit.clone(), anchored_at: permit.granted_at + DEADLINE };
    let recent = settled.iter().filter(|s| s.anchored_at + window > now).cloned();
    let entries: Vec<Seed> = recent.chain(open.values().map(in_doubt)).collect();
    limiter.seed(now, spends, &entries).await.unwrap();
    limiter
}

async fn check_limit(max: u32, window: Duration, seed: u64) {
    let span = window * 12;
    let arrivals = saturate(max, window, span, seed).await;
    let windows = span.as_secs_f64() / window.as_secs_f64();
    let used = arrivals.len() as f64 / (windows * f64::from(max));
    let limits = vec![DeclaredLimit { name: "core".to_owned(), max, window_us: window.as_micros() as u64 }];
    let mut history = History::new(Declared { limits, ..Declared::default() });
    for (at_us, number) in arrivals.into_iter().zip(1..) {
        history.push(Entry::Arrived(Arrival { at_us, number, limits: vec!["core".to_owned()], ..Arrival::default() }));
    }
    let findings = check(&history);
    assert!(findings.violations.is_empty(), "seed {seed}, {max} per {window:?}: {findings}");
    assert!(used > 0.80, "seed {seed}, {max} per {window:?}: only {used:.3} of the limit was used");
}

#[tokio::test]
async fn no_window_is_exceeded_whatever_the_delays_and_restarts() {
    for seed in 0..20 {
        check_limit(50, Duration::from_secs(60), seed).await;
        check_limit(300, Duration::from_secs(60), seed).await;
        check_limit(5, Duration::from_secs(30), seed).await;
    }
}

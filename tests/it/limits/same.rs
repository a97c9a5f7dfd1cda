//! The two limiters compared: the same steps, the same answers and the same views, over several limits of all kinds.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tidegate::clock::Timestamp;
use tidegate::limiter::{Acquire, Answer, Limiter, LocalLimiter, Said, Seed, Settle, Spend};
use tidegate::model::call::{LimitKey, Permit};
use tidegate::model::flow::Class;
use tidegate::model::name::LimitName;
use tidegate::model::provider::{Limit, LimitKind};

use super::exact::limit;
use super::factory::{Shared, ask, ended, granted, window};
use super::world::Dice;

#[derive(Clone, Debug)]
enum Step {
    Ask { mask: u8, class: usize, min: u32, more: u32 },
    Settle { which: usize, share: bool, end: Ending, block_us: i64, named: usize, said: Option<(usize, u32, i64)> },
    Seed { mask: u8, age_us: i64, took_us: i64 },
    Pass { us: i64 },
}

/// How a call ends: sent, answered well, and what it has cost of some limit.
#[derive(Clone, Copy, Debug)]
struct Ending {
    sent: bool,
    good: bool,
    cost: Option<(usize, u32)>,
}

fn ending() -> impl Strategy<Value = Ending> {
    let cost = prop::option::weighted(0.2, (0usize..5, 0u32..9));
    (prop::bool::weighted(0.8), prop::bool::weighted(0.8), cost).prop_map(|(sent, good, cost)| Ending {
        sent,
        good: sent && good,
        cost,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let us = prop_oneof![0i64..1_000, 0i64..1_000_000, 0i64..20_000_000, 0i64..4_000_000_000];
    let block = prop_oneof![8 => Just(0i64), 1 => 1i64..20_000_000];
    let left = prop_oneof![Just(0u32), 0u32..8, 0u32..100];
    let said = (0usize..5, left, prop_oneof![-1_000i64..5_000_000, 0i64..100_000_000]);
    prop_oneof![
        8 => (any::<u8>(), 0usize..3, 1u32..3, 0u32..5)
            .prop_map(|(mask, class, min, more)| Step::Ask { mask, class, min, more }),
        8 => (0usize..64, any::<bool>(), ending(), block, 0usize..6, prop::option::weighted(0.3, said)).prop_map(
            |(which, share, end, block_us, named, said)| Step::Settle { which, share, end, block_us, named, said }
        ),
        1 => (any::<u8>(), 0i64..60_000_000, 0i64..40_000_000)
            .prop_map(|(mask, age_us, took_us)| Step::Seed { mask, age_us, took_us }),
        5 => us.prop_map(|us| Step::Pass { us }),
    ]
}

fn spends(limits: Vec<Limit>) -> Vec<Spend> {
    let named = limits.into_iter().enumerate().map(|(i, mut limit)| {
        limit.name = LimitName::new(format!("l{i}")).unwrap();
        Spend::new(LimitKey(Arc::from(format!("p/l{i}"))), Arc::new(limit))
    });
    named.collect()
}

fn some(all: &[Spend], mask: u8) -> Vec<Spend> {
    all.iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0).map(|(_, s)| s.clone()).collect()
}

async fn play(server: &Shared, all: &[Spend], steps: &[Step]) -> Result<(), TestCaseError> {
    let (one, other) = (LocalLimiter::new(0), server.limiter().await);
    let mut now = Timestamp::from_secs(1_790_000_000);
    let mut open: Vec<(Permit, Permit, u32)> = Vec::new();
    // Every limit exists on both sides before anything can be forgotten on one.
    let first = Step::Ask { mask: 0xff, class: 0, min: 1, more: 1 };
    for (i, step) in std::iter::once(&first).chain(steps).enumerate() {
        match *step {
            Step::Pass { us } => now = now + Duration::from_micros(us.unsigned_abs()),
            Step::Ask { mask, class, min, more } => {
                let spends: Arc<[Spend]> = some(all, mask).into();
                let asked = Acquire { spends, min, max: min + more, class: Class::ALL[class], request: 0 };
                let ours = one.acquire(now, std::slice::from_ref(&asked)).await.unwrap().remove(0);
                let theirs = other.acquire(now, &[asked]).await.unwrap().remove(0);
                match (ours, theirs) {
                    (Answer::Granted { count, permit }, Answer::Granted { count: c, permit: p }) => {
                        prop_assert_eq!(count, c, "step {}", i);
                        prop_assert_eq!(permit.granted_at, p.granted_at);
                        prop_assert_eq!(&permit.spends, &p.spends);
                        if !permit.spends.is_empty() {
                            open.push((permit, p, count));
                        }
                    }
                    (ours, theirs) => prop_assert_eq!(ours, theirs, "step {}", i),
                }
                if i == 0 && open.is_empty() {
                    return Ok(());
                }
            }
            Step::Settle { which, share, end, block_us, named, said } => {
                if open.is_empty() {
                    continue;
                }
                let at = which % open.len();
                let (ours, theirs, left) = open[at].clone();
                let count = if share { left } else { 1 };
                open[at].2 -= count;
                if open[at].2 == 0 {
                    open.swap_remove(at);
                }
                let until = now + Duration::from_micros(block_us.unsigned_abs());
                let heard = |(limit, left, us): (usize, u32, i64)| Said {
                    key: all[limit % all.len()].key.clone(),
                    left,
                    until: Timestamp(now.0 + us),
                };
                let settle = |permit| Settle {
                    good: end.good && block_us == 0,
                    costs: end.cost.iter().map(|(limit, n)| (all[limit % all.len()].key.clone(), *n)).collect(),
                    blocked_until: (block_us > 0).then_some(until),
                    said: said.iter().map(|s| heard(*s)).collect(),
                    blocked_limit: (named < 4).then(|| format!("l{named}")),
                    ..Settle::new(permit, count, end.sent)
                };
                one.settle(now, &[settle(ours)]).await.unwrap();
                other.settle(now, &[settle(theirs)]).await.unwrap();
            }
            Step::Seed { mask, age_us, took_us } => {
                let spends = some(all, mask);
                let has = |kind: fn(&LimitKind) -> bool| spends.iter().any(|s| kind(&s.limit.kind));
                // A bucket wants calls in the order of their anchors, none older than its last look; and only the local
                // one writes down that it looked.
                let bucket = has(|kind| matches!(kind, LimitKind::Bucket { .. }));
                let (age_us, took_us) = if bucket { (0, 0) } else { (age_us, took_us) };
                let granted_at = now - Duration::from_micros(age_us.unsigned_abs());
                let mut anchored_at = granted_at + Duration::from_micros(took_us.unsigned_abs());
                // The local one looks at a calendar at once, the other when it is asked: apart for what is to come.
                if has(|kind| matches!(kind, LimitKind::Calendar { .. })) {
                    anchored_at = anchored_at.min(now);
                }
                let costs = spends.iter().map(|s| (s.key.clone(), s.limit.cost)).collect();
                let entry = Seed { permit: Permit { spends: costs, granted_at, epoch: 0 }, anchored_at };
                one.seed(now, all, std::slice::from_ref(&entry)).await.unwrap();
                other.seed(now, all, &[entry]).await.unwrap();
            }
        }
        let (ours, theirs) = (one.peek(now, all).await.unwrap(), other.peek(now, all).await.unwrap());
        prop_assert_eq!(ours, theirs, "after step {}: {:?}", i, step);
    }
    Ok(())
}

#[test]
fn the_local_and_the_redis_limiter_give_the_same_answers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Shared::start());
    let cases = std::env::var("TIDEGATE_SAME_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let config = ProptestConfig { cases, ..ProptestConfig::default() };
    let limits = prop::collection::vec(limit(), 1..5);
    let strategy = (limits, prop::collection::vec(step(), 1..120));
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&strategy, |(limits, steps)| runtime.block_on(play(&server, &spends(limits), &steps)));
    outcome.unwrap_or_else(|e| panic!("{e}"));
}

/// Hundreds of bursts in one window: clumps are joined, stamps come out of order, and both do it alike.
#[tokio::test]
async fn both_fold_a_crowded_window_the_same_way() {
    let server = Shared::start().await;
    let (one, other) = (LocalLimiter::new(0), server.limiter().await);
    let spends = [window("crowded", 5_000, Duration::from_secs(600))];
    let (mut dice, mut now, mut open) = (Dice(7), Timestamp::from_secs(1_790_000_000), Vec::new());
    let mut most = 0;
    for i in 0..900 {
        now = now + Duration::from_micros((dice.exponential(1.5) * 1e6) as u64);
        let asked = ask(&spends, 1 + (dice.roll() * 3.0) as u32);
        let ours = one.acquire(now, std::slice::from_ref(&asked)).await.unwrap().remove(0);
        let theirs = other.acquire(now, &[asked]).await.unwrap().remove(0);
        let Answer::Granted { count, .. } = ours else { panic!("5,000 are many") };
        open.push((granted(&ours, count), granted(&theirs, count), count));
        while open.len() > 3 {
            let (ours, theirs, count) = open.swap_remove((dice.roll() * open.len() as f64) as usize);
            one.settle(now, &[ended(&ours, count, true)]).await.unwrap();
            other.settle(now, &[ended(&theirs, count, true)]).await.unwrap();
        }
        if i % 40 == 0 {
            // A call that somebody else made, answered a while ago.
            let anchored_at = now - Duration::from_secs((dice.roll() * 300.0) as u64);
            let costs = [(spends[0].key.clone(), 1)].into();
            let entry = Seed { permit: Permit { spends: costs, granted_at: anchored_at, epoch: 0 }, anchored_at };
            one.seed(now, &spends, std::slice::from_ref(&entry)).await.unwrap();
            other.seed(now, &spends, &[entry]).await.unwrap();
        }
        if i % 10 == 0 {
            let ours = one.peek(now, &spends).await.unwrap();
            assert_eq!(ours, other.peek(now, &spends).await.unwrap(), "after {i}");
            most = most.max(ours[0].returns.len());
        }
    }
    assert_eq!(most, 130, "the clumps were never joined");
}

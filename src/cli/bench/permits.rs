//! Decisions of the shared limiter, three limits each: in batches, from many callers at once, and one at a time.
//!
//! `benches/limiter_redis.rs` looks closer. Next: `limiter/redis`.

use std::sync::Arc;
use std::time::Duration;

use super::super::exit::Error;
use super::ceilings::in_flight;
use super::servers::Servers;
use super::{Figure, percentiles};
use crate::clock::Clock;
use crate::limiter::redis::Settings;
use crate::limiter::{Acquire, Answer, Limiter, RedisLimiter, Settle, Spend};
use crate::model::call::LimitKey;
use crate::model::flow::Class;
use crate::model::name::LimitName;
use crate::model::provider::{Anchor, Limit, LimitKind, Reserve, Scope};

const ACCOUNTS: u64 = 10_000;
/// Requests of one gate's turn, and turns under way at one time.
const BATCH: usize = 32;
const DECISIONS: u64 = 60_000;
const ALONE: usize = 3_000;

fn limit(name: &str, kind: LimitKind) -> Arc<Limit> {
    let name = LimitName::new(name).expect("a word");
    Arc::new(Limit {
        name,
        kind,
        scope: Scope::Account,
        methods: Vec::new(),
        cost: 1,
        reserve: Reserve::default(),
        not_counted: Vec::new(),
        learned: false,
        cost_from: None,
        headers: None,
    })
}

fn requests() -> Vec<Acquire> {
    let window = |max, secs| LimitKind::Window { max, per: Duration::from_secs(secs), anchor: Anchor::Answer };
    let limits = [
        limit("core", window(5_000, 3_600)),
        limit("writes", window(80, 60)),
        limit("wire", LimitKind::Concurrency { max: 100 }),
    ];
    let spends = |account: u64| -> Arc<[Spend]> {
        let key = |l: &Arc<Limit>| LimitKey(Arc::from(format!("bench-permits/{}:3600s@account-{account}", l.name)));
        limits.iter().map(|l| Spend::new(key(l), l.clone())).collect()
    };
    let request =
        |n| Acquire { spends: spends(n * 7_919 % ACCOUNTS), min: 1, max: 1, class: Class::Normal, request: 0 };
    (0..ACCOUNTS).map(request).collect()
}

fn failed(e: crate::limiter::Error) -> Error {
    Error::failed(e.to_string())
}

fn ends(answers: &[Answer]) -> Vec<Settle> {
    let end = |answer: &Answer| match answer {
        Answer::Granted { permit, count } => Some(Settle::new(permit.clone(), *count, true)),
        Answer::Wait { .. } => None,
    };
    answers.iter().filter_map(end).collect()
}

pub async fn measure(servers: &Servers) -> Result<Vec<Figure>, Error> {
    let clock = Clock::system();
    let limiter = RedisLimiter::connect(&servers.redis_url, clock.clone(), Settings::default()).map_err(failed)?;
    let (_, run_id) = limiter.next_connection(0).await.map_err(failed)?;
    limiter.trust(&run_id, 1);
    limiter.rebuild(clock.steady(), "bench-permits", &[]).await.map_err(failed)?;
    let (limiter, requests) = (Arc::new(limiter), Arc::new(requests()));
    let mut figures = Vec::new();

    // Once over all accounts first, so that no limit is new.
    let (mut took, mut decided) = (Duration::ZERO, 0);
    for round in 0..=DECISIONS / ACCOUNTS {
        let mut settles = Vec::new();
        for pair in requests.chunks(2 * BATCH) {
            let (one, two) = pair.split_at(BATCH.min(pair.len()));
            let started = clock.steady();
            let (one, two) =
                tokio::try_join!(limiter.acquire(started, one), limiter.acquire(started, two)).map_err(failed)?;
            if round > 0 {
                took += clock.steady().since(started);
                decided += (one.len() + two.len()) as u64;
            }
            settles.extend(ends(&one).into_iter().chain(ends(&two)));
        }
        for part in settles.chunks(BATCH) {
            limiter.settle(clock.steady(), part).await.map_err(failed)?;
        }
    }
    figures.push(Figure::rate("permits: decisions over 3 limits, batches of 32, 2 under way", decided, took));

    let (shared, asked, now) = (limiter.clone(), requests.clone(), clock.clone());
    let took = in_flight(DECISIONS, move |n| {
        let (limiter, requests, clock) = (shared.clone(), asked.clone(), now.clone());
        async move {
            let request = &requests[n as usize % requests.len()];
            limiter.acquire(clock.steady(), std::slice::from_ref(request)).await.map(drop).map_err(failed)
        }
    })
    .await?;
    figures.push(Figure::rate("permits: decisions over 3 limits, 64 callers", DECISIONS, took));

    let mut times = Vec::with_capacity(ALONE);
    for request in requests.iter().take(ALONE) {
        let started = clock.steady();
        limiter.acquire(started, std::slice::from_ref(request)).await.map_err(failed)?;
        times.push(clock.steady().since(started));
    }
    let (p50, p99) = percentiles(times);
    figures.push(Figure::new("permits: one at a time: p50", p50, "ms"));
    figures.push(Figure::new("permits: one at a time: p99", p99, "ms"));
    Ok(figures)
}

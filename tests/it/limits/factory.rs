//! Makes limiters and what they are asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::clock::{Clock, Timestamp};
use tidegate::limiter::redis::Settings;
use tidegate::limiter::{Acquire, Answer, Error, LimitView, Limiter, LocalLimiter, RedisLimiter, Seed, Settle, Spend};
use tidegate::model::call::{LimitKey, Permit};
use tidegate::model::flow::Class;
use tidegate::model::name::LimitName;
use tidegate::model::provider::{Anchor, Limit, LimitKind, Reserve, Scope};

use crate::support::process::until;
use crate::support::redis::RedisServer;

pub fn spend(name: &str, kind: LimitKind) -> Spend {
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

pub fn window(name: &str, max: u32, per: Duration) -> Spend {
    spend(name, LimitKind::Window { max, per, anchor: Anchor::Answer })
}

pub fn wire(name: &str, max: u32) -> Spend {
    spend(name, LimitKind::Concurrency { max })
}

pub fn ask(spends: &[Spend], max: u32) -> Acquire {
    Acquire { spends: spends.into(), min: 1, max, class: Class::Normal, request: 0 }
}

pub fn ended(permit: &Permit, count: u32, sent: bool) -> Settle {
    Settle::new(permit.clone(), count, sent)
}

/// The permit of `count` calls.
#[track_caller]
pub fn granted(answer: &Answer, count: u32) -> Permit {
    match answer {
        Answer::Granted { count: got, permit } => {
            assert_eq!(*got, count);
            permit.clone()
        }
        wait => panic!("expected {count}, got {wait:?}"),
    }
}

pub fn local() -> Arc<dyn Limiter> {
    Arc::new(LocalLimiter::new(1))
}

/// A server whose limiters take the caller's time, each with a fresh start.
pub struct Shared {
    pub server: RedisServer,
    epoch: AtomicI64,
}

impl Shared {
    pub async fn start() -> Shared {
        Shared { server: RedisServer::start().await, epoch: AtomicI64::new(0) }
    }

    pub async fn limiter(&self) -> Merging {
        let settings = Settings { in_flight_max: Duration::from_secs(300_000_000), ..Settings::default() };
        let limiter = RedisLimiter::connect(&self.server.url(), Clock::system(), settings).unwrap().on_callers_time();
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        trust(&limiter, epoch).await;
        limiter.rebuild(Timestamp::from_secs(1_000), "p", &[]).await.unwrap();
        Merging { limiter }
    }
}

/// Once the server is there, its process is trusted under this epoch.
pub async fn trust(limiter: &RedisLimiter, epoch: i64) {
    let run_id = async || limiter.run_id().await.ok();
    let run_id = until(Duration::from_secs(20), run_id).await.expect("the server is there");
    limiter.trust(&run_id, epoch);
}

/// Takes what it is seeded with as an addition, as a local limiter does.
#[derive(Debug)]
pub struct Merging {
    pub limiter: RedisLimiter,
}

#[async_trait]
impl Limiter for Merging {
    async fn acquire(&self, now: Timestamp, requests: &[Acquire]) -> Result<Vec<Answer>, Error> {
        self.limiter.acquire(now, requests).await
    }
    async fn settle(&self, now: Timestamp, settles: &[Settle]) -> Result<(), Error> {
        self.limiter.settle(now, settles).await
    }
    async fn seed(&self, now: Timestamp, _: &[Spend], entries: &[Seed]) -> Result<(), Error> {
        self.limiter.merge(now, "p", entries).await
    }
    async fn peek(&self, now: Timestamp, spends: &[Spend]) -> Result<Vec<LimitView>, Error> {
        self.limiter.peek(now, spends).await
    }
    fn epoch(&self) -> i64 {
        self.limiter.epoch()
    }
}

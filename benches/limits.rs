//! What one decision of the local limiter costs: three limits of 10,000 accounts, granted and settled.
//!
//! `cargo bench --bench limits` prints `name value unit` lines, beside the floor of the same loop without a limiter.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::clock::Timestamp;
use tidegate::limiter::{Acquire, Answer, LocalLimiter, Settle, Spend};
use tidegate::model::call::LimitKey;
use tidegate::model::flow::Class;
use tidegate::model::name::LimitName;
use tidegate::model::provider::{Anchor, Limit, LimitKind, Reserve, Scope};

const ACCOUNTS: usize = 10_000;
const ROUNDS: usize = 100;

fn limit(name: &str, kind: LimitKind) -> Arc<Limit> {
    let (name, reserve) = (LimitName::new(name).expect("a word"), Reserve { urgent: 1, normal: 1 });
    Arc::new(Limit { name, kind, scope: Scope::Account, methods: Vec::new(), cost: 1, reserve })
}

fn requests() -> Vec<Acquire> {
    let window = |max, secs| LimitKind::Window { max, per: Duration::from_secs(secs), anchor: Anchor::Answer };
    let limits = [
        limit("core", window(5_000, 3_600)),
        limit("writes", window(80, 60)),
        limit("wire", LimitKind::Concurrency { max: 100 }),
    ];
    let spends = |account: usize| -> Arc<[Spend]> {
        let key = |l: &Arc<Limit>| LimitKey(Arc::from(format!("github/{}:3600s@account-{account}", l.name)));
        limits.iter().map(|l| Spend { key: key(l), limit: l.clone() }).collect()
    };
    let request = |account| Acquire { spends: spends(account), min: 1, max: 1, class: Class::Normal, request: 0 };
    // In an order that the processor cannot foresee.
    (0..ACCOUNTS).map(|i| request(i * 7_919 % ACCOUNTS)).collect()
}

/// Nanoseconds per turn of `work`, over all accounts and rounds.
fn measure(requests: &[Acquire], mut work: impl FnMut(Timestamp, &Acquire)) -> f64 {
    let mut now = Timestamp::from_secs(1_790_000_000);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        for request in requests {
            now = now + Duration::from_micros(100);
            work(now, request);
        }
    }
    start.elapsed().as_nanos() as f64 / (ROUNDS * requests.len()) as f64
}

fn main() {
    let requests = requests();
    let floor = measure(&requests, |now, request| {
        black_box((now, request));
    });
    println!("limits.loop_floor {floor:.1} ns");

    let limiter = LocalLimiter::new(0);
    let both = measure(&requests, |now, request| {
        if let Answer::Granted { permit, count } = limiter.decide(now, request) {
            let settle = Settle { permit, count, sent: true, blocked_until: None, blocked_limit: None };
            limiter.finish(now + Duration::from_micros(20), &settle);
        }
    });
    println!("limits.decide_and_settle_3_limits_10000_keys {both:.1} ns");

    let limiter = LocalLimiter::new(0);
    let mut open = Vec::with_capacity(ROUNDS * requests.len());
    let decide = measure(&requests, |now, request| open.push(limiter.decide(now, request)));
    println!("limits.decide_3_limits_10000_keys {decide:.1} ns");
    println!("limits.held {} limits", limiter.len());
}

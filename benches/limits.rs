//! What one decision of the local limiter costs: three limits of 10,000 accounts, granted and settled.
//!
//! `cargo bench --bench limits` prints `name value unit` lines, beside the floor of the same loop without a limiter.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

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
    Arc::new(Limit {
        name,
        kind,
        scope: Scope::Account,
        methods: Vec::new(),
        cost: 1,
        reserve,
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
    let spends = |account: usize| -> Arc<[Spend]> {
        let key = |l: &Arc<Limit>| LimitKey(Arc::from(format!("github/{}:3600s@account-{account}", l.name)));
        limits.iter().map(|l| Spend::new(key(l), l.clone())).collect()
    };
    let request = |account| Acquire { spends: spends(account), min: 1, max: 1, class: Class::Normal, request: 0 };
    // In an order that the processor cannot foresee.
    (0..ACCOUNTS).map(|i| request(i * 7_919 % ACCOUNTS)).collect()
}

/// Processor time of this thread: a busy machine does not make a decision dearer.
fn cpu_ns() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

fn main() {
    let requests = requests();
    let limiter = LocalLimiter::new(0);
    let mut now = Timestamp::from_secs(1_790_000_000);
    let (mut floor, mut decide, mut settle, mut granted) = (0.0, 0.0, 0.0, 0u64);
    let mut answers = Vec::with_capacity(ACCOUNTS);
    for _ in 0..ROUNDS {
        let start = cpu_ns();
        for request in &requests {
            now = now + Duration::from_micros(100);
            black_box((now, request));
        }
        floor += cpu_ns() - start;

        let start = cpu_ns();
        for request in &requests {
            now = now + Duration::from_micros(100);
            answers.push(limiter.decide(now, request));
        }
        decide += cpu_ns() - start;

        let start = cpu_ns();
        for answer in answers.drain(..) {
            now = now + Duration::from_micros(100);
            if let Answer::Granted { permit, count } = answer {
                granted += 1;
                let settle = Settle::new(permit, count, true);
                limiter.finish(now, &settle);
            }
        }
        settle += cpu_ns() - start;
    }
    let each = (ROUNDS * ACCOUNTS) as f64;
    println!("limits.loop_floor {:.1} ns", floor / each);
    println!("limits.decide_3_limits_10000_keys {:.1} ns", decide / each);
    println!("limits.settle_3_limits_10000_keys {:.1} ns", settle / each);
    println!("limits.granted {:.1} %", granted as f64 * 100.0 / each);
    println!("limits.held {} limits", limiter.len());
}

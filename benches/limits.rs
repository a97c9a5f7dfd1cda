//! What one decision of the local limiter costs: three limits of 10,000 accounts, granted and settled.
//!
//! `cargo bench --bench limits` prints `name value unit` lines, beside the floor of the same loop without a limiter.

use std::hint::black_box;
use std::time::Duration;

use tidegate::cli::bench::accounts::{ACCOUNTS, requests};
use tidegate::clock::Timestamp;
use tidegate::limiter::{Answer, LocalLimiter, Settle};

const ROUNDS: usize = 100;

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

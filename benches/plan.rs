//! How long updates wait under two lanes: 50 batches of 1,000 and 3,600 singles an hour, in virtual time; and what a
//! turn costs among many (`plan/turns.rs`).
//!
//! `cargo bench --bench plan` prints the table of docs/limits.md for the tide rule, "batch when full" and "linger", as
//! `name value unit` lines. The limits and the rule are the real ones; the world around them is `plan/world.rs`, which
//! the tests use as well. Must never know: wall time.

#[path = "../tests/it/limits/world.rs"]
mod world;

#[path = "plan/turns.rs"]
mod turns;

use world::{Load, Policy, World};

fn main() {
    turns::print();
    let loads = [
        ("40000/h", Load::steady(40_000.0, 4.0)),
        ("52000/h", Load::steady(52_000.0, 4.0)),
        ("12000/h", Load::steady(12_000.0, 4.0)),
        ("3000/h", Load::steady(3_000.0, 4.0)),
        ("burst-20000", Load::burst(0.0, 20_000)),
        ("burst-20000+20000/h", Load::burst(600.0, 20_000).and(Load::steady(20_000.0, 3.0))),
        ("2500-each-5min", Load::repeated(300.0, 2_500, 4.0)),
    ];
    for seed in [11, 1, 2, 3, 4] {
        let done = World::new(Policy::Tide, &Load::seeded(seed, 52_000.0, 4.0)).run();
        println!("plan.52000/h.seed-{seed}.wait_mean {:.1} s", done.mean());
        println!("plan.52000/h.seed-{seed}.wait_p99 {:.1} s", done.quantile(0.99));
    }
    let policies = [
        ("tide", Policy::Tide),
        ("batch-when-full", Policy::WhenFull),
        ("linger-10s", Policy::Linger(10.0)),
        ("linger-90s", Policy::Linger(90.0)),
    ];
    for (load_name, load) in &loads {
        for (policy_name, policy) in policies {
            let done = World::new(policy, load).run();
            let line = |what: &str, value: f64, unit: &str| {
                println!("plan.{load_name}.{policy_name}.{what} {value:.1} {unit}");
            };
            line("wait_mean", done.mean(), "s");
            line("wait_p99", done.quantile(0.99), "s");
            line("batches", done.batches_per_hour(), "1/h");
            line("singles", done.singles_per_hour(), "1/h");
            line("decisions", done.decisions as f64 / done.jobs() as f64, "1/job");
        }
    }
}

//! The tide rule in virtual time: waiting times near the reference figures, and both budgets used up when needed.

use std::time::Duration;

use super::guarantee::most_in_any_window;
use super::world::{Load, Policy, World, window};

#[track_caller]
fn check(load: Load, mean_max: f64, p99_max: f64) {
    let done = World::new(Policy::Tide, &load).run();
    let (mean, p99) = (done.mean(), done.quantile(0.99));
    assert!(mean <= mean_max && p99 <= p99_max, "mean {mean:.1} s, p99 {p99:.1} s");
    for (times, n) in [(&done.batch_at, 50), (&done.single_at, 3_600)] {
        assert!(most_in_any_window(times, 3_600_000_000) <= n);
    }
    assert!(done.idle_wakes * 5 <= done.decisions, "{} idle of {}", done.idle_wakes, done.decisions);
}

#[test]
fn at_three_quarters_of_the_capacity_a_job_waits_half_an_interval() {
    check(Load::steady(40_000.0, 2.0), 36.0, 80.0);
}

#[test]
fn near_the_capacity_waiting_stays_short() {
    check(Load::steady(52_000.0, 4.0), 45.0, 130.0);
}

/// The reference's figure of 82 s is that of one sequence of arrivals; its own rule gives 70 to 82 s with others.
#[test]
fn near_the_capacity_the_longest_waits_hang_on_the_arrivals() {
    for seed in [11, 1, 2, 3, 4] {
        let load = Load::seeded(seed, 52_000.0, 4.0);
        let done = World::new(Policy::Tide, &load).run();
        let (jobs, mean, p99) = (done.jobs(), done.mean(), done.quantile(0.99));
        println!("seed {seed}: {jobs} jobs, mean {mean:.1} s, p99 {p99:.1} s");
        assert!(mean <= 45.0 && p99 <= 130.0, "seed {seed}: mean {mean:.1} s, p99 {p99:.1} s");
    }
}

#[test]
fn what_singles_can_carry_leaves_at_once() {
    check(Load::steady(3_000.0, 2.0), 0.1, 0.2);
}

#[test]
fn a_burst_leaves_at_once_and_does_not_stall_what_follows() {
    check(Load::burst(600.0, 20_000).and(Load::steady(20_000.0, 2.0)), 40.0, 150.0);
}

#[test]
fn saturated_lanes_both_use_their_whole_budget() {
    let minute = Duration::from_secs(60);
    let load = Load::burst(0.0, 53_600 * 4);
    let world = World::with(Policy::Tide, &load, window("batch", 50, minute), window("single", 3_600, minute));
    let done = world.run();
    let first = done.batch_at[0];
    for (what, times, n) in [("batches", &done.batch_at, 50), ("singles", &done.single_at, 3_600)] {
        // Three windows after the first; the last may be short of work.
        let counted = times.iter().filter(|&&t| t >= first + 60_000_000 && t < first + 180_000_000).count();
        assert!(counted * 100 >= 2 * n * 99, "{counted} {what} in two windows of {n}");
        assert!(most_in_any_window(times, 60_000_000) <= n);
    }
}

#[test]
fn the_rule_is_the_same_with_windows_of_a_minute() {
    let minute = Duration::from_secs(60);
    let load = Load::steady(40_000.0, 2.0).faster(60.0);
    let world = World::with(Policy::Tide, &load, window("batch", 50, minute), window("single", 3_600, minute));
    let done = world.run();
    assert!(done.mean() <= 0.65 && done.quantile(0.99) <= 1.6, "{:.2} {:.2}", done.mean(), done.quantile(0.99));
}

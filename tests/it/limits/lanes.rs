//! The tide rule where lanes are not the usual two: one limit over both, one lane only, no limits, a reserve.

use std::sync::Arc;
use std::time::Duration;

use tidegate::limiter::Spend;
use tidegate::model::flow::Class;

use super::guarantee::most_in_any_window;
use super::world::{Done, Load, Policy, World, reserved, window};

const HOUR: Duration = Duration::from_secs(3_600);
const HOUR_US: i64 = 3_600_000_000;

fn spends<const N: usize>(spends: [Spend; N]) -> Option<Arc<[Spend]>> {
    Some(Arc::from(spends))
}

/// All calls of both lanes, in order.
fn calls(done: &Done) -> Vec<i64> {
    let mut calls = [done.batch_at.as_slice(), done.single_at.as_slice()].concat();
    calls.sort_unstable();
    calls
}

fn run(load: &Load, batch: Option<Arc<[Spend]>>, single: Option<Arc<[Spend]>>) -> Done {
    let done = World::lanes(Policy::Tide, load, batch, single).run();
    assert!(done.idle_wakes * 5 <= done.decisions, "{} idle of {}", done.idle_wakes, done.decisions);
    done
}

#[test]
fn under_one_limit_for_both_lanes_jobs_go_in_batches_and_a_lone_one_singly() {
    let core = || window("core", 60, HOUR);
    // 20,000 an hour fit into 60 calls only by batches.
    let done = run(&Load::steady(20_000.0, 3.0), spends([core()]), spends([core()]));
    assert!(most_in_any_window(&calls(&done), HOUR_US) <= 60);
    assert!(done.mean() <= 60.0 && done.quantile(0.99) <= 130.0, "{:.0} {:.0}", done.mean(), done.quantile(0.99));
    assert!(done.singles * 10 <= done.batches, "{} singles beside {} batches", done.singles, done.batches);
    // 30 an hour need no batches, and none of them waits.
    let done = run(&Load::steady(30.0, 10.0), spends([core()]), spends([core()]));
    assert_eq!(done.batches, 0);
    assert!(done.quantile(0.99) <= 1.0, "{:.1}", done.quantile(0.99));
}

#[test]
fn a_shared_limit_beside_lanes_of_their_own_is_never_exceeded_and_is_used() {
    let core = || window("core", 2_000, HOUR);
    let batch = spends([core(), window("batch", 50, HOUR)]);
    let single = spends([core(), window("single", 3_600, HOUR)]);
    let done = run(&Load::burst(0.0, 160_000), batch, single);
    assert!(most_in_any_window(&calls(&done), HOUR_US) <= 2_000);
    assert!(most_in_any_window(&done.batch_at, HOUR_US) <= 50);
    let first = calls(&done)[0];
    let second_hour = |times: &[i64]| times.iter().filter(|t| (HOUR_US..2 * HOUR_US).contains(&(**t - first))).count();
    let (batches, singles) = (second_hour(&done.batch_at), second_hour(&done.single_at));
    assert!(batches >= 49, "{batches} batches of 50: they move the most");
    assert!(batches + singles >= 1_980, "{batches} batches and {singles} singles of 2,000 calls");
}

#[test]
fn without_limits_everything_leaves_at_once() {
    let none = || Some(Arc::from([]));
    let done = run(&Load::burst(1.0, 30_500), none(), none());
    assert!(done.quantile(1.0 - 1e-9) <= 0.05, "a rest goes when the last batch is answered");
    assert!(done.batches <= 31 && done.singles <= 1, "{} batches, {} singles", done.batches, done.singles);
    let done = run(&Load::steady(36_000.0, 0.1), none(), none());
    assert!(done.quantile(1.0 - 1e-9) <= 0.051, "no longer than a batch is on the wire");
}

#[test]
fn batches_alone_are_spaced_and_full_ones_leave_at_once() {
    let batch = || spends([window("batch", 50, HOUR)]);
    let done = run(&Load::steady(3_000.0, 4.0), batch(), None);
    assert!(done.mean() <= 45.0 && done.quantile(0.99) <= 80.0, "{:.0} {:.0}", done.mean(), done.quantile(0.99));
    assert!(most_in_any_window(&done.batch_at, HOUR_US) <= 50);
    let done = run(&Load::burst(0.0, 50_000), batch(), None);
    assert_eq!((done.batches, done.singles), (50, 0));
    assert!(done.quantile(1.0 - 1e-9) <= 0.001, "fifty full batches need no pacing");
}

#[test]
fn singles_alone_go_as_fast_as_they_may() {
    let single = || spends([window("single", 3_600, HOUR)]);
    let done = run(&Load::burst(0.0, 9_000), None, single());
    assert!(most_in_any_window(&done.single_at, HOUR_US) <= 3_600);
    assert_eq!(done.singles, 9_000);
    let last = *done.single_at.last().unwrap() - done.single_at[0];
    assert!(last <= 2 * HOUR_US + HOUR_US / 50, "two windows and the answers' time, got {last} us");
}

#[test]
fn urgent_jobs_find_their_reserve_in_both_lanes_when_everything_is_used_up() {
    let batch = || spends([reserved("batch", 50, HOUR, 2)]);
    let single = || spends([reserved("single", 3_600, HOUR, 60)]);
    // Both lanes are worked to their limits all the time; one urgent job comes a minute, and a batchful at once.
    let flood = Load::burst(0.0, 200_000);
    let urgent = Load::steady(55.0, 3.0).of(Class::Urgent);
    let done = run(&flood.clone().and(urgent), batch(), single());
    assert!(done.urgent_most() <= 0.1, "an urgent job waited {:.1} s", done.urgent_most());
    assert!(done.urgent.len() > 100);
    let many = Load::burst(1_800.0, 1_500).of(Class::Urgent);
    let done = run(&flood.and(many), batch(), single());
    assert!(done.urgent_most() <= 1.0, "sixty go singly, the rest in reserved batches: {:.1} s", done.urgent_most());
    assert!(most_in_any_window(&done.batch_at, HOUR_US) <= 50 && most_in_any_window(&done.single_at, HOUR_US) <= 3_600);
}

#[test]
fn others_never_touch_the_reserve() {
    let batch = spends([reserved("batch", 50, HOUR, 2)]);
    let single = spends([reserved("single", 3_600, HOUR, 60)]);
    let done = run(&Load::burst(0.0, 150_000), batch, single);
    assert!(most_in_any_window(&done.batch_at, HOUR_US) <= 48);
    assert!(most_in_any_window(&done.single_at, HOUR_US) <= 3_540);
}

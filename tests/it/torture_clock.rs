//! A daemon that stands still while the world goes on, and one whose clock is set back and forth. Under the same load,
//! and judged by the same checker, as the kills of `torture.rs`.
//!
//! Short by default; `TIDEGATE_TORTURE_ROUNDS` of more than 15 makes them long, one freeze beyond a call's lease among
//! them. `TIDEGATE_TORTURE_SEED` replays the choice of moments.

use std::path::Path;
use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::simulator::dice::Dice;

use crate::support::checker::check;
use crate::support::history::Entry;
use crate::support::left_out;
use crate::support::load::Load;
use crate::support::process::{Daemon, Place};
use crate::torture::{between, conclude, declaration, gather, judge, number, provider};

const LOAD: f64 = 200.0;
/// More events than their limit lets through: a window that a step freed too early would be filled again at once.
const OVERLOAD: f64 = 450.0;
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// How long the daemon runs between two troubles.
const RUN_MS: (u64, u64) = (200, 900);
/// How long it stands still: from a hiccup to more than its calls may take (5 s).
const FROZEN_MS: [(u64, u64); 3] = [(20, 300), (1_000, 2_500), (5_200, 6_000)];
/// Beyond the lease of a call that began just before: 5 s and the margin of 10 s.
const BEYOND_THE_LEASE: Duration = Duration::from_secs(17);

fn rounds() -> (u64, bool) {
    let kills = number("TIDEGATE_TORTURE_ROUNDS", 15);
    ((kills / 5).max(1), kills > 15)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_frozen_for_a_while_breaks_no_promise() {
    let ((rounds, long), seed) = (rounds(), number("TIDEGATE_TORTURE_SEED", 1));
    let (folder, mut dice) = (tempfile::tempdir().unwrap(), Dice::new(seed));
    let provider = provider(folder.path(), &["--errors", "0.01", "--resets", "0.02"]).await;
    let place = Place::new(folder.path(), folder.path(), &declaration(&provider.base_url));
    let daemon = place.start().await;
    let load = Load::start(seed, LOAD);
    load.daemon(Some(daemon.channel()));
    for round in 0..rounds {
        tokio::time::sleep(between(RUN_MS, &mut dice)).await;
        daemon.freeze().await;
        let frozen = FROZEN_MS[(round % FROZEN_MS.len() as u64) as usize];
        let frozen = if long && round == 3 { BEYOND_THE_LEASE } else { between(frozen, &mut dice) };
        tokio::time::sleep(frozen).await;
        daemon.thaw().await;
    }
    tokio::time::sleep(between(RUN_MS, &mut dice)).await;
    let entries = load.stop().await;
    let (findings, report) = judge(folder.path(), daemon, provider, entries, DRAIN_MAX).await;
    assert!(findings.acked > 100 && findings.taken > 50, "hardly any load: {findings}");
    conclude(folder, &findings, &report, seed);
}

/// The library that fakes a process's clock, where Debian puts it.
pub fn libfaketime() -> Option<&'static str> {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ];
    places.into_iter().find(|path| Path::new(path).exists())
}

/// Sets the daemon's wall clock so many seconds off. The steady clocks stay: no system call moves those.
pub fn step(file: &Path, seconds: i64) {
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, format!("{seconds:+}\n")).unwrap();
    // Never half a file.
    std::fs::rename(fresh, file).unwrap();
}

/// The environment of a process whose wall clock is set by this file.
pub fn faked_clock(library: &str, file: &Path) -> Vec<(String, String)> {
    step(file, 0);
    let env = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What the daemon takes for now, in seconds off ours.
async fn off(daemon: &Daemon) -> i64 {
    use tidegate::grpc::pb;
    let mut admin = pb::admin_service_client::AdminServiceClient::new(daemon.channel());
    let told = admin.get_daemon(pb::GetDaemonRequest {}).await.unwrap().into_inner().daemon.unwrap();
    told.time.unwrap().seconds - Clock::system().now().0 / 1_000_000
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_under_load_breaks_no_promise() {
    let Some(library) = libfaketime() else {
        return left_out("clock steps, as libfaketime is not installed");
    };
    let ((rounds, _), seed) = (rounds(), number("TIDEGATE_TORTURE_SEED", 1));
    let (folder, mut dice) = (tempfile::tempdir().unwrap(), Dice::new(seed));
    let provider = provider(folder.path(), &["--errors", "0.01", "--resets", "0.02"]).await;
    let mut place = Place::new(folder.path(), folder.path(), &declaration(&provider.base_url));
    let faked = folder.path().join("faketime");
    place.env = faked_clock(library, &faked);
    let daemon = place.start().await;
    let load = Load::start(seed, OVERLOAD);
    load.daemon(Some(daemon.channel()));
    // What was drawn under a clock that was ahead would be due in an hour, so it ends ahead.
    for seconds in [-3_600, 0].repeat(rounds as usize).into_iter().chain([3_600]) {
        tokio::time::sleep(between(RUN_MS, &mut dice)).await;
        step(&faked, seconds);
        let seen = off(&daemon).await;
        assert!((seen - seconds).abs() <= 2, "the step did not reach the daemon: {seen} in place of {seconds}");
    }
    tokio::time::sleep(between(RUN_MS, &mut dice)).await;
    let entries = load.stop().await;
    let (mut history, report) = gather(folder.path(), daemon, provider, entries, DRAIN_MAX).await;
    // Written down by a clock that was wrong: they say nothing beside the times of arrivals.
    for entry in &mut history.entries {
        if let Entry::Job(row) = entry {
            row.finished_at_us = None;
        }
    }
    let findings = check(&history);
    assert!(findings.acked > 100 && findings.taken > 50, "hardly any load: {findings}");
    conclude(folder, &findings, &report, seed);
}

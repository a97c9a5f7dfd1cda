//! `examples/user-sync`: both lanes to the last call, nothing refused, lost, sent twice or sent for nothing.

use std::collections::{BTreeMap, BTreeSet};

use tidegate::simulator::Arrival;

use super::{arrivals, plain};
use crate::readme::{Ran, run};

/// The example's hour.
const HOUR_US: i64 = 20_000_000;
const LIMITS: [(&str, usize); 2] = [("batch", 50), ("single", 3_600)];
/// On a quiet machine 99 % and more are used (what it was is printed). One that other tests keep busy loses moments, and a
/// second is 5 % of this hour. The figure for long windows is `saturation.rs`'s.
const USED_MIN: f64 = 0.95;
/// Jobs of the run.
const EVERYBODY: usize = 70_000;

/// A record of a call: the call, its id and version, and whether the provider took it.
type Sent<'a> = (&'a Arrival, &'a str, Option<i64>, bool);

fn records(arrivals: &[Arrival]) -> impl Iterator<Item = Sent<'_>> {
    arrivals.iter().flat_map(|arrival| {
        let version = |at: usize| arrival.versions.get(at).copied().flatten();
        let ids = arrival.records.iter().enumerate();
        ids.map(move |(at, id)| (arrival, id.as_str(), version(at), arrival.took(at)))
    })
}

#[test]
fn user_sync_uses_up_both_lanes_and_loses_nothing() {
    let Ran { folder, said } = run("examples/user-sync/README.md", &[]);
    let (said, arrivals) = (plain(&said), arrivals(folder.path(), "arrivals.jsonl"));
    // An unchanged save, and a change that nobody watches.
    assert_eq!(said.matches("changed ada version").count(), 3, "{said}");
    assert!(said.contains("\nunchanged ada version 1\n") && said.contains("\nchanged ada version 2\n"), "{said}");
    assert_eq!(records(&arrivals).filter(|(_, id, _, took)| *id == "ada" && *took).count(), 1);
    assert!(said.contains("40000 changes were saved") && said.contains("70,000 delivered"), "{said}");

    assert!(arrivals.iter().all(|a| a.status == 200 || a.status == 422), "no call is refused for a limit");
    for (limit, max) in LIMITS {
        let times: Vec<i64> =
            arrivals.iter().filter(|a| a.limits.iter().any(|l| l == limit)).map(|a| a.at_us).collect();
        let within = |(i, from): (usize, &i64)| times[i..].partition_point(|at| *at < from + HOUR_US);
        let most = times.iter().enumerate().map(within).max().unwrap();
        assert!(most <= max, "{limit}: {most} in an hour of {max}");
    }
    let logged = std::fs::read_to_string(folder.path().join("calls.jsonl")).unwrap();
    assert_eq!(logged.lines().count(), arrivals.len(), "the call log has every call");
    used_up(&arrivals, &said);
    nothing_lost(&arrivals, folder.path());
    failed_alone(&arrivals, &said);
}

/// From the first call of the run an hour long there was more work than quota.
fn used_up(arrivals: &[Arrival], said: &str) {
    let of_the_run = |a: &&Arrival| a.records.iter().any(|id| id.starts_with("all-"));
    let from = arrivals.iter().find(of_the_run).unwrap().at_us;
    let last = arrivals.iter().rfind(of_the_run).unwrap().at_us;
    assert!(last >= from + HOUR_US, "the run was to take more than an hour");
    for (limit, max) in LIMITS {
        let counted = |a: &&Arrival| a.limits.iter().any(|l| l == limit) && (from..from + HOUR_US).contains(&a.at_us);
        let used = arrivals.iter().filter(counted).count();
        eprintln!("{limit}: {used} of {max} used");
        // The call at the edge of what is counted may fall to either side.
        assert!((used + 1) as f64 >= USED_MIN * max as f64, "{limit}: {used} of {max} were used while work waited");
    }
    // Used, on the wire, free, and of how many: the columns of `tidegate limits list`.
    let listed = said.lines().rfind(|line| line.starts_with("marketing/single 3600/20s ")).unwrap();
    let counts: Vec<u64> = listed.split(' ').skip(2).take(4).map(|n| n.replace(',', "").parse().unwrap()).collect();
    assert_eq!((counts[0] + counts[1] + counts[2], counts[3]), (3_600, 3_600), "{listed}");
}

/// The last state of every user arrived, and every job of the run did.
fn nothing_lost(arrivals: &[Arrival], folder: &std::path::Path) {
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    let mut taken: BTreeMap<(&str, Option<i64>), usize> = BTreeMap::new();
    for (_, id, version, _) in records(arrivals).filter(|(.., took)| *took) {
        *taken.entry((id, version)).or_default() += 1;
        if let Some(version) = version {
            let known = newest.entry(id).or_insert(version);
            assert!(*known <= version, "{id}: {version} came after {known}");
            *known = version;
        }
    }
    let twice: Vec<_> = taken.iter().filter(|(_, times)| **times > 1).take(5).collect();
    assert!(twice.is_empty(), "taken more than once: {twice:?}");
    let everybody: BTreeSet<&str> = taken.keys().map(|(id, _)| *id).filter(|id| id.starts_with("all-")).collect();
    assert_eq!(everybody.len(), EVERYBODY);
    let saved = std::fs::read_to_string(folder.join("users.jsonl")).unwrap();
    let mut users = 0;
    for line in saved.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let data = &record["data"];
        let data: serde_json::Value = data.as_str().map_or_else(|| data.clone(), |d| serde_json::from_str(d).unwrap());
        let (id, revision) = (data["id"].as_str().unwrap(), data["revision"].as_i64());
        if let Some(revision) = revision {
            users += 1;
            assert_eq!(newest.get(id), Some(&revision), "the last state of {id} did not arrive");
        }
    }
    assert!(users > 15_000, "{users} users were to be compared");
}

/// A record that failed went again, and those that were with it did not.
fn failed_alone(arrivals: &[Arrival], said: &str) {
    let in_batches = records(arrivals).filter(|(a, _, _, took)| a.limits.iter().any(|l| l == "batch") && !took);
    let failed: Vec<(i64, &str, Option<i64>)> = in_batches.map(|(a, id, version, _)| (a.at_us, id, version)).collect();
    assert!(failed.len() > 50, "{} records failed within batches", failed.len());
    let mut sent: BTreeMap<&str, Vec<(i64, Option<i64>)>> = BTreeMap::new();
    for (arrival, id, version, _) in records(arrivals) {
        sent.entry(id).or_default().push((arrival.at_us, version));
    }
    for (at, id, version) in failed {
        // The same change, or a newer one that took its place while it waited.
        let again = sent[id].iter().any(|(later, newer)| *later > at && *newer >= version);
        assert!(again, "{id} failed at {at} and did not go again");
    }
    assert!(said.contains("\nstate delivered\n") && said.contains("\nattempts 2\n"), "{said}");
    assert!(said.contains("\nno jobs\n"), "no job gave up: {said}");
}

//! `examples/user-sync`: both lanes to the last call, nothing refused, lost, sent twice or sent for nothing; on SQLite and on
//! PostgreSQL and Redis.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidegate::simulator::Arrival;

use super::{arrivals, on_servers, plain};
use crate::readme::{Ran, run};

/// The example's hour.
const HOUR_US: i64 = 60_000_000;
/// Name, calls in an hour, and as the limit is shown.
const LIMITS: [(&str, usize, &str); 2] =
    [("batch", 50, "marketing/batch 50/1m "), ("single", 3_600, "marketing/single 3600/1m ")];
/// Of a window of a minute. Shorter ones lose more: the time of a call and what a busy machine dozes are a part of them.
const USED_MIN: f64 = 0.99;
/// Later than it arrived a call may count: by its answer, and by the others that are freed with it.
const COUNTED_LATE_US: i64 = 1_500_000;
/// Changes of the application.
const CHANGES: i64 = 40_000;
/// Jobs of the run.
const EVERYBODY: usize = 45_000;

/// A record of a call: the call, its id and version, and whether the provider took it.
type Sent<'a> = (&'a Arrival, &'a str, Option<i64>, bool);

fn records(arrivals: &[Arrival]) -> impl Iterator<Item = Sent<'_>> {
    arrivals.iter().flat_map(|arrival| {
        let version = |at: usize| arrival.versions.get(at).copied().flatten();
        let ids = arrival.records.iter().enumerate();
        ids.map(move |(at, id)| (arrival, id.as_str(), version(at), arrival.took(at)))
    })
}

fn check(env: &[(&str, String)]) {
    let Ran { folder, said } = run("examples/user-sync/README.md", env);
    let (said, arrivals) = (plain(&said), arrivals(folder.path(), "arrivals.jsonl"));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    // An unchanged save, and a change that nobody watches.
    assert_eq!(said.matches("changed ada version").count(), 3, "{said}");
    assert!(said.contains("\nunchanged ada version 1\n") && said.contains("\nchanged ada version 2\n"), "{said}");
    assert_eq!(said.matches("job of ada: ").count(), 1, "{said}");
    assert_eq!(records(&arrivals).filter(|(_, id, _, took)| *id == "ada" && *took).count(), 1);
    assert!(said.contains("40000 changes were saved") && said.contains("45,000 delivered"), "{said}");

    assert!(arrivals.iter().all(|a| a.status == 200 || a.status == 422), "no call is refused for a limit");
    for (limit, max, _) in LIMITS {
        let times = times(&arrivals, limit);
        let within = |(i, from): (usize, &i64)| times[i..].partition_point(|at| *at < from + HOUR_US);
        let most = times.iter().enumerate().map(within).max().unwrap();
        assert!(most <= max, "{limit}: {most} in an hour of {max}");
    }
    assert_eq!(read("calls.jsonl").lines().count(), arrivals.len(), "the call log has every call");
    let users: Vec<Value> = read("users.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    entered_within_an_hour(&arrivals, &users);
    used_up(&arrivals);
    made_and_left(&arrivals, &said, &read("asked.log"));
    nothing_lost(&arrivals, &users);
    failed_alone(&arrivals, &said);
    gave_up_and_came_back(&arrivals, &said);
}

#[test]
fn user_sync_uses_up_both_lanes_and_loses_nothing() {
    check(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn user_sync_uses_up_both_lanes_and_loses_nothing_on_postgresql_and_redis() {
    on_servers(check).await;
}

/// Of the calls that a limit counted.
fn times(arrivals: &[Arrival], limit: &str) -> Vec<i64> {
    arrivals.iter().filter(|a| a.limits.iter().any(|l| l == limit)).map(|a| a.at_us).collect()
}

/// The rate was really offered, by the times of the store, and both lanes carried it.
fn entered_within_an_hour(arrivals: &[Arrival], users: &[Value]) {
    let time = |user: &Value, name: &str| user[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let changed = || users.iter().filter(|user| user["id"].as_str().unwrap().starts_with("user-"));
    // Every change of a user makes a version of it.
    let changes: i64 = changed().map(|user| user["version"].as_str().unwrap().parse::<i64>().unwrap()).sum();
    assert_eq!(changes, CHANGES);
    let first = changed().map(|user| time(user, "createTime")).min().unwrap();
    let last = changed().map(|user| time(user, "updateTime")).max().unwrap();
    let took_us = last.as_microsecond() - first.as_microsecond();
    eprintln!("{changes} changes entered within {:.2} s", took_us as f64 / 1e6);
    assert!(took_us <= HOUR_US, "{changes} changes took {took_us} us, more than an hour");
    for (limit, ..) in LIMITS {
        let by = |a: &Arrival| a.limits.iter().any(|l| l == limit);
        let carried = records(arrivals).filter(|(a, id, _, took)| by(a) && *took && id.starts_with("user-")).count();
        eprintln!("{limit}: {carried} changes of the application");
        assert!(carried > 500, "{limit}: only {carried} changes of the application");
    }
}

/// From the first call of the run an hour long there was more work than quota.
fn used_up(arrivals: &[Arrival]) {
    let of_the_run = |a: &&Arrival| a.records.iter().any(|id| id.starts_with("all-"));
    let from = arrivals.iter().find(of_the_run).unwrap().at_us;
    let last = arrivals.iter().rfind(of_the_run).unwrap().at_us;
    assert!(last >= from + HOUR_US, "the run was to take more than an hour, not {} us", last - from);
    for (limit, max, _) in LIMITS {
        let used = times(arrivals, limit).into_iter().filter(|at| (from..from + HOUR_US).contains(at)).count();
        eprintln!("{limit}: {used} of {max} used");
        // The call at the edge of what is counted may fall to either side.
        assert!((used + 1) as f64 >= USED_MIN * max as f64, "{limit}: {used} of {max} were used while work waited");
    }
}

/// `tidegate limits` counts what had arrived within the hour before it was asked.
fn made_and_left(arrivals: &[Arrival], said: &str, asked: &str) {
    let asked: Vec<i64> = asked.lines().map(|line| line.parse().unwrap()).collect();
    for (limit, max, shown) in LIMITS {
        // Used, on the wire, free, and of how many.
        let listed = said.lines().find(|line| line.starts_with(shown)).unwrap_or_else(|| panic!("no {shown}: {said}"));
        let counts: Vec<usize> =
            listed[shown.len()..].split(' ').take(4).map(|n| n.replace(',', "").parse().unwrap()).collect();
        let times = times(arrivals, limit);
        let between = |from: i64, to: i64| times.iter().filter(|at| (from..to).contains(*at)).count();
        let least = between(asked[1] - HOUR_US, asked[0]);
        let most = between(asked[0] - HOUR_US - COUNTED_LATE_US, asked[1] + COUNTED_LATE_US);
        let made = counts[0] + counts[1];
        eprintln!("{limit}: {made} made of {max}; {least} to {most} had arrived");
        assert_eq!((made + counts[2], counts[3]), (max, max), "{listed}");
        assert!((least..=most.min(max)).contains(&made) && made > 0, "{least} to {most} had arrived: {listed}");
    }
}

/// The last state of every user arrived, and every job of the run did.
fn nothing_lost(arrivals: &[Arrival], users: &[Value]) {
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
    let mut compared = 0;
    for record in users {
        let data = &record["data"];
        let data: Value = data.as_str().map_or_else(|| data.clone(), |d| serde_json::from_str(d).unwrap());
        let (id, revision) = (data["id"].as_str().unwrap(), data["revision"].as_i64());
        if let Some(revision) = revision {
            compared += 1;
            assert_eq!(newest.get(id), Some(&revision), "the last state of {id} did not arrive");
        }
    }
    assert!(compared > 15_000, "{compared} users were to be compared");
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
}

/// What the API refused for ever raised an alert, and so did what waited; mended, it was sent once.
fn gave_up_and_came_back(arrivals: &[Arrival], said: &str) {
    for alert in ["marketing_late", "marketing_gave_up"] {
        let raised = format!("tidegate_alert_raised{{alert=\"{alert}\",provider=\"marketing\"}} 1");
        assert!(said.contains(&raised), "expected {raised}: {said}");
        assert!(said.contains("alert raised: "), "the log was to say it: {said}");
    }
    for id in ["broken-1", "broken-2", "broken-3"] {
        assert!(said.contains(&format!(" dead marketing/update_user {id} 6 ")), "{id} was to give up after 6: {said}");
        let sent: Vec<bool> = records(arrivals).filter(|(_, of, ..)| *of == id).map(|(.., took)| took).collect();
        assert_eq!(sent, [false, false, false, false, false, false, true], "{id}");
    }
}

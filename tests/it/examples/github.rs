//! `examples/github-client`: the cache spares calls, a 304 spends nothing, a program outside shares the limit, webhooks start
//! pulls.

use tidegate::simulator::Arrival;

use super::{arrivals, plain};
use crate::readme::{Ran, run};

const PAGES: usize = 3;
/// Of the limit of 60 calls.
const WINDOW_US: i64 = 10_000_000;

#[test]
fn github_client_caches_shares_its_limit_and_hears_webhooks() {
    let Ran { folder, said } = run("examples/github-client/README.md", &[]);
    let (said, arrivals) = (plain(&said), arrivals(folder.path(), "arrivals.jsonl"));
    let count = |path: &str| arrivals.iter().filter(|a| a.path == path).count();

    // Four calls, of which one was answered from the cache, and one by a 304 that no limit counted.
    let how: Vec<&str> = said.lines().filter(|line| line.starts_with("200 (")).collect();
    assert_eq!(how, ["200 (miss)", "200 (hit)", "200 (revalidated)", "200 (miss)"], "{said}");
    let user: Vec<(u16, usize)> =
        arrivals.iter().filter(|a| a.path == "/users/octocat").map(|a| (a.status, a.limits.len())).collect();
    assert_eq!(user, [(200, 1), (304, 0), (200, 1)]);
    let used: Vec<&str> = said.lines().filter(|line| line.starts_with("github/core 60/10s ")).collect();
    assert_eq!(used.len(), 2, "{said}");
    assert!(used.iter().all(|line| line.starts_with("github/core 60/10s 1 0 59 60")), "{used:?}");

    // The first pull, and the one that the genuine message started; the forged and the repeated one started none.
    assert!(said.contains("pull 1 of repositories is done: 3 pages, 250 items, 250 changed"), "{said}");
    assert!(said.contains("pull 2 of repositories is done"), "{said}");
    assert!(said.contains("BAD_SIGNATURE") && said.contains(r#"{"accepted":true}"#), "{said}");
    assert!(said.contains("WEBHOOK_REPEATED"), "{said}");
    assert_eq!(count("/orgs/tidegate/repos"), 2 * PAGES, "two pulls of three pages of the organisation");

    // 250 jobs in three calls, or in a few more where the first ones left before the last were there.
    assert!(said.contains("250 of 250 jobs are final (250 delivered)"), "{said}");
    assert!((3..=6).contains(&count("/graphql")), "{} calls for 250 nodes", count("/graphql"));

    // 70 calls of the program and 40 jobs in a limit of 60.
    assert!(said.contains("70 calls made by the outside program, 0 refused"), "{said}");
    assert_eq!(arrivals.iter().filter(|a| a.path.starts_with("/outside/")).count(), 70);
    assert!(said.contains("40 of 40 jobs are final (40 delivered)"), "{said}");
    // The stranger took all that was left; of the daemon's calls one was refused, and its next one was good: it waited for
    // the reset.
    let strangers = arrivals.iter().filter(|a| a.path == "/stranger" && a.status == 403).count();
    let after: Vec<u16> = arrivals.iter().filter(|a| a.path == "/repos/octocat/after").map(|a| a.status).collect();
    assert_eq!(after, [403, 200]);
    waits_for_the_reset(&arrivals);
    assert_eq!(arrivals.iter().filter(|a| ![200, 304].contains(&a.status)).count(), strangers + 1);
    // The daemon counts a rolling window, which is stricter than the provider's fixed one.
    let ours = arrivals.iter().filter(|a| !a.limits.is_empty() && a.path != "/stranger");
    let times: Vec<i64> = ours.map(|a| a.at_us).collect();
    let most = (0..times.len()).map(|i| times[i..].partition_point(|at| *at < times[i] + WINDOW_US)).max().unwrap();
    assert!((50..=60).contains(&most), "{most} in a window of 60");
}

/// The stranger's last refusal before the fresh window that it used up, and the end of that window, which is a window later
/// at least: up to then the daemon sent nothing but the call that was refused.
fn waits_for_the_reset(arrivals: &[Arrival]) {
    let stranger: Vec<&Arrival> = arrivals.iter().filter(|a| a.path == "/stranger").collect();
    let fresh = stranger.windows(2).rposition(|pair| pair[0].status == 403 && pair[1].status == 200).unwrap();
    let reset_us = stranger[fresh].at_us + WINDOW_US;
    let refused = arrivals.iter().position(|a| a.path == "/repos/octocat/after").unwrap();
    let next = arrivals[refused + 1..].iter().find(|a| a.path != "/stranger").unwrap();
    assert!(next.at_us >= reset_us, "a call {} us before the reset", reset_us - next.at_us);
    assert_eq!((next.path.as_str(), next.status), ("/repos/octocat/after", 200));
}

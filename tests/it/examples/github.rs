//! `examples/github-client`: the cache spares calls, a 304 spends nothing, a program outside shares the limit, webhooks start
//! pulls.

use super::{arrivals, plain};
use crate::readme::{Ran, run};

const PAGES: usize = 3;

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
    assert_eq!(count("/user/repos"), 2 * PAGES, "two pulls of three pages");

    // 70 calls of the program and 40 jobs in a limit of 60.
    assert!(said.contains("70 calls made by the outside program, 0 refused"), "{said}");
    assert_eq!(arrivals.iter().filter(|a| a.path.starts_with("/outside/")).count(), 70);
    assert!(said.contains("40 of 40 jobs are final (40 delivered)"), "{said}");
    assert!(arrivals.iter().all(|a| [200, 304].contains(&a.status)), "nobody is refused");
    // The daemon counts a rolling window, which is stricter than the provider's fixed one.
    let times: Vec<i64> = arrivals.iter().filter(|a| !a.limits.is_empty()).map(|a| a.at_us).collect();
    let most = (0..times.len()).map(|i| times[i..].partition_point(|at| *at < times[i] + 10_000_000)).max().unwrap();
    assert!((50..=60).contains(&most), "{most} in a window of 60");
}

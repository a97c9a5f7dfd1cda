//! Three daemons share every limit and use it up: no window above its number in the provider's own log, and hardly any
//! permit unused while work waits.
//!
//! Limits as in life, scaled: 10 a second with 100 a window, and two lanes of 50 batches and 600 singles a window, for
//! each of several accounts. `TIDEGATE_SATURATION_SECONDS` is the window (20 by default, 60 in full) and
//! `TIDEGATE_SATURATION_WINDOWS` how many are counted after the first (1).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::simulator::Arrival;

use crate::support::process::{Daemon, Place, Provider};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;
use crate::torture::number;

const DAEMONS: usize = 3;
const ACCOUNTS: usize = 4;
const BATCH_SIZE: u64 = 20;
/// Name as in the path, calls per window.
const LIMITS: [(&str, u64); 3] = [("steps", 100), ("users", 600), ("batches", 50)];
/// Beside `steps`.
const PER_SECOND: usize = 10;
/// Part of the tightest limit that must be used.
const USED_MIN: f64 = 0.99;

fn declaration(base_url: &str, window: u64) -> String {
    format!(
        r#"
[providers.crm]
base_url = "{base_url}"
allow_private = true

[providers.crm.operations.step]
request = "POST /steps/{{account}}"
body = "{{payload}}"
limits = [
  {{ name = "steps", max = 100, per = "{window}s", scope = "account" }},
  {{ name = "steps", max = {PER_SECOND}, per = "1s", scope = "account" }},
]

[providers.crm.operations.sync]
request = "POST /users/{{account}}"
body = "{{payload}}"
limits = [{{ name = "single", max = 600, per = "{window}s", scope = "account" }}]

[providers.crm.operations.sync.batch]
request = "POST /batches/{{account}}"
body = {{ users = "{{payloads}}" }}
size = {BATCH_SIZE}
limits = [{{ name = "batch", max = 50, per = "{window}s", scope = "account" }}]
"#
    )
}

async fn fill(daemon: &Daemon, operation: &str, account: &str, jobs: u64) {
    let mut client = JobServiceClient::new(daemon.channel()).max_decoding_message_size(16 << 20);
    for from in (0..jobs).step_by(1_000) {
        let job = |n: u64| pb::JobSpec {
            provider: "crm".to_owned(),
            operation: operation.to_owned(),
            account: account.to_owned(),
            payload: format!(r#"{{"id":"{account}-{operation}-{n}"}}"#),
            ..pb::JobSpec::default()
        };
        let jobs = (from..jobs.min(from + 1_000)).map(job).collect();
        client.enqueue_jobs(pb::EnqueueJobsRequest { jobs, ..Default::default() }).await.expect("it is accepted");
    }
}

/// Times of the arrivals by limit and account, in order.
fn arrivals(log: &std::path::Path) -> BTreeMap<(String, String), Vec<i64>> {
    let mut found: BTreeMap<(String, String), Vec<i64>> = BTreeMap::new();
    for line in BufReader::new(std::fs::File::open(log).unwrap()).lines() {
        let arrival: Arrival = serde_json::from_str(&line.unwrap()).unwrap();
        let mut parts = arrival.path.trim_start_matches('/').split('/').map(str::to_owned);
        let (Some(limit), Some(account)) = (parts.next(), parts.next()) else { panic!("{}", arrival.path) };
        found.entry((limit, account)).or_default().push(arrival.at_us);
    }
    found.values_mut().for_each(|times| times.sort_unstable());
    found
}

/// The most in any interval of this length.
fn most_in_any(times: &[i64], window_us: i64) -> usize {
    let within = |(i, from): (usize, &i64)| times[i..].partition_point(|at| *at < from + window_us);
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

#[test]
fn the_most_in_any_interval_is_found() {
    assert_eq!(most_in_any(&[], 10), 0);
    assert_eq!(most_in_any(&[0, 5, 9, 10, 11], 10), 4);
    assert_eq!(most_in_any(&[0, 10, 20], 10), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_daemons_use_up_every_limit_and_exceed_none() {
    let (seconds, windows) = (number("TIDEGATE_SATURATION_SECONDS", 20), number("TIDEGATE_SATURATION_WINDOWS", 1));
    let folder = tempfile::tempdir().unwrap();
    let (database, redis) = (Database::new().await, RedisServer::start().await);
    let log = folder.path().join("arrivals.jsonl");
    let provider = Provider::start(&["--latency", "5ms"], &log).await;
    let declaration = declaration(&provider.base_url, seconds);
    let mut daemons = Vec::new();
    for n in 1..=DAEMONS {
        let (name, redis) = (format!("d{n}"), redis.url());
        let place = Place::shared(&folder.path().join(&name), &name, &database.url(), &redis, &declaration);
        daemons.push(place.start().await);
    }
    // Enough for one window more than is counted.
    let rounds = windows + 2;
    for n in 0..ACCOUNTS {
        let (daemon, account) = (&daemons[n % DAEMONS], format!("account-{n}"));
        fill(daemon, "step", &account, 100 * rounds).await;
        fill(daemon, "sync", &account, (600 + 50 * BATCH_SIZE) * rounds).await;
    }
    tokio::time::sleep(Duration::from_secs(seconds * (windows + 1) + 2)).await;
    for daemon in daemons {
        assert!(daemon.stop().await, "a daemon did not stop cleanly");
    }
    provider.stop().await;

    let (window_us, mut findings) = (seconds as i64 * 1_000_000, Vec::new());
    let found = arrivals(&log);
    assert_eq!(found.len(), LIMITS.len() * ACCOUNTS, "every limit of every account was used");
    for ((limit, account), times) in &found {
        let max = LIMITS.iter().find(|(name, _)| name == limit).expect("a declared one").1;
        let most = most_in_any(times, window_us);
        let counted = times[0] + window_us..times[0] + window_us * (windows as i64 + 1);
        let used = times.iter().filter(|at| counted.contains(*at)).count();
        let share = used as f64 / (max * windows) as f64;
        eprintln!("{limit} of {account}: most in any window {most} of {max}, used {:.1} %", share * 100.0);
        if most > max as usize {
            findings.push(format!("{limit} of {account}: {most} in a window of {max}"));
        }
        if limit == "steps" && most_in_any(times, 1_000_000) > PER_SECOND {
            findings.push(format!("{limit} of {account}: more than {PER_SECOND} in a second"));
        }
        // The call at the edge of what is counted may fall to either side.
        if ((used + 1) as f64) < USED_MIN * (max * windows) as f64 {
            findings.push(format!("{limit} of {account}: {used} of {} were used", max * windows));
        }
    }
    assert!(findings.is_empty(), "{findings:#?}");
}

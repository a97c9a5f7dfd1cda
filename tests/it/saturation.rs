//! Three daemons share every limit and use it up: no window above its number in the provider's own log, and hardly any
//! permit unused while work waits.
//!
//! Limits as in life, scaled: 10 a second with 100 a window, and two lanes of 50 batches and 600 singles a window, for
//! each of several accounts. `TIDEGATE_SATURATION_SECONDS` is the window (20 by default, 60 in full) and
//! `TIDEGATE_SATURATION_WINDOWS` how many are counted after the first (1). In a window of a minute there are 3,600
//! singles. Next: `flushed.rs`, where Redis forgets all of it every two seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::time::Duration;

use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::simulator::Arrival;

use crate::support::process::{Daemon, Place, Provider};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;
use crate::torture::number;

mod flushed;

const DAEMONS: usize = 3;
const ACCOUNTS: usize = 4;
const BATCH_SIZE: u64 = 20;
/// Name as in the path, calls per window.
fn limits(window: u64) -> [(&'static str, u64); 3] {
    [("steps", 100), ("users", if window >= 60 { 3_600 } else { 600 }), ("batches", 50)]
}
/// Beside `steps`.
const PER_SECOND: usize = 10;
/// Part of the tightest limit that must be used.
const USED_MIN: f64 = 0.99;

fn declaration(base_url: &str, window: u64) -> String {
    let [(_, steps), (_, singles), (_, batches)] = limits(window);
    format!(
        r#"
[providers.crm]
base_url = "{base_url}"
allow_private = true

[providers.crm.operations.step]
request = "POST /steps/{{account}}"
body = "{{payload}}"
limits = [
  {{ name = "steps", max = {steps}, per = "{window}s", scope = "account" }},
  {{ name = "steps", max = {PER_SECOND}, per = "1s", scope = "account" }},
]

[providers.crm.operations.sync]
request = "POST /users/{{account}}"
body = "{{payload}}"
limits = [{{ name = "single", max = {singles}, per = "{window}s", scope = "account" }}]

[providers.crm.operations.sync.batch]
request = "POST /batches/{{account}}"
body = {{ users = "{{payloads}}" }}
size = {BATCH_SIZE}
limits = [{{ name = "batch", max = {batches}, per = "{window}s", scope = "account" }}]
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

/// What arrived.
#[derive(Default)]
struct Seen {
    /// By limit and account, in order.
    times: BTreeMap<(String, String), Vec<i64>>,
    /// Records that came more than once.
    repeated: BTreeSet<String>,
}

impl Seen {
    fn read(log: &std::path::Path) -> Seen {
        let (mut seen, mut records) = (Seen::default(), BTreeSet::new());
        for line in BufReader::new(std::fs::File::open(log).unwrap()).lines() {
            let arrival: Arrival = serde_json::from_str(&line.unwrap()).unwrap();
            let mut parts = arrival.path.trim_start_matches('/').split('/').map(str::to_owned);
            let (Some(limit), Some(account)) = (parts.next(), parts.next()) else { panic!("{}", arrival.path) };
            seen.times.entry((limit, account)).or_default().push(arrival.at_us);
            assert!(!arrival.records.is_empty(), "expected the ids of its records: {arrival:?}");
            for record in arrival.records {
                if !records.insert(record.clone()) {
                    seen.repeated.insert(record);
                }
            }
        }
        seen.times.values_mut().for_each(|times| times.sort_unstable());
        seen
    }
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

/// Three daemons and what they share.
struct Stage {
    folder: tempfile::TempDir,
    provider: Provider,
    redis: RedisServer,
    database: Database,
    daemons: Vec<Daemon>,
}

impl Stage {
    async fn start(declaration: impl Fn(&str) -> String) -> Stage {
        let (folder, database, redis) =
            (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
        let provider = Provider::start(&["--latency", "5ms"], &folder.path().join("arrivals.jsonl")).await;
        let declaration = declaration(&provider.base_url);
        let mut daemons = Vec::new();
        for n in 1..=DAEMONS {
            let (name, redis) = (format!("d{n}"), redis.url());
            let place = Place::shared(&folder.path().join(&name), &name, &database.url(), &redis, &declaration);
            daemons.push(place.start().await);
        }
        Stage { folder, provider, redis, database, daemons }
    }

    /// Work for so many windows, for every limit of every account.
    async fn fill(&self, window: u64, windows: u64) {
        let [(_, steps), (_, singles), (_, batches)] = limits(window);
        for n in 0..ACCOUNTS {
            let (daemon, account) = (&self.daemons[n % DAEMONS], format!("account-{n}"));
            fill(daemon, "step", &account, steps * windows).await;
            fill(daemon, "sync", &account, (singles + batches * BATCH_SIZE) * windows).await;
        }
    }

    /// Ends all, and tells when what arrived.
    async fn end(self) -> Seen {
        for daemon in self.daemons {
            assert!(daemon.stop().await, "a daemon did not stop cleanly");
        }
        self.provider.stop().await;
        Seen::read(&self.folder.path().join("arrivals.jsonl"))
    }
}

/// What was above a limit, what came twice, and what was used by less than `used_min` in the windows after the first.
fn findings(seen: &Seen, window: u64, windows: u64, used_min: f64) -> Vec<String> {
    let (window_us, mut findings) = (window as i64 * 1_000_000, Vec::new());
    findings.extend(seen.repeated.iter().map(|record| format!("{record} was sent twice")));
    for (limit, max) in limits(window) {
        for n in 0..ACCOUNTS {
            let account = format!("account-{n}");
            let times = seen.times.get(&(limit.to_owned(), account.clone()));
            let times = times.expect("every limit of every account is used");
            let most = most_in_any(times, window_us);
            let counted = times[0] + window_us..times[0] + window_us * (windows as i64 + 1);
            let used = times.iter().filter(|at| counted.contains(*at)).count();
            // What the narrower limit beside it allows, where that is less.
            let max = if limit == "steps" { max.min(PER_SECOND as u64 * window) } else { max };
            let share = used as f64 / (max * windows) as f64;
            eprintln!("{limit} of {account}: most in any window {most} of {max}, used {:.1} %", share * 100.0);
            if most > max as usize {
                findings.push(format!("{limit} of {account}: {most} in a window of {max}"));
            }
            if limit == "steps" && most_in_any(times, 1_000_000) > PER_SECOND {
                findings.push(format!("{limit} of {account}: more than {PER_SECOND} in a second"));
            }
            // The call at the edge of what is counted may fall to either side.
            if ((used + 1) as f64) < used_min * (max * windows) as f64 {
                findings.push(format!("{limit} of {account}: {used} of {} were used", max * windows));
            }
        }
    }
    findings
}

#[tokio::test(flavor = "multi_thread")]
async fn three_daemons_use_up_every_limit_and_exceed_none() {
    let (seconds, windows) = (number("TIDEGATE_SATURATION_SECONDS", 20), number("TIDEGATE_SATURATION_WINDOWS", 1));
    let stage = Stage::start(|base_url| declaration(base_url, seconds)).await;
    // Enough for one window more than is counted.
    stage.fill(seconds, windows + 2).await;
    tokio::time::sleep(Duration::from_secs(seconds * (windows + 1) + 2)).await;
    let seen = stage.end().await;
    let findings = findings(&seen, seconds, windows, USED_MIN);
    assert!(findings.is_empty(), "{findings:#?}");
}

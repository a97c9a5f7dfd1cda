//! Three daemons under load on servers of their own, and what the provider saw of it: pauses of accounts that have work,
//! calls per key in their order.
//!
//! One provider has accounts that one daemon serves each, the other an account that is spread over all of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tidegate::clock::{Clock, Timestamp};
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::simulator::Report;
use tidegate::simulator::log::Arrival;

use crate::support::process::{Daemon, Place, Provider};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;

/// Served by one daemon each; 10 calls a second.
const ACCOUNTS: [&str; 5] = ["a0", "a1", "a2", "a3", "a4"];
/// Spread over 16 parts; 40 calls a second.
const SPREAD: &str = "all";
/// Of the spread account: few, so that many jobs of one wait in line.
const KEYS: usize = 40;
/// Calls of an account and of the spread one in any 200 ms: short, so that a pause is not the limit's.
const LIMITS: [u32; 2] = [2, 8];

pub struct Stage {
    pub places: Vec<Place>,
    clock: Clock,
    provider: Provider,
    log: PathBuf,
    /// Jobs of each account.
    jobs: usize,
    _folder: tempfile::TempDir,
    _servers: (Database, RedisServer),
}

/// What arrived at the provider.
pub struct Seen {
    pub report: Report,
    /// By account, in the order of arrival.
    accounts: BTreeMap<String, Vec<Arrival>>,
}

/// `paced`: one call after the other, and none on the wire holds back the next.
fn declaration(base_url: &str, paced: bool) -> String {
    let limit = |max: u32| match paced {
        true => format!("max = {}, per = \"1s\", paced = true", max * 5),
        false => format!("max = {max}, per = \"200ms\""),
    };
    let provider = |name: &str, more: &str, max: u32| {
        let limit = limit(max);
        format!(
            "[providers.{name}]\nbase_url = \"{base_url}\"\nallow_private = true\n{more}\
             timeouts = {{ connect = \"2s\", first_byte = \"5s\", total = \"5s\" }}\n\
             [providers.{name}.operations.sync]\nrequest = \"PUT /users/{{account}}.{{key}}\"\nbody = \"{{payload}}\"\n\
             repeat = \"always\"\n\
             limits = [{{ name = \"pace\", {limit}, scope = \"account\" }}]\n"
        )
    };
    provider("crm", "", LIMITS[0]) + &provider("big", "spread = 16\n", LIMITS[1])
}

impl Stage {
    /// Servers, and work for `seconds` that no daemon has yet.
    pub async fn set(seconds: usize) -> Stage {
        Stage::of(seconds, false).await
    }

    /// The same, where an account has no permits that a dead daemon could hold.
    pub async fn paced(seconds: usize) -> Stage {
        Stage::of(seconds, true).await
    }

    async fn of(seconds: usize, paced: bool) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let (database, redis) = (Database::new().await, RedisServer::start().await);
        let log = folder.path().join("arrivals.jsonl");
        let limit = |account: &str, max: u32| format!("{account}=rolling:{max}/200ms@PUT /users/{account}.*");
        let mut limits: Vec<String> = ACCOUNTS.iter().map(|account| limit(account, LIMITS[0])).collect();
        limits.push(limit(SPREAD, LIMITS[1]));
        let mut flags = vec!["--latency", "5ms", "--tail-share", "0"];
        // Paced calls are counted by no window.
        limits.truncate(if paced { 0 } else { limits.len() });
        flags.extend(limits.iter().flat_map(|limit| ["--limit", limit.as_str()]));
        let provider = Provider::start(&flags, &log).await;
        let declaration = declaration(&provider.base_url, paced);
        let place =
            |name: &str| Place::shared(&folder.path().join(name), name, &database.url(), &redis.url(), &declaration);
        let places = ["d1", "d2", "d3"].map(place).to_vec();
        let servers = (database, redis);
        Stage { places, clock: Clock::system(), provider, log, jobs: 10 * seconds, _folder: folder, _servers: servers }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.steady()
    }

    pub async fn enqueue(&self, daemon: &Daemon) {
        for account in ACCOUNTS {
            let jobs = (0..self.jobs).map(|n| spec("crm", account, n, 0)).collect();
            enqueue(daemon, jobs).await;
        }
        let jobs = (0..4 * self.jobs).map(|n| spec("big", SPREAD, n % KEYS, n / KEYS)).collect();
        enqueue(daemon, jobs).await;
    }

    /// Waits until everything is delivered, stops the daemons, and reads what the provider saw.
    pub async fn end(self, daemons: Vec<Daemon>) -> Seen {
        for (provider, jobs) in [("crm", ACCOUNTS.len() * self.jobs), ("big", 4 * self.jobs)] {
            let counts = daemons[0].drained(provider, Duration::from_secs(180)).await.expect("everything drains");
            assert_eq!(counts.delivered, jobs as i64, "{provider}: {counts:?}");
        }
        for daemon in daemons {
            assert!(daemon.stop().await);
        }
        let report = self.provider.stop().await;
        let mut accounts: BTreeMap<String, Vec<Arrival>> = BTreeMap::new();
        for line in std::fs::read_to_string(&self.log).unwrap().lines() {
            let arrival: Arrival = serde_json::from_str(line).unwrap();
            let account = arrival.path.trim_start_matches("/users/").split('.').next().unwrap().to_owned();
            accounts.entry(account).or_default().push(arrival);
        }
        assert_eq!(accounts.len(), ACCOUNTS.len() + 1);
        Seen { report, accounts }
    }
}

impl Seen {
    /// The longest pause of an account between its first and its last call, as far as it lies within these times.
    pub fn longest_pause(&self, from: Timestamp, to: Timestamp) -> Duration {
        let of = |(account, arrivals): (&String, &Vec<Arrival>)| {
            let pauses = arrivals.windows(2).map(|pair| pair[1].at_us.min(to.0) - pair[0].at_us.max(from.0));
            let longest = Duration::from_micros(pauses.max().unwrap_or(0).max(0).unsigned_abs());
            eprint!(" {account} {} ms", longest.as_millis());
            longest
        };
        eprint!("longest pauses:");
        let longest = self.accounts.iter().map(of).max().unwrap_or_default();
        eprintln!();
        longest
    }

    /// No limit was exceeded, and no job of a key came before an earlier one. Returns the calls that went twice.
    pub fn is_in_order(&self) -> usize {
        assert_eq!(self.report.refused, 0, "{}", self.report);
        let (mut last, mut twice): (BTreeMap<&str, i64>, usize) = Default::default();
        for arrival in self.accounts.values().flatten() {
            let version = arrival.versions.first().copied().flatten().expect("the payload has a version");
            match last.insert(&arrival.path, version) {
                Some(before) if before == version => twice += 1,
                before => {
                    assert!(before.is_none_or(|b| b + 1 == version), "{}: {version} after {before:?}", arrival.path);
                }
            }
        }
        twice
    }
}

fn spec(provider: &str, account: &str, key: usize, version: usize) -> pb::JobSpec {
    pb::JobSpec {
        provider: provider.to_owned(),
        operation: "sync".to_owned(),
        account: account.to_owned(),
        key: format!("k{key}"),
        payload: format!("{{\"id\":\"k{key}\",\"n\":{version}}}"),
        ..pb::JobSpec::default()
    }
}

async fn enqueue(daemon: &Daemon, jobs: Vec<pb::JobSpec>) {
    let count = jobs.len();
    let request = pb::EnqueueJobsRequest { jobs, ..Default::default() };
    let answer = JobServiceClient::new(daemon.channel()).enqueue_jobs(request).await.unwrap().into_inner();
    assert_eq!(usize::try_from(answer.accepted_count), Ok(count));
}

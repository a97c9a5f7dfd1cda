//! Fairness on real servers: three daemons, PostgreSQL and Redis, one tenant with a huge backlog beside 99 small ones.
//!
//! The same daemons do it twice, alone and beside the backlog. Judged by counts of calls, since times go by what else the
//! machine does. Each daemon serves a third of the small ones, where that is not said otherwise: turns are taken within a
//! daemon, and daemons share a quota first come, first served (docs/scaling.md). Virtual time has the larger numbers:
//! `engine/fairness.rs`. `TIDEGATE_FAIRNESS_SERVER_JOBS` is the backlog (20,000).

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate::clock::{Clock, Timestamp};
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::grpc::pb::provider_service_client::ProviderServiceClient;
use tidegate::model::name::Account;
use tidegate::model::shard::{SHARDS, shard_of};
use tidegate::simulator::Arrival;

use crate::support::process::{Daemon, Place, Provider, until};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;
use crate::torture::number;

const DAEMONS: usize = 3;
const SMALL: usize = 99;
const JOBS_OF_EACH: usize = 10;
/// Calls after which the small ones must be through beside the huge one, of those that it takes alone.
const SLOWER_MAX: f64 = 1.2;
/// For the small ones to be through; alone they need about five seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the tenants compete for: the provider's quota, which all daemons share, or the room that each daemon has for calls
/// on the wire.
const QUOTA: &str = "limits = [{ name = \"all\", max = 200, per = \"1s\" }]\n";
const ROOM: &str = "in_flight_max = 4\n";

fn declaration(base_url: &str, scarce: &str) -> String {
    format!(
        "[providers.crm]\nbase_url = \"{base_url}\"\nallow_private = true\n{scarce}\n\
         [providers.crm.operations.op]\nrequest = \"POST /records/{{account}}\"\nbody = \"{{payload}}\"\n"
    )
}

/// Daemons and who serves which partition.
struct Fleet {
    daemons: Vec<Daemon>,
    owners: BTreeMap<u16, String>,
    log: std::path::PathBuf,
}

impl Fleet {
    fn owner(&self, account: &str) -> &str {
        &self.owners[&shard_of(&Account::new(account).unwrap(), 0)]
    }

    /// So many accounts beginning with `prefix` of each of these daemons, by turns.
    fn accounts(&self, prefix: &str, count: usize, daemons: &[&String]) -> Vec<String> {
        let of = |daemon: &String| {
            let daemon = daemon.clone();
            (0..).map(|n| format!("{prefix}-{n}")).filter(move |account| self.owner(account) == daemon)
        };
        let mut lists: Vec<_> = daemons.iter().map(|daemon| of(daemon)).collect();
        (0..count).map(|n| lists[n % daemons.len()].next().expect("there is no end of them")).collect()
    }

    async fn enqueue(&self, tenant: &str, account: &str, prefix: &str, jobs: usize) {
        let mut client = JobServiceClient::new(self.daemons[0].channel());
        for from in (0..jobs).step_by(1_000) {
            let job = |n: usize| pb::JobSpec {
                provider: "crm".to_owned(),
                operation: "op".to_owned(),
                account: account.to_owned(),
                tenant: tenant.to_owned(),
                payload: format!(r#"{{"id":"{prefix}-{tenant}-{n}"}}"#),
                ..pb::JobSpec::default()
            };
            let jobs = (from..jobs.min(from + 1_000)).map(job).collect();
            client.enqueue_jobs(pb::EnqueueJobsRequest { jobs, ..Default::default() }).await.expect("it is accepted");
        }
    }

    async fn pause(&self, paused: bool) {
        let (mut client, name) = (ProviderServiceClient::new(self.daemons[0].channel()), "crm".to_owned());
        match paused {
            true => drop(client.pause_provider(pb::PauseProviderRequest { name }).await.unwrap()),
            false => drop(client.resume_provider(pb::ResumeProviderRequest { name }).await.unwrap()),
        }
    }

    /// Ids of the small ones' jobs begin with `prefix`.
    async fn small_ones(&self, accounts: &[String], prefix: &str) -> Through {
        for (n, account) in accounts.iter().enumerate() {
            self.enqueue(&format!("tenant-{n}"), account, prefix, JOBS_OF_EACH).await;
        }
        let from = Clock::system().steady();
        self.pause(false).await;
        until(PATIENCE, async || self.through(prefix, from)).await.expect("the small ones have their turns")
    }

    /// `None` while a job of the small ones has not arrived.
    fn through(&self, prefix: &str, from: Timestamp) -> Option<Through> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // The last line may be half written.
        let arrivals = text.lines().map_while(|line| serde_json::from_str::<Arrival>(line).ok());
        let (mut through, mut of_daemons) = (Through::default(), BTreeMap::<&str, (usize, usize, usize)>::new());
        let mut arrived = 0;
        for (calls, arrival) in arrivals.filter(|arrival| arrival.at_us >= from.0).enumerate() {
            let of = of_daemons.entry(self.owner(arrival.path.trim_start_matches("/records/"))).or_default();
            of.0 += 1;
            if arrival.records[0].starts_with(prefix) {
                arrived += 1;
                (of.1, of.2) = (of.0, of.2 + 1);
                (through.calls, through.after) = (calls + 1, Timestamp(arrival.at_us).since(from));
            }
        }
        let slower = of_daemons.values().filter(|of| of.2 > 0).map(|of| of.1 as f64 / of.2 as f64);
        through.slower_within_a_daemon = slower.fold(1.0, f64::max);
        (arrived == SMALL * JOBS_OF_EACH).then_some(through)
    }
}

/// What became of the small ones' jobs.
#[derive(Clone, Copy, Debug, Default)]
struct Through {
    /// From the moment on which all may go to the last arrival of a small one's job.
    after: Duration,
    /// All calls between the two.
    calls: usize,
    /// Of the daemon where it was most: all calls up to its last small one's, by those of small ones.
    slower_within_a_daemon: f64,
}

/// What it was alone and beside the huge one.
async fn compared(scarce: &str, hog_accounts: usize, small_on: usize) -> (Through, Through) {
    let hog = number("TIDEGATE_FAIRNESS_SERVER_JOBS", 20_000) as usize;
    let (folder, database, redis) = (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
    let log = folder.path().join("arrivals.jsonl");
    let provider = Provider::start(&["--latency", "50ms", "--tail-share", "0"], &log).await;
    let declaration = declaration(&provider.base_url, scarce);
    let mut fleet = Fleet { daemons: Vec::new(), owners: BTreeMap::new(), log };
    for n in 1..=DAEMONS {
        let (name, redis) = (format!("d{n}"), redis.url());
        let place = Place::shared(&folder.path().join(&name), &name, &database.url(), &redis, &declaration);
        fleet.daemons.push(place.start().await);
    }
    fleet.owners = until(PATIENCE, async || owners(&database).await).await.expect("the partitions are shared out");
    let mut daemons: Vec<&String> = fleet.owners.values().collect();
    daemons.sort();
    daemons.dedup();
    // The huge one lies with the last daemons, the small ones with the first.
    let small = fleet.accounts("account", SMALL, &daemons[..small_on]);
    let huge = fleet.accounts("hog", hog_accounts, &daemons[DAEMONS - hog_accounts.min(DAEMONS)..]);
    fleet.pause(true).await;
    let alone = fleet.small_ones(&small, "alone").await;
    fleet.pause(true).await;
    for account in &huge {
        fleet.enqueue("hog", account, "hog", hog / hog_accounts).await;
    }
    let beside = fleet.small_ones(&small, "beside").await;
    let counts = fleet.daemons[0].counts("crm").await.unwrap();
    for daemon in fleet.daemons {
        assert!(daemon.stop().await, "a daemon did not stop cleanly");
    }
    provider.stop().await;
    eprintln!("990 calls of 99 tenants: {alone:?} alone, {beside:?} beside one of {hog} jobs");
    assert!(counts.waiting > hog as i64 / 2, "the backlog was no backlog: {counts:?}");
    (alone, beside)
}

/// When every partition has an owner and every daemon its even share.
async fn owners(database: &Database) -> Option<BTreeMap<u16, String>> {
    let ask = "select shard, owner from partition where provider = 'crm' and owner is not null";
    let rows = sqlx::query_as::<_, (i16, String)>(ask).fetch_all(&mut database.connect().await).await.unwrap();
    let mut shares: BTreeMap<&String, usize> = BTreeMap::new();
    rows.iter().for_each(|(_, owner)| *shares.entry(owner).or_default() += 1);
    let even = shares.len() == DAEMONS && shares.values().all(|&n| n >= usize::from(SHARDS) / DAEMONS);
    let all = even && rows.len() == usize::from(SHARDS);
    all.then(|| rows.into_iter().map(|(shard, owner)| (shard.unsigned_abs(), owner)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn small_tenants_hardly_notice_a_huge_one_that_shares_each_daemon() {
    let (_, beside) = compared(ROOM, 30, DAEMONS).await;
    assert!(beside.slower_within_a_daemon <= SLOWER_MAX, "{beside:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_tenants_hardly_notice_a_huge_one_that_shares_the_quota() {
    let (alone, beside) = compared(QUOTA, 1, DAEMONS).await;
    assert!(beside.calls as f64 <= alone.calls as f64 * SLOWER_MAX, "{beside:?} beside a huge tenant, {alone:?} alone");
}

const CROWD: usize = 10_000;
/// A gate looks four times a second at a limit that another daemon may have freed.
const LOOKS_A_SECOND: f64 = 4.0;
const WATCH: Duration = Duration::from_secs(5);

/// Scripts run by a Redis so far.
fn scripts(redis: &RedisServer) -> u64 {
    let stats = redis.command(&["INFO", "commandstats"]);
    let calls = |line: &str| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse::<u64>().ok();
    stats.lines().find_map(|line| calls(line.trim())).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_under_a_limit_that_another_daemon_fills_asks_as_one() {
    let (folder, database, redis) = (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
    let log = folder.path().join("arrivals.jsonl");
    // The one call that may be on the wire stays there.
    let provider = Provider::start(&["--latency", "600s", "--tail-share", "0"], &log).await;
    let limits = "limits = [{ name = \"wire\", concurrent = 1 }]\n\
                  timeouts = { connect = \"2s\", first_byte = \"900s\", total = \"900s\" }\n";
    let declaration = declaration(&provider.base_url, limits);
    let mut fleet = Fleet { daemons: Vec::new(), owners: BTreeMap::new(), log };
    for n in 1..=2 {
        let (name, redis) = (format!("d{n}"), redis.url());
        let place = Place::shared(&folder.path().join(&name), &name, &database.url(), &redis, &declaration);
        fleet.daemons.push(place.start().await);
    }
    let mut client = JobServiceClient::new(fleet.daemons[0].channel());
    for from in (0..CROWD).step_by(1_000) {
        let job = |n: usize| pb::JobSpec {
            provider: "crm".to_owned(),
            operation: "op".to_owned(),
            account: format!("account-{n}"),
            payload: format!(r#"{{"id":"{n}"}}"#),
            ..pb::JobSpec::default()
        };
        let jobs = (from..from + 1_000).map(job).collect();
        client.enqueue_jobs(pb::EnqueueJobsRequest { jobs, ..Default::default() }).await.expect("it is accepted");
    }
    // Everybody has had a turn and found the line.
    let clock = Clock::system();
    let quiet = until(PATIENCE, async || {
        let (before, from) = (scripts(&redis), clock.steady());
        tokio::time::sleep(WATCH).await;
        let rate = (scripts(&redis) - before) as f64 / clock.steady().since(from).as_secs_f64();
        eprintln!("{CROWD} accounts under one full limit, two daemons: {rate:.1} scripts a second");
        // Both, and a few for other things.
        (rate <= 2.0 * LOOKS_A_SECOND + 4.0).then_some(rate)
    });
    let rate = quiet.await.expect("they ask as one");
    assert!(rate > 0.0, "nobody looks whether the other daemon's call has ended");
    let counts = fleet.daemons[0].counts("crm").await.unwrap();
    assert!(counts.waiting >= CROWD as i64 - 2, "{counts:?}");
    for daemon in fleet.daemons {
        daemon.kill(&clock).await;
    }
    provider.stop().await;
}

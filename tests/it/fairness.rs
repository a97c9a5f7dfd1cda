//! Fairness on real servers: three daemons, PostgreSQL and Redis, one tenant with a huge backlog beside 99 small ones.
//!
//! The same daemons do it twice, alone and beside the backlog, so that the accounts lie with the same daemons. Virtual
//! time has the larger numbers: `engine/fairness.rs`. `TIDEGATE_FAIRNESS_SERVER_JOBS` is the backlog (20,000).

use std::time::Duration;

use tidegate::clock::{Clock, Timestamp};
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::grpc::pb::provider_service_client::ProviderServiceClient;
use tidegate::simulator::Arrival;

use crate::support::process::{Daemon, Place, Provider, until};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;
use crate::torture::number;

const DAEMONS: usize = 3;
const SMALL: u64 = 99;
const JOBS_OF_EACH: u64 = 10;
/// Calls after which the small ones must be through beside the huge one, of those that it takes alone.
const SLOWER_MAX: f64 = 1.2;
/// For the small ones to be through; alone they need about five seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the tenants compete for: the provider's quota, which all daemons share, or the room that each daemon has for calls
/// on the wire.
const QUOTA: &str = "limits = [{ name = \"all\", max = 200, per = \"1s\" }]\n";
const ROOM: &str = "in_flight_max = 4\n";

fn declaration(base_url: &str, scarce: &str) -> String {
    format!(
        "[providers.crm]\nbase_url = \"{base_url}\"\nallow_private = true\n{scarce}\n\
         [providers.crm.operations.op]\nrequest = \"POST /records\"\nbody = \"{{payload}}\"\n"
    )
}

async fn enqueue(daemon: &Daemon, tenant: &str, account: &str, prefix: &str, jobs: u64) {
    let mut client = JobServiceClient::new(daemon.channel());
    for from in (0..jobs).step_by(1_000) {
        let job = |n: u64| pb::JobSpec {
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

async fn pause(daemon: &Daemon, paused: bool) {
    let (mut client, name) = (ProviderServiceClient::new(daemon.channel()), "crm".to_owned());
    match paused {
        true => drop(client.pause_provider(pb::PauseProviderRequest { name }).await.unwrap()),
        false => drop(client.resume_provider(pb::ResumeProviderRequest { name }).await.unwrap()),
    }
}

/// What became of the small ones' jobs.
#[derive(Clone, Copy, Debug)]
struct Through {
    /// From the moment on which all may go to the last arrival of a small one's job.
    after: Duration,
    /// All calls between the two.
    calls: usize,
}

/// `None` while a job of theirs has not arrived. Ids of theirs begin with `prefix`.
fn through(log: &std::path::Path, prefix: &str, from: Timestamp) -> Option<Through> {
    // The last line may be half written.
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let arrivals = text.lines().map_while(|line| serde_json::from_str::<Arrival>(line).ok());
    let arrivals: Vec<Arrival> = arrivals.filter(|arrival| arrival.at_us >= from.0).collect();
    let mine = arrivals.iter().enumerate().filter(|(_, arrival)| arrival.records[0].starts_with(prefix));
    let (last, arrival) = mine.clone().last()?;
    let after = Timestamp(arrival.at_us).since(from);
    (mine.count() as u64 == SMALL * JOBS_OF_EACH).then_some(Through { after, calls: last + 1 })
}

async fn small_ones(daemons: &[Daemon], log: &std::path::Path, prefix: &str) -> Through {
    for n in 0..SMALL {
        let (tenant, account) = (format!("tenant-{n}"), format!("account-{n}"));
        enqueue(&daemons[n as usize % DAEMONS], &tenant, &account, prefix, JOBS_OF_EACH).await;
    }
    let from = Clock::system().steady();
    pause(&daemons[0], false).await;
    until(PATIENCE, async || through(log, prefix, from)).await.expect("the small ones have their turns")
}

async fn hardly_notice(scarce: &str, hog_accounts: u64) {
    let hog = number("TIDEGATE_FAIRNESS_SERVER_JOBS", 20_000);
    let (folder, database, redis) = (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
    let log = folder.path().join("arrivals.jsonl");
    let provider = Provider::start(&["--latency", "50ms", "--tail-share", "0"], &log).await;
    let declaration = declaration(&provider.base_url, scarce);
    let mut daemons = Vec::new();
    for n in 1..=DAEMONS {
        let (name, redis) = (format!("d{n}"), redis.url());
        let place = Place::shared(&folder.path().join(&name), &name, &database.url(), &redis, &declaration);
        daemons.push(place.start().await);
    }
    pause(&daemons[0], true).await;
    let alone = small_ones(&daemons, &log, "alone").await;
    pause(&daemons[0], true).await;
    for n in 0..hog_accounts {
        enqueue(&daemons[0], "hog", &format!("hog-{n}"), "hog", hog / hog_accounts).await;
    }
    let beside = small_ones(&daemons, &log, "beside").await;
    let counts = daemons[0].counts("crm").await.unwrap();
    for daemon in daemons {
        assert!(daemon.stop().await, "a daemon did not stop cleanly");
    }
    provider.stop().await;
    eprintln!(
        "{} calls of {SMALL} tenants: after {} calls in {:?} alone, after {} calls in {:?} beside one of {hog} jobs",
        SMALL * JOBS_OF_EACH,
        alone.calls,
        alone.after,
        beside.calls,
        beside.after
    );
    assert!(counts.waiting > hog as i64 / 2, "the backlog was no backlog: {counts:?}");
    // Counted in calls: times go by what else the machine does.
    assert!(beside.calls as f64 <= alone.calls as f64 * SLOWER_MAX, "{beside:?} beside a huge tenant, {alone:?} alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_tenants_hardly_notice_a_huge_one_that_shares_each_daemon() {
    hardly_notice(ROOM, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_tenants_hardly_notice_a_huge_one_that_shares_the_quota() {
    hardly_notice(QUOTA, 1).await;
}

//! The figures of the form of many daemons, one daemon and both servers on this machine, each beside its ceiling.
//!
//! Each drain has servers of its own, so that no backlog of another measurement stands before it.
//! Next: `cluster_ceilings`, `permits`.

use std::time::Duration;

use super::super::exit::Error;
use super::super::output::Output;
use super::ceilings::{echo, posts};
use super::daemon::{Daemon, metered, metered_with, rare};
use super::drain::{delivered, drained};
use super::enqueue::{bulk, pause, stream, unary};
use super::servers::Servers;
use super::{Figure, cluster_ceilings, permits, print};
use crate::grpc::pb;
use crate::limiter::redis::{FredLink, Link};
use crate::simulator::{Simulator, SimulatorConfig};

const ACCOUNTS: usize = 10_000;
const FIRST_CALLS_MAX: Duration = Duration::from_secs(120);
/// Every account is refused once, and then knows when to come back.
const SETTLE: Duration = Duration::from_secs(5);
const WATCH: Duration = Duration::from_secs(20);

pub async fn measure(servers: &Servers, jobs: u32, output: &Output) -> Result<Vec<Figure>, Error> {
    let jobs = u64::from(jobs);
    let show = |figures: Vec<Figure>| figures.iter().try_for_each(|figure| print(output, figure));
    show(vec![echo(jobs).await?, Figure::new("ceiling: reqwest alone, POST, 64 in flight", posts(jobs).await?, "/s")])?;
    show(cluster_ceilings::postgres(servers, jobs).await?)?;
    show(cluster_ceilings::redis(servers, jobs).await?)?;
    show(permits::measure(servers).await?)?;
    let provider = Simulator::start(SimulatorConfig::bare()).await.map_err(|e| Error::failed(e.to_string()))?;
    let daemon = Daemon::start_on(Some(servers), &metered(&provider.base_url())).await?;
    pause(&daemon).await?;
    // On an operation that is not drained below.
    show(unary(&daemon, "coalesce", jobs).await?)?;
    let took = bulk(&daemon, "coalesce", false, jobs * 2).await?;
    show(vec![Figure::rate("EnqueueJobs of 1,000, 4 at once", jobs * 2, took)])?;
    let took = stream(&daemon, "coalesce", false, jobs * 2).await?;
    show(vec![Figure::rate("EnqueueStream of 1,000", jobs * 2, took)])?;
    daemon.stop().await;
    // A call is four trips one after the other (permit, begin, POST, settle): what 64 at a time leave idle, more use.
    for (name, operation, in_flight_max, jobs) in [
        ("drain, single lane, a Redis permit each, 64 in flight", "post", 64, jobs),
        ("drain, single lane, a Redis permit each, 256 in flight", "post", 256, jobs),
        ("drain, batch lane of 1,000", "many", 64, jobs * 5),
    ] {
        let servers = Servers::start().await?;
        let daemon = Daemon::start_on(Some(&servers), &metered_with(&provider.base_url(), in_flight_max)).await?;
        let took = drained(&daemon, operation, jobs).await?;
        show(vec![
            Figure::rate(name, jobs, took),
            Figure::new("memory of the daemon after that", daemon.memory_mb(), "MB"),
        ])?;
        daemon.stop().await;
    }
    show(waiting_accounts(&provider.base_url()).await?)?;
    provider.stop().await;
    Ok(Vec::new())
}

/// Thousands of accounts that may send nothing for an hour: what they cost while they wait.
async fn waiting_accounts(base_url: &str) -> Result<Vec<Figure>, Error> {
    let servers = Servers::start().await?;
    let daemon = Daemon::start_on(Some(&servers), &rare(base_url)).await?;
    let clock = daemon.clock.clone();
    for round in 0..2 {
        let jobs: Vec<_> = (0..ACCOUNTS).map(|n| account_job(n, round)).collect();
        for jobs in jobs.chunks(1_000) {
            let request = pb::EnqueueJobsRequest { jobs: jobs.to_vec(), ..Default::default() };
            daemon.jobs().enqueue_jobs(request).await?;
        }
    }
    let end = clock.steady() + FIRST_CALLS_MAX;
    while delivered(&daemon).await? < ACCOUNTS as i64 && clock.steady() < end {
        clock.sleep_until(clock.steady() + Duration::from_millis(200)).await;
    }
    clock.sleep_until(clock.steady() + SETTLE).await;
    let link = FredLink::connect(&servers.redis_url, SETTLE, None).map_err(|e| Error::failed(e.to_string()))?;
    link.changed(0).await;
    let (cpu, scripts) = (daemon.cpu(), scripts(&link).await?);
    clock.sleep_until(clock.steady() + WATCH).await;
    let used = daemon.cpu().saturating_sub(cpu).as_secs_f64() / WATCH.as_secs_f64() * 100.0;
    let asked = (scripts_since(&link, scripts).await?) / WATCH.as_secs_f64();
    let waiting = ACCOUNTS as i64 * 2 - delivered(&daemon).await?;
    let figures = vec![
        Figure::new("limited accounts that wait", waiting as f64, ""),
        Figure::new("limited accounts that wait: CPU of the daemon", used, "% of a core"),
        Figure::new("limited accounts that wait: scripts run by Redis", asked, "/s"),
    ];
    daemon.stop().await;
    Ok(figures)
}

fn account_job(n: usize, round: usize) -> pb::JobSpec {
    pb::JobSpec {
        account: format!("account-{n}"),
        ..super::enqueue::spec("rare", false, (round * ACCOUNTS + n) as u64)
    }
}

async fn scripts_since(link: &FredLink, before: f64) -> Result<f64, Error> {
    Ok(scripts(link).await? - before)
}

/// EVALSHA calls so far.
async fn scripts(link: &FredLink) -> Result<f64, Error> {
    let infos = link.info("commandstats").await.map_err(|e| Error::failed(e.to_string()))?;
    let calls = |line: &str| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse::<f64>().ok();
    Ok(infos.iter().flat_map(|info| info.lines()).filter_map(|line| calls(line.trim())).sum())
}

//! Does cost grow with the backlog? Enqueue, release and status at 10 k, 100 k, 1 M and, when asked, 10 M waiting jobs.

use std::time::Duration;

use super::super::exit::Error;
use super::super::output::Output;
use super::daemon::{Daemon, unlimited};
use super::enqueue::{bulk, pause, resume};
use super::{Figure, percentiles};
use crate::grpc::pb;
use crate::simulator::{Simulator, SimulatorConfig};

/// Questions asked per kind and size.
const ASKED: usize = 300;
/// How long the backlog is let go at each size, to see the rate at which it leaves.
const RELEASE: Duration = Duration::from_secs(2);

pub async fn measure(largest: u32, output: &Output) -> Result<Vec<Figure>, Error> {
    let provider = Simulator::start(SimulatorConfig::bare()).await.map_err(|e| Error::failed(e.to_string()))?;
    let daemon = Daemon::start(&unlimited(&provider.base_url())).await?;
    pause(&daemon).await?;
    let mut figures = Vec::new();
    for size in [10_000u64, 100_000, 1_000_000, 10_000_000].into_iter().filter(|&s| s <= u64::from(largest)) {
        let waiting = daemon.status("bench").await?.counts.map_or(0, |c| c.waiting) as u64;
        let missing = size.saturating_sub(waiting) / 1_000 * 1_000;
        output.say(&format!("filling up to {size} ..."));
        let took = bulk(&daemon, "post", false, missing).await?;
        figures.push(Figure::rate(format!("{size} waiting: enqueue on the way there"), missing, took));
        figures.push(Figure::new(format!("{size} waiting: memory of the daemon"), daemon.memory_mb(), "MB"));
        figures.extend(questions(&daemon, size).await?);
        let before = provider.report().arrivals;
        resume(&daemon).await?;
        daemon.clock.sleep_until(daemon.clock.steady() + RELEASE).await;
        pause(&daemon).await?;
        let left = provider.report().arrivals - before;
        figures.push(Figure::rate(format!("{size} waiting: single calls released"), left, RELEASE));
    }
    daemon.stop().await;
    provider.stop().await;
    Ok(figures)
}

async fn questions(daemon: &Daemon, size: u64) -> Result<Vec<Figure>, Error> {
    let mut jobs = daemon.jobs();
    let page = jobs.list_jobs(pb::ListJobsRequest { page_size: 50, ..Default::default() }).await?.into_inner();
    let newest = page.jobs.first().map(|j| j.id.clone()).unwrap_or_default();
    let (mut status, mut explain, mut list) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ASKED {
        let started = daemon.clock.steady();
        daemon.status("bench").await?;
        status.push(daemon.clock.steady().since(started));
        let started = daemon.clock.steady();
        jobs.explain_job(pb::ExplainJobRequest { job_id: newest.clone() }).await?;
        explain.push(daemon.clock.steady().since(started));
        let started = daemon.clock.steady();
        jobs.list_jobs(pb::ListJobsRequest { page_size: 50, ..Default::default() }).await?;
        list.push(daemon.clock.steady().since(started));
    }
    let figure = |name: &str, times| Figure::new(format!("{size} waiting: {name} p99"), percentiles(times).1, "ms");
    Ok(vec![figure("GetProviderStatus", status), figure("ExplainJob", explain), figure("ListJobs", list)])
}

//! How fast a backlog leaves when no limit holds it: one POST a job, and a thousand jobs a call.

use std::time::Duration;

use super::super::exit::Error;
use super::Figure;
use super::ceilings::posts;
use super::daemon::{Daemon, unlimited};
use super::enqueue::{bulk, pause, resume};
use crate::clock::Timestamp;
use crate::simulator::{Simulator, SimulatorConfig};

const LOOK_AGAIN: Duration = Duration::from_millis(20);
const DRAIN_MAX: Duration = Duration::from_secs(300);

pub async fn measure(jobs: u32) -> Result<Vec<Figure>, Error> {
    let jobs = u64::from(jobs);
    let alone = posts(jobs).await?;
    let single = drain("post", jobs).await?;
    let batch = drain("many", jobs * 5).await?;
    let single_rate = jobs as f64 / single.as_secs_f64();
    Ok(vec![
        Figure::new("reqwest alone, POST, 64 in flight, in this run", alone, "/s"),
        Figure::new("drain, single lane, one POST a job", single_rate, "/s"),
        Figure::new("drain, single lane, share of reqwest alone", single_rate / alone, ""),
        Figure::rate("drain, batch lane of 1,000", jobs * 5, batch),
    ])
}

/// The same with a provider and a daemon of its own.
async fn drain(operation: &'static str, jobs: u64) -> Result<Duration, Error> {
    let provider = Simulator::start(SimulatorConfig::bare()).await.map_err(|e| Error::failed(e.to_string()))?;
    let daemon = Daemon::start(&unlimited(&provider.base_url())).await?;
    let took = drained(&daemon, operation, jobs).await?;
    daemon.stop().await;
    provider.stop().await;
    Ok(took)
}

/// Fills the daemon's paused provider, lets it go, and says how long it took until every job was recorded.
pub async fn drained(daemon: &Daemon, operation: &'static str, jobs: u64) -> Result<Duration, Error> {
    pause(daemon).await?;
    let before = delivered(daemon).await?;
    bulk(daemon, operation, false, jobs).await?;
    let started = daemon.clock.steady();
    resume(daemon).await?;
    let end: Timestamp = started + DRAIN_MAX;
    loop {
        let left = jobs as i64 - (delivered(daemon).await? - before);
        if left <= 0 {
            return Ok(daemon.clock.steady().since(started));
        }
        if daemon.clock.steady() > end {
            return Err(Error::failed(format!("{left} of {jobs} were not delivered in {DRAIN_MAX:?}")));
        }
        daemon.clock.sleep_until(daemon.clock.steady() + LOOK_AGAIN).await;
    }
}

pub async fn delivered(daemon: &Daemon) -> Result<i64, Error> {
    Ok(daemon.status("bench").await?.counts.unwrap_or_default().delivered)
}

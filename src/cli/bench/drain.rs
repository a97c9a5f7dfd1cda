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

/// Fills a paused provider, lets it go, and waits until every job is recorded as delivered.
async fn drain(operation: &'static str, jobs: u64) -> Result<Duration, Error> {
    let provider = Simulator::start(SimulatorConfig::bare()).await.map_err(|e| Error::failed(e.to_string()))?;
    let daemon = Daemon::start(&unlimited(&provider.base_url())).await?;
    pause(&daemon).await?;
    bulk(&daemon, operation, false, jobs).await?;
    let started = daemon.clock.steady();
    resume(&daemon).await?;
    let end: Timestamp = started + DRAIN_MAX;
    loop {
        let counts = daemon.status("bench").await?.counts.unwrap_or_default();
        if counts.delivered >= jobs as i64 {
            break;
        }
        if daemon.clock.steady() > end {
            return Err(Error::failed(format!("{} of {jobs} were delivered in {DRAIN_MAX:?}", counts.delivered)));
        }
        daemon.clock.sleep_until(daemon.clock.steady() + LOOK_AGAIN).await;
    }
    let took = daemon.clock.steady().since(started);
    daemon.stop().await;
    provider.stop().await;
    Ok(took)
}

//! From the enqueue call to the arrival of the request at the provider, at a steady rate.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinSet;

use super::super::exit::Error;
use super::daemon::{Daemon, unlimited};
use super::enqueue::spec;
use super::{Figure, percentiles};
use crate::clock::{Clock, Timestamp};
use crate::grpc::pb;
use crate::simulator::{Latency, Simulator, SimulatorConfig};

/// How long each rate is kept up.
const FOR: Duration = Duration::from_secs(10);

pub async fn measure() -> Result<Vec<Figure>, Error> {
    let mut figures = Vec::new();
    for per_second in [100u64, 1_000] {
        let (p50, p99) = percentiles(at_rate(per_second).await?);
        figures.push(Figure::new(format!("enqueue to arrival at {per_second}/s: p50"), p50, "ms"));
        figures.push(Figure::new(format!("enqueue to arrival at {per_second}/s: p99"), p99, "ms"));
    }
    Ok(figures)
}

async fn at_rate(per_second: u64) -> Result<Vec<Duration>, Error> {
    let clock = Clock::system();
    let total = per_second * FOR.as_secs();
    let config = SimulatorConfig { latency: Latency::none(), keep_arrivals: total as usize * 2, ..Default::default() };
    let provider = Simulator::start_on(config, clock.clone()).await.map_err(|e| Error::failed(e.to_string()))?;
    let daemon = Daemon::start(&unlimited(&provider.base_url())).await?;
    let mut calls = JoinSet::new();
    let started = clock.steady();
    for n in 0..total {
        clock.sleep_until(started + FOR.mul_f64(n as f64 / total as f64)).await;
        let (mut client, clock) = (daemon.jobs(), clock.clone());
        calls.spawn(async move {
            let sent = clock.steady();
            let request = pb::EnqueueJobRequest { job: Some(spec("post", false, n)), ..Default::default() };
            client.enqueue_job(request).await.map(|_| (format!("{n:012}"), sent)).map_err(Error::from)
        });
    }
    let mut sent: HashMap<String, Timestamp> = HashMap::new();
    while let Some(done) = calls.join_next().await {
        sent.extend([done.map_err(|e| Error::failed(e.to_string()))??]);
    }
    let end = clock.steady() + FOR;
    while provider.report().arrivals < total && clock.steady() < end {
        clock.sleep_until(clock.steady() + Duration::from_millis(20)).await;
    }
    let arrivals = provider.arrivals();
    daemon.stop().await;
    provider.stop().await;
    let waited = |a: &crate::simulator::Arrival| {
        let id = a.records.first()?;
        Some(Timestamp(a.at_us).since(*sent.get(id)?))
    };
    let times: Vec<Duration> = arrivals.iter().filter_map(waited).collect();
    if times.len() as u64 != total {
        return Err(Error::failed(format!("{} of {total} jobs arrived", times.len())));
    }
    Ok(times)
}

//! Cached calls over gRPC at a steady rate.

use std::time::Duration;

use tokio::task::JoinSet;

use super::super::exit::Error;
use super::daemon::Daemon;
use super::{Figure, percentiles};
use crate::clock::{Clock, Timestamp};
use crate::grpc::pb;
use crate::grpc::pb::call_service_client::CallServiceClient;
use crate::simulator::{Latency, Simulator, SimulatorConfig};

const PER_SECOND: u64 = 5_000;
const FOR: Duration = Duration::from_secs(10);
/// Answers that are asked for in turn.
const ANSWERS: u64 = 100;
/// Connections over which the calls are spread, and calls under way on each.
const CONNECTIONS: usize = 4;

pub async fn measure() -> Result<Vec<Figure>, Error> {
    let clock = Clock::system();
    let config = SimulatorConfig { latency: Latency::none(), ..Default::default() };
    let provider = Simulator::start_on(config, clock.clone()).await.map_err(|e| Error::failed(e.to_string()))?;
    let daemon = Daemon::start(&declaration(&provider.base_url())).await?;
    let client = || CallServiceClient::new(daemon.channel.clone());
    for n in 0..ANSWERS {
        client().call(request(n)).await?;
    }
    let fetched = provider.report().arrivals;
    let mut tasks = JoinSet::new();
    let started = clock.steady() + Duration::from_millis(100);
    let total = PER_SECOND * FOR.as_secs();
    for lane in 0..CONNECTIONS as u64 {
        let (channel, clock) = (daemon.another_channel().await?, clock.clone());
        tasks.spawn(async move { at_rate(channel, clock, started, lane, total).await });
    }
    let mut times = Vec::with_capacity(total as usize);
    while let Some(done) = tasks.join_next().await {
        times.extend(done.map_err(|e| Error::failed(e.to_string()))??);
    }
    let took = clock.steady().since(started);
    let sent = provider.report().arrivals - fetched;
    daemon.stop().await;
    provider.stop().await;
    if sent > 0 {
        return Err(Error::failed(format!("{sent} of the cached calls went to the provider")));
    }
    let (p50, p99) = percentiles(times);
    Ok(vec![
        Figure::rate(format!("cached Call, asked for at {PER_SECOND}/s"), total, took),
        Figure::new(format!("cached Call at {PER_SECOND}/s: p50"), p50, "ms"),
        Figure::new(format!("cached Call at {PER_SECOND}/s: p99"), p99, "ms"),
    ])
}

/// Every so many-th call of a steady rate, whether the ones before have come back or not.
async fn at_rate(
    channel: tonic::transport::Channel,
    clock: Clock,
    started: Timestamp,
    lane: u64,
    total: u64,
) -> Result<Vec<Duration>, Error> {
    let mut calls = JoinSet::new();
    for n in (lane..total).step_by(CONNECTIONS) {
        let due = started + FOR.mul_f64(n as f64 / total as f64);
        if clock.steady() < due {
            clock.sleep_until(due).await;
        }
        let (mut client, clock) = (CallServiceClient::new(channel.clone()), clock.clone());
        // Timed from the send: the timer of this process wakes a millisecond late by itself.
        calls.spawn(async move {
            let sent = clock.steady();
            client.call(request(n % ANSWERS)).await.map(|_| clock.steady().since(sent)).map_err(Error::from)
        });
    }
    let mut times = Vec::with_capacity(calls.len());
    while let Some(done) = calls.join_next().await {
        times.push(done.map_err(|e| Error::failed(e.to_string()))??);
    }
    Ok(times)
}

fn request(n: u64) -> pb::CallRequest {
    pb::CallRequest {
        provider: "bench".to_owned(),
        operation: "read".to_owned(),
        key: format!("item-{n}"),
        ..Default::default()
    }
}

fn declaration(base_url: &str) -> String {
    format!(
        r#"[providers.bench]
base_url = "{base_url}"
allow_private = true
limits = ["1000/h"]

[providers.bench.operations.read]
request = "GET /get/{{key}}"
cache = {{ ttl = "1h" }}
"#
    )
}

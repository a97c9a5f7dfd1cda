//! Cached calls over gRPC at a steady rate, timed from the moment that each was due.

use std::time::Duration;

use tonic::transport::Channel;

use super::super::exit::Error;
use super::daemon::Daemon;
use super::pace::{Paced, keep};
use super::{Figure, percentiles};
use crate::clock::Clock;
use crate::grpc::pb;
use crate::grpc::pb::call_service_client::CallServiceClient;
use crate::simulator::{Latency, Simulator, SimulatorConfig};

const PER_SECOND: u64 = 5_000;
/// Answers that are asked for in turn.
const ANSWERS: u64 = 100;
/// Connections over which the calls are spread.
const CONNECTIONS: usize = 4;

pub async fn measure(length: Duration) -> Result<Vec<Figure>, Error> {
    let clock = Clock::system();
    let config = SimulatorConfig { latency: Latency::none(), ..Default::default() };
    let provider = Simulator::start_on(config, clock.clone()).await.map_err(|e| Error::failed(e.to_string()))?;
    let daemon = Daemon::start(&declaration(&provider.base_url())).await?;
    for n in 0..ANSWERS {
        CallServiceClient::new(daemon.channel.clone()).call(request(n)).await?;
    }
    let fetched = provider.report().arrivals;
    let mut channels: Vec<Channel> = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        channels.push(daemon.another_channel().await?);
    }
    let paced = keep(&clock, PER_SECOND, length, |n| {
        let mut client = CallServiceClient::new(channels[n as usize % CONNECTIONS].clone());
        async move { client.call(request(n % ANSWERS)).await.map(|_| ()).map_err(Error::from) }
    });
    let paced = paced.await?;
    let sent = provider.report().arrivals - fetched;
    daemon.stop().await;
    provider.stop().await;
    if sent > 0 {
        return Err(Error::failed(format!("expected every call to be answered from the cache, {sent} were sent")));
    }
    Ok(figures(paced))
}

fn figures(Paced { times, late, took }: Paced) -> Vec<Figure> {
    let answered =
        Figure::rate(format!("cached Call, asked for at {PER_SECOND}/s: answered"), times.len() as u64, took);
    let ((p50, p99), (_, late)) = (percentiles(times), percentiles(late));
    vec![
        answered,
        Figure::new(format!("cached Call at {PER_SECOND}/s, from when it was due: p50"), p50, "ms"),
        Figure::new(format!("cached Call at {PER_SECOND}/s, from when it was due: p99"), p99, "ms"),
        Figure::new("of that the bench itself was late: p99", late, "ms"),
    ]
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

//! What the machine can do without Tidegate, with both ends on it: bare gRPC, fsync, bare HTTP.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::super::exit::Error;
use super::Figure;
use super::daemon::payload;
use crate::clock::Clock;
use crate::simulator::{Simulator, SimulatorConfig};

const IN_FLIGHT: u64 = 64;
/// Appends timed for the fsync figure.
const FSYNCS: u64 = 1_000;

pub async fn measure(jobs: u32) -> Result<Vec<Figure>, Error> {
    let jobs = u64::from(jobs);
    Ok(vec![
        echo(jobs).await?,
        fsync()?,
        Figure::new("ceiling: reqwest alone, POST, 64 in flight", posts(jobs).await?, "/s"),
    ])
}

/// A unary call with a 200-byte request against a server that does nothing else.
pub async fn echo(calls: u64) -> Result<Figure, Error> {
    let name = "x".repeat(200);
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status(&name, tonic_health::ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| Error::failed(e.to_string()))?;
    let addr = listener.local_addr().map_err(|e| Error::failed(e.to_string()))?;
    let mut tasks = JoinSet::new();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tasks.spawn(async move {
        let _ = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await;
    });
    let endpoint = tonic::transport::Channel::from_shared(format!("http://{addr}")).expect("a valid URL");
    let client = HealthClient::new(endpoint.connect().await.map_err(|e| Error::failed(e.to_string()))?);
    let took = in_flight(calls, move |_| {
        let mut client = client.clone();
        let request = HealthCheckRequest { service: name.clone() };
        async move { client.check(request).await.map(drop).map_err(Error::from) }
    })
    .await?;
    Ok(Figure::rate("ceiling: bare tonic unary, 200 bytes, 64 in flight", calls, took))
}

/// One small append and one fdatasync after another.
fn fsync() -> Result<Figure, Error> {
    let failed = |e: std::io::Error| Error::failed(format!("cannot write a test file: {e}"));
    let mut file = tempfile::tempfile().map_err(failed)?;
    let clock = Clock::system();
    let started = clock.steady();
    for _ in 0..FSYNCS {
        file.write_all(&[7; 4_096]).map_err(failed)?;
        file.sync_data().map_err(failed)?;
    }
    Ok(Figure::rate("ceiling: fdatasync after 4 kB, one at a time", FSYNCS, clock.steady().since(started)))
}

/// POSTs of 200 bytes by reqwest alone against a provider that answers at once. Calls per second.
pub async fn posts(calls: u64) -> Result<f64, Error> {
    let provider = Simulator::start(SimulatorConfig::bare()).await.map_err(|e| Error::failed(e.to_string()))?;
    let url = format!("{}/post", provider.base_url());
    crate::app::install_crypto();
    let client = reqwest::Client::builder().no_proxy().build().map_err(|e| Error::failed(e.to_string()))?;
    let took = in_flight(calls, move |n| {
        let request = client.post(&url).header("content-type", "application/json").body(payload(n));
        async move {
            let answer = request.send().await.map_err(|e| Error::failed(e.to_string()))?;
            answer.bytes().await.map(drop).map_err(|e| Error::failed(e.to_string()))
        }
    })
    .await?;
    provider.stop().await;
    Ok(calls as f64 / took.as_secs_f64())
}

/// Runs `call(0..calls)` with 64 in flight and says how long all took.
pub async fn in_flight<F, Fut>(calls: u64, call: F) -> Result<Duration, Error>
where
    F: Fn(u64) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (clock, call, next) = (Clock::system(), Arc::new(call), Arc::new(AtomicU64::new(0)));
    let started = clock.steady();
    let mut tasks: JoinSet<Result<(), Error>> = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (call, next) = (call.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= calls {
                    return Ok(());
                }
                call(n).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|e| Error::failed(e.to_string()))??;
    }
    Ok(clock.steady().since(started))
}

//! Durable enqueues: one by one with many in flight, in thousands, and as a stream. The provider is paused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_stream::StreamExt;

use super::super::exit::Error;
use super::ceilings::in_flight;
use super::daemon::{Daemon, payload, unlimited};
use super::{Figure, percentiles};
use crate::grpc::pb;
use crate::grpc::pb::provider_service_client::ProviderServiceClient;

/// Jobs of one EnqueueJobs call or one stream message, and calls under way at one time.
const BULK: u64 = 1_000;
const BULKS_AT_ONCE: usize = 4;

pub async fn measure(jobs: u32) -> Result<Vec<Figure>, Error> {
    let jobs = u64::from(jobs);
    let daemon = Daemon::start(&unlimited("http://127.0.0.1:9")).await?;
    pause(&daemon).await?;
    let mut figures = unary(&daemon, "post", jobs).await?;
    for (name, operation, keyed) in [("without keys", "post", false), ("with a coalescing key each", "coalesce", true)]
    {
        let took = bulk(&daemon, operation, keyed, jobs * 2).await?;
        figures.push(Figure::rate(format!("EnqueueJobs of 1,000, 4 at once, {name}"), jobs * 2, took));
        let took = stream(&daemon, operation, keyed, jobs * 2).await?;
        figures.push(Figure::rate(format!("EnqueueStream of 1,000, {name}"), jobs * 2, took));
    }
    figures.push(Figure::new("memory of the daemon after that", daemon.memory_mb(), "MB"));
    daemon.stop().await;
    Ok(figures)
}

pub async fn pause(daemon: &Daemon) -> Result<(), Error> {
    let mut providers = ProviderServiceClient::new(daemon.channel.clone());
    providers.pause_provider(pb::PauseProviderRequest { name: "bench".to_owned() }).await?;
    Ok(())
}

pub async fn resume(daemon: &Daemon) -> Result<(), Error> {
    let mut providers = ProviderServiceClient::new(daemon.channel.clone());
    providers.resume_provider(pb::ResumeProviderRequest { name: "bench".to_owned() }).await?;
    Ok(())
}

pub fn spec(operation: &str, keyed: bool, n: u64) -> pb::JobSpec {
    pb::JobSpec {
        provider: "bench".to_owned(),
        operation: operation.to_owned(),
        key: if keyed { format!("key-{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) } else { String::new() },
        payload: payload(n),
        ..Default::default()
    }
}

pub async fn unary(daemon: &Daemon, operation: &'static str, jobs: u64) -> Result<Vec<Figure>, Error> {
    let client = daemon.jobs();
    let times = Arc::new(Mutex::new(Vec::with_capacity(jobs as usize)));
    let (seen, clock) = (times.clone(), daemon.clock.clone());
    let took = in_flight(jobs, move |n| {
        let (mut client, clock, times) = (client.clone(), clock.clone(), times.clone());
        async move {
            let started = clock.steady();
            let request = pb::EnqueueJobRequest { job: Some(spec(operation, false, n)), ..Default::default() };
            client.enqueue_job(request).await?;
            times.lock().expect("no panic while held").push(clock.steady().since(started));
            Ok(())
        }
    })
    .await?;
    let (p50, p99) = percentiles(std::mem::take(&mut *seen.lock().expect("no panic while held")));
    Ok(vec![
        Figure::rate("EnqueueJob, unary, 64 in flight", jobs, took),
        Figure::new("EnqueueJob, unary, 64 in flight: p50", p50, "ms"),
        Figure::new("EnqueueJob, unary, 64 in flight: p99", p99, "ms"),
    ])
}

/// Calls of a thousand jobs, a few at once.
pub async fn bulk(daemon: &Daemon, operation: &'static str, keyed: bool, jobs: u64) -> Result<Duration, Error> {
    let started = daemon.clock.steady();
    let mut tasks = tokio::task::JoinSet::new();
    let calls = jobs / BULK;
    for lane in 0..BULKS_AT_ONCE as u64 {
        let mut client = daemon.jobs();
        tasks.spawn(async move {
            for call in (lane..calls).step_by(BULKS_AT_ONCE) {
                let batch = (call * BULK..(call + 1) * BULK).map(|n| spec(operation, keyed, n)).collect();
                client.enqueue_jobs(pb::EnqueueJobsRequest { jobs: batch, ..Default::default() }).await?;
            }
            Ok::<(), Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|e| Error::failed(e.to_string()))??;
    }
    Ok(daemon.clock.steady().since(started))
}

pub async fn stream(daemon: &Daemon, operation: &'static str, keyed: bool, jobs: u64) -> Result<Duration, Error> {
    let started = daemon.clock.steady();
    // Other keys than those of the bulk calls, so that nothing coalesces.
    let message = move |m: u64| pb::EnqueueStreamRequest {
        sequence: m as i64 + 1,
        jobs: (0..BULK).map(|i| spec(operation, keyed, (1 << 40) + m * BULK + i)).collect(),
    };
    let requests = tokio_stream::iter((0..jobs / BULK).map(message));
    let mut acks = daemon.jobs().enqueue_stream(requests).await?.into_inner();
    let mut acked = 0;
    while let Some(ack) = acks.next().await {
        acked += ack?.accepted_count as u64;
    }
    if acked != jobs / BULK * BULK {
        return Err(Error::failed(format!("{acked} of {jobs} jobs were acknowledged")));
    }
    Ok(daemon.clock.steady().since(started))
}

//! Steady work of every kind: changes that coalesce, steps in order, events under idempotency keys, jobs that die, runs
//! that end, and accounts and tenants that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::grpc::pb::run_service_client::RunServiceClient;
use tidegate::simulator::dice::Dice;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Between two calls of the client, each of `JOBS` jobs: 200 a second.
const EVERY: Duration = Duration::from_millis(100);
const JOBS: u64 = 20;
/// Calls between two runs.
const RUN_EVERY: u64 = 50;
/// Accounts and tenants live for so many calls: half a minute.
const VISIT: u64 = 300;

pub struct Load {
    task: tokio::task::JoinHandle<u64>,
    stopping: CancellationToken,
    daemon: watch::Sender<Option<Channel>>,
    accepted: Arc<AtomicU64>,
}

impl Load {
    pub fn start(daemon: Channel) -> Load {
        let (stopping, daemon) = (CancellationToken::new(), watch::Sender::new(Some(daemon)));
        let accepted = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(run(daemon.subscribe(), stopping.clone(), accepted.clone()));
        Load { task, stopping, daemon, accepted }
    }

    /// How many jobs were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Sends everything to this daemon from now on; waits while there is none.
    pub fn daemon(&self, channel: Option<Channel>) {
        self.daemon.send_replace(channel);
    }

    /// How many jobs were made, as far as was heard; one that went up in a waiting one is not counted.
    pub async fn stop(self) -> u64 {
        self.stopping.cancel();
        self.task.await.expect("the load was accepted")
    }
}

async fn run(
    mut daemon: watch::Receiver<Option<Channel>>,
    stopping: CancellationToken,
    accepted: Arc<AtomicU64>,
) -> u64 {
    let (mut dice, mut made, mut turn) = (Dice::new(1), 0, 0u64);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stopping.run_until_cancelled(ticks.tick()).await.is_some() {
        let named = stopping.run_until_cancelled(daemon.wait_for(Option::is_some)).await;
        let Some(Ok(channel)) = named.map(|named| named.map(|c| c.clone())) else { break };
        turn += 1;
        match work(channel.expect("waited for"), turn, &mut dice).await {
            Ok(more) => {
                made += more;
                accepted.fetch_add(JOBS, Ordering::Relaxed);
            }
            // It is going down: what was not acknowledged may be there or not.
            Err(status) if status.code() == tonic::Code::Unavailable => {}
            Err(status) => panic!("expected the jobs to be accepted, got {status}"),
        }
    }
    made
}

/// One call's worth of jobs, sometimes as a run.
async fn work(daemon: Channel, turn: u64, dice: &mut Dice) -> Result<u64, tonic::Status> {
    let (mut jobs, mut runs) = (JobServiceClient::new(daemon.clone()), RunServiceClient::new(daemon));
    let run_id = match turn.is_multiple_of(RUN_EVERY) {
        true => runs.create_run(pb::CreateRunRequest::default()).await?.into_inner().run.unwrap_or_default().id,
        false => String::new(),
    };
    let spec = |n| pb::JobSpec { run_id: run_id.clone(), ..spec(turn, n, dice) };
    let request = pb::EnqueueJobsRequest { jobs: (0..JOBS).map(spec).collect(), ..Default::default() };
    let mut made = 0;
    for result in jobs.enqueue_jobs(request).await?.into_inner().results {
        match result.result {
            Some(pb::enqueue_result::Result::Enqueued(e)) => {
                made += u64::from(e.acceptance() == pb::Acceptance::Created);
            }
            other => panic!("expected the job to be accepted, got {other:?}"),
        }
    }
    if !run_id.is_empty() {
        runs.seal_run(pb::SealRunRequest { run_id }).await?;
    }
    Ok(made)
}

fn spec(turn: u64, n: u64, dice: &mut Dice) -> pb::JobSpec {
    let mut spec = pb::JobSpec { provider: "crm".to_owned(), ..pb::JobSpec::default() };
    let kind = dice.below(100);
    let id = match kind {
        0..55 => {
            spec.operation = "sync".to_owned();
            spec.key = format!("u{}", dice.below(20_000));
            spec.key.clone()
        }
        55..80 => {
            spec.operation = "step".to_owned();
            spec.key = format!("s{}", dice.below(2_000));
            spec.account = format!("account-{}", dice.below(6));
            spec.key.clone()
        }
        80..90 => {
            spec.operation = "step".to_owned();
            spec.account = format!("visitor-{}-{}", turn / VISIT, dice.below(10));
            format!("v{turn}-{n}")
        }
        _ => {
            spec.operation = "event".to_owned();
            spec.idempotency_key = format!("event-{turn}-{n}");
            let bad = if kind == 99 { "bad-" } else { "" };
            format!("{bad}e{turn}-{n}")
        }
    };
    if spec.key.is_empty() && spec.operation == "step" {
        spec.key = id.clone();
    }
    spec.payload = format!(r#"{{"id":"{id}","n":{turn},"name":"{:x}{:x}"}}"#, dice.next_u64(), dice.next_u64());
    spec
}

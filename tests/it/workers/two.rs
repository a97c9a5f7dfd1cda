//! Two daemons with a worker at each: one is killed, and what its worker had is done at the other or ends by `within`.

use std::collections::BTreeSet;

use tidegate::clock::Clock;
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;

use super::called_off::cancel;
use super::{PATIENCE, Worker, declaration, in_state, job};
use crate::support::process::{Daemon, Place, until};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;

/// Enough that each daemon has some of their partitions.
const ACCOUNTS: usize = 24;

struct Two {
    daemons: [Daemon; 2],
    _hold: (tempfile::TempDir, Database, RedisServer),
}

async fn two(more: &str) -> Two {
    let (folder, database, redis) = (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
    let text = declaration("{ lease = \"3s\", within = \"20s\" }", more);
    let place = |name: &str| Place::shared(&folder.path().join(name), name, &database.url(), &redis.url(), &text);
    let daemons = [place("d1").start().await, place("d2").start().await];
    Two { daemons, _hold: (folder, database, redis) }
}

async fn enqueue(daemon: &Daemon) -> Vec<String> {
    let job = |n: usize| pb::JobSpec {
        provider: "crm".into(),
        operation: "review".into(),
        account: format!("a{n}"),
        payload: "{}".into(),
        ..Default::default()
    };
    let request = pb::EnqueueJobsRequest { jobs: (0..ACCOUNTS).map(job).collect(), ..Default::default() };
    let answer = JobServiceClient::new(daemon.channel()).enqueue_jobs(request).await.unwrap().into_inner();
    let id = |result: pb::EnqueueResult| match result.result {
        Some(pb::enqueue_result::Result::Enqueued(done)) => done.job_id,
        other => panic!("expected a job, got {other:?}"),
    };
    answer.results.into_iter().map(id).collect()
}

/// Both have joined with a seat for every job, and all jobs are out: of each worker, its leases.
async fn lend(daemons: &[Daemon; 2], workers: &mut [Worker; 2]) -> [Vec<pb::LeasedJob>; 2] {
    // Partitions are still moving to the second daemon when the first has answered.
    let settled = until(PATIENCE, async || {
        let request = pb::GetProviderStatusRequest { name: "crm".into() };
        let mut client = pb::provider_service_client::ProviderServiceClient::new(daemons[1].channel());
        let status = client.get_provider_status(request).await.unwrap().into_inner().status.unwrap();
        (status.partitions_held == Some(32)).then_some(())
    });
    settled.await.expect("each has half of the partitions");
    enqueue(&daemons[1]).await;
    let mut leases: [Vec<pb::LeasedJob>; 2] = Default::default();
    while leases.iter().map(Vec::len).sum::<usize>() < ACCOUNTS {
        let [first, second] = workers.each_mut();
        let (at, lease) = tokio::select! {
            lease = first.job() => (0, lease),
            lease = second.job() => (1, lease),
        };
        leases[at].push(lease);
    }
    assert!(leases.iter().all(|leases| leases.len() > 2), "{leases:?}");
    leases
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_brings_its_jobs_to_the_daemon_that_is_left_and_the_others_end_by_within() {
    for (repeat, left_in) in [("always", pb::JobState::Delivered), ("by-method", pb::JobState::Unknown)] {
        let more =
            format!("repeat = \"{repeat}\"\nretry = {{ base = \"10ms\", cap = \"20ms\" }}\nlimits = [\"1000/h\"]");
        let Two { daemons, _hold } = two(&more).await;
        let seats = i32::try_from(ACCOUNTS).unwrap();
        let mut workers =
            [Worker::join(&daemons[0], seats, &[]).await.beat(), Worker::join(&daemons[1], seats, &[]).await.beat()];
        let [mut brought, here] = lend(&daemons, &mut workers).await;
        let left = brought.pop().unwrap();
        let [dead, alive] = daemons;
        let [_, mut other] = workers;
        for lease in &here {
            other.complete(&lease.token, "").await;
        }
        for _ in &here {
            assert!(matches!(other.next().await, super::Told::Ended(ended) if ended.recorded));
        }
        dead.kill(&Clock::system()).await;
        // At once: the daemon that is left does not know yet, and says so; nothing is lost by coming again.
        let tokens: Vec<&str> = brought.iter().map(|lease| lease.token.as_str()).collect();
        let refused = Worker::try_join(&alive, seats, &tokens).await.err().expect("it is not known to be dead yet");
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
        let mut worker = Worker::join(&alive, seats, &tokens).await.beat();
        let resumed: BTreeSet<&str> = worker.welcome.resumed_tokens.iter().map(String::as_str).collect();
        assert_eq!(resumed, tokens.iter().copied().collect());
        let tokens: Vec<String> = tokens.into_iter().map(str::to_owned).collect();
        for token in &tokens {
            worker.complete(token, "\"done\"").await;
        }
        for _ in &tokens {
            match worker.next().await {
                super::Told::Ended(ended) => assert!(ended.recorded, "{ended:?}"),
                other => panic!("expected an end, got {other:?}"),
            }
        }
        for lease in &brought {
            let done = job(&alive, &lease.job_id).await;
            assert_eq!((done.state(), done.attempts, done.crashes), (pb::JobState::Delivered, 1, 0), "{done:?}");
        }
        // The one that nobody brought: its time is over, and it goes as `repeat` says. Its token is worth nothing then.
        if left_in == pb::JobState::Delivered {
            let again = loop {
                let [lease, heard] =
                    [&mut worker, &mut other].map(|w| tokio::time::timeout(super::QUIET, w.told.message()));
                let told = tokio::select! { biased; Ok(told) = lease => Some(told), Ok(told) = heard => Some(told), else => None };
                if let Some(super::Told::Job(again)) = told.and_then(|t| t.unwrap().unwrap().what) {
                    break again;
                }
            };
            assert_eq!((&again.job_id, again.attempt), (&left.job_id, 2));
            for worker in [&worker, &other] {
                worker.complete(&again.token, "").await;
            }
        }
        in_state(&alive, &left.job_id, left_in).await;
        let mut late = Worker::join(&alive, 1, &[&left.token]).await;
        assert!(!late.ended(&left.token).await.recorded);
        assert!(alive.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_at_one_daemon_reaches_the_worker_at_the_other() {
    let Two { daemons, _hold } = two("").await;
    let seats = i32::try_from(ACCOUNTS).unwrap();
    let mut workers =
        [Worker::join(&daemons[0], seats, &[]).await.beat(), Worker::join(&daemons[1], seats, &[]).await.beat()];
    let leases = lend(&daemons, &mut workers).await;
    for (at, worker) in workers.iter_mut().enumerate() {
        let lease = &leases[at][0];
        assert!(cancel(&daemons[1 - at], &[&lease.job_id]).await.changes[0].cancel_requested);
        worker.called_off(&lease.token).await;
        worker.fail(&lease.token, pb::job_failed::Kind::Retry, None).await;
        assert!(worker.ended(&lease.token).await.recorded);
        in_state(&daemons[1 - at], &lease.job_id, pb::JobState::Cancelled).await;
    }
}

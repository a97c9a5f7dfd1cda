//! PostgreSQL away for longer than a budget of restarts lasts when an actor gives up at once: nobody gives up, whether the
//! database refuses or is silent, and nobody who looks like hanging starves the watchdog.

use std::time::Duration;

use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::simulator::{Simulator, SimulatorConfig};

use super::{Database, Member, PATIENCE, Proxy, RedisServer, port, through, until};

/// Actors that fail are started again five times within a minute, the last time after 1.6 s: one that fails on a database
/// that is away would have ended the daemon long before this.
const OUTAGE: Duration = Duration::from_secs(35);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Watches a daemon for as long as the outage lasts.
async fn holds_out(member: &Member) {
    let supervisor = member.app.handle().supervisor().clone();
    let watched = async {
        let failed = supervisor.failed();
        let mut failed = std::pin::pin!(failed);
        loop {
            tokio::select! {
                why = &mut failed => panic!("{}: {why}", member.name),
                () = tokio::time::sleep(LOOK_AGAIN) => assert_eq!(supervisor.hung(), None, "{}", member.name),
            }
        }
    };
    assert!(tokio::time::timeout(OUTAGE, watched).await.is_err(), "it is watched to the end");
    let restarted: Vec<_> = supervisor.actors().into_iter().filter(|a| a.restarts > 0).collect();
    assert!(restarted.is_empty(), "{}: no budget is touched, however long it lasts: {restarted:#?}", member.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_for_longer_than_a_budget_of_restarts_ends_no_daemon() {
    let (folder, database, redis) = (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
    let provider = Simulator::start(SimulatorConfig::default()).await.unwrap();
    let (refusing, silent) = (Proxy::to(port(&database.url())).await, Proxy::to(port(&database.url())).await);
    let start = async |name, proxy: &Proxy| {
        let url = through(&database.url(), proxy);
        Member::start(folder.path(), name, &url, &redis.url(), &provider.base_url()).await
    };
    let (d1, d2) = (start("d1", &refusing).await, start("d2", &silent).await);
    for member in [&d1, &d2] {
        member.readyz(200, "ready").await;
    }
    refusing.refuse(true);
    silent.silent(true);
    tokio::join!(holds_out(&d1), holds_out(&d2));
    for (member, says) in [(&d1, "the store does not answer"), (&d2, "the store has not answered for")] {
        member.readyz(503, says).await;
        let job = pb::JobSpec {
            provider: "crm".into(),
            operation: "sync".into(),
            payload: "{}".into(),
            ..Default::default()
        };
        let request = pb::EnqueueJobRequest { job: Some(job), ..Default::default() };
        let refused = JobServiceClient::new(member.channel.clone()).enqueue_job(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    }
    refusing.refuse(false);
    silent.silent(false);
    for member in [&d1, &d2] {
        let back = until(PATIENCE, || async { (member.page("/readyz").await.1 == "ready\n").then_some(()) }).await;
        assert!(back.is_some(), "{}: {:?}", member.name, member.page("/readyz").await);
        member.enqueue(member.name).await;
    }
    d1.app.stop().await;
    d2.app.stop().await;
}

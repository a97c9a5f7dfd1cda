//! Programs outside as they meet real daemons: killed, restarted, many at a time.

use std::path::Path;

use tidegate::clock::Clock;
use tidegate::grpc::pb;
use tidegate::grpc::pb::permit_service_client::PermitServiceClient;

use crate::support::process::{Daemon, Place, until};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;

const CRM: &str = "[providers.crm]\nbase_url = \"http://127.0.0.1:9\"\nallow_private = true\nlimits = [\"6/h\"]\n\n\
                   [providers.crm.operations.ping]\nrequest = \"PUT /ping\"\n";

async fn acquire(daemon: &Daemon, max: i32, wait_seconds: i64) -> pb::AcquirePermitsResponse {
    let request = pb::AcquirePermitsRequest {
        provider: "crm".into(),
        max_count: max,
        wait: Some(prost_types::Duration { seconds: wait_seconds, nanos: 0 }),
        ..Default::default()
    };
    let mut client = PermitServiceClient::new(daemon.channel());
    client.acquire_permits(request).await.unwrap().into_inner()
}

async fn settle(daemon: &Daemon, token: &str, sent_count: i32) -> bool {
    let request = pb::SettlePermitsRequest { token: token.into(), sent_count, ..Default::default() };
    let mut client = PermitServiceClient::new(daemon.channel());
    client.settle_permits(request).await.unwrap().into_inner().already_settled
}

#[tokio::test]
async fn permits_count_though_the_daemon_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), folder.path(), CRM);
    let daemon = place.start().await;
    let (first, second) = (acquire(&daemon, 2, 0).await, acquire(&daemon, 2, 0).await);
    assert_eq!((first.granted_count, second.granted_count), (2, 2));
    settle(&daemon, &second.token, 1).await;
    daemon.kill(&Clock::system()).await;

    let daemon = place.start().await;
    // 2 are out, 1 was sent.
    let third = acquire(&daemon, 10, 0).await;
    assert_eq!(third.granted_count, 3);
    // The program outlived the daemon, and what it says still counts; what came from before is never handed out again.
    assert!(!settle(&daemon, &first.token, 0).await);
    assert!(settle(&daemon, &first.token, 2).await);
    assert_eq!(acquire(&daemon, 10, 0).await.granted_count, 0);
    // Of this process's own grant, what was not sent returns.
    settle(&daemon, &third.token, 1).await;
    assert_eq!(acquire(&daemon, 10, 0).await.granted_count, 2);
    assert!(daemon.stop().await);
}

async fn two(folder: &Path, database: &str, redis: &str) -> [Daemon; 2] {
    let place = |name: &str| Place::shared(&folder.join(name), name, database, redis, CRM);
    [place("d1").start().await, place("d2").start().await]
}

#[tokio::test]
async fn any_daemon_lends_and_settles_and_redis_may_forget() {
    let (database, redis, folder) = (Database::new().await, RedisServer::start().await, tempfile::tempdir().unwrap());
    let [one, two] = two(folder.path(), &database.url(), &redis.url()).await;
    let first = acquire(&one, 2, 20).await;
    assert_eq!(first.granted_count, 2);
    let second = acquire(&two, 2, 20).await;
    assert_eq!(second.granted_count, 2);
    assert!(!settle(&two, &first.token, 2).await, "another daemon settles as well");
    assert!(settle(&one, &first.token, 2).await);
    redis.command(&["FLUSHALL"]);
    // 4 are spent or out, whatever Redis has forgotten: 2 are left for both.
    let left = until(std::time::Duration::from_secs(30), async || {
        let got = acquire(&one, 10, 5).await;
        (got.granted_count > 0).then_some(got.granted_count)
    });
    assert_eq!(left.await, Some(2));
    assert_eq!(acquire(&two, 10, 1).await.granted_count, 0);
}

//! Programs outside as they meet real daemons: killed, restarted, many at a time.

use std::path::Path;

use sqlx::Connection;
use tidegate::clock::Clock;
use tidegate::grpc::pb;
use tidegate::grpc::pb::permit_service_client::PermitServiceClient;
use tidegate::grpc::pb::run_service_client::RunServiceClient;
use tonic_types::StatusExt;

use crate::support::process::{Daemon, Place, Provider, until};
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

const MUSIC: &str = "\nallow_private = true\n\n\
                     [providers.music.operations.remove]\nrequest = \"DELETE /tracks/{key}\"\nbody = \"{payload}\"\n\
                     undo = \"restore\"\n\n\
                     [providers.music.operations.restore]\nrequest = \"PUT /tracks/{key}\"\nbody = \"{payload}\"\n";
const KEYS: usize = 20;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

async fn in_state(daemon: &Daemon, run_id: &str, state: pb::RunState) -> pb::Run {
    let run = until(PATIENCE, async || {
        let mut runs = RunServiceClient::new(daemon.channel());
        let run = runs.get_run(pb::GetRunRequest { run_id: run_id.into() }).await.ok()?.into_inner().run?;
        (run.state() == state).then_some(run)
    });
    run.await.unwrap_or_else(|| panic!("run {run_id} did not become {state:?}"))
}

/// A run that removed two versions of each track and has one job left; its id.
async fn removed(daemon: &Daemon) -> String {
    let mut runs = RunServiceClient::new(daemon.channel());
    let run_id = runs.create_run(pb::CreateRunRequest::default()).await.unwrap().into_inner().run.unwrap().id;
    let job = |key: usize, n: usize| pb::JobSpec {
        provider: "music".into(),
        operation: "remove".into(),
        key: format!("t{key}"),
        payload: format!("{{\"n\":{n}}}"),
        ..Default::default()
    };
    let mut jobs: Vec<pb::JobSpec> = (0..KEYS * 2).map(|at| job(at % KEYS, at / KEYS + 1)).collect();
    let later = prost_types::Duration { seconds: 3_600, nanos: 0 };
    jobs.push(pb::JobSpec { start: Some(pb::job_spec::Start::Delay(later)), ..job(KEYS, 1) });
    let message = pb::AddRunJobsRequest { run_id: run_id.clone(), sequence: 1, jobs, seal: true };
    let mut answers = runs.add_run_jobs(tokio_stream::iter([message])).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().accepted_count as usize, KEYS * 2 + 1);
    let all = until(PATIENCE, async || {
        let counts = daemon.counts("music").await?;
        (counts.delivered as usize == KEYS * 2).then_some(())
    });
    all.await.expect("what is due is delivered");
    run_id
}

#[tokio::test]
async fn undoing_a_run_restores_all_that_it_did_in_reverse() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let provider = Provider::start(&["--latency", "1ms", "--tail-share", "0"], &log).await;
    let declaration = format!("[providers.music]\nbase_url = \"{}\"{MUSIC}", provider.base_url);
    let place = Place::new(folder.path(), folder.path(), &declaration);
    let daemon = place.start().await;
    let run_id = removed(&daemon).await;
    let undo = async |daemon: &Daemon, run_id: &str, validate_only| {
        let mut runs = RunServiceClient::new(daemon.channel());
        let request = pb::UndoRunRequest { run_id: run_id.into(), validate_only };
        runs.undo_run(request).await.map(tonic::Response::into_inner)
    };
    let reason = |status: tonic::Status| status.get_error_details().error_info().unwrap().reason.clone();
    assert_eq!(reason(undo(&daemon, &run_id, false).await.unwrap_err()), "RUN_NOT_ENDED");
    let mut runs = RunServiceClient::new(daemon.channel());
    runs.cancel_run(pb::CancelRunRequest { run_id: run_id.clone() }).await.unwrap();
    in_state(&daemon, &run_id, pb::RunState::Cancelled).await;
    // As a version of before wrote them, which did not note the run of a job.
    daemon.kill(&Clock::system()).await;
    let file = format!("sqlite://{}", folder.path().join("tidegate.db").display());
    let mut db = sqlx::SqliteConnection::connect(&file).await.unwrap();
    assert!(sqlx::query("update job set run = 0").execute(&mut db).await.unwrap().rows_affected() > 0);
    db.close().await.unwrap();
    let daemon = place.start().await;
    let would = undo(&daemon, &run_id, true).await.unwrap();
    assert_eq!((would.job_count as usize, would.forgotten_count, would.run), (KEYS * 2, 0, None));

    let first = undo(&daemon, &run_id, false).await.unwrap();
    daemon.kill(&Clock::system()).await;
    let daemon = place.start().await;
    let again = undo(&daemon, &run_id, false).await.unwrap();
    assert!(first.complete && again.complete);
    let (first, again) = (first.run.unwrap(), again.run.unwrap());
    assert_eq!((&first.id, &again.undo_of_run_id), (&again.id, &run_id));
    let done = in_state(&daemon, &first.id, pb::RunState::Finished).await;
    assert_eq!((done.job_count as usize, done.counts.unwrap().delivered as usize), (KEYS * 2, KEYS * 2));
    // The inverse declares no inverse.
    assert_eq!(reason(undo(&daemon, &first.id, true).await.unwrap_err()), "NO_INVERSE");
    assert!(daemon.stop().await);
    provider.stop().await;

    let arrivals = std::fs::read_to_string(&log).unwrap();
    let arrivals: Vec<tidegate::simulator::Arrival> =
        arrivals.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for key in 0..KEYS {
        let path = format!("/tracks/t{key}");
        let of_key = arrivals.iter().filter(|a| a.path == path);
        let mut seen: Vec<(&str, Option<i64>)> =
            of_key.map(|a| (a.method.as_str(), a.versions.first().copied().flatten())).collect();
        // A call that the kill cut off is repeated.
        seen.dedup();
        let expected = [("DELETE", Some(1)), ("DELETE", Some(2)), ("PUT", Some(2)), ("PUT", Some(1))];
        assert_eq!(seen, expected, "{path}");
    }
}

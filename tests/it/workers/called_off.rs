//! Cancels of jobs and runs while a worker has them.

use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::grpc::pb::run_service_client::RunServiceClient;

use super::{Ground, PATIENCE, Stand, Worker, enqueue, everywhere, in_state, job, stand};
use crate::support::process::{Daemon, until};

everywhere!(
    a_worker_is_told_of_a_cancel_and_has_the_last_word,
    who_comes_back_is_told_of_a_cancel_meanwhile,
    a_run_that_is_called_off_ends_with_what_its_workers_say,
);

pub(super) async fn cancel(daemon: &Daemon, ids: &[&String]) -> pb::BulkResult {
    let job_ids = ids.iter().map(|id| (*id).clone()).collect();
    let request = pb::CancelJobsRequest { job_ids, ..Default::default() };
    JobServiceClient::new(daemon.channel()).cancel_jobs(request).await.unwrap().into_inner().result.unwrap()
}

async fn a_worker_is_told_of_a_cancel_and_has_the_last_word(ground: Ground) {
    use pb::job_failed::Kind;
    let Stand { daemon, _hold, .. } = &stand(ground, "true", "retry = { base = \"10ms\", cap = \"20ms\" }").await;
    let ids = enqueue(daemon, 2).await;
    let mut worker = Worker::join(daemon, 1, &[]).await;
    let lease = worker.job().await;
    let done = cancel(daemon, &[&lease.job_id]).await;
    assert!(done.changes[0].cancel_requested, "{done:?}");
    worker.called_off(&lease.token).await;
    // Told once, however often it is asked for.
    cancel(daemon, &[&lease.job_id]).await;
    assert!(worker.is_told_nothing().await);
    assert_eq!(job(daemon, &lease.job_id).await.state(), pb::JobState::Calling, "until the worker has spoken");
    worker.fail(&lease.token, Kind::Retry, None).await;
    assert!(worker.ended(&lease.token).await.recorded);
    assert_eq!(job(daemon, &lease.job_id).await.state(), pb::JobState::Cancelled);
    // What was done before it could be stopped is done.
    let lease = worker.job().await;
    assert!(ids.contains(&lease.job_id));
    cancel(daemon, &[&lease.job_id]).await;
    worker.called_off(&lease.token).await;
    worker.complete(&lease.token, "").await;
    assert!(worker.ended(&lease.token).await.recorded);
    assert_eq!(job(daemon, &lease.job_id).await.state(), pb::JobState::Delivered);
}

async fn who_comes_back_is_told_of_a_cancel_meanwhile(ground: Ground) {
    let Stand { daemon, place, _hold } = stand(ground, "true", "").await;
    let ids = enqueue(&daemon, 1).await;
    let mut worker = Worker::join(&daemon, 1, &[]).await;
    let lease = worker.job().await;
    drop(worker);
    cancel(&daemon, &[&ids[0]]).await;
    let mut worker = Worker::join(&daemon, 1, &[&lease.token]).await;
    worker.called_off(&lease.token).await;
    drop(worker);
    // The next process knows it from the store alone.
    assert!(daemon.stop().await);
    let daemon = place.start().await;
    let mut worker = Worker::join(&daemon, 1, &[&lease.token]).await;
    worker.called_off(&lease.token).await;
    worker.fail(&lease.token, pb::job_failed::Kind::Retry, None).await;
    assert!(worker.ended(&lease.token).await.recorded);
    in_state(&daemon, &ids[0], pb::JobState::Cancelled).await;
}

async fn a_run_that_is_called_off_ends_with_what_its_workers_say(ground: Ground) {
    let Stand { daemon, _hold, .. } = &stand(ground, "true", "").await;
    let mut runs = RunServiceClient::new(daemon.channel());
    let run = runs.create_run(pb::CreateRunRequest::default()).await.unwrap().into_inner().run.unwrap();
    let spec = |n: usize| pb::JobSpec {
        provider: "crm".into(),
        operation: "review".into(),
        payload: format!("{{\"n\":{n}}}"),
        run_id: run.id.clone(),
        ..Default::default()
    };
    let request = pb::EnqueueJobsRequest { jobs: (0..3).map(spec).collect(), ..Default::default() };
    JobServiceClient::new(daemon.channel()).enqueue_jobs(request).await.unwrap();
    let mut worker = Worker::join(daemon, 1, &[]).await;
    let lease = worker.job().await;
    runs.cancel_run(pb::CancelRunRequest { run_id: run.id.clone() }).await.unwrap();
    worker.called_off(&lease.token).await;
    worker.fail(&lease.token, pb::job_failed::Kind::Retry, None).await;
    assert!(worker.ended(&lease.token).await.recorded);
    let ended = until(PATIENCE, async || {
        let request = pb::GetRunRequest { run_id: run.id.clone() };
        let now = runs.clone().get_run(request).await.unwrap().into_inner().run.unwrap();
        (now.state() == pb::RunState::Cancelled).then_some(now)
    });
    let ended = ended.await.expect("a job that comes back from its worker is called off with the run");
    assert_eq!(ended.counts.unwrap().cancelled, 3);
}

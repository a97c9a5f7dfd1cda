//! Workers as they meet a real daemon, alone and on PostgreSQL and Redis: leases within the limits, heartbeats, progress,
//! coming back, kills. `called_off`: cancels; `two`: a daemon dies and another one is left.

use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::grpc::pb::work_request::What as Say;
use tidegate::grpc::pb::work_response::What as Told;
use tidegate::grpc::pb::worker_service_client::WorkerServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use crate::support::process::{Daemon, Place, until};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;

mod called_off;
mod shown;
mod two;
mod watched;

const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough that nothing else can have happened, short enough to wait for it.
const QUIET: Duration = Duration::from_millis(400);

fn declaration(external: &str, more: &str) -> String {
    format!(
        "[providers.crm]\nbase_url = \"http://127.0.0.1:9\"\nallow_private = true\n\n\
         [providers.crm.operations.review]\nexternal = {external}\n{more}\n\n\
         [providers.crm.operations.own]\nrequest = \"PUT /{{key}}\"\n"
    )
}

/// One daemon by itself, or one on PostgreSQL and Redis.
#[derive(Clone, Copy)]
enum Ground {
    Alone,
    Shared,
}

/// Makes each of these a test on both grounds.
macro_rules! everywhere {
    ($($name:ident),+ $(,)?) => {
        mod alone {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Ground::Alone).await;
            })+
        }
        mod shared {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Ground::Shared).await;
            })+
        }
    };
}
use everywhere;

struct Stand {
    daemon: Daemon,
    place: Place,
    _hold: Hold,
}

/// What must outlive the daemon.
type Hold = (tempfile::TempDir, Option<(Database, RedisServer)>);

async fn stand(ground: Ground, external: &str, more: &str) -> Stand {
    let (folder, text) = (tempfile::tempdir().unwrap(), declaration(external, more));
    let (place, servers) = match ground {
        Ground::Alone => (Place::new(folder.path(), folder.path(), &text), None),
        Ground::Shared => {
            let (database, redis) = (Database::new().await, RedisServer::start().await);
            (Place::shared(folder.path(), "d1", &database.url(), &redis.url(), &text), Some((database, redis)))
        }
    };
    Stand { daemon: place.start().await, place, _hold: (folder, servers) }
}

/// A worker that says only what it is told to say.
struct Worker {
    says: mpsc::Sender<pb::WorkRequest>,
    told: Streaming<pb::WorkResponse>,
    welcome: pb::WorkerWelcome,
}

impl Worker {
    /// Comes again while it is said that a lease is not known to be free yet.
    async fn join(daemon: &Daemon, seats: i32, resume_tokens: &[&str]) -> Worker {
        let joined = until(PATIENCE, async || match Worker::try_join(daemon, seats, resume_tokens).await {
            Ok(worker) => Some(worker),
            Err(status) => {
                let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
                assert_eq!(reason.as_deref(), Some("LEASE_ELSEWHERE"), "{status}");
                None
            }
        });
        joined.await.expect("the lease is had in the end")
    }

    async fn try_join(daemon: &Daemon, seats: i32, resume_tokens: &[&str]) -> Result<Worker, Status> {
        let (says, queue) = mpsc::channel(64);
        let hello = pb::WorkerHello {
            name: "ada".into(),
            operations: vec!["crm/review".into()],
            seats,
            resume_tokens: resume_tokens.iter().map(ToString::to_string).collect(),
        };
        says.send(pb::WorkRequest { what: Some(Say::Hello(hello)) }).await.unwrap();
        let mut client = WorkerServiceClient::new(daemon.channel());
        let mut told = client.work(ReceiverStream::new(queue)).await?.into_inner();
        let Some(Told::Welcome(welcome)) = told.message().await?.unwrap().what else {
            panic!("expected a welcome first")
        };
        Ok(Worker { says, told, welcome })
    }

    async fn say(&self, what: Say) {
        self.says.send(pb::WorkRequest { what: Some(what) }).await.unwrap();
    }

    /// It is heard from now on, also while the test looks elsewhere.
    fn beat(self) -> Worker {
        let says = self.says.clone();
        let beat = || pb::WorkRequest { what: Some(Say::Heartbeat(pb::WorkerHeartbeat {})) };
        tokio::spawn(async move {
            while says.send(beat()).await.is_ok() {
                tokio::time::sleep(QUIET).await;
            }
        });
        self
    }

    async fn next(&mut self) -> Told {
        let next = tokio::time::timeout(PATIENCE, self.told.message()).await;
        next.expect("the daemon has something to say").unwrap().unwrap().what.unwrap()
    }

    async fn job(&mut self) -> pb::LeasedJob {
        match self.next().await {
            Told::Job(job) => job,
            other => panic!("expected a job, got {other:?}"),
        }
    }

    async fn ended(&mut self, token: &str) -> pb::LeaseEnded {
        match self.next().await {
            Told::Ended(ended) if ended.token == token => ended,
            other => panic!("expected the end of {token}, got {other:?}"),
        }
    }

    async fn called_off(&mut self, token: &str) {
        match self.next().await {
            Told::Cancel(cancel) => assert_eq!(cancel.token, token),
            other => panic!("expected a word that {token} is called off, got {other:?}"),
        }
    }

    async fn is_told_nothing(&mut self) -> bool {
        tokio::time::timeout(QUIET, self.told.message()).await.is_err()
    }

    async fn complete(&self, token: &str, result: &str) {
        self.say(Say::Completed(pb::JobCompleted { token: token.into(), result: result.into() })).await;
    }

    async fn fail(&self, token: &str, kind: pb::job_failed::Kind, wait_seconds: Option<i64>) {
        let retry_after = wait_seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let reason = "the scanner is broken".into();
        self.say(Say::Failed(pb::JobFailed { token: token.into(), reason, kind: kind as i32, retry_after })).await;
    }
}

async fn enqueue(daemon: &Daemon, count: usize) -> Vec<String> {
    let job = |n: usize| pb::JobSpec {
        provider: "crm".into(),
        operation: "review".into(),
        key: format!("k{n}"),
        payload: format!("{{\"n\":{n}}}"),
        ..Default::default()
    };
    let request = pb::EnqueueJobsRequest { jobs: (0..count).map(job).collect(), ..Default::default() };
    let answer = JobServiceClient::new(daemon.channel()).enqueue_jobs(request).await.unwrap().into_inner();
    let id = |result: pb::EnqueueResult| match result.result {
        Some(pb::enqueue_result::Result::Enqueued(done)) => done.job_id,
        other => panic!("expected a job, got {other:?}"),
    };
    answer.results.into_iter().map(id).collect()
}

async fn job(daemon: &Daemon, id: &str) -> pb::Job {
    let request = pb::GetJobRequest { job_id: id.into(), ..Default::default() };
    JobServiceClient::new(daemon.channel()).get_job(request).await.unwrap().into_inner().job.unwrap()
}

async fn in_state(daemon: &Daemon, id: &str, state: pb::JobState) -> pb::Job {
    let found = until(PATIENCE, async || Some(job(daemon, id).await).filter(|job| job.state() == state)).await;
    match found {
        Some(job) => job,
        None => panic!("{id} did not become {state:?}: {:?}", job(daemon, id).await),
    }
}

fn waits_on(job: &pb::Job) -> pb::waiting_on::Kind {
    job.waiting_on.as_ref().unwrap().kind()
}

everywhere!(
    a_worker_is_leased_jobs_by_seats_and_within_the_limits,
    what_a_worker_could_not_do_is_tried_again_or_dead_or_held,
    a_silent_worker_loses_its_jobs_and_they_follow_the_repeat_rule,
    a_heartbeat_keeps_a_lease_until_its_longest_time,
    progress_is_shown_and_a_broken_stream_goes_on,
    a_worker_comes_back_after_the_daemon_was_killed,
    a_stop_waits_for_no_worker,
    who_says_nothing_sensible_is_told_so,
);

async fn a_worker_is_leased_jobs_by_seats_and_within_the_limits(ground: Ground) {
    let stand = stand(ground, "true", "limits = [\"3/h\"]").await;
    let daemon = &stand.daemon;
    let ids = enqueue(daemon, 5).await;
    let waits = until(PATIENCE, async || {
        Some(waits_on(&job(daemon, &ids[0]).await)).filter(|kind| *kind == pb::waiting_on::Kind::Worker)
    });
    assert!(waits.await.is_some(), "without a worker they wait for one");

    let mut worker = Worker::join(daemon, 2, &[]).await;
    assert_eq!(worker.welcome.heartbeat_interval.unwrap().seconds, 10);
    let mut both = [worker.job().await, worker.job().await];
    // They are handed out side by side.
    both.sort_by_key(|lease| lease.key.clone());
    let [first, second] = both;
    assert_eq!((&first.job_id, &second.job_id), (&ids[0], &ids[1]));
    assert_eq!((first.key.as_str(), first.payload.as_str(), first.attempt), ("k0", "{\"n\":0}", 1));
    assert!(worker.is_told_nothing().await, "two seats, two jobs");
    worker.complete(&first.token, "{\"verdict\":\"fine\"}").await;
    assert!(worker.ended(&first.token).await.recorded);
    let third = worker.job().await;
    let done = job(daemon, &ids[0]).await;
    assert_eq!((done.state(), done.result.as_str()), (pb::JobState::Delivered, "{\"verdict\":\"fine\"}"));
    worker.complete(&third.token, "").await;
    assert!(worker.ended(&third.token).await.recorded);
    assert!(worker.is_told_nothing().await, "the limit is used up, though a seat is free");
    assert_eq!(waits_on(&job(daemon, &ids[3]).await), pb::waiting_on::Kind::Limit);
    // What is over is over.
    worker.complete(&first.token, "again").await;
    assert!(worker.ended(&first.token).await.recorded);
    assert_eq!(job(daemon, &ids[0]).await.result, "{\"verdict\":\"fine\"}");
    assert!(stand.daemon.stop().await);
}

async fn what_a_worker_could_not_do_is_tried_again_or_dead_or_held(ground: Ground) {
    use pb::job_failed::Kind;
    let stand =
        stand(ground, "true", "retry = { attempts = 3, base = \"10ms\", cap = \"20ms\" }\nlimits = [\"1000/h\"]").await;
    let daemon = &stand.daemon;
    let ids = enqueue(daemon, 1).await;
    let mut worker = Worker::join(daemon, 1, &[]).await;
    let first = worker.job().await;
    worker.fail(&first.token, Kind::Retry, None).await;
    assert!(worker.ended(&first.token).await.recorded);
    let second = worker.job().await;
    assert_eq!((&second.job_id, second.attempt), (&ids[0], 2));
    worker.fail(&second.token, Kind::Rejected, None).await;
    assert!(worker.ended(&second.token).await.recorded);
    let dead = job(daemon, &ids[0]).await;
    assert_eq!((dead.state(), dead.last_error.as_str()), (pb::JobState::Dead, "the scanner is broken"));

    let ids = enqueue(daemon, 2).await;
    let third = worker.job().await;
    worker.fail(&third.token, Kind::Throttled, Some(3_600)).await;
    assert!(worker.ended(&third.token).await.recorded);
    let held = job(daemon, &ids[0]).await;
    assert_eq!((held.state(), held.attempts, held.throttles), (pb::JobState::Waiting, 0, 1));
    assert!(worker.is_told_nothing().await, "everybody who spends the limit is held back");
    assert!(stand.daemon.stop().await);
}

async fn a_silent_worker_loses_its_jobs_and_they_follow_the_repeat_rule(ground: Ground) {
    for (repeat, state) in [("always", pb::JobState::Delivered), ("by-method", pb::JobState::Unknown)] {
        let more = format!("repeat = \"{repeat}\"\nretry = {{ base = \"10ms\", cap = \"20ms\" }}");
        let stand = stand(ground, "{ lease = \"1s\", within = \"1m\" }", &more).await;
        let daemon = &stand.daemon;
        let ids = enqueue(daemon, 1).await;
        let mut silent = Worker::join(daemon, 1, &[]).await;
        let lost = silent.job().await;
        let end: Status = loop {
            match silent.told.message().await {
                Ok(Some(pb::WorkResponse { what: Some(Told::Ended(ended)) })) => assert!(!ended.recorded),
                Ok(other) => panic!("expected an end, got {other:?}"),
                Err(status) => break status,
            }
        };
        assert_eq!(end.code(), Code::DeadlineExceeded);
        let mut other = Worker::join(daemon, 1, &[&lost.token]).await;
        if state == pb::JobState::Delivered {
            // Its token is worth nothing by now, or in a moment; somebody gets the job a second time.
            let again = loop {
                other.say(Say::Heartbeat(pb::WorkerHeartbeat {})).await;
                match tokio::time::timeout(QUIET, other.told.message()).await {
                    Ok(Ok(Some(pb::WorkResponse { what: Some(Told::Job(job)) }))) => break job,
                    Ok(Ok(_)) | Err(_) => {}
                    Ok(Err(status)) => panic!("{status}"),
                }
            };
            assert_eq!((&again.job_id, again.attempt), (&ids[0], 2));
            assert_ne!(again.token, lost.token);
            other.complete(&again.token, "").await;
        }
        in_state(daemon, &ids[0], state).await;
        assert!(stand.daemon.stop().await);
    }
}

async fn a_heartbeat_keeps_a_lease_until_its_longest_time(ground: Ground) {
    let stand = stand(ground, "{ lease = \"1s\", within = \"3s\" }", "").await;
    let daemon = &stand.daemon;
    let ids = enqueue(daemon, 1).await;
    let mut worker = Worker::join(daemon, 1, &[]).await;
    let (clock, lease) = (Clock::system(), worker.job().await);
    let began_at = clock.steady();
    let told = loop {
        worker.say(Say::Heartbeat(pb::WorkerHeartbeat {})).await;
        if let Ok(told) = tokio::time::timeout(Duration::from_millis(200), worker.told.message()).await {
            break told.unwrap().unwrap().what.unwrap();
        }
    };
    let held = clock.steady().since(began_at);
    assert!(held > Duration::from_millis(2_500), "it was lost after {held:?}");
    let Told::Ended(ended) = told else { panic!("expected an end, got {told:?}") };
    assert!(!ended.recorded && ended.token == lease.token, "{ended:?}");
    // What comes too late does not count, and the worker hears so.
    worker.complete(&lease.token, "late").await;
    assert!(!worker.ended(&lease.token).await.recorded);
    assert_eq!(job(daemon, &ids[0]).await.state(), pb::JobState::Unknown);
    assert!(stand.daemon.stop().await);
}

async fn progress_is_shown_and_a_broken_stream_goes_on(ground: Ground) {
    let stand = stand(ground, "true", "limits = [\"10/h\"]").await;
    let daemon = &stand.daemon;
    let ids = enqueue(daemon, 1).await;
    let mut worker = Worker::join(daemon, 1, &[]).await;
    let lease = worker.job().await;
    let progress = pb::WorkerProgress { token: lease.token.clone(), fraction: 0.25, text: "page 1 of 4".into() };
    worker.say(Say::Progress(progress)).await;
    let seen = until(PATIENCE, async || job(daemon, &ids[0]).await.progress).await.unwrap();
    assert_eq!((seen.fraction, seen.text.as_str()), (0.25, "page 1 of 4"));
    drop(worker);
    let mut worker = Worker::join(daemon, 1, &[&lease.token]).await;
    assert_eq!(worker.welcome.resumed_tokens, std::slice::from_ref(&lease.token));
    enqueue(daemon, 1).await;
    assert!(worker.is_told_nothing().await, "what is resumed takes its seat");
    worker.complete(&lease.token, "\"all\"").await;
    assert!(worker.ended(&lease.token).await.recorded);
    let done = job(daemon, &ids[0]).await;
    assert_eq!((done.state(), done.attempts, done.progress), (pb::JobState::Delivered, 1, None));
    worker.job().await;
    assert!(stand.daemon.stop().await);
}

async fn a_worker_comes_back_after_the_daemon_was_killed(ground: Ground) {
    let Stand { daemon, place, _hold } =
        stand(ground, "{ lease = \"2s\", within = \"20s\" }", "limits = [\"4/h\"]").await;
    let ids = enqueue(&daemon, 3).await;
    let mut worker = Worker::join(&daemon, 2, &[]).await;
    let (kept, left) = (worker.job().await, worker.job().await);
    daemon.kill(&Clock::system()).await;

    let daemon = place.start().await;
    let mut worker = Worker::join(&daemon, 1, &[&kept.token]).await;
    assert_eq!(worker.welcome.resumed_tokens, std::slice::from_ref(&kept.token));
    assert_eq!(job(&daemon, &kept.job_id).await.state(), pb::JobState::Calling);
    worker.complete(&kept.token, "\"done\"").await;
    assert!(worker.ended(&kept.token).await.recorded);
    let done = job(&daemon, &kept.job_id).await;
    assert_eq!((done.state(), done.attempts, done.crashes), (pb::JobState::Delivered, 1, 0));
    let third = worker.job().await;
    assert_eq!(third.job_id, ids[2]);
    worker.complete(&third.token, "").await;
    assert!(worker.ended(&third.token).await.recorded);
    drop(worker);
    // Nobody came back for the other one. A daemon alone knows who was heard when; among many it lasts for `within`.
    in_state(&daemon, &left.job_id, pb::JobState::Unknown).await;
    // 4 an hour: 3 are spent, whoever gave them out.
    enqueue(&daemon, 2).await;
    let mut after = Worker::join(&daemon, 2, &[&left.token]).await;
    assert!(!after.ended(&left.token).await.recorded);
    after.job().await;
    assert!(after.is_told_nothing().await);
    assert!(daemon.stop().await);
}

async fn a_stop_waits_for_no_worker(ground: Ground) {
    let Stand { daemon, place, _hold } = stand(ground, "true", "").await;
    let ids = enqueue(&daemon, 1).await;
    let mut worker = Worker::join(&daemon, 1, &[]).await;
    let lease = worker.job().await;
    let (clock, began_at) = (Clock::system(), Clock::system().steady());
    assert!(daemon.stop().await);
    assert!(clock.steady().since(began_at) < Duration::from_secs(8), "it waited for the worker");
    let end = loop {
        match worker.told.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("expected a word of the end"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable);
    let daemon = place.start().await;
    let mut worker = Worker::join(&daemon, 1, &[&lease.token]).await;
    worker.complete(&lease.token, "").await;
    assert!(worker.ended(&lease.token).await.recorded);
    assert_eq!(job(&daemon, &ids[0]).await.state(), pb::JobState::Delivered);
    assert!(daemon.stop().await);
}

async fn who_says_nothing_sensible_is_told_so(ground: Ground) {
    let stand = stand(ground, "true", "").await;
    let refused = async |first: Say| {
        let says = tokio_stream::iter([pb::WorkRequest { what: Some(first) }]);
        let mut client = WorkerServiceClient::new(stand.daemon.channel());
        let status = client.work(says).await.unwrap().into_inner().message().await.unwrap_err();
        status.get_error_details().error_info().unwrap().reason.clone()
    };
    let hello = |operation: &str, seats| {
        let operations = vec![operation.to_owned()];
        Say::Hello(pb::WorkerHello { name: "ada".into(), operations, seats, resume_tokens: Vec::new() })
    };
    assert_eq!(refused(Say::Heartbeat(pb::WorkerHeartbeat {})).await, "HELLO_FIRST");
    assert_eq!(refused(hello("crm/own", 1)).await, "NOT_EXTERNAL");
    assert_eq!(refused(hello("crm/nothing", 1)).await, "UNKNOWN_OPERATION");
    assert_eq!(refused(hello("review", 1)).await, "BAD_NAME");
    assert_eq!(refused(hello("crm/review", 1_001)).await, "BAD_COUNT");
    assert!(stand.daemon.stop().await);
}

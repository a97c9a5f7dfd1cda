//! Progress as watches tell it: of jobs, of runs, on the command line and to a browser.

use std::process::Stdio;

use futures_util::StreamExt;
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::grpc::pb::run_service_client::RunServiceClient;
use tidegate::grpc::pb::watch_jobs_response::Item;
use tokio::io::AsyncBufReadExt;
use tonic::Streaming;

use super::{Ground, PATIENCE, Say, Stand, Worker, enqueue, everywhere, job, stand};
use crate::support::process::Daemon;

everywhere!(a_watch_of_jobs_tells_progress, a_watch_of_a_run_tells_progress);

impl Worker {
    async fn is_at(&self, token: &str, fraction: f64, text: &str) {
        self.say(Say::Progress(pb::WorkerProgress { token: token.into(), fraction, text: text.into() })).await;
    }
}

async fn watch(daemon: &Daemon, filter: &str, resume_token: &str) -> Streaming<pb::WatchJobsResponse> {
    let request = pb::WatchJobsRequest { filter: filter.into(), resume_token: resume_token.into(), snapshot: false };
    JobServiceClient::new(daemon.channel()).watch_jobs(request).await.unwrap().into_inner()
}

/// The next word of a worker, and the token to come back with.
async fn next(watch: &mut Streaming<pb::WatchJobsResponse>) -> (pb::JobEvent, String) {
    let next = async {
        loop {
            let message = watch.message().await.unwrap().expect("the watch goes on");
            match message.item {
                Some(Item::Event(event)) if event.kind() == pb::job_event::Kind::Progress => {
                    return (event, message.resume_token);
                }
                _ => {}
            }
        }
    };
    // As a whole: bookmarks come all the time.
    tokio::time::timeout(PATIENCE, next).await.expect("a word of progress is told")
}

fn said(event: &pb::JobEvent) -> (&str, f64, &str) {
    let job = event.job.as_ref().unwrap();
    let progress = job.progress.as_ref().unwrap();
    (&job.id, progress.fraction, &progress.text)
}

async fn a_watch_of_jobs_tells_progress(ground: Ground) {
    let Stand { daemon, place, _hold } = &stand(ground, "true", "").await;
    let ids = enqueue(daemon, 3).await;
    let mut worker = Worker::join(daemon, 3, &[]).await;
    let leases = [worker.job().await, worker.job().await, worker.job().await];
    let token = |id: &str| leases.iter().find(|lease| lease.job_id == id).unwrap().token.as_str();
    let mut all = watch(daemon, "", "").await;
    let mut one = watch(daemon, "key = \"k1\"", "").await;
    let args = ["--addr", &format!("http://127.0.0.1:{}", place.port), "jobs", "watch", "--filter", "key = \"k1\""];
    let mut shown = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(args)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(shown.stdout.take().unwrap()).lines();

    // Said over and over: each watch tells the last word, and the other job's word is not for `one`.
    for step in 0..=400 {
        worker.is_at(token(&ids[0]), f64::from(step) / 1_000.0, "reading").await;
    }
    let mut told = Vec::new();
    while told.last() != Some(&0.4) {
        let (event, _) = next(&mut all).await;
        assert_eq!((event.sequence, event.state()), (0, pb::JobState::Calling));
        assert_eq!(said(&event).0, ids[0]);
        told.push(said(&event).1);
    }
    assert!(told.is_sorted() && told.len() < 100, "words are told seldom enough to be read: {}", told.len());
    worker.is_at(token(&ids[1]), 0.5, "page 2 of 4").await;
    let (event, _) = next(&mut one).await;
    assert_eq!(said(&event), (ids[1].as_str(), 0.5, "page 2 of 4"));
    let (mut event, mut come_back) = next(&mut all).await;
    while said(&event).0 == ids[0] {
        // A word may be told twice, if it was said between the look at what is new and the telling.
        assert_eq!(said(&event).1, 0.4);
        (event, come_back) = next(&mut all).await;
    }
    assert_eq!(said(&event), (ids[1].as_str(), 0.5, "page 2 of 4"));

    // The command line is up by the time that one of these words reaches it.
    let shows = async {
        loop {
            worker.is_at(token(&ids[1]), 0.5, "page 2 of 4").await;
            if let Ok(line) = tokio::time::timeout(super::QUIET, lines.next_line()).await {
                return line.unwrap().expect("`jobs watch` goes on");
            }
        }
    };
    let line = tokio::time::timeout(PATIENCE, shows).await.expect("`jobs watch` tells it");
    assert!(line.contains(" progress ") && line.contains(&ids[1]) && line.ends_with("50 % page 2 of 4"), "{line}");

    // Whoever comes back is told where each job is, and events of the log are not lost between the words.
    drop(all);
    worker.complete(token(&ids[0]), "").await;
    let mut again = watch(daemon, "", &come_back).await;
    let mut missing = vec![(&ids[1], pb::job_event::Kind::Progress), (&ids[0], pb::job_event::Kind::Delivered)];
    let all_told = async {
        while !missing.is_empty() {
            if let Some(Item::Event(event)) = again.message().await.unwrap().unwrap().item {
                let id = &event.job.as_ref().unwrap().id;
                missing.retain(|(of, kind)| (*of, *kind) != (id, event.kind()));
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, all_told).await.is_ok(), "not told: {missing:?}");
    assert_eq!(job(daemon, &ids[0]).await.state(), pb::JobState::Delivered);
}

async fn a_watch_of_a_run_tells_progress(ground: Ground) {
    let Stand { daemon, place, _hold } = &stand(ground, "true", "").await;
    let mut runs = RunServiceClient::new(daemon.channel());
    let run = runs.create_run(pb::CreateRunRequest::default()).await.unwrap().into_inner().run.unwrap().id;
    let spec = |run_id: &str| pb::JobSpec {
        provider: "crm".into(),
        operation: "review".into(),
        payload: "{}".into(),
        run_id: run_id.into(),
        ..Default::default()
    };
    let jobs = vec![spec(&run), spec(&run), spec("")];
    let request = pb::EnqueueJobsRequest { jobs, ..Default::default() };
    JobServiceClient::new(daemon.channel()).enqueue_jobs(request).await.unwrap();
    let mut worker = Worker::join(daemon, 3, &[]).await;
    let (mut of_run, mut other) = (Vec::new(), None);
    for _ in 0..3 {
        let lease = worker.job().await;
        if job(daemon, &lease.job_id).await.run_id == run { of_run.push(lease) } else { other = Some(lease) }
    }
    let request = pb::WatchRunRequest { run_id: run.clone(), ..Default::default() };
    let mut watch = runs.watch_run(request).await.unwrap().into_inner();
    let mut told = async |enough: &dyn Fn(&pb::Run) -> bool| {
        let told = async {
            loop {
                match watch.message().await.unwrap().expect("the watch goes on").item {
                    Some(pb::watch_run_response::Item::Run(run)) if enough(&run) => return run,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("the run is told again")
    };
    assert_eq!(told(&|_| true).await.progress, None, "nothing was said yet");
    let log = place.log_tail();
    let http = log.split("HTTP on ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("it says where");
    let http = format!("http://{http}/api/v1/runs/{run}:watch");
    let browser = reqwest::Client::new().get(http).header("accept", "text/event-stream").send().await.unwrap();
    // What is said of a job of no run is no news of this one.
    worker.is_at(&other.unwrap().token, 0.9, "elsewhere").await;
    worker.is_at(&of_run[0].token, 0.25, "page 1 of 4").await;
    worker.is_at(&of_run[1].token, 0.5, "page 2 of 4").await;
    let both = told(&|run| run.progress.as_ref().is_some_and(|p| p.job_count == 2)).await.progress.unwrap();
    assert_eq!(both.fraction_sum, 0.75);
    let latest: Vec<_> =
        both.latest.iter().map(|l| (l.job_id.as_str(), l.progress.as_ref().unwrap().fraction)).collect();
    assert_eq!(latest, [(of_run[1].job_id.as_str(), 0.5), (of_run[0].job_id.as_str(), 0.25)]);
    let (mut body, mut text) = (browser.bytes_stream(), String::new());
    let shown = async {
        while !text.contains("\"fractionSum\":0.75") {
            text.push_str(std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap());
        }
    };
    assert!(tokio::time::timeout(PATIENCE, shown).await.is_ok(), "the browser is told");
    // A job that has ended counts as final, not as progress.
    worker.complete(&of_run[1].token, "").await;
    let left = told(&|run| run.counts.is_some_and(|counts| counts.delivered == 1)).await;
    let left = match left.progress {
        Some(left) if left.job_count == 1 => left,
        // The lease ends after its outcome is recorded: its end may be seen a little later.
        _ => {
            worker.is_at(&of_run[0].token, 0.3, "page 1 of 4").await;
            told(&|run| run.progress.as_ref().is_some_and(|p| p.job_count == 1)).await.progress.unwrap()
        }
    };
    assert!(left.fraction_sum < 0.5, "{left:?}");
}

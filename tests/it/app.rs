//! The daemon as a whole, in this process: what a stop waits for and what it leaves to the next start.

use std::path::Path;
use std::time::Duration;

use tidegate::app::App;
use tidegate::config::{self, LoadOptions};
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::simulator::{Latency, Simulator, SimulatorConfig, SimulatorHandle};
use tonic::transport::Channel;

use crate::support::process::until;

/// How long the provider takes for an answer.
const ANSWER: Duration = Duration::from_millis(700);

async fn slow_provider() -> SimulatorHandle {
    let latency = Latency { median: ANSWER, ..Latency::none() };
    Simulator::start(SimulatorConfig { latency, keep_arrivals: 100, ..SimulatorConfig::default() }).await.unwrap()
}

async fn start(folder: &Path, base_url: &str, grace: &str) -> (App, JobServiceClient<Channel>) {
    tidegate::app::install_crypto();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nsocket = \"none\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = {:?}\n[engine]\ngrace = \"{grace}\"\n\
         [providers.crm]\nbase_url = \"{base_url}\"\nallow_private = true\n\
         [providers.crm.operations.sync]\nrequest = \"PUT /users/{{key}}\"\nbody = \"{{payload}}\"\n",
        folder.join("tidegate.db")
    );
    let file = folder.join("tidegate.toml");
    std::fs::write(&file, text).unwrap();
    let options = LoadOptions { file: Some(file), ..LoadOptions::default() };
    let app = App::start(config::load(&options).unwrap(), options).await.unwrap();
    let jobs = JobServiceClient::connect(format!("http://{}", app.address().unwrap())).await.unwrap();
    (app, jobs)
}

/// A job whose call is on the wire.
async fn call(app: &App, provider: &SimulatorHandle, jobs: &mut JobServiceClient<Channel>) -> String {
    let job = pb::JobSpec {
        provider: "crm".to_owned(),
        operation: "sync".to_owned(),
        key: "a".to_owned(),
        payload: r#"{"id":"a"}"#.to_owned(),
        ..pb::JobSpec::default()
    };
    let before = provider.arrivals().len();
    let request = pb::EnqueueJobRequest { job: Some(job), ..pb::EnqueueJobRequest::default() };
    let id = jobs.enqueue_job(request).await.unwrap().into_inner().job_id;
    let arrived = until(Duration::from_secs(20), || async { (app.handle().in_flight() > 0).then_some(()) }).await;
    assert!(arrived.is_some() && provider.arrivals().len() <= before + 1);
    id
}

async fn job(jobs: &mut JobServiceClient<Channel>, id: &str) -> pb::Job {
    let request = pb::GetJobRequest { job_id: id.to_owned(), view: 0 };
    jobs.get_job(request).await.unwrap().into_inner().job.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_the_calls_on_the_wire_finish_and_writes_their_outcomes() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), slow_provider().await);
    let (app, mut jobs) = start(folder.path(), &provider.base_url(), "20s").await;
    let id = call(&app, &provider, &mut jobs).await;
    let left = app.stop().await;
    assert_eq!((left.calls_cut, left.jobs_waiting), (0, 0));
    let (app, mut jobs) = start(folder.path(), &provider.base_url(), "20s").await;
    let found = job(&mut jobs, &id).await;
    assert_eq!((found.state(), found.attempts), (pb::JobState::Delivered, 1));
    assert_eq!(provider.arrivals().len(), 1, "sent once");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlives_the_grace_is_cut_off_counted_and_judged_by_the_next_start() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), slow_provider().await);
    let (app, mut jobs) = start(folder.path(), &provider.base_url(), "0s").await;
    let id = call(&app, &provider, &mut jobs).await;
    assert_eq!(app.stop().await.calls_cut, 1);
    let (app, mut jobs) = start(folder.path(), &provider.base_url(), "20s").await;
    // PUT is safe to repeat, so it waits until the first try must have arrived, and goes again.
    let found = job(&mut jobs, &id).await;
    assert_eq!((found.state(), found.attempts), (pb::JobState::Waiting, 1));
    assert!(found.last_error.contains("died"), "{}", found.last_error);
    app.stop().await;
}

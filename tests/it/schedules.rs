//! Schedules on real daemons: every tick once, whoever is killed and however many there are.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::grpc::pb;
use tidegate::grpc::pb::run_service_client::RunServiceClient;
use tidegate::grpc::pb::schedule_service_client::ScheduleServiceClient;
use tidegate::grpc::pb::schedule_spec as s;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::process::{Daemon, Place, until};
use crate::support::redis::RedisServer;
use crate::support::servers::Database;

const PATIENCE: Duration = Duration::from_secs(60);

/// A provider that nobody answers for: its jobs wait.
const PROVIDER: &str = "[providers.crm]\nbase_url = \"http://127.0.0.1:9\"\nallow_private = true\n\
     [providers.crm.operations.pull]\nrequest = \"GET /all\"\n";

/// Ticks each second and makes up for all it missed.
const SECONDS: &str = "[schedules.seconds]\ncron = \"* * * * * *\"\noverlap = \"allow\"\nmissed = { all = 1000 }\n\
     job = { provider = \"crm\", operation = \"pull\", payload = { n = 1 } }\n";

fn client(daemon: &Daemon) -> ScheduleServiceClient<Channel> {
    ScheduleServiceClient::new(daemon.channel())
}

/// Runs by the tick that they are of.
async fn ticks(daemon: &Daemon) -> BTreeMap<String, usize> {
    let mut runs = RunServiceClient::new(daemon.channel());
    let (mut ticks, mut page_token) = (BTreeMap::new(), String::new());
    loop {
        let request = pb::ListRunsRequest { page_size: 1_000, page_token };
        let page = runs.list_runs(request).await.unwrap().into_inner();
        for run in page.runs {
            assert_eq!(run.job_count, 1, "{run:?}");
            *ticks.entry(run.labels["tick"].clone()).or_default() += 1;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return ticks;
        }
    }
}

async fn ticked(daemon: &Daemon, at_least: usize) -> BTreeMap<String, usize> {
    let enough = || async { Some(ticks(daemon).await).filter(|ticks| ticks.len() >= at_least) };
    until(PATIENCE, enough).await.expect("it ticks every second")
}

/// Each second between the first and the last, once.
fn each_once(ticks: &BTreeMap<String, usize>) {
    assert!(ticks.values().all(|times| *times == 1), "{ticks:?}");
    let at = |text: &String| text.parse::<jiff::Timestamp>().unwrap().as_second();
    let (first, last) = (at(ticks.keys().next().unwrap()), at(ticks.keys().last().unwrap()));
    assert_eq!(ticks.len() as i64, last - first + 1, "{ticks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_is_neither_lost_nor_doubled_by_kills() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), folder.path(), &format!("{PROVIDER}{SECONDS}"));
    for _ in 0..4 {
        let daemon = place.start().await;
        let before = ticks(&daemon).await.len();
        ticked(&daemon, before + 2).await;
        daemon.kill(&Clock::system()).await;
    }
    let daemon = place.start().await;
    let before = ticks(&daemon).await.len();
    each_once(&ticked(&daemon, before + 2).await);
    assert!(daemon.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_daemons_one_has_the_tick() {
    let (folder, database, redis) = (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
    let spread = PROVIDER.replace("allow_private = true", "allow_private = true\nspread = 4");
    let text = format!("{spread}{SECONDS}");
    let place = |name: &str| Place::shared(&folder.path().join(name), name, &database.url(), &redis.url(), &text);
    let (one, two) = (place("d1").start().await, place("d2").start().await);
    each_once(&ticked(&one, 4).await);
    // What they start is shared among daemons as all jobs of an account that is spread.
    let parts = sqlx::query_scalar::<_, i64>("select count(distinct part) from flow where provider = 'crm'");
    let parts = parts.fetch_one(&mut database.connect().await).await.unwrap();
    assert!(parts > 1, "four ticks went to {parts} part");
    let before = ticks(&two).await.len();
    one.kill(&Clock::system()).await;
    each_once(&ticked(&two, before + 3).await);
}

fn spec(cron: &str, overlap: s::Overlap) -> pb::ScheduleSpec {
    let job = pb::ScheduledJob { provider: "crm".into(), operation: "pull".into(), ..Default::default() };
    pb::ScheduleSpec {
        cron: cron.into(),
        overlap: overlap as i32,
        target: Some(s::Target::Jobs(pb::ScheduledJobs { jobs: vec![job] })),
        ..Default::default()
    }
}

async fn create(daemon: &Daemon, name: &str, spec: pb::ScheduleSpec) -> Result<pb::Schedule, tonic::Status> {
    let request = pb::CreateScheduleRequest { name: name.into(), spec: Some(spec), validate_only: false };
    Ok(client(daemon).create_schedule(request).await?.into_inner().schedule.unwrap())
}

async fn get(daemon: &Daemon, name: &str) -> pb::Schedule {
    let request = pb::GetScheduleRequest { name: name.into() };
    client(daemon).get_schedule(request).await.unwrap().into_inner().schedule.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_declared_changed_paused_run_by_hand_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let of_file = "[schedules.of_file]\ncron = \"@daily\"\nzone = \"Europe/Berlin\"\n\
                   job = { provider = \"crm\", operation = \"pull\" }\n";
    let place = Place::new(folder.path(), folder.path(), &format!("{PROVIDER}{of_file}"));
    let daemon = place.start().await;
    let made = create(&daemon, "nightly", spec("0 3 * * *", s::Overlap::Skip)).await.unwrap();
    assert!(made.next_time.is_some() && !made.etag.is_empty() && !made.from_file);
    let again = create(&daemon, "nightly", spec("0 3 * * *", s::Overlap::Skip)).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    for (wrong, field) in [
        (spec("61 * * * *", s::Overlap::Skip), "spec.cron"),
        (pb::ScheduleSpec { zone: "Mars/Olympus".into(), ..spec("@daily", s::Overlap::Skip) }, "spec.zone"),
        (pb::ScheduleSpec { target: None, ..spec("@daily", s::Overlap::Skip) }, "spec.target"),
    ] {
        let (_, details) = crate::grpc::house::told(&create(&daemon, "wrong", wrong).await.unwrap_err());
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
    }
    let mut schedules = client(&daemon);
    let update = |etag: &str| pb::UpdateScheduleRequest {
        name: "nightly".into(),
        spec: Some(spec("0 4 * * *", s::Overlap::Skip)),
        etag: etag.into(),
    };
    let updated = schedules.update_schedule(update(&made.etag)).await.unwrap().into_inner().schedule.unwrap();
    assert_eq!(updated.spec.unwrap().cron, "0 4 * * *");
    assert_eq!(schedules.update_schedule(update(&made.etag)).await.unwrap_err().code(), Code::Aborted);
    let of_file = pb::UpdateScheduleRequest { name: "of_file".into(), ..update("") };
    assert_eq!(schedules.update_schedule(of_file).await.unwrap_err().code(), Code::FailedPrecondition);
    let name = || "nightly".to_owned();
    let paused = schedules.pause_schedule(pb::PauseScheduleRequest { name: name() }).await.unwrap().into_inner();
    assert!(paused.schedule.as_ref().is_some_and(|s| s.paused && s.next_time.is_none()));
    let run =
        schedules.run_schedule(pb::RunScheduleRequest { name: name() }).await.unwrap().into_inner().schedule.unwrap();
    let request = pb::GetRunRequest { run_id: run.last_run_id };
    let started = RunServiceClient::new(daemon.channel()).get_run(request).await.unwrap().into_inner().run.unwrap();
    assert_eq!((started.labels["schedule"].as_str(), started.job_count), ("nightly", 1));
    let resumed = schedules.resume_schedule(pb::ResumeScheduleRequest { name: name() }).await.unwrap().into_inner();
    assert!(resumed.schedule.is_some_and(|s| !s.paused && s.next_time.is_some()));
    schedules.delete_schedule(pb::DeleteScheduleRequest { name: name() }).await.unwrap();
    let list = schedules.list_schedules(pb::ListSchedulesRequest::default()).await.unwrap().into_inner().schedules;
    assert_eq!(list.iter().map(|s| (s.name.as_str(), s.from_file)).collect::<Vec<_>>(), [("of_file", true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_beside_a_run_is_skipped_queued_or_calls_it_off() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Place::new(folder.path(), folder.path(), PROVIDER).start().await;
    let pause = pb::PauseProviderRequest { name: "crm".into() };
    let mut providers = pb::provider_service_client::ProviderServiceClient::new(daemon.channel());
    providers.pause_provider(pause).await.unwrap();
    for (name, overlap) in
        [("skips", s::Overlap::Skip), ("queues", s::Overlap::Queue), ("replaces", s::Overlap::CancelOther)]
    {
        create(&daemon, name, spec("* * * * * *", overlap)).await.unwrap();
    }
    let told = |name: &'static str, said: fn(&pb::Schedule) -> bool| {
        let daemon = &daemon;
        until(PATIENCE, move || async move { Some(get(daemon, name).await).filter(said) })
    };
    told("skips", |s| s.last_outcome.contains("skipped")).await.expect("the first run never ends");
    let queued = told("queues", |s| s.queued_times.len() >= 2).await.expect("ticks wait for the first run");
    let replaced = told("replaces", |s| s.last_outcome.contains("called off")).await.expect("it calls the run off");
    let mut runs = RunServiceClient::new(daemon.channel());
    let called_off = || async {
        let all = RunServiceClient::new(daemon.channel()).list_runs(pb::ListRunsRequest::default()).await.unwrap();
        let of_it = |run: &pb::Run| run.labels["schedule"] == "replaces" && run.state() == pb::RunState::Cancelled;
        all.into_inner().runs.iter().any(of_it).then_some(())
    };
    until(PATIENCE, called_off).await.expect("the sweeper takes its jobs");
    assert!(!replaced.last_run_id.is_empty());
    // The end of the run lets the oldest one that waits go.
    runs.cancel_run(pb::CancelRunRequest { run_id: queued.last_run_id.clone() }).await.unwrap();
    let next = || async { Some(get(&daemon, "queues").await).filter(|s| s.last_run_id != queued.last_run_id) };
    until(PATIENCE, next).await.expect("the next one starts");
}

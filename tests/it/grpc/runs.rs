//! Runs and providers over the wire.

use tidegate::grpc::pb;
use tidegate::grpc::pb::RunState;
use tonic::Code;

use super::house::{house, ping, source, told};

async fn new_run(house: &super::house::House, tenant: &str) -> pb::Run {
    let request = pb::CreateRunRequest { display_name: "import".into(), tenant: tenant.into(), ..Default::default() };
    house.runs().create_run(request).await.unwrap().into_inner().run.unwrap()
}

#[tokio::test]
async fn a_run_is_filled_sealed_and_watched_to_its_end() {
    let house = house().await;
    let run = new_run(&house, "acme").await;
    assert_eq!(run.state(), RunState::Open);
    let message = |sequence, seal| pb::AddRunJobsRequest {
        run_id: if sequence == 1 { run.id.clone() } else { String::new() },
        sequence,
        jobs: vec![ping(); 10],
        seal,
    };
    let messages = [message(1, false), message(2, false), message(3, true)];
    let mut answers = house.runs().add_run_jobs(tokio_stream::iter(messages)).await.unwrap().into_inner();
    for sequence in 1..=3 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.sequence, answer.accepted_count, answer.sealed), (sequence, 10, sequence == 3));
    }
    let request = pb::WatchRunRequest { run_id: run.id.clone(), ..Default::default() };
    let mut watch = house.runs().watch_run(request).await.unwrap().into_inner();
    let (mut last, mut token) = (None, String::new());
    while let Some(told) = watch.message().await.unwrap() {
        token = told.resume_token;
        if let Some(pb::watch_run_response::Item::Run(run)) = told.item {
            last = Some(run);
        }
    }
    let last = last.unwrap();
    assert_eq!((last.state(), last.job_count, last.counts.unwrap().delivered), (RunState::Finished, 30, 30));
    assert_eq!(last.tenant, "acme");
    // Resuming after the end tells the end again, and ends.
    let request = pb::WatchRunRequest { run_id: run.id.clone(), resume_token: token };
    let mut watch = house.runs().watch_run(request).await.unwrap().into_inner();
    assert!(matches!(watch.message().await.unwrap().unwrap().item, Some(pb::watch_run_response::Item::Run(_))));
    assert!(watch.message().await.unwrap().is_none());

    let filter = format!("run_id = \"{}\"", run.id);
    let request = pb::ListJobsRequest { filter, page_size: 1, ..Default::default() };
    let listed = house.jobs().list_jobs(request).await.unwrap().into_inner().jobs;
    assert_eq!((listed[0].run_id.as_str(), listed[0].tenant.as_str()), (run.id.as_str(), "acme"));
}

#[tokio::test]
async fn a_paused_run_holds_its_jobs_and_a_cancelled_one_ends_them() {
    let house = house().await;
    let run = new_run(&house, "").await;
    let paused = house.runs().pause_run(pb::PauseRunRequest { run_id: run.id.clone() }).await.unwrap().into_inner();
    assert_eq!(paused.run.unwrap().state(), RunState::Paused);
    let id = house.enqueue(pb::JobSpec { run_id: run.id.clone(), ..ping() }).await.unwrap();
    let said = house.jobs().explain_job(pb::ExplainJobRequest { job_id: id.clone() }).await.unwrap().into_inner();
    assert_eq!(said.waiting_on.unwrap().kind(), pb::waiting_on::Kind::RunPaused);
    house.runs().cancel_run(pb::CancelRunRequest { run_id: run.id.clone() }).await.unwrap();
    assert_eq!(house.settled(&[id]).await[0].state(), pb::JobState::Cancelled);
    let status = house.enqueue(pb::JobSpec { run_id: run.id, ..ping() }).await.unwrap_err();
    assert_eq!((status.code(), told(&status).0.as_str()), (Code::FailedPrecondition, "WRONG_RUN_STATE"));
}

#[tokio::test]
async fn runs_are_listed_newest_first_and_made_once_per_request_id() {
    let house = house().await;
    let request = pb::CreateRunRequest { request_id: "run-1".into(), ..Default::default() };
    let first = house.runs().create_run(request.clone()).await.unwrap().into_inner().run.unwrap().id;
    assert_eq!(house.runs().create_run(request).await.unwrap().into_inner().run.unwrap().id, first);
    let second = new_run(&house, "").await.id;
    let page = |page_token| pb::ListRunsRequest { page_size: 1, page_token };
    let newest = house.runs().list_runs(page(String::new())).await.unwrap().into_inner();
    assert_eq!(newest.runs[0].id, second);
    let next = house.runs().list_runs(page(newest.next_page_token)).await.unwrap().into_inner();
    assert_eq!(next.runs[0].id, first);
}

#[tokio::test]
async fn a_run_takes_only_its_own_jobs_of_its_own_tenant() {
    let house = house().await;
    let (run, other) = (new_run(&house, "acme").await, new_run(&house, "").await);
    let jobs = vec![
        pb::JobSpec { tenant: "rival".into(), ..ping() },
        pb::JobSpec { run_id: other.id, ..ping() },
        pb::JobSpec { tenant: "acme".into(), ..ping() },
    ];
    let message = pb::AddRunJobsRequest { run_id: run.id, sequence: 1, jobs, seal: false };
    let mut answers = house.runs().add_run_jobs(tokio_stream::iter([message])).await.unwrap().into_inner();
    let results = answers.message().await.unwrap().unwrap().results;
    let reasons: Vec<String> = results
        .into_iter()
        .map(|result| match result.result.unwrap() {
            pb::enqueue_result::Result::Enqueued(_) => "accepted".to_owned(),
            pb::enqueue_result::Result::Error(error) => error.reason,
        })
        .collect();
    assert_eq!(reasons, ["OTHER_TENANT", "OTHER_RUN", "accepted"]);
}

#[tokio::test]
async fn a_declaration_is_checked_applied_replaced_by_etag_and_deleted() {
    let house = house().await;
    let mut providers = house.providers();
    let apply = |etag: &str, validate_only| pb::ApplyProviderRequest {
        source: source("music"),
        validate_only,
        etag: etag.into(),
    };
    let dry = providers.apply_provider(apply("", true)).await.unwrap().into_inner().provider.unwrap();
    assert_eq!((dry.revision, dry.etag.as_str()), (0, ""));
    let get = pb::GetProviderRequest { name: "music".into(), view: 0 };
    assert_eq!(providers.get_provider(get.clone()).await.unwrap_err().code(), Code::NotFound);

    let first = providers.apply_provider(apply("none", false)).await.unwrap().into_inner().provider.unwrap();
    assert_eq!((first.revision, first.source), (1, source("music")));
    assert!(first.actor.starts_with("tcp 127.0.0.1:"), "{}", first.actor);
    let second = providers.apply_provider(apply(&first.etag, false)).await.unwrap().into_inner().provider.unwrap();
    assert_eq!(second.revision, 2);
    let stale = providers.apply_provider(apply(&first.etag, false)).await.unwrap_err();
    assert_eq!((stale.code(), told(&stale).0.as_str()), (Code::Aborted, "STALE_ETAG"));

    let two = pb::ApplyProviderRequest { source: source("one") + &source("two"), ..Default::default() };
    assert_eq!(told(&providers.apply_provider(two).await.unwrap_err()).0, "NOT_ONE_PROVIDER");
    let listed = providers.list_providers(pb::ListProvidersRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.providers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["crm", "music", "shop"]);
    assert!(listed.providers.iter().all(|p| p.source.is_empty()));
    providers.delete_provider(pb::DeleteProviderRequest { name: "music".into(), force: false }).await.unwrap();
    assert_eq!(providers.get_provider(get).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_busy_provider_is_deleted_only_by_force() {
    let house = house().await;
    house.pause().await;
    house.enqueue(ping()).await.unwrap();
    let delete = |force| pb::DeleteProviderRequest { name: "crm".into(), force };
    let busy = house.providers().delete_provider(delete(false)).await.unwrap_err();
    assert_eq!((busy.code(), told(&busy).0.as_str()), (Code::FailedPrecondition, "PROVIDER_BUSY"));
    house.providers().delete_provider(delete(true)).await.unwrap();
}

#[tokio::test]
async fn a_status_is_told_once_and_again_and_again() {
    let house = house().await;
    house.pause().await;
    house.enqueue(ping()).await.unwrap();
    let request = pb::GetProviderStatusRequest { name: "crm".into() };
    let status = house.providers().get_provider_status(request).await.unwrap().into_inner().status.unwrap();
    assert!(status.paused);
    assert_eq!(status.counts.unwrap().waiting, 1);
    let interval = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    let request = pb::WatchProviderStatusRequest { name: "crm".into(), interval };
    let mut watch = house.providers().watch_provider_status(request.clone()).await.unwrap().into_inner();
    for _ in 0..2 {
        assert_eq!(watch.message().await.unwrap().unwrap().status.unwrap().name, "crm");
    }
    let hasty = pb::WatchProviderStatusRequest { interval: Some(prost_types::Duration::default()), ..request };
    let status = house.providers().watch_provider_status(hasty).await.unwrap_err();
    assert_eq!(told(&status).0, "BAD_INTERVAL");
    let unknown = pb::WatchProviderStatusRequest { name: "nobody".into(), interval: None };
    assert_eq!(house.providers().watch_provider_status(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_event_log_is_listed_from_any_point_and_waits_for_what_comes() {
    let house = house().await;
    house.pause().await;
    let id = house.enqueue(ping()).await.unwrap();
    let request = pb::ListEventsRequest { after_sequence: -1, ..Default::default() };
    let page = house.admin().list_events(request).await.unwrap().into_inner();
    let Some(pb::event::What::Jobs(jobs)) = &page.events[0].what else { panic!("{page:?}") };
    assert_eq!((jobs.kind(), &jobs.job_ids), (pb::job_event::Kind::Enqueued, &vec![id]));
    assert_eq!((jobs.provider.as_str(), jobs.operation.as_str()), ("crm", "ping"));

    let wait = Some(prost_types::Duration { seconds: 20, nanos: 0 });
    let request = pb::ListEventsRequest { page_token: page.next_page_token, wait, ..Default::default() };
    let mut admin = house.admin();
    let (waited, _) = tokio::join!(admin.list_events(request), house.enqueue(ping()));
    assert_eq!(waited.unwrap().into_inner().events.len(), 1);
    let long = Some(prost_types::Duration { seconds: 31, nanos: 0 });
    let request = pb::ListEventsRequest { wait: long, ..Default::default() };
    assert_eq!(told(&house.admin().list_events(request).await.unwrap_err()).0, "BAD_WAIT");
}

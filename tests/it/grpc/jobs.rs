//! Jobs over the wire: handing in, repeating, looking, changing, deciding.

use tidegate::grpc::pb;
use tidegate::grpc::pb::{Acceptance, JobState};
use tonic::{Code, Request};

use super::house::{Says, house, ping, told};

#[tokio::test]
async fn a_job_is_accepted_delivered_and_shown_with_its_call() {
    let house = house().await;
    let id = house.enqueue(pb::JobSpec { key: "u7".into(), ..ping() }).await.unwrap();
    let settled = house.settled(std::slice::from_ref(&id)).await;
    assert_eq!(settled[0].state(), JobState::Delivered);
    let request = pb::GetJobRequest { job_id: id.clone(), view: 0 };
    let answer = house.jobs().get_job(request).await.unwrap().into_inner();
    let job = answer.job.unwrap();
    assert_eq!((job.id.as_str(), job.key.as_str(), job.payload.as_str()), (id.as_str(), "u7", r#"{"n": 1}"#));
    assert_eq!((job.attempts, job.last_status), (1, 200));
    assert_eq!(answer.calls.len(), 1);
    assert_eq!((answer.calls[0].ending(), answer.calls[0].status), (pb::call::Ending::Answered, 200));
    let basic = pb::GetJobRequest { job_id: id, view: pb::View::Basic as i32 };
    assert_eq!(house.jobs().get_job(basic).await.unwrap().into_inner().job.unwrap().payload, "");
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_job_and_other_content_under_its_id_is_refused() {
    let house = house().await;
    house.pause().await;
    let request = |job| pb::EnqueueJobRequest { job: Some(job), request_id: "r-1".into(), validate_only: false };
    let first = house.jobs().enqueue_job(request(ping())).await.unwrap().into_inner();
    let again = house.jobs().enqueue_job(request(ping())).await.unwrap().into_inner();
    assert_eq!(first.acceptance(), Acceptance::Created);
    assert_eq!((again.job_id.as_str(), again.acceptance()), (first.job_id.as_str(), Acceptance::Repeated));
    let other = pb::JobSpec { payload: "2".into(), ..ping() };
    let status = house.jobs().enqueue_job(request(other)).await.unwrap_err();
    let (reason, details) = told(&status);
    assert_eq!((status.code(), reason.as_str()), (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(details.error_info().unwrap().metadata["job"], first.job_id);

    let batch = pb::EnqueueJobsRequest { jobs: vec![ping(), ping()], request_id: "r-2".into(), ..Default::default() };
    let ids = |answer: pb::EnqueueJobsResponse| -> Vec<String> {
        let id = |r: pb::EnqueueResult| match r.result.unwrap() {
            pb::enqueue_result::Result::Enqueued(e) => e.job_id,
            pb::enqueue_result::Result::Error(e) => panic!("{e:?}"),
        };
        answer.results.into_iter().map(id).collect()
    };
    let first = ids(house.jobs().enqueue_jobs(batch.clone()).await.unwrap().into_inner());
    assert_ne!(first[0], first[1]);
    assert_eq!(ids(house.jobs().enqueue_jobs(batch).await.unwrap().into_inner()), first);
}

#[tokio::test]
async fn validate_only_checks_everything_and_stores_nothing() {
    let house = house().await;
    house.pause().await;
    let request = pb::EnqueueJobRequest { job: Some(ping()), validate_only: true, ..Default::default() };
    let answer = house.jobs().enqueue_job(request).await.unwrap().into_inner();
    assert_eq!((answer.job_id.as_str(), answer.acceptance()), ("", Acceptance::Validated));
    let listed = house.jobs().list_jobs(pb::ListJobsRequest::default()).await.unwrap().into_inner();
    assert!(listed.jobs.is_empty());
}

#[tokio::test]
async fn a_newer_waiting_change_of_a_key_takes_the_place_of_the_older() {
    let house = house().await;
    house.pause().await;
    let update = |n: i32| pb::JobSpec {
        operation: "update".into(),
        key: "u1".into(),
        payload: format!("{{\"n\":{n}}}"),
        ..ping()
    };
    let first = house.enqueue(update(1)).await.unwrap();
    let request = pb::EnqueueJobRequest { job: Some(update(2)), ..Default::default() };
    let second = house.jobs().enqueue_job(request).await.unwrap().into_inner();
    assert_eq!((second.job_id.as_str(), second.acceptance()), (first.as_str(), Acceptance::Coalesced));
}

#[tokio::test]
async fn a_stream_is_acknowledged_message_by_message_in_order() {
    let house = house().await;
    house.pause().await;
    let message = |sequence| pb::EnqueueStreamRequest { sequence, jobs: vec![ping(); 3] };
    let messages: Vec<_> = (1..=20).map(message).collect();
    let mut answers = house.jobs().enqueue_stream(tokio_stream::iter(messages)).await.unwrap().into_inner();
    for sequence in 1..=20 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.sequence, answer.accepted_count, answer.results.len()), (sequence, 3, 3));
    }
    assert!(answers.message().await.unwrap().is_none());

    let out_of_order = [message(5), message(5)];
    let mut answers = house.jobs().enqueue_stream(tokio_stream::iter(out_of_order)).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().sequence, 5);
    let status = answers.message().await.unwrap_err();
    assert_eq!(told(&status).0, "SEQUENCE_NOT_INCREASING");
}

#[tokio::test]
async fn the_trace_context_of_the_call_goes_with_jobs_that_bring_none() {
    let house = house().await;
    house.pause().await;
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let jobs = vec![ping(), pb::JobSpec { traceparent: own.into(), ..ping() }];
    let mut request = Request::new(pb::EnqueueJobsRequest { jobs, ..Default::default() });
    request.metadata_mut().insert("traceparent", given.parse().unwrap());
    house.jobs().enqueue_jobs(request).await.unwrap();
    let listed = house.jobs().list_jobs(pb::ListJobsRequest::default()).await.unwrap().into_inner().jobs;
    assert_eq!([listed[1].traceparent.as_str(), listed[0].traceparent.as_str()], [given, own]);

    let mut request = Request::new(pb::EnqueueJobRequest { job: Some(ping()), ..Default::default() });
    request.metadata_mut().insert("traceparent", "nonsense".parse().unwrap());
    house.jobs().enqueue_job(request).await.unwrap();
}

#[tokio::test]
async fn lists_are_paged_newest_first_and_say_what_jobs_wait_for() {
    let house = house().await;
    house.pause().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let labels = [("n".to_owned(), n.to_string())].into();
        ids.push(house.enqueue(pb::JobSpec { labels, ..ping() }).await.unwrap());
    }
    ids.reverse();
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListJobsRequest { page_size: 2, page_token, ..Default::default() };
        let page = house.jobs().list_jobs(request).await.unwrap().into_inner();
        for job in page.jobs {
            assert_eq!(job.payload, "");
            assert_eq!(job.waiting_on.unwrap().kind(), pb::waiting_on::Kind::Paused);
            seen.push(job.id);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ids);
    let one = pb::ListJobsRequest { filter: "labels.n = 3".into(), view: pb::View::Full as i32, ..Default::default() };
    let found = house.jobs().list_jobs(one).await.unwrap().into_inner().jobs;
    assert_eq!((found.len(), found[0].id.as_str(), found[0].payload.as_str()), (1, ids[1].as_str(), r#"{"n": 1}"#));
}

#[tokio::test]
async fn a_dry_run_counts_and_a_cancel_ends_waiting_jobs() {
    let house = house().await;
    house.pause().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(house.enqueue(ping()).await.unwrap());
    }
    let by_filter = |validate_only| pb::CancelJobsRequest {
        filter: r#"provider = "crm""#.into(),
        validate_only,
        ..Default::default()
    };
    let dry = house.jobs().cancel_jobs(by_filter(true)).await.unwrap().into_inner().result.unwrap();
    assert_eq!((dry.matched_count, dry.changed_count, dry.more), (3, 3, false));
    let by_id = pb::CancelJobsRequest { job_ids: vec![ids[0].clone(), ids[0].clone()], ..Default::default() };
    let done = house.jobs().cancel_jobs(by_id).await.unwrap().into_inner().result.unwrap();
    assert_eq!((done.changed_count, done.changes[0].state()), (1, JobState::Cancelled));
    assert_eq!(done.changes[1].error.as_ref().unwrap().reason, "WRONG_STATE");
    let done = house.jobs().cancel_jobs(by_filter(false)).await.unwrap().into_inner().result.unwrap();
    assert_eq!((done.matched_count, done.changed_count), (2, 2));
    let jobs = house.settled(&ids).await;
    assert!(jobs.iter().all(|job| job.state() == JobState::Cancelled));
}

#[tokio::test]
async fn a_repeated_bulk_request_gets_its_first_answer() {
    let house = house().await;
    house.pause().await;
    let id = house.enqueue(ping()).await.unwrap();
    let request = pb::CancelJobsRequest { job_ids: vec![id], request_id: "c-1".into(), ..Default::default() };
    let first = house.jobs().cancel_jobs(request.clone()).await.unwrap().into_inner();
    let again = house.jobs().cancel_jobs(request.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);
    let other = pb::CancelJobsRequest { validate_only: true, ..request };
    let status = house.jobs().cancel_jobs(other).await.unwrap_err();
    assert_eq!((status.code(), told(&status).0.as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
}

#[tokio::test]
async fn a_dead_job_is_retried_and_a_waiting_one_hastened() {
    let house = house().await;
    house.says.send_replace(Says::Status(422));
    let dead = house.enqueue(ping()).await.unwrap();
    assert_eq!(house.settled(std::slice::from_ref(&dead)).await[0].state(), JobState::Dead);
    house.says.send_replace(Says::Status(200));
    let later = Some(pb::job_spec::Start::Delay(prost_types::Duration { seconds: 3_600, nanos: 0 }));
    let later = house.enqueue(pb::JobSpec { start: later, ..ping() }).await.unwrap();
    let ids = vec![dead, later];
    let request = pb::RetryJobsRequest { job_ids: ids.clone(), ..Default::default() };
    let done = house.jobs().retry_jobs(request).await.unwrap().into_inner().result.unwrap();
    assert_eq!(done.changed_count, 2, "{done:?}");
    assert_eq!(done.changes.iter().map(|c| c.job_id.clone()).collect::<Vec<_>>(), ids);
    assert!(house.settled(&ids).await.iter().all(|job| job.state() == JobState::Delivered));
}

#[tokio::test]
async fn an_edit_changes_a_waiting_job_and_no_other() {
    let house = house().await;
    house.pause().await;
    let id = house.enqueue(ping()).await.unwrap();
    let edit = pb::EditJobRequest {
        job_id: id.clone(),
        payload: Some("[1, 2]".into()),
        priority_class: pb::PriorityClass::Urgent as i32,
        due_time: None,
    };
    let job = house.jobs().edit_job(edit.clone()).await.unwrap().into_inner().job.unwrap();
    assert_eq!((job.payload.as_str(), job.priority_class(), job.version), ("[1, 2]", pb::PriorityClass::Urgent, 2));
    let bad = pb::EditJobRequest { payload: Some("{".into()), ..edit.clone() };
    assert_eq!(told(&house.jobs().edit_job(bad).await.unwrap_err()).0, "PAYLOAD_NOT_JSON");
    let nothing = pb::EditJobRequest { job_id: id.clone(), ..Default::default() };
    assert_eq!(told(&house.jobs().edit_job(nothing).await.unwrap_err()).0, "NOTHING_TO_EDIT");
    let cancel = pb::CancelJobsRequest { job_ids: vec![id], ..Default::default() };
    house.jobs().cancel_jobs(cancel).await.unwrap();
    let status = house.jobs().edit_job(edit).await.unwrap_err();
    assert_eq!((status.code(), told(&status).0.as_str()), (Code::FailedPrecondition, "WRONG_STATE"));
}

#[tokio::test]
async fn explain_says_what_a_job_waits_for() {
    let house = house().await;
    house.pause().await;
    let id = house.enqueue(ping()).await.unwrap();
    let said = house.jobs().explain_job(pb::ExplainJobRequest { job_id: id }).await.unwrap().into_inner();
    assert_eq!(said.state(), JobState::Waiting);
    assert_eq!(said.waiting_on.unwrap().kind(), pb::waiting_on::Kind::Paused);
    assert!(!said.sentence.is_empty());
}

#[tokio::test]
async fn waiting_for_a_job_ends_with_the_time_and_names_what_is_missing() {
    let house = house().await;
    house.pause().await;
    let id = house.enqueue(ping()).await.unwrap();
    let missing = "019aa8c2-7d31-7123-8000-00000000002a".to_owned();
    let request = pb::WaitJobsRequest {
        job_ids: vec![id.clone(), missing.clone()],
        timeout: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
        state: 0,
    };
    let waited = house.jobs().wait_jobs(request).await.unwrap().into_inner();
    assert!(!waited.done);
    assert_eq!((waited.jobs.len(), waited.missing_job_ids), (1, vec![missing]));
    let state = pb::WaitJobsRequest { job_ids: vec![id], state: JobState::Waiting as i32, ..Default::default() };
    assert!(house.jobs().wait_jobs(state).await.unwrap().into_inner().done);
}

#[tokio::test]
async fn a_draining_daemon_takes_no_jobs_and_says_when_to_come_back() {
    let house = house().await;
    house.admin().drain(pb::DrainRequest {}).await.unwrap();
    let status = house.enqueue(ping()).await.unwrap_err();
    let (reason, details) = told(&status);
    assert_eq!((status.code(), reason.as_str()), (Code::Unavailable, "DRAINING"));
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    // Reading goes on.
    house.jobs().list_jobs(pb::ListJobsRequest::default()).await.unwrap();
    let daemon = house.admin().get_daemon(pb::GetDaemonRequest {}).await.unwrap().into_inner().daemon.unwrap();
    assert!(daemon.draining);
}

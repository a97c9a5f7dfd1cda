//! Bad input, list 1 of 4-guarantees.md: each line is a test. The daemon says what is wrong and loses nothing.

use std::collections::BTreeMap;

use tidegate::grpc::pb;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::house::{House, PAYLOAD_BYTES_MAX, house, ping, told};

/// A job that must be refused: with this code, this reason, and this field named.
async fn refused(house: &House, job: pb::JobSpec, code: Code, reason: &str, field: &str) {
    let shown = format!("{job:?}").chars().take(200).collect::<String>();
    let status = house.enqueue(job).await.expect_err(&shown);
    let (said, details) = told(&status);
    assert_eq!((status.code(), said.as_str()), (code, reason), "{shown}: {status:?}");
    if !field.is_empty() {
        let fields = &details.bad_request().unwrap_or_else(|| panic!("no BadRequest: {status:?}")).field_violations;
        assert!(fields.iter().any(|v| v.field == format!("job.{field}")), "{shown}: {fields:?}");
    }
}

async fn wrong(house: &House, job: pb::JobSpec, reason: &str, field: &str) {
    refused(house, job, Code::InvalidArgument, reason, field).await;
}

fn reason(result: Result<impl std::fmt::Debug, Status>) -> String {
    told(&result.expect_err("it should be refused")).0
}

#[tokio::test]
async fn names_and_keys_that_are_empty_too_long_or_hold_control_characters_are_refused() {
    let house = house().await;
    wrong(&house, pb::JobSpec { provider: String::new(), ..ping() }, "BAD_NAME", "provider").await;
    wrong(&house, pb::JobSpec { provider: "p".repeat(64), ..ping() }, "BAD_NAME", "provider").await;
    wrong(&house, pb::JobSpec { operation: String::new(), ..ping() }, "BAD_NAME", "operation").await;
    wrong(&house, pb::JobSpec { operation: "Ping".into(), ..ping() }, "BAD_NAME", "operation").await;
    wrong(&house, pb::JobSpec { key: "k".repeat(513), ..ping() }, "BAD_NAME", "key").await;
    wrong(&house, pb::JobSpec { key: "user\0".into(), ..ping() }, "BAD_NAME", "key").await;
    wrong(&house, pb::JobSpec { key: "user\u{202e}7".into(), ..ping() }, "BAD_NAME", "key").await;
    wrong(&house, pb::JobSpec { account: "a\r\nb".into(), ..ping() }, "BAD_NAME", "account").await;
    wrong(&house, pb::JobSpec { account: "a".repeat(257), ..ping() }, "BAD_NAME", "account").await;
    wrong(&house, pb::JobSpec { tenant: "t\u{7f}".into(), ..ping() }, "BAD_NAME", "tenant").await;
    let own = |key: &str| pb::JobSpec { idempotency_key: key.into(), ..ping() };
    wrong(&house, own(&"i".repeat(257)), "BAD_IDEMPOTENCY_KEY", "idempotency_key").await;
    wrong(&house, own("tidegate.request/x"), "BAD_IDEMPOTENCY_KEY", "idempotency_key").await;
}

#[tokio::test]
async fn ids_that_tidegate_cannot_have_made_are_refused_and_unknown_ones_are_not_found() {
    let house = house().await;
    for id in ["", "7", "x\0y", "019aa8c2-7d31-4123-8000-00000000002a", &"9".repeat(10_000)] {
        let request = pb::GetJobRequest { job_id: id.into(), ..Default::default() };
        assert_eq!(reason(house.jobs().get_job(request).await), "BAD_ID", "{id:.40}");
    }
    let made_up = "019aa8c2-7d31-7123-8000-00000000002a".to_owned();
    let status = house.jobs().get_job(pb::GetJobRequest { job_id: made_up.clone(), view: 0 }).await.unwrap_err();
    assert_eq!((status.code(), told(&status).0.as_str()), (Code::NotFound, "NO_SUCH_JOB"));
    assert_eq!(status.get_error_details().resource_info().unwrap().resource_name, made_up);
}

#[tokio::test]
async fn delays_that_are_negative_or_longer_than_a_year_are_refused() {
    let house = house().await;
    let delay = |seconds, nanos| {
        let start = Some(pb::job_spec::Start::Delay(prost_types::Duration { seconds, nanos }));
        pb::JobSpec { start, ..ping() }
    };
    wrong(&house, delay(-1, 0), "BAD_START", "delay").await;
    wrong(&house, delay(0, -1_000), "BAD_START", "delay").await;
    wrong(&house, delay(367 * 86_400, 0), "BAD_START", "delay").await;
    wrong(&house, delay(i64::MAX, 0), "BAD_DURATION", "delay").await;
    wrong(&house, delay(1, -1), "BAD_DURATION", "delay").await;
    let due = |seconds| {
        let start = Some(pb::job_spec::Start::DueTime(prost_types::Timestamp { seconds, nanos: 0 }));
        pb::JobSpec { start, ..ping() }
    };
    wrong(&house, due(253_402_000_000), "BAD_START", "due_time").await;
    wrong(&house, due(i64::MIN), "BAD_TIME", "due_time").await;
    house.enqueue(delay(366 * 86_400 - 60, 0)).await.unwrap();
}

#[tokio::test]
async fn unknown_enum_numbers_are_refused() {
    let house = house().await;
    wrong(&house, pb::JobSpec { priority_class: 99, ..ping() }, "UNKNOWN_ENUM_VALUE", "priority_class").await;
    let list = pb::ListJobsRequest { view: 7, ..Default::default() };
    assert_eq!(reason(house.jobs().list_jobs(list).await), "UNKNOWN_ENUM_VALUE");
    let wait = pb::WaitJobsRequest { state: -1, ..Default::default() };
    assert_eq!(reason(house.jobs().wait_jobs(wait).await), "UNKNOWN_ENUM_VALUE");
    let resolve = pb::ResolveJobsRequest { decision: 4, filter: "state = UNKNOWN".into(), ..Default::default() };
    assert_eq!(reason(house.jobs().resolve_jobs(resolve.clone()).await), "UNKNOWN_ENUM_VALUE");
    let undecided = pb::ResolveJobsRequest { decision: 0, ..resolve };
    assert_eq!(reason(house.jobs().resolve_jobs(undecided).await), "NO_DECISION");
}

#[tokio::test]
async fn a_test_call_never_goes_to_another_place() {
    let house = house().await;
    for path in
        ["http://evil.example/", "//evil.example/", "ping", "/a b", "/a#b", "/../x", "/x\r\nhost: y", "file:///etc"]
    {
        let request = pb::TestProviderRequest { name: "crm".into(), path: path.into() };
        assert_eq!(reason(house.providers().test_provider(request).await), "BAD_PATH", "{path:?}");
    }
}

#[tokio::test]
async fn a_declaration_with_a_hostile_address_or_header_is_refused_and_changes_nothing() {
    let house = house().await;
    let base =
        |url: &str| format!("[providers.crm]\nbase_url = \"{url}\"\n[providers.crm.operations.x]\nrequest = \"GET /\"");
    let request = |request: &str| {
        format!(
            "[providers.crm]\nbase_url = \"https://crm.example\"\n[providers.crm.operations.x]\nrequest = \"{request}\""
        )
    };
    let header = |header: &str| request("GET /") + "\nheaders = { " + header + " }";
    let sources = [
        base("https://user:secret@crm.example"),
        base("file:///etc/passwd"),
        base("crm.example"),
        request("GET https://evil.example/"),
        header(r#"host = "evil.example""#),
        header(r#"content-length = "7""#),
        header(r#"x-a = "1\r\nx-b: 2""#),
        header(r#""x\r\na" = "1""#),
        "providers = 7".to_owned(),
        "[[[".to_owned(),
        String::new(),
    ];
    let get = || pb::GetProviderRequest { name: "crm".into(), view: 0 };
    let before = house.providers().get_provider(get()).await.unwrap().into_inner();
    for source in sources {
        let apply = pb::ApplyProviderRequest { source: source.clone(), ..Default::default() };
        let Err(status) = house.providers().apply_provider(apply).await else { panic!("taken: {source}") };
        let (reason, details) = told(&status);
        assert_eq!((status.code(), reason.as_str()), (Code::InvalidArgument, "BAD_DECLARATION"), "{source}");
        let wrong = &details.bad_request().unwrap().field_violations[0];
        assert!(wrong.field == "source" && !wrong.description.contains("secret"), "{source}: {wrong:?}");
    }
    let long = pb::ApplyProviderRequest { source: "#".repeat(300_000), ..Default::default() };
    assert_eq!(reason(house.providers().apply_provider(long).await), "ABOVE_CAP");
    assert_eq!(house.providers().get_provider(get()).await.unwrap().into_inner(), before);
}

#[tokio::test]
async fn a_payload_one_byte_over_the_cap_is_refused_and_the_cap_is_named() {
    let house = house().await;
    let payload = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    house.enqueue(pb::JobSpec { payload: payload(PAYLOAD_BYTES_MAX), ..ping() }).await.unwrap();
    let over = pb::JobSpec { payload: payload(PAYLOAD_BYTES_MAX + 1), ..ping() };
    let status = house.enqueue(over).await.unwrap_err();
    let (said, details) = told(&status);
    assert_eq!((status.code(), said.as_str()), (Code::ResourceExhausted, "ABOVE_CAP"));
    assert!(status.message().contains("server.payload_bytes_max"), "{status:?}");
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "server.payload_bytes_max");
}

#[tokio::test]
async fn a_payload_that_is_not_json_is_refused() {
    let house = house().await;
    for payload in ["{", "{a:1}", "1 2", "nul", "\u{feff}1", "'x'"] {
        let job = pb::JobSpec { payload: payload.into(), ..ping() };
        wrong(&house, job, "PAYLOAD_NOT_JSON", "payload").await;
    }
    let deep = pb::JobSpec { payload: "[".repeat(2_000) + &"]".repeat(2_000), ..ping() };
    wrong(&house, deep, "PAYLOAD_TOO_DEEP", "payload").await;
}

#[tokio::test]
async fn ten_thousand_and_one_items_are_refused_as_a_whole() {
    let house = house().await;
    house.pause().await;
    let before = house.store_jobs().await;
    let request = pb::EnqueueJobsRequest { jobs: vec![ping(); 10_001], ..Default::default() };
    assert_eq!(reason(house.jobs().enqueue_jobs(request).await), "BAD_JOB_COUNT");
    let none = pb::EnqueueJobsRequest::default();
    assert_eq!(reason(house.jobs().enqueue_jobs(none).await), "BAD_JOB_COUNT");
    assert_eq!(house.store_jobs().await, before);
}

#[tokio::test]
async fn of_a_half_bad_batch_the_good_ones_are_committed_and_the_others_named() {
    let house = house().await;
    house.pause().await;
    let bad = [
        pb::JobSpec { payload: "{".into(), ..ping() },
        pb::JobSpec { operation: "fly".into(), ..ping() },
        pb::JobSpec { provider: "nobody".into(), ..ping() },
        pb::JobSpec { priority_class: 42, ..ping() },
    ];
    let jobs: Vec<pb::JobSpec> = bad.into_iter().flat_map(|bad| [ping(), bad]).collect();
    let request = pb::EnqueueJobsRequest { jobs, ..Default::default() };
    let answer = house.jobs().enqueue_jobs(request).await.unwrap().into_inner();
    assert_eq!((answer.accepted_count, answer.results.len()), (4, 8));
    let mut reasons = Vec::new();
    for (at, result) in answer.results.into_iter().enumerate() {
        match result.result.unwrap() {
            pb::enqueue_result::Result::Enqueued(done) => {
                assert_eq!(at % 2, 0);
                let request = pb::GetJobRequest { job_id: done.job_id, view: 0 };
                house.jobs().get_job(request).await.unwrap();
            }
            pb::enqueue_result::Result::Error(error) => {
                assert!(error.violations.iter().all(|v| v.field.starts_with(&format!("jobs[{at}]."))), "{error:?}");
                reasons.push((error.code, error.reason));
            }
        }
    }
    let expected =
        [(3, "PAYLOAD_NOT_JSON"), (5, "NO_SUCH_OPERATION"), (5, "NO_SUCH_PROVIDER"), (3, "UNKNOWN_ENUM_VALUE")];
    assert_eq!(reasons, expected.map(|(code, reason)| (code, reason.to_owned())));
}

#[tokio::test]
async fn labels_and_trace_contexts_are_checked() {
    let house = house().await;
    let labels = |labels: BTreeMap<String, String>| pb::JobSpec { labels, ..ping() };
    let many = (0..33).map(|i| (format!("l{i}"), "v".to_owned())).collect();
    wrong(&house, labels(many), "BAD_LABELS", "labels").await;
    wrong(&house, labels(BTreeMap::from([("l".into(), "v".repeat(257))])), "BAD_LABELS", "labels").await;
    wrong(&house, labels(BTreeMap::from([("l\n".into(), "v".into())])), "BAD_LABELS", "labels").await;
    let trace = pb::JobSpec { traceparent: "00-xyz".into(), ..ping() };
    wrong(&house, trace, "BAD_TRACEPARENT", "traceparent").await;
}

#[tokio::test]
async fn several_faults_of_one_job_are_told_at_once() {
    let house = house().await;
    let job =
        pb::JobSpec { key: "\0".into(), tenant: "\0".into(), traceparent: "x".into(), run_id: "7".into(), ..ping() };
    let status = house.enqueue(job).await.unwrap_err();
    let (_, details) = told(&status);
    let fields: Vec<&str> = details.bad_request().unwrap().field_violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["job.tenant", "job.key", "job.traceparent", "job.run_id"]);
}

#[tokio::test]
async fn filters_pages_and_tokens_that_make_no_sense_are_refused() {
    let house = house().await;
    house.pause().await;
    let list = |filter: &str, page_size, page_token: &str| pb::ListJobsRequest {
        filter: filter.into(),
        page_size,
        page_token: page_token.into(),
        view: 0,
    };
    let status = house.jobs().list_jobs(list("state = GONE", 0, "")).await.unwrap_err();
    assert_eq!(told(&status).1.error_info().unwrap().metadata["position"], "8");
    assert_eq!(reason(house.jobs().list_jobs(list("", -1, "")).await), "BAD_PAGE_SIZE");
    assert_eq!(reason(house.jobs().list_jobs(list("", 0, "garbage")).await), "BAD_PAGE_TOKEN");
    for _ in 0..3 {
        house.enqueue(ping()).await.unwrap();
    }
    let first = house.jobs().list_jobs(list("state = WAITING", 2, "")).await.unwrap().into_inner();
    let other = list("state = DEAD", 2, &first.next_page_token);
    assert_eq!(reason(house.jobs().list_jobs(other).await), "PAGE_TOKEN_OF_OTHER_FILTER");
    // The same filter, written differently, is the same list.
    let same = list("  state =  waiting", 2, &first.next_page_token);
    assert_eq!(house.jobs().list_jobs(same).await.unwrap().into_inner().jobs.len(), 1);
}

#[tokio::test]
async fn a_bulk_action_needs_either_ids_or_a_filter() {
    let house = house().await;
    let neither = pb::CancelJobsRequest::default();
    assert_eq!(reason(house.jobs().cancel_jobs(neither).await), "IDS_OR_FILTER");
    let ids = vec!["x".to_owned()];
    let both = pb::CancelJobsRequest { job_ids: ids, filter: "state = WAITING".into(), ..Default::default() };
    assert_eq!(reason(house.jobs().cancel_jobs(both).await), "IDS_OR_FILTER");
    let many = pb::CancelJobsRequest { job_ids: vec!["x".into(); 10_001], ..Default::default() };
    assert_eq!(reason(house.jobs().cancel_jobs(many).await), "TOO_MANY_IDS");
}

impl House {
    /// Jobs ever accepted.
    async fn store_jobs(&self) -> i64 {
        let daemon = self.admin().get_daemon(pb::GetDaemonRequest {}).await.unwrap().into_inner().daemon.unwrap();
        let counts = daemon.counts.unwrap();
        counts.waiting + counts.calling + counts.delivered + counts.dead + counts.cancelled + counts.unknown
    }
}

//! RecordService on the wire: documents that do not fit, versions, filters, sums, watches, pushes.

use std::time::Duration;

use tidegate::grpc::pb;
use tidegate::grpc::pb::record_service_client::RecordServiceClient;
use tidegate::grpc::pb::watch_records_response::Item;
use tidegate::model::state::State;
use tidegate::simulator::Faults;
use tidegate::store::Change;
use tonic::Code;
use tonic_types::StatusExt;

use super::stage::{PATIENCE, provider, put, start};
use crate::support::process::until;

const ORDERS: &str = r#"
[providers.shop.operations.send]
request = "PUT /orders/{key}"
body = "{payload}"
[collections.orders]
indexes = ["status", ["status", "customer"]]
schema = { type = "object", properties = { amount = { type = "number", minimum = 0 } }, required = ["status"] }
[collections.orders.push]
operation = "shop/send"
watch = ["status"]
[collections.orders.aggregates.by_status]
group_by = ["status"]
sum = ["amount"]
min_max = ["amount"]
order_by = "amount"
time = "at"
bucket = "1d"
[collections.orders.aggregates.by_customer]
group_by = ["customer"]
sum = ["amount"]
order_by = "amount"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_does_not_fit_is_refused_by_pointer() {
    let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&[], Duration::ZERO).await);
    let mut stage = start(folder.path(), &shop.base_url(), ORDERS).await;
    let refused = stage.records.put_record(put("orders", "a", r#"{"status":"open","amount":-1}"#)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let details = refused.get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "data/amount");
    let records = [r#"{"status":"open"}"#, r#"{"amount":1}"#].map(|data| pb::RecordSpec {
        id: "b".into(),
        data: data.into(),
        expected_version: None,
    });
    let request = pb::PutRecordsRequest { collection: "orders".into(), records: records.into() };
    let answer = stage.records.put_records(request).await.unwrap().into_inner();
    assert_eq!((answer.changed_count, answer.results[0].version), (1, 1));
    let error = answer.results[1].error.clone().unwrap();
    assert_eq!(error.violations[0].field, "records[1].data", "{error:?}");
    let stale = pb::PutRecordRequest { expected_version: Some(4), ..put("orders", "b", r#"{"status":"paid"}"#) };
    assert_eq!(stage.records.put_record(stale).await.unwrap_err().code(), Code::Aborted);
    let only = pb::PutRecordRequest { validate_only: true, ..put("orders", "c", r#"{"status":"open"}"#) };
    assert_eq!(stage.records.put_record(only).await.unwrap().into_inner(), pb::PutRecordResponse::default());
    assert_eq!(stage.all("orders").await.len(), 1);
    stage.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_asks_to_push_a_record_send_one_call_and_an_unchanged_save_none() {
    let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&[], Duration::ZERO).await);
    let mut stage = start(folder.path(), &shop.base_url(), ORDERS).await;
    let job = stage.put("orders", "o1", r#"{"status":"open","amount":1}"#).await.push_job_id;
    assert!(!job.is_empty());
    for data in [r#"{"amount":1,"status":"open"}"#, r#"{"status":"open","amount":2}"#] {
        assert_eq!(stage.put("orders", "o1", data).await.push_job_id, "", "no watched field changed");
    }
    // The unwatched change made a version of its own, so asking for it sends that one, once.
    let mut jobs = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let asking = (0..200).map(|_| {
            let mut records = stage.records.clone();
            async move {
                let request = pb::PushRecordRequest { collection: "orders".into(), id: "o1".into() };
                records.push_record(request).await.unwrap().into_inner().job_id
            }
        });
        jobs.extend(futures_util::future::join_all(asking).await);
    }
    assert_eq!(jobs.len(), 1);
    let last = jobs.first().unwrap().clone();
    let expected = if last == job { 1 } else { 2 };
    let sent = until(PATIENCE, || async { (shop.arrivals().len() >= expected).then_some(()) }).await;
    assert!(sent.is_some());
    let handle = stage.app.handle().clone();
    let id = last.parse().unwrap();
    let done = until(PATIENCE, || async {
        let job = handle.store().job(id).await.unwrap().unwrap();
        job.state.is_final().then_some(job)
    });
    assert_eq!(done.await.unwrap().attempts, 1);
    assert_eq!(shop.arrivals().len(), expected);
    stage.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_job_is_dead_is_refused_until_the_job_is_retried() {
    let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&[], Duration::ZERO).await);
    shop.set_faults(Faults { error_share: 1.0, error_status: 400, ..Faults::default() });
    let mut stage = start(folder.path(), &shop.base_url(), ORDERS).await;
    let job = stage.put("orders", "o1", r#"{"status":"open"}"#).await.push_job_id;
    let (handle, id) = (stage.app.handle().clone(), job.parse().unwrap());
    let over = async |state: State| {
        let met = until(PATIENCE, || async {
            let job = handle.store().job(id).await.unwrap().unwrap();
            (job.state == state).then_some(())
        });
        met.await.unwrap_or_else(|| panic!("expected the job to be {state}"));
    };
    over(State::Dead).await;
    let push = || pb::PushRecordRequest { collection: "orders".into(), id: "o1".into() };
    let refused = stage.records.push_record(push()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "PUSH_STOPPED");
    assert!(refused.message().contains(&format!("tidegate jobs retry {job}")), "{}", refused.message());
    shop.set_faults(Faults::default());
    handle.change(Change::ReviveJobs { jobs: vec![id], fresh: false }).await.unwrap();
    over(State::Delivered).await;
    assert_eq!(stage.records.push_record(push()).await.unwrap().into_inner().job_id, job);
    stage.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_is_answered_by_an_index_or_refused_with_those_that_there_are() {
    let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&[], Duration::ZERO).await);
    let mut stage = start(folder.path(), &shop.base_url(), ORDERS).await;
    for n in 0..7 {
        let data =
            format!(r#"{{"status":"{}","customer":{n},"amount":{n}.25,"at":1800000000}}"#, ["open", "paid"][n % 2]);
        stage.put("orders", &format!("o{n}"), &data).await;
    }
    let list = |filter: &str, page_token: String| pb::ListRecordsRequest {
        collection: "orders".into(),
        filter: filter.into(),
        page_size: 3,
        page_token,
    };
    let first = stage.records.list_records(list("status = open", String::new())).await.unwrap().into_inner();
    assert_eq!(first.records.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["o0", "o2", "o4"]);
    let rest = stage.records.list_records(list("status = open", first.next_page_token.clone())).await.unwrap();
    assert_eq!(rest.into_inner().records.len(), 1);
    let other = stage.records.list_records(list("status = paid", first.next_page_token)).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument);
    let both = stage.records.list_records(list("customer = 3 AND status = paid", String::new())).await.unwrap();
    assert_eq!(both.into_inner().records[0].id, "o3");
    let refused = stage.records.list_records(list("customer = 3", String::new())).await.unwrap_err();
    assert!(refused.message().contains("[status], [status,customer]"), "{}", refused.message());
    let sums = |aggregate: &str, window: Option<i64>| pb::AggregateRecordsRequest {
        collection: "orders".into(),
        aggregate: aggregate.into(),
        start_time: window.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
        end_time: window.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
        top: 2,
        ..Default::default()
    };
    let groups = stage.records.aggregate_records(sums("by_status", None)).await.unwrap().into_inner().groups;
    let told: Vec<_> = groups.iter().map(|g| (g.group.as_str(), g.count, g.measures[0].sum.as_str())).collect();
    assert_eq!(told, [(r#"["open"]"#, 4, "13"), (r#"["paid"]"#, 3, "9.75")]);
    assert_eq!((groups[1].measures[0].min.as_str(), groups[1].measures[0].max.as_str()), ("1.25", "5.25"));
    let today = stage.records.aggregate_records(sums("by_status", Some(1_800_000_001))).await.unwrap().into_inner();
    assert_eq!(today.groups, groups);
    let later = stage.records.aggregate_records(sums("by_status", Some(1_900_000_000))).await.unwrap().into_inner();
    assert_eq!(later.groups, []);
    let top = stage.records.aggregate_records(sums("by_customer", None)).await.unwrap().into_inner().groups;
    assert_eq!(top.iter().map(|g| g.group.as_str()).collect::<Vec<_>>(), ["[6]", "[5]"]);
    let no_time = stage.records.aggregate_records(sums("by_customer", Some(1_800_000_001))).await.unwrap_err();
    assert_eq!(no_time.code(), Code::InvalidArgument);
    stage.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_is_refused_from_the_first_group_that_is_too_many() {
    const MAX: usize = tidegate::api::records::aggregate::CELLS_MAX;
    let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&[], Duration::ZERO).await);
    let mut stage = start(folder.path(), &shop.base_url(), ORDERS).await;
    let record = |n: usize| pb::RecordSpec {
        id: format!("o{n}"),
        data: format!(r#"{{"status":"s{n}","amount":1,"at":1800000000}}"#),
        expected_version: None,
    };
    let day = Some(prost_types::Timestamp { seconds: 1_800_000_001, nanos: 0 });
    let sums = pb::AggregateRecordsRequest {
        collection: "orders".into(),
        aggregate: "by_status".into(),
        start_time: day,
        end_time: day,
        ..Default::default()
    };
    let all: Vec<pb::RecordSpec> = (0..=MAX).map(record).collect();
    for records in all[..MAX].chunks(1_000).chain([&all[MAX..]]) {
        if records.len() == 1 {
            assert_eq!(stage.records.aggregate_records(sums.clone()).await.unwrap().into_inner().groups.len(), 100);
        }
        let request = pb::PutRecordsRequest { collection: "orders".into(), records: records.to_vec() };
        let answer = stage.records.put_records(request).await.unwrap().into_inner();
        assert_eq!(answer.changed_count as usize, records.len());
    }
    let refused = stage.records.aggregate_records(sums).await.unwrap_err();
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "WINDOW_TOO_WIDE");
    assert!(refused.message().contains(&format!("at most {MAX} groups times buckets")), "{}", refused.message());
    stage.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_behind_its_token_after_a_restart() {
    let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&[], Duration::ZERO).await);
    let mut stage = start(folder.path(), &shop.base_url(), ORDERS).await;
    stage.put("orders", "a", r#"{"status":"open"}"#).await;
    let watch = |resume_token: &str, snapshot| pb::WatchRecordsRequest {
        collection: "orders".into(),
        resume_token: resume_token.into(),
        snapshot,
    };
    async fn next(stream: &mut tonic::Streaming<pb::WatchRecordsResponse>) -> (String, pb::Record) {
        loop {
            let message = stream.message().await.unwrap().unwrap();
            if let Some(Item::Record(record)) = message.item {
                return (message.resume_token, record);
            }
        }
    }
    let mut stream = stage.records.watch_records(watch("", true)).await.unwrap().into_inner();
    assert_eq!(next(&mut stream).await.1.id, "a");
    stage.put("orders", "b", r#"{"status":"open"}"#).await;
    let (token, record) = next(&mut stream).await;
    assert_eq!((record.id.as_str(), record.change), ("b", 2));
    drop(stream);
    let delete = pb::DeleteRecordRequest { collection: "orders".into(), id: "a".into(), expected_version: Some(1) };
    stage.records.delete_record(delete).await.unwrap();
    stage.app.stop().await;
    let stage = start(folder.path(), &shop.base_url(), ORDERS).await;
    let mut records = RecordServiceClient::clone(&stage.records);
    let mut stream = records.watch_records(watch(&token, false)).await.unwrap().into_inner();
    let (_, record) = next(&mut stream).await;
    assert_eq!((record.id.as_str(), record.deleted, record.version), ("a", true, 2));
    let get = pb::GetRecordRequest { collection: "orders".into(), id: "a".into() };
    assert_eq!(records.get_record(get).await.unwrap_err().code(), Code::NotFound);
    drop(stream);
    stage.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_builds_a_new_index_over_the_records_that_there_are() {
    let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&[], Duration::ZERO).await);
    let mut stage = start(folder.path(), &shop.base_url(), ORDERS).await;
    stage.put("orders", "a", r#"{"status":"open","customer":7}"#).await;
    stage.app.stop().await;
    let with_customer = ORDERS.replace("indexes = [\"status\",", "indexes = [\"customer\",");
    let mut stage = start(folder.path(), &shop.base_url(), &with_customer).await;
    let records = stage.records.clone();
    let found = until(PATIENCE, || {
        let mut records = records.clone();
        async move {
            let filter = "customer = 7".to_owned();
            let request = pb::ListRecordsRequest { collection: "orders".into(), filter, ..Default::default() };
            records.list_records(request).await.ok().map(|page| page.into_inner().records.len())
        }
    });
    assert_eq!(found.await, Some(1));
    assert_eq!(stage.all("orders").await[0].1, 1, "the record itself did not change");
    stage.app.stop().await;
}

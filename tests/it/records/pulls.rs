//! Pulls: every way of paging, what changed since, ETag, sweeps, and links that are not followed.

use std::time::Duration;

use tidegate::grpc::pb;
use tidegate::grpc::pb::schedule_service_client::ScheduleServiceClient;
use tonic::Code;

use super::stage::{PATIENCE, provider, start};
use crate::support::process::until;

const FAST: Duration = Duration::ZERO;

fn declare(path: &str, pages: &str, collection: &str) -> String {
    format!(
        "[providers.shop.operations.list]\nrequest = \"GET {path}\"\npages = {{ items = \"/data\", {pages} }}\n\
         [collections.items]\n[collections.items.pull]\noperation = \"shop/list\"\n{collection}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_paging_brings_every_item_once() {
    for (list, pages) in [
        ("/i=link:25/10", "next = \"link\""),
        ("/i=cursor:25/10", "next = \"cursor\", from = \"/next\""),
        ("/i=page:25/10", "next = \"page\", size = 10, size_param = \"per_page\""),
        ("/i=offset:25/10", "next = \"offset\", size = 10"),
    ] {
        let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&[list], FAST).await);
        let mut stage = start(folder.path(), &shop.base_url(), &declare("/i", pages, "")).await;
        let pull = stage.pulled("items", false).await;
        assert_eq!((pull.state(), pull.page_count, pull.item_count), (pb::PullState::Done, 3, 25), "{list}: {pull:?}");
        assert_eq!((pull.changed_count, shop.arrivals().len()), (25, 3), "{list}");
        let all = stage.all("items").await;
        assert_eq!((all.len(), all[0].0.as_str(), all[24].0.as_str()), (25, "i0000001", "i0000025"));
        assert!(all[0].2.starts_with(r#"{"id":"i0000001","name":"Item 1""#), "byte for byte: {}", all[0].2);
        // Again: idempotent.
        let pull = stage.pulled("items", false).await;
        assert_eq!((pull.id, pull.changed_count, stage.all("items").await), (2, 0, all), "{list}");
        stage.app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_another_origin_is_not_followed() {
    let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&["/i=away:25/10"], FAST).await);
    let mut stage = start(folder.path(), &shop.base_url(), &declare("/i", "next = \"link\"", "")).await;
    let pull = stage.pulled("items", false).await;
    assert_eq!((pull.state(), pull.page_count), (pb::PullState::Failed, 0));
    assert!(pull.error.contains("127.0.0.1:9") && pull.error.contains("never followed"), "{}", pull.error);
    assert_eq!((shop.arrivals().len(), stage.all("items").await.len()), (1, 0));
    stage.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_asks_for_what_changed_and_a_full_one_sweeps_what_is_gone() {
    let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&["/i=page:25/10"], FAST).await);
    let pages = "next = \"page\", size = 10, since = \"updated_since\"";
    let rule = "updated = \"/updated\"\ndeletes = \"sweep\"\n";
    let mut stage = start(folder.path(), &shop.base_url(), &declare("/i", pages, rule)).await;
    assert!(stage.pulled("items", false).await.full);
    stage.put("items", "mine", r#"{"name":"not theirs"}"#).await;
    assert!(shop.put_item("/i", "i0000003", r#""name":"new""#) && shop.delete_item("/i", "i0000004"));
    let pull = stage.pulled("items", false).await;
    assert_eq!((pull.full, pull.item_count, pull.changed_count, pull.deleted_count), (false, 1, 1, 0), "{pull:?}");
    assert_eq!(stage.all("items").await.len(), 26);
    let pull = stage.pulled("items", true).await;
    assert_eq!((pull.full, pull.item_count, pull.changed_count, pull.deleted_count), (true, 24, 0, 2), "{pull:?}");
    let all = stage.all("items").await;
    assert_eq!(all.len(), 24);
    assert!(!all.iter().any(|(id, ..)| id == "i0000004" || id == "mine"));
    assert_eq!(all[2].1, 2);
    stage.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etag_spares_the_pages_of_an_unchanged_list() {
    let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&["/i=page:25/10"], FAST).await);
    let pages = "next = \"page\", size = 10, etag = true";
    let mut stage = start(folder.path(), &shop.base_url(), &declare("/i", pages, "deletes = \"sweep\"\n")).await;
    stage.pulled("items", false).await;
    let pull = stage.pulled("items", false).await;
    assert_eq!((pull.state(), pull.item_count, pull.deleted_count), (pb::PullState::Done, 0, 0), "{pull:?}");
    assert_eq!((shop.arrivals().len(), stage.all("items").await.len()), (4, 25));
    shop.put_item("/i", "x", r#""n":1"#);
    assert_eq!(stage.pulled("items", false).await.changed_count, 1);
    stage.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_does_not_fit_keeps_no_other_out() {
    let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&["/i=page:5/10"], FAST).await);
    shop.put_item("/i", "bad", r#""name":7"#);
    let rest = declare("/i", "next = \"none\"", "").replace(
        "[collections.items]\n",
        "[collections.items]\nschema = { properties = { name = { type = \"string\" } } }\n",
    );
    let mut stage = start(folder.path(), &shop.base_url(), &rest).await;
    let pull = stage.pulled("items", false).await;
    assert_eq!((pull.state(), pull.changed_count, pull.rejected_count), (pb::PullState::Done, 5, 1));
    assert!(pull.error.contains("item bad") && pull.error.contains("/name"), "{}", pull.error);
    stage.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_share_one_pull_and_it_shares_the_limits_with_pushes() {
    let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&["/i=page:1/10"], Duration::from_millis(700)).await);
    let rest = format!(
        "limits = [{{ name = \"all\", max = 2, per = \"1h\" }}]\n{}\
         [providers.shop.operations.send]\nrequest = \"PUT /users/{{key}}\"\nbody = \"{{payload}}\"\n\
         [collections.users]\n[collections.users.push]\noperation = \"shop/send\"\n",
        declare("/i", "next = \"none\"", "")
    );
    let mut stage = start(folder.path(), &shop.base_url(), &rest).await;
    let asking = (0..1_000).map(|_| {
        let mut records = stage.records.clone();
        async move {
            let request = pb::PullCollectionRequest { collection: "items".into(), full: false };
            records.pull_collection(request).await.unwrap().into_inner()
        }
    });
    // In portions: a connection carries 256 calls at a time.
    let mut answers = Vec::new();
    let asking: Vec<_> = asking.collect();
    let mut asking = asking.into_iter().peekable();
    while asking.peek().is_some() {
        answers.extend(futures_util::future::join_all(asking.by_ref().take(200)).await);
        assert!(shop.arrivals().len() <= 1);
    }
    let first = answers[0].pull.clone().unwrap().id;
    let same = answers.iter().filter(|answer| answer.pull.as_ref().unwrap().id == first).count();
    let started = answers.iter().filter(|answer| answer.started).count();
    assert_eq!((same, started), (1_000, 1), "the provider takes longer than the asking");
    for id in ["a", "b"] {
        stage.put("users", id, r#"{"n":1}"#).await;
    }
    let two = until(PATIENCE, || async { (shop.arrivals().len() == 2).then_some(()) }).await;
    assert!(two.is_some(), "the pull spent one of two permits, a push the other");
    let unknown = stage.records.pull_collection(pb::PullCollectionRequest { collection: "none".into(), full: false });
    assert_eq!(unknown.await.unwrap_err().code(), Code::NotFound);
    let no_pull = stage.records.pull_collection(pb::PullCollectionRequest { collection: "users".into(), full: false });
    assert_eq!(no_pull.await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(shop.arrivals().len(), 2);
    stage.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_pulls_a_collection_and_leaves_a_running_pull_alone() {
    let (folder, shop) = (tempfile::tempdir().unwrap(), provider(&["/i=page:25/10"], FAST).await);
    let schedule = "[schedules.items]\ncron = \"* * * * * *\"\npull = \"items\"\n";
    let pages = "next = \"page\", size = 10";
    let mut stage = start(folder.path(), &shop.base_url(), &declare("/i", pages, schedule)).await;
    let twice = until(PATIENCE, || {
        let mut records = stage.records.clone();
        async move {
            let request = pb::GetCollectionRequest { name: "items".into() };
            let pull = records.get_collection(request).await.unwrap().into_inner().collection.unwrap().pull?;
            assert_ne!(pull.state(), pb::PullState::Failed, "{pull:?}");
            (pull.id >= 3).then_some(())
        }
    });
    twice.await.expect("every second a pull");
    assert_eq!(stage.all("items").await.len(), 25);
    let mut schedules =
        ScheduleServiceClient::connect(format!("http://{}", stage.app.address().unwrap())).await.unwrap();
    let request = pb::GetScheduleRequest { name: "items".into() };
    let found = schedules.get_schedule(request).await.unwrap().into_inner().schedule.unwrap();
    let target = pb::PullCollectionRequest { collection: "items".into(), full: false };
    assert_eq!(found.spec.unwrap().target, Some(pb::schedule_spec::Target::Pull(target)));
    assert!(found.last_run_id.is_empty() && found.last_time.is_some());
    // Declared over the wire, it needs a collection that is pulled.
    let pull = pb::PullCollectionRequest { collection: "nothing".into(), full: true };
    let spec = pb::ScheduleSpec {
        cron: "@daily".into(),
        target: Some(pb::schedule_spec::Target::Pull(pull)),
        ..Default::default()
    };
    let request = pb::CreateScheduleRequest { name: "other".into(), spec: Some(spec), validate_only: false };
    assert_eq!(schedules.create_schedule(request).await.unwrap_err().code(), Code::NotFound);
    stage.app.stop().await;
}

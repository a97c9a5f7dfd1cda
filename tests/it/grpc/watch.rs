//! Watching jobs: order, snapshots, resuming, bookmarks, the end.

use tidegate::grpc::pb;
use tidegate::grpc::pb::job_event::Kind;
use tidegate::grpc::pb::watch_jobs_response::Item;
use tonic::{Code, Streaming};
use tonic_types::StatusExt;

use super::house::{House, house, ping, told};

type Watch = Streaming<pb::WatchJobsResponse>;

async fn watch(house: &House, filter: &str, resume_token: &str, snapshot: bool) -> Watch {
    let request = pb::WatchJobsRequest { filter: filter.into(), resume_token: resume_token.into(), snapshot };
    house.jobs().watch_jobs(request).await.unwrap().into_inner()
}

/// The next change, with its token.
async fn change(watch: &mut Watch) -> (String, pb::JobEvent) {
    loop {
        let told = watch.message().await.unwrap().expect("the watch goes on");
        if let Some(Item::Event(event)) = told.item {
            return (told.resume_token, event);
        }
    }
}

/// A token for the present end of the log.
async fn bookmark(house: &House, filter: &str) -> String {
    let mut live = watch(house, filter, "", true).await;
    loop {
        let told = live.message().await.unwrap().expect("the watch goes on");
        if matches!(told.item, Some(Item::Bookmark(_))) {
            return told.resume_token;
        }
    }
}

#[tokio::test]
async fn a_watcher_sees_a_job_from_its_acceptance_to_its_delivery_and_resumes_anywhere() {
    let house = house().await;
    let mut live = watch(&house, "", "", false).await;
    let id = house.enqueue(ping()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (token, event) = change(&mut live).await;
        assert_eq!(event.job.as_ref().unwrap().id, id);
        seen.push((token, event.kind(), event.sequence));
    }
    assert_eq!(seen.iter().map(|s| s.1).collect::<Vec<_>>(), [Kind::Enqueued, Kind::Begun, Kind::Delivered]);
    for (at, (token, ..)) in seen.iter().enumerate().take(2) {
        let mut again = watch(&house, "", token, false).await;
        let (_, event) = change(&mut again).await;
        assert_eq!((event.kind(), event.sequence), (seen[at + 1].1, seen[at + 1].2));
    }
}

#[tokio::test]
async fn a_filter_chooses_by_the_state_that_a_change_led_to() {
    let house = house().await;
    let first = bookmark(&house, "state = CALLING").await;
    let mut delivered = watch(&house, r#"state = DELIVERED AND provider = "crm""#, "", false).await;
    let elsewhere = pb::JobSpec { provider: "shop".into(), ..ping() };
    house.enqueue(elsewhere).await.unwrap();
    let id = house.enqueue(ping()).await.unwrap();
    let (_, event) = change(&mut delivered).await;
    assert_eq!((event.kind(), event.state()), (Kind::Delivered, pb::JobState::Delivered));
    assert_eq!(event.job.unwrap().id, id);
    // The log is read again when both jobs are delivered; what passed through `calling` is told all the same.
    let mut calling = watch(&house, "state = CALLING", &first, false).await;
    assert_eq!(change(&mut calling).await.1.kind(), Kind::Begun);
}

#[tokio::test]
async fn a_snapshot_comes_first_then_a_bookmark_then_the_changes() {
    let house = house().await;
    house.pause().await;
    let old = [house.enqueue(ping()).await.unwrap(), house.enqueue(ping()).await.unwrap()];
    let mut live = watch(&house, "", "", true).await;
    for id in old.iter().rev() {
        let Some(Item::Snapshot(job)) = live.message().await.unwrap().unwrap().item else { panic!("not a snapshot") };
        assert_eq!((&job.id, job.payload.as_str()), (id, ""));
    }
    let bookmark = live.message().await.unwrap().unwrap();
    assert!(matches!(bookmark.item, Some(Item::Bookmark(_))));
    let new = house.enqueue(ping()).await.unwrap();
    assert_eq!(change(&mut live).await.1.job.unwrap().id, new);
    let mut resumed = watch(&house, "", &bookmark.resume_token, false).await;
    assert_eq!(change(&mut resumed).await.1.job.unwrap().id, new);
}

#[tokio::test]
async fn a_token_belongs_to_its_filter_and_to_this_log() {
    let house = house().await;
    house.pause().await;
    let mut live = watch(&house, "", "", false).await;
    house.enqueue(ping()).await.unwrap();
    let (token, _) = change(&mut live).await;
    let ask = |filter: &str, resume_token: &str, snapshot| pb::WatchJobsRequest {
        filter: filter.into(),
        resume_token: resume_token.into(),
        snapshot,
    };
    let refused = house.jobs().watch_jobs(ask("state = DEAD", &token, false)).await.unwrap_err();
    assert_eq!(told(&refused).0, "RESUME_TOKEN_OF_OTHER_FILTER");
    let refused = house.jobs().watch_jobs(ask("", &token, true)).await.unwrap_err();
    assert_eq!(told(&refused).0, "SNAPSHOT_WITH_TOKEN");
    let refused = house.jobs().watch_jobs(ask("", "%%%", false)).await.unwrap_err();
    assert_eq!(told(&refused).0, "BAD_RESUME_TOKEN");
}

#[tokio::test]
async fn a_token_that_the_log_does_not_reach_back_to_is_out_of_range_and_the_earliest_is_named() {
    let house = house().await;
    house.pause().await;
    let mut live = watch(&house, "", "", false).await;
    house.enqueue(ping()).await.unwrap();
    let (token, _) = change(&mut live).await;
    for _ in 0..3 {
        house.enqueue(ping()).await.unwrap();
    }
    house.forget_events().await;
    let request = pb::WatchJobsRequest { resume_token: token, ..Default::default() };
    let status = house.jobs().watch_jobs(request).await.unwrap_err();
    assert_eq!((status.code(), told(&status).0.as_str()), (Code::OutOfRange, "RESUME_TOKEN_EXPIRED"));
    let earliest = status.get_error_details().error_info().unwrap().metadata["earliest_resume_token"].clone();
    watch(&house, "", &earliest, false).await;
}

#[tokio::test]
async fn many_changes_at_once_are_told_completely_and_in_order() {
    let house = house().await;
    house.pause().await;
    let mut live = watch(&house, "", "", false).await;
    let request = pb::EnqueueJobsRequest { jobs: vec![ping(); 2_500], ..Default::default() };
    house.jobs().enqueue_jobs(request).await.unwrap();
    let (mut ids, mut last) = (std::collections::HashSet::new(), 0);
    while ids.len() < 2_500 {
        let (_, event) = change(&mut live).await;
        assert!(event.sequence >= last);
        last = event.sequence;
        ids.insert(event.job.unwrap().id);
    }
}

#[tokio::test]
async fn a_watch_ends_with_a_word_when_the_daemon_shuts_down() {
    let house = house().await;
    let mut live = watch(&house, "", "", false).await;
    house.engine.drain();
    let status = live.message().await.unwrap_err();
    let (reason, details) = told(&status);
    assert_eq!((status.code(), reason.as_str()), (Code::Unavailable, "DRAINING"));
    assert!(details.retry_info().unwrap().retry_delay.is_some());
}

impl House {
    /// Retention at its most severe: all events but the last are removed.
    async fn forget_events(&self) {
        use tidegate::clock::Timestamp;
        use tidegate::store::Change;
        let never = Timestamp::NEVER;
        let prune = Change::Prune {
            finished_before: Timestamp::ZERO,
            dead_before: Timestamp::ZERO,
            calls_before: Timestamp::ZERO,
            events_before: never,
            limit: 1_000,
        };
        self.engine.change(prune).await.unwrap();
    }
}

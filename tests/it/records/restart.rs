//! A pull that is killed in the middle goes on where it was: the store ends as if nothing had happened.

use tidegate::clock::Clock;
use tidegate::grpc::pb;
use tidegate::grpc::pb::record_service_client::RecordServiceClient;

use super::stage::{PATIENCE, all};
use crate::support::process::{Place, Provider, until};

const DECLARED: &str = "\n[providers.shop.operations.list]\nrequest = \"GET /i\"\n\
     pages = { items = \"/data\", next = \"link\" }\nretry = { attempts = 9, base = \"100ms\", cap = \"1s\" }\n\
     [collections.items]\nindexes = [\"status\"]\n[collections.items.pull]\noperation = \"shop/list\"\ndeletes = \"sweep\"\n\
     [collections.items.aggregates.by_status]\ngroup_by = [\"status\"]\nsum = [\"amount\"]\nmin_max = [\"amount\"]\n";

type Sums = Vec<(String, i64, Vec<(String, String, String)>)>;

/// All that a pull leaves: records and sums; and how many pages were asked for.
async fn pull(kill: bool) -> (Vec<(String, i64, String)>, Sums, usize) {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::system());
    let log = folder.path().join("arrivals.jsonl");
    let shop = Provider::start(&["--list", "/i=link:5000/100", "--latency", "10ms"], &log).await;
    let provider = format!(
        "[providers.shop]\nbase_url = \"{}\"\nallow_private = true\ntimeouts = {{ total = \"1s\", first_byte = \"1s\" }}\n{DECLARED}",
        shop.base_url
    );
    let place = Place::new(folder.path(), folder.path(), &provider);
    let mut daemon = place.start().await;
    let mut records = RecordServiceClient::new(daemon.channel());
    let request = pb::PullCollectionRequest { collection: "items".into(), full: false };
    records.pull_collection(request).await.unwrap();
    let look = |records: RecordServiceClient<_>, enough: fn(&pb::Pull) -> bool| async move {
        until(PATIENCE, || {
            let mut records = records.clone();
            async move {
                let request = pb::GetCollectionRequest { name: "items".into() };
                let found = records.get_collection(request).await.ok()?.into_inner().collection?.pull?;
                enough(&found).then_some(found)
            }
        })
        .await
        .expect("the pull goes on")
    };
    if kill {
        let before = look(records.clone(), |pull| pull.page_count >= 10).await;
        assert_eq!(before.state(), pb::PullState::Running, "it was to be killed in the middle");
        daemon.kill(&clock).await;
        daemon = place.start().await;
        records = RecordServiceClient::new(daemon.channel());
    }
    let done = look(records.clone(), |pull| pull.state() == pb::PullState::Done).await;
    assert_eq!((done.page_count, done.item_count, done.changed_count), (50, 5_000, 5_000));
    let found = all(&mut records, "items").await;
    let request =
        pb::AggregateRecordsRequest { collection: "items".into(), aggregate: "by_status".into(), ..Default::default() };
    let groups = records.aggregate_records(request).await.unwrap().into_inner().groups;
    let sums = groups
        .into_iter()
        .map(|group| (group.group, group.count, group.measures.into_iter().map(|m| (m.sum, m.min, m.max)).collect()));
    let sums = sums.collect();
    daemon.stop().await;
    shop.stop().await;
    let arrivals = std::fs::read_to_string(log).unwrap().lines().count();
    (found, sums, arrivals)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_pull_leaves_the_store_byte_for_byte_as_an_undisturbed_one() {
    let (undisturbed, sums, pages) = pull(false).await;
    assert_eq!((undisturbed.len(), pages), (5_000, 50));
    let (killed, sums_killed, pages_killed) = pull(true).await;
    assert_eq!(killed, undisturbed);
    assert_eq!(sums_killed, sums);
    assert!((50..=51).contains(&pages_killed), "at most one page is fetched twice, got {pages_killed}");
}

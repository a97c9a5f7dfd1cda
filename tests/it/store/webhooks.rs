//! Messages of webhooks: what one starts and that it was there are one commit, whoever brings it how often.

use std::time::Duration;

use tidegate::model::collection::Collection;
use tidegate::model::name::{CollectionName, Key, WebhookName};
use tidegate::store::*;

use super::factory::{Bench, START, all_jobs, keyed, open};

suite!(
    a_message_starts_its_job_once,
    a_message_writes_its_record_in_the_same_commit_once,
    a_message_is_forgotten_when_its_time_has_come_and_not_before,
);

const KEPT: Duration = Duration::from_secs(3_600);

fn delivery(bench: &Bench, mark: u8) -> Delivery {
    Delivery {
        webhook: WebhookName::new("shop").unwrap(),
        mark: [mark; 32],
        forget_at: bench.now + KEPT,
        job: None,
        record: None,
    }
}

fn with_job(bench: &Bench, mark: u8) -> Change {
    Change::Receive(Box::new(Delivery { job: Some(keyed("k", "7")), ..delivery(bench, mark) }))
}

fn repeated() -> Refusal {
    Refusal::Repeated(WebhookName::new("shop").unwrap())
}

async fn a_message_starts_its_job_once(bench: Bench) {
    // Twice in one commit, beside another one and a job of the same flow, and once more later.
    let changes = vec![with_job(&bench, 1), with_job(&bench, 1), with_job(&bench, 2)];
    let done = bench.commit(Batch { changes, enqueues: vec![keyed("k", "7")], ..bench.batch() }).await;
    assert_eq!(done.changes, [Ok(Changed::Done), Err(repeated()), Ok(Changed::Done)]);
    assert_eq!(done.enqueues.len(), 1, "nobody asked for the others");
    assert_eq!(bench.change(with_job(&bench, 1)).await, Err(repeated()));
    let jobs = all_jobs(&*bench.store).await;
    assert_eq!(jobs.len(), 3);
    assert!(jobs.iter().all(|job| &*job.payload == "7" && job.flow == jobs[0].flow));
}

fn write(bench: &Bench, mark: u8, data: &str) -> Change {
    let name = CollectionName::new("orders").unwrap();
    let collection = Collection {
        name: name.clone(),
        schema: None,
        indexes: Vec::new(),
        aggregates: Default::default(),
        pull: None,
        push: None,
        tombstones: KEPT,
        shape: "s".into(),
    };
    let write = RecordWrite {
        collection: name,
        id: Key::new("7").unwrap(),
        document: Some(collection.check(data).unwrap()),
        expect: None,
        push: None,
        shape: "s".into(),
    };
    Change::Receive(Box::new(Delivery { record: Some(RecordOp::Write(write)), ..delivery(bench, mark) }))
}

async fn a_message_writes_its_record_in_the_same_commit_once(bench: Bench) {
    // The second brings what a third has changed meanwhile: it must not take it back.
    for (mark, data, taken) in [(1, r#"{"n":1}"#, true), (2, r#"{"n":2}"#, true), (1, r#"{"n":1}"#, false)] {
        let done = bench.commit(Batch { changes: vec![write(&bench, mark, data)], ..bench.batch() }).await;
        assert_eq!(done.changes[0].is_ok(), taken);
        assert!(done.records.is_empty(), "nobody asked for these");
    }
    let (name, id) = (CollectionName::new("orders").unwrap(), Key::new("7").unwrap());
    let record = bench.store.record(&name, &id).await.unwrap().unwrap();
    assert_eq!((&*record.data, record.version), (r#"{"n":2}"#, 2));
}

async fn a_message_is_forgotten_when_its_time_has_come_and_not_before(mut bench: Bench) {
    bench.change(with_job(&bench, 1)).await.unwrap();
    let prune = || Change::Prune {
        finished_before: START,
        dead_before: START,
        calls_before: START,
        events_before: START,
        limit: 10,
    };
    bench.pass(KEPT);
    assert_eq!(bench.change(prune()).await, Ok(Changed::Count(0)));
    assert_eq!(bench.change(with_job(&bench, 1)).await, Err(repeated()));
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.change(prune()).await, Ok(Changed::Count(1)));
    assert_eq!(bench.change(with_job(&bench, 1)).await, Ok(Changed::Done));
}

#[tokio::test]
async fn sqlite_knows_a_message_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    for expected in [Ok(Changed::Done), Err(repeated())] {
        let bench = Bench::over(open(folder.path()).await.unwrap());
        assert_eq!(bench.change(with_job(&bench, 1)).await, expected);
        bench.store.close().await;
    }
}

//! Records in every store: versions, pushes, indexes, sums, pages, sweeps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate::model::collection::{AccountRule, Aggregate, Checked, Collection, Field, Index, MILLION, PushRule};
use tidegate::model::flow::Class;
use tidegate::model::job::Coalesce;
use tidegate::model::name::{Account, CollectionName, Key, OperationName, ProviderName};
use tidegate::model::pages::{Page, Position};
use tidegate::model::record::{ALL_TIME, Group, PullState};
use tidegate::model::state::State;
use tidegate::store::*;

use super::factory::{Bench, job};

mod pushes;

suite!(
    a_record_is_versioned_by_its_content,
    a_watched_change_is_enqueued_by_the_commit_that_makes_it,
    an_index_finds_what_it_held_after_the_last_write,
    sums_equal_a_recount_after_any_writes,
    a_page_counts_only_if_the_end_of_its_call_does,
    a_sweep_deletes_what_no_page_had,
    a_sweep_leaves_what_was_written_while_the_pull_ran,
    the_forgotten_are_named,
    records_take_on_a_new_shape,
);

fn field(name: &str) -> Field {
    Field { name: name.into(), pointer: format!("/{name}") }
}

fn name() -> CollectionName {
    CollectionName::new("orders").unwrap()
}

fn key(id: &str) -> Key {
    Key::new(id).unwrap()
}

fn orders() -> Collection {
    let aggregate = Aggregate {
        name: "by_status".into(),
        group_by: vec![field("status")],
        measures: vec![("amount".into(), field("amount"))],
        extremes: 1,
        order: 1,
        time: Some((field("at"), Duration::from_secs(3_600))),
    };
    Collection {
        name: name(),
        schema: None,
        indexes: vec![Index { name: "status".into(), fields: vec![field("status")] }],
        aggregates: [("by_status".into(), aggregate)].into(),
        pull: None,
        push: Some(Arc::new(PushRule {
            provider: ProviderName::new("crm").unwrap(),
            operation: OperationName::new("sync").unwrap(),
            coalesce: Coalesce::Replace,
            delete: None,
            watch: vec![field("status")],
            key: None,
            account: AccountRule::Fixed(Account::default()),
            class: Class::Normal,
        })),
        tombstones: Duration::ZERO,
        shape: "s1".into(),
    }
}

fn checked(json: &str) -> Checked {
    orders().check(json).unwrap()
}

fn write(id: &str, json: Option<&str>) -> RecordWrite {
    RecordWrite {
        collection: name(),
        id: key(id),
        document: json.map(checked),
        expect: None,
        push: None,
        shape: "s1".into(),
    }
}

impl Bench {
    async fn records(&self, ops: Vec<RecordOp>) -> Vec<Result<RecordDone, Refusal>> {
        self.commit(Batch { records: ops, ..self.batch() }).await.records
    }

    async fn write(&self, write: RecordWrite) -> Result<Written, Refusal> {
        match self.records(vec![RecordOp::Write(write)]).await.remove(0)? {
            RecordDone::Written(written) => Ok(written),
            other => panic!("expected a write, got {other:?}"),
        }
    }

    async fn put(&self, id: &str, json: &str) -> Written {
        self.write(write(id, Some(json))).await.unwrap()
    }

    async fn ids(&self, status: &str) -> Vec<String> {
        let value = format!("[{status:?}]");
        let page = self.store.list_records(&name(), Some(("status", &value)), "", 1_000).await.unwrap();
        page.records.into_iter().map(|record| record.id.to_string()).collect()
    }

    async fn live(&self) -> i64 {
        self.store.collection(&name()).await.unwrap().unwrap().live
    }
}

async fn a_record_is_versioned_by_its_content(mut bench: Bench) {
    let first = bench.put("a", r#"{"status":"open","n":1.0}"#).await;
    assert_eq!((first.changed, first.record.version, first.record.change), (true, 1, 1));
    bench.pass(Duration::from_secs(1));
    let same = bench.put("a", r#"{ "n":1.0, "status":"open"}"#).await;
    assert_eq!((same.changed, same.record), (false, first.record.clone()));
    let events = bench.store.event_bounds().await.unwrap();
    let second = bench.put("a", r#"{"status":"paid","n":1.0}"#).await.record;
    assert_eq!((second.version, second.change, second.created_at), (2, 2, first.record.created_at));
    assert_eq!(bench.store.event_bounds().await.unwrap().1, events.1 + 1, "one event for one commit");
    let stale = bench.write(RecordWrite { expect: Some(1), ..write("a", Some(r#"{"n":2}"#)) }).await.unwrap_err();
    assert_eq!(stale, Refusal::StaleRecord { collection: name(), id: key("a"), current: 2, expected: 1 });
    let new = bench.write(RecordWrite { expect: Some(0), ..write("a", Some(r#"{"n":2}"#)) }).await;
    assert!(new.is_err());
    let gone = bench.write(RecordWrite { expect: Some(2), ..write("a", None) }).await.unwrap().record;
    assert_eq!((gone.version, gone.deleted, bench.live().await), (3, true, 0));
    let again = bench.write(write("a", None)).await.unwrap_err();
    assert_eq!(again, Refusal::NoRecord { collection: name(), id: key("a") });
    let back = bench.write(RecordWrite { expect: Some(0), ..write("a", Some(r#"{"n":2}"#)) }).await.unwrap().record;
    assert_eq!((back.version, back.deleted, bench.live().await), (4, false, 1));
    bench.put("b", r#"{"text":"\u0000 \" ключ"}"#).await;
    let changes = bench.store.record_changes(&name(), 0, 10).await.unwrap();
    assert_eq!(changes.iter().map(|r| (r.id.as_str(), r.change)).collect::<Vec<_>>(), [("a", 4), ("b", 5)]);
    assert_eq!(bench.store.record(&name(), &key("a")).await.unwrap(), Some(back));
    assert_eq!(&*changes[1].data, r#"{"text":"\u0000 \" ключ"}"#);
    // Two writes of one record in one commit see each other.
    let twice = ["{\"n\":3}", "{\"n\":4}"].map(|json| RecordOp::Write(write("c", Some(json))));
    let done = bench.records(twice.into()).await;
    assert!(matches!(&done[1], Ok(RecordDone::Written(w)) if w.record.version == 2 && &*w.record.data == "{\"n\":4}"));
}

async fn a_watched_change_is_enqueued_by_the_commit_that_makes_it(bench: Bench) {
    let rule = orders().push;
    let put = |json: &str| RecordWrite { push: rule.clone(), ..write("a", Some(json)) };
    let first = bench.write(put(r#"{"status":"open","n":1}"#)).await.unwrap().push.expect("a new record is pushed");
    assert_eq!(&*bench.job(first).await.payload, r#"{"status":"open","n":1}"#);
    let unwatched = bench.write(put(r#"{"status":"open","n":2}"#)).await.unwrap();
    assert_eq!((unwatched.changed, unwatched.push), (true, None));
    let unchanged = bench.write(put(r#"{"n":2,"status":"open"}"#)).await.unwrap();
    assert_eq!((unchanged.changed, unchanged.push), (false, None));
    // What waits takes the newer state in.
    let second = bench.write(put(r#"{"status":"paid","n":2}"#)).await.unwrap().push;
    assert_eq!(second, Some(first));
    assert_eq!(&*bench.job(first).await.payload, r#"{"status":"paid","n":2}"#);
    // Asked for again, however often, the same job sends it.
    let push = || RecordOp::Push { collection: name(), id: key("a"), rule: rule.clone().unwrap() };
    let done = bench.records(vec![push(), push(), push()]).await;
    assert_eq!(done, vec![Ok(RecordDone::Pushed(Some(first))); 3]);
    let call = bench.claim(first).await;
    bench.finish(bench.end(call, vec![(first.seq, Next::Delivered)])).await;
    assert_eq!(bench.records(vec![push()]).await, [Ok(RecordDone::Pushed(Some(first)))]);
    let third = bench.write(put(r#"{"status":"sent","n":2}"#)).await.unwrap().push.unwrap();
    assert_ne!(third, first);
    let none = RecordOp::Push { collection: name(), id: key("x"), rule: rule.clone().unwrap() };
    assert!(matches!(&bench.records(vec![none]).await[0], Err(Refusal::NoRecord { .. })));
    // Beside jobs of the same commit, each gets its own answer.
    let batch = Batch {
        enqueues: vec![job("1")],
        records: vec![RecordOp::Write(put(r#"{"status":"lost","n":2}"#))],
        ..bench.batch()
    };
    let done = bench.commit(batch).await;
    assert_eq!(done.enqueues.len(), 1);
    assert!(matches!(&done.records[..], [Ok(RecordDone::Written(w))] if w.push == Some(third)));
}

async fn an_index_finds_what_it_held_after_the_last_write(bench: Bench) {
    for n in 0..5 {
        bench.put(&format!("o{n}"), &format!(r#"{{"status":"{}"}}"#, ["open", "paid"][n % 2])).await;
    }
    assert_eq!(bench.ids("open").await, ["o0", "o2", "o4"]);
    bench.put("o2", r#"{"status":"paid"}"#).await;
    bench.write(write("o4", None)).await.unwrap();
    assert_eq!(
        (bench.ids("open").await, bench.ids("paid").await),
        (vec!["o0".into()], vec!["o1".into(), "o2".into(), "o3".into()])
    );
    let page = bench.store.list_records(&name(), None, "o0", 2).await.unwrap();
    assert_eq!((page.records.len(), page.more, page.records[0].id.as_str()), (2, true, "o1"));
    let rest = bench.store.list_records(&name(), Some(("status", r#"["paid"]"#)), "o2", 2).await.unwrap();
    assert_eq!((rest.records.len(), rest.more), (1, false));
}

/// Count, sum, min and max by group, counted by reading every record.
async fn recount(
    bench: &Bench,
    buckets: std::ops::Range<i64>,
) -> BTreeMap<String, (i64, i128, Option<i64>, Option<i64>)> {
    let mut groups: BTreeMap<String, (i64, i128, Option<i64>, Option<i64>)> = BTreeMap::new();
    for record in bench.store.list_records(&name(), None, "", 1_000).await.unwrap().records {
        let facts = orders().check(record.data.clone()).unwrap().facts;
        let entry = &facts.entries[0];
        if buckets.start != ALL_TIME && !entry.bucket.is_some_and(|at| buckets.contains(&at)) {
            continue;
        }
        let group = groups.entry(entry.group.clone()).or_default();
        group.0 += 1;
        if let Some(value) = entry.values[0] {
            group.1 += i128::from(value);
            group.2 = Some(group.2.map_or(value, |min| min.min(value)));
            group.3 = Some(group.3.map_or(value, |max| max.max(value)));
        }
    }
    groups
}

fn flat(groups: &[Group]) -> BTreeMap<String, (i64, i128, Option<i64>, Option<i64>)> {
    let mut all = BTreeMap::new();
    for Group { group, sums } in groups {
        let m = sums.measures[0];
        assert!(all.insert(group.clone(), (sums.count, m.sum, m.min, m.max)).is_none());
    }
    all
}

async fn sums_equal_a_recount_after_any_writes(bench: Bench) {
    let mut rng = StdRng::seed_from_u64(7);
    for round in 0..40 {
        let ops = (0..rng.random_range(1..12)).map(|_| {
            let id = format!("o{}", rng.random_range(0..30));
            if rng.random_bool(0.2) {
                return RecordOp::Write(write(&id, None));
            }
            let status = ["open", "paid", "sent"][rng.random_range(0..3)];
            let amount = match rng.random_range(0..10) {
                0 => String::new(),
                n => format!(r#","amount":{}.{n}"#, rng.random_range(-5..20)),
            };
            let at = 1_800_000_000 + 3_600 * rng.random_range(0..4);
            RecordOp::Write(write(&id, Some(&format!(r#"{{"status":"{status}"{amount},"at":{at}}}"#))))
        });
        bench.records(ops.collect()).await;
        let top = bench.store.top_groups(&name(), "by_status", 10).await.unwrap();
        assert_eq!(flat(&top), recount(&bench, ALL_TIME..0).await, "round {round}");
        assert!(top.is_sorted_by(|a, b| a.sums.measures[0].sum >= b.sums.measures[0].sum), "{top:?}");
        let from = 1_800_003_600 * MILLION;
        let hour = from..from + 3_600 * MILLION;
        let window = bench.store.groups_between(&name(), "by_status", hour.start, hour.end, 100).await.unwrap();
        assert_eq!(flat(&window), recount(&bench, hour).await, "round {round}");
    }
    let all = bench.store.list_records(&name(), None, "", 1_000).await.unwrap().records;
    bench.records(all.iter().map(|r| RecordOp::Write(write(r.id.as_str(), None))).collect()).await;
    assert_eq!(bench.store.top_groups(&name(), "by_status", 10).await.unwrap(), []);
}

fn start_pull(bench: &Bench, full: bool) -> RecordOp {
    RecordOp::StartPull(Box::new(StartPull {
        collection: name(),
        shape: "s1".into(),
        actor: "test".to_owned(),
        full,
        sweep: true,
        marks: true,
        full_before: bench.now - Duration::from_secs(3_600),
        job: job("null"),
        replace: None,
    }))
}

fn page_end(call: tidegate::model::id::CallId, page: &Page, items: &[(&str, &str)], last: bool, seen: &str) -> PageEnd {
    let next = (!last).then(|| Box::new(job(&page.next(Position::Number(2)).payload())));
    PageEnd {
        call,
        page: page.clone(),
        collection: name(),
        what: PageWhat::Stored {
            writes: items.iter().map(|(id, json)| write(id, Some(json))).collect(),
            rejected: 0,
            first_rejected: None,
            seen: Some(seen.to_owned()),
            etag: None,
            not_modified: false,
            next,
        },
    }
}

impl Bench {
    /// The page that the running pull waits for, and its call.
    async fn page(&self) -> (Page, tidegate::model::id::JobId, tidegate::model::id::CallId) {
        let pull = self.store.collection(&name()).await.unwrap().unwrap().pull.unwrap();
        let job = pull.job_id().unwrap();
        (Page::of(&self.job(job).await.payload).unwrap(), job, self.claim(job).await)
    }

    async fn pulled(&self) -> tidegate::model::record::Pull {
        self.store.collection(&name()).await.unwrap().unwrap().pull.unwrap()
    }

    async fn end_page(&self, finish: FinishCall, page: PageEnd) {
        self.commit(Batch { finishes: vec![finish], pages: vec![page], ..self.batch() }).await;
    }
}

async fn a_page_counts_only_if_the_end_of_its_call_does(mut bench: Bench) {
    let done = bench.records(vec![start_pull(&bench, false), start_pull(&bench, false)]).await;
    let [Ok(RecordDone::Pulling { pull, started: true }), Ok(RecordDone::Pulling { pull: same, started: false })] =
        &done[..]
    else {
        panic!("{done:?}");
    };
    assert_eq!((pull.id, pull.full, same.id), (1, true, 1));
    let (page, id, call) = bench.page().await;
    assert_eq!((page.page, page.since.as_deref()), (0, None));
    // A page of a job that goes on trying is no page.
    let wait = Next::Wait { due_at: bench.now, why: Again::Retry };
    bench.end_page(bench.end(call, vec![(id.seq, wait)]), page_end(call, &page, &[("a", "{}")], false, "1")).await;
    assert_eq!((bench.pulled().await.pages, bench.live().await), (0, 0));
    let late = call;
    let (page, id, call) = bench.page().await;
    bench
        .end_page(
            bench.end(call, vec![(id.seq, Next::Delivered)]),
            page_end(call, &page, &[("a", r#"{"status":"open"}"#)], false, "5"),
        )
        .await;
    let pull = bench.pulled().await;
    assert_eq!((pull.pages, pull.items, pull.changed, bench.live().await), (1, 1, 1, 1));
    assert_ne!(pull.job_id(), Some(id), "the next page's job came with it");
    // Neither a second end of the same call nor a late one of another is a page of its own.
    for call in [call, late] {
        let page = page_end(call, &page, &[("b", "{}")], true, "9");
        bench.end_page(bench.end(call, vec![(id.seq, Next::Delivered)]), page).await;
    }
    assert_eq!((bench.pulled().await.pages, bench.live().await), (1, 1));
    // The last page died: the pull failed, and its job can bring it back.
    let (page, id, call) = bench.page().await;
    let failed = PageEnd { what: PageWhat::Failed { reason: "no".into() }, ..page_end(call, &page, &[], true, "") };
    bench.end_page(bench.end(call, vec![(id.seq, Next::Dead)]), failed).await;
    assert_eq!(bench.pulled().await.state, PullState::Failed);
    bench.change(Change::ReviveJobs { jobs: vec![id], fresh: false }).await.unwrap();
    let (page, id, call) = bench.page().await;
    bench.end_page(bench.end(call, vec![(id.seq, Next::Delivered)]), page_end(call, &page, &[], true, "7")).await;
    let pull = bench.pulled().await;
    assert_eq!((pull.state, pull.since.as_deref(), pull.error), (PullState::Sweeping, Some("7"), None));
    let sweep = RecordOp::Sweep { collection: name(), pull: 1, push: None, limit: 10 };
    assert_eq!(bench.records(vec![sweep]).await, [Ok(RecordDone::Count(0))]);
    assert_eq!(bench.pulled().await.state, PullState::Done);
    // The next asks only for what changed, until a full one is due again.
    bench.pass(Duration::from_secs(60));
    bench.records(vec![start_pull(&bench, false)]).await;
    let (page, _, _) = bench.page().await;
    assert_eq!((page.pull, page.since.as_deref()), (2, Some("7")));
    let stuck = match start_pull(&bench, true) {
        RecordOp::StartPull(start) => RecordOp::StartPull(Box::new(StartPull { replace: Some(2), ..*start })),
        _ => unreachable!(),
    };
    assert!(
        matches!(&bench.records(vec![stuck]).await[0], Ok(RecordDone::Pulling { pull, started: true }) if pull.id == 3 && pull.full)
    );
    let second = bench.store.collection(&name()).await.unwrap().unwrap().pull.unwrap();
    assert_eq!(bench.state(second.job_id().unwrap()).await, State::Waiting);
}

async fn a_sweep_deletes_what_no_page_had(bench: Bench) {
    for n in 0..5 {
        bench.put(&format!("o{n}"), r#"{"status":"open"}"#).await;
    }
    bench.records(vec![start_pull(&bench, false)]).await;
    let (page, id, call) = bench.page().await;
    let items = [("o1", r#"{"status":"open"}"#), ("o9", r#"{"status":"paid"}"#)];
    bench.end_page(bench.end(call, vec![(id.seq, Next::Delivered)]), page_end(call, &page, &items, true, "1")).await;
    let sweep = |pull| RecordOp::Sweep { collection: name(), pull, push: None, limit: 3 };
    assert_eq!(bench.records(vec![sweep(9)]).await, [Ok(RecordDone::Count(0))], "of another pull");
    assert_eq!(bench.records(vec![sweep(1)]).await, [Ok(RecordDone::Count(3))]);
    assert_eq!(bench.pulled().await.state, PullState::Sweeping);
    // A record that comes while the sweep goes on is not part of it once it was seen.
    assert_eq!(bench.records(vec![sweep(1)]).await, [Ok(RecordDone::Count(1))]);
    let pull = bench.pulled().await;
    assert_eq!((pull.state, pull.deleted, pull.changed), (PullState::Done, 4, 1));
    assert_eq!(
        (bench.ids("open").await, bench.ids("paid").await, bench.live().await),
        (vec!["o1".into()], vec!["o9".into()], 2)
    );
}

async fn a_sweep_leaves_what_was_written_while_the_pull_ran(mut bench: Bench) {
    for id in ["gone", "kept", "changed"] {
        bench.put(id, r#"{"status":"open"}"#).await;
    }
    let sweep = |pull| RecordOp::Sweep { collection: name(), pull, push: None, limit: 10 };
    bench.records(vec![start_pull(&bench, true)]).await;
    let kept = [("kept", r#"{"status":"open"}"#)];
    let (page, id, call) = bench.page().await;
    bench.end_page(bench.end(call, vec![(id.seq, Next::Delivered)]), page_end(call, &page, &kept, false, "1")).await;
    // Behind the page that would have had them, by a webhook or a client. The clock stands still: it decides nothing.
    bench.put("new", r#"{"status":"new"}"#).await;
    bench.put("changed", r#"{"status":"new"}"#).await;
    let (page, id, call) = bench.page().await;
    bench.end_page(bench.end(call, vec![(id.seq, Next::Delivered)]), page_end(call, &page, &[], true, "1")).await;
    assert_eq!(bench.records(vec![sweep(1)]).await, [Ok(RecordDone::Count(1))]);
    assert_eq!(
        (bench.ids("open").await, bench.ids("new").await),
        (vec!["kept".into()], vec!["changed".into(), "new".into()])
    );
    let pull = bench.pulled().await;
    assert_eq!((pull.state, pull.deleted), (PullState::Done, 1));
    // The next pull began after they were written: what it does not see is gone.
    bench.pass(Duration::from_secs(1));
    bench.records(vec![start_pull(&bench, true)]).await;
    let (page, id, call) = bench.page().await;
    bench.end_page(bench.end(call, vec![(id.seq, Next::Delivered)]), page_end(call, &page, &kept, true, "1")).await;
    assert_eq!(bench.records(vec![sweep(2)]).await, [Ok(RecordDone::Count(2))]);
    assert_eq!((bench.ids("open").await, bench.live().await), (vec!["kept".into()], 1));
}

async fn the_forgotten_are_named(mut bench: Bench) {
    for id in ["a", "b", "c"] {
        bench.put(id, "{}").await;
    }
    bench.write(write("a", None)).await.unwrap();
    bench.pass(Duration::from_secs(10));
    let before = bench.now;
    bench.write(write("b", None)).await.unwrap();
    let forget = || RecordOp::Forget { collection: name(), before, limit: 10 };
    assert_eq!(bench.records(vec![forget()]).await, [Ok(RecordDone::Count(1))]);
    let known = bench.store.collection(&name()).await.unwrap().unwrap();
    assert_eq!((known.forgotten, known.last_change, known.live), (4, 5, 1));
    let left = bench.store.record_changes(&name(), 0, 10).await.unwrap();
    assert_eq!(left.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["c", "b"]);
    assert_eq!(bench.records(vec![forget()]).await, [Ok(RecordDone::Count(0))]);
}

async fn records_take_on_a_new_shape(bench: Bench) {
    bench.put("a", r#"{"status":"open","amount":2}"#).await;
    bench.put("b", r#"{"status":"open","amount":5}"#).await;
    let mut new = orders();
    new.indexes = vec![Index { name: "amount".into(), fields: vec![field("amount")] }];
    new.aggregates.get_mut("by_status").unwrap().extremes = 0;
    let facts = |json: &str| new.check(json).unwrap().facts;
    let items = vec![
        (key("a"), 1, facts(r#"{"status":"open","amount":2}"#)),
        (key("b"), 9, facts(r#"{"status":"open","amount":5}"#)),
    ];
    let shape = RecordOp::Reshape { collection: name(), items, done: Some("s2".into()) };
    assert_eq!(bench.records(vec![shape]).await, [Ok(RecordDone::Count(1))], "b has moved on");
    assert_eq!(&*bench.store.collection(&name()).await.unwrap().unwrap().shape, "s2");
    assert_eq!(bench.ids("open").await, ["b"]);
    let found = bench.store.list_records(&name(), Some(("amount", "[2]")), "", 9).await.unwrap();
    assert_eq!(found.records.len(), 1);
    let groups = bench.store.top_groups(&name(), "by_status", 9).await.unwrap();
    assert_eq!((groups[0].sums.count, groups[0].sums.measures[0].sum), (2, 7 * i128::from(MILLION)));
    assert_eq!(bench.store.record(&name(), &key("a")).await.unwrap().unwrap().version, 1);
}

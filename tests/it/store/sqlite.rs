//! What only a file can go through: restarts, strangers, two owners.

use std::path::Path;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, SqlSafeStr, SqliteConnection};
use tidegate::model::flow::Class;
use tidegate::model::id::{CallId, FlowId};
use tidegate::model::state::State;
use tidegate::store::*;

use super::factory::{Bench, START, all_jobs, audit, job, keyed, open};

fn bench(store: sqlite::SqliteStore) -> Bench {
    Bench::over(store)
}

fn refusal(result: Result<sqlite::SqliteStore, Error>) -> String {
    match result {
        Err(Error::Open { reason }) => reason,
        other => panic!("expected a refusal to open, got {other:?}"),
    }
}

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", path.display())).await.unwrap()
}

#[tokio::test]
async fn everything_committed_is_there_after_the_process_died() {
    let folder = tempfile::tempdir().unwrap();
    let before = bench(open(folder.path()).await.unwrap());
    let ids = [before.add(keyed("a", "1")).await, before.add(keyed("a", "2")).await, before.add(job("3")).await];
    let call = before.claim(ids[0]).await;
    before.store.remember_steady("boot", 5).await.unwrap();
    let (jobs, events) = (all_jobs(&*before.store).await, before.store.events(0, 100).await.unwrap());
    // No close: what a kill leaves behind.
    drop(before);
    let after = bench(open(folder.path()).await.unwrap());
    assert_eq!(all_jobs(&*after.store).await, jobs);
    assert_eq!(after.store.events(0, 100).await.unwrap(), events);
    assert_eq!(after.store.open_calls(Whose::Anyone, CallId(0), 9).await.unwrap()[0].id, call);
    let info = after.store.info().await.unwrap();
    assert_eq!((info.steady, info.steady_floor), (Some(("boot".to_owned(), 5)), START));
    assert_eq!(info.durability, "wal, synchronous=FULL");
    audit(&*after.store).await;
    // The numbers go on, and the call that was open can still end.
    assert!(after.add(job("4")).await.seq > ids[2].seq);
    assert!(after.finish(after.end(call, vec![(ids[0].seq, Next::Delivered)])).await.applied);
    assert_eq!(after.state(ids[1]).await, State::Waiting);
    assert!(after.claim(ids[1]).await > call);
}

#[tokio::test]
async fn a_commit_that_was_cut_off_leaves_the_numbers_right() {
    let folder = tempfile::tempdir().unwrap();
    let bench = bench(open(folder.path()).await.unwrap());
    bench.add(job("1")).await;
    for _ in 0..20 {
        // The caller goes away in the middle, wherever that is.
        let many = (0..50).map(|n| keyed(&n.to_string(), "1")).collect();
        let commit = bench.store.commit(Batch { enqueues: many, ..bench.batch() });
        let cut_off = tokio::time::timeout(Duration::from_micros(300), commit).await;
        drop(cut_off);
        bench.add(job("2")).await;
    }
    let flow = FlowId(1);
    assert!(!bench.begin(bench.take(flow, Class::Normal, 5)).await.is_empty());
}

#[tokio::test]
async fn a_second_owner_is_refused_with_the_first_ones_number() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).await.unwrap();
    let reason = refusal(open(folder.path()).await);
    assert!(reason.contains(&format!("in use by process {}", std::process::id())), "{reason}");
    first.close().await;
    assert!(matches!(first.info().await, Err(Error::Unavailable { .. })));
    open(folder.path()).await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.unwrap().close().await;
    let mut conn = raw(&folder.path().join("tidegate.db")).await;
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                 values (999, 'later', true, x'00', 1)";
    sqlx::query(newer).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let reason = refusal(open(folder.path()).await);
    assert!(reason.contains("got 999") && reason.contains("newer"), "{reason}");
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut conn = raw(&path).await;
    sqlx::query("create table theirs (x)").execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let reason = refusal(open(folder.path()).await);
    assert!(reason.contains("another program"), "{reason}");
    let mut conn = raw(&path).await;
    let tables = sqlx::query("select name from sqlite_schema").fetch_all(&mut conn).await.unwrap();
    assert_eq!(tables.len(), 1);
}

#[tokio::test]
async fn a_torn_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let torn = "this is no database, ".repeat(500);
    std::fs::write(&path, &torn).unwrap();
    let reason = refusal(open(folder.path()).await);
    assert!(reason.contains("expected a tidegate database"), "{reason}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), torn);
}

#[tokio::test]
async fn a_backup_taken_in_use_opens_as_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let bench = bench(open(folder.path()).await.unwrap());
    let id = bench.add(job("1")).await;
    let copy = tempfile::tempdir().unwrap();
    bench.store.backup(&copy.path().join("tidegate.db")).await.unwrap();
    let copy = open(copy.path()).await.unwrap();
    assert_eq!(copy.job(id).await.unwrap().unwrap().id, id);
}

#[tokio::test]
async fn every_query_file_can_be_prepared() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.unwrap().close().await;
    let mut conn = raw(&folder.path().join("tidegate.db")).await;
    let mut prepared = 0;
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sqlite")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("-- "), "{}: say what the query is for", path.display());
            // SQLite prepares a statement with a bare parameter as its limit anew at every use.
            assert!(!text.contains("limit ?"), "{}: write limit +?N", path.display());
            let done = (&mut conn).prepare(AssertSqlSafe(text).into_sql_str()).await;
            assert!(done.is_ok(), "{}: {done:?}", path.display());
            prepared += 1;
        }
    }
    assert!(prepared > 50);
}

/// Queries of the hot path must find their rows by an index, whatever the planner would rather do.
#[tokio::test]
async fn no_frequent_query_scans_a_table() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.unwrap().close().await;
    let mut conn = raw(&folder.path().join("tidegate.db")).await;
    let scans =
        ["call_floor", "list_calls", "list_floor", "list_jobs", "list_runs", "last_numbers", "tallies", "providers"];
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sqlite")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|extension| extension != "sql") || scans.contains(&name.as_str()) {
            continue;
        }
        let text = format!("explain query plan {}", std::fs::read_to_string(&path).unwrap());
        let plan = sqlx::query(AssertSqlSafe(text)).fetch_all(&mut conn).await.unwrap();
        for step in plan {
            let step: String = sqlx::Row::get(&step, 3);
            let tables = [
                "job",
                "j",
                "call",
                "c",
                "flow",
                "f",
                "run",
                "r",
                "event",
                "idempotency",
                "i",
                "record",
                "record_index",
                "record_group",
                "g",
                "record_point",
                "p",
            ];
            let scan = step.strip_prefix("SCAN ").filter(|_| !step.contains("USING"));
            // Windows of the oldest rows go along the primary key and stop at their limit.
            let window = name.starts_with("prune_") || name == "events" || name == "event_bounds";
            let whole = scan.is_some_and(|table| tables.contains(&table) && !window);
            assert!(!whole, "{name}: {step}");
        }
    }
}

/// What is asked for a person that waits is one range of the index made for it, in its order: nothing is sorted, nothing
/// is looked at and passed over.
#[tokio::test]
async fn lists_and_sums_are_ranges_of_their_index() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.unwrap().close().await;
    let mut conn = raw(&folder.path().join("tidegate.db")).await;
    for (name, expected) in [
        ("run_delivered", "SEARCH j USING INDEX job_of_run (run=? AND turn<?)"),
        ("top_groups", "USING INDEX record_group_by_rank (collection=? AND aggregate=? AND bucket=?)"),
        ("groups_between", "USING PRIMARY KEY (collection=? AND aggregate=? AND bucket>? AND bucket<?)"),
        (
            "record_extremes",
            "SEARCH p USING PRIMARY KEY (collection=? AND aggregate=? AND bucket=? AND grp=? AND measure=?)",
        ),
        ("list_records", "(collection=? AND id>?)"),
        ("list_records_by_index", "SEARCH i USING PRIMARY KEY (collection=? AND name=? AND value=? AND id>?)"),
        ("record_changes", "USING INDEX record_by_change (collection=? AND change>?)"),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sqlite").join(name).with_extension("sql");
        let text = format!("explain query plan {}", std::fs::read_to_string(path).unwrap());
        let plan = sqlx::query(AssertSqlSafe(text)).fetch_all(&mut conn).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|step| sqlx::Row::get(step, 3)).collect();
        assert!(plan.iter().any(|step| step.contains(expected)), "{name}: {plan:#?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{name} sorts: {plan:#?}");
    }
}

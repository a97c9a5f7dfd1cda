//! What only a database server can go through: many openings, lost connections, days of finished jobs, query plans.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row, SqlSafeStr};
use tidegate::clock::Timestamp;
use tidegate::model::call::Permit;
use tidegate::model::flow::Class;
use tidegate::model::id::{CallId, FlowId};
use tidegate::model::job::NewJob;
use tidegate::model::name::IdempotencyKey;
use tidegate::model::state::State;
use tidegate::store::postgres::{PgOptions, PgStore};
use tidegate::store::*;

use super::factory::{Bench, START, all_jobs, audit, job, keyed, permit};
use crate::support::servers::Database;

const DAY: Duration = Duration::from_secs(86_400);

async fn count(conn: &mut PgConnection, sql: &str) -> i64 {
    let row = sqlx::query(AssertSqlSafe(format!("select count(*) from {sql}"))).fetch_one(conn).await;
    row.unwrap_or_else(|e| panic!("{sql}: {e}")).get(0)
}

fn queries() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/postgres");
    let paths = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "sql")).collect();
    paths.sort();
    let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
    paths.iter().map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), read(path))).collect()
}

#[tokio::test]
async fn everything_committed_is_there_for_the_next_opening() {
    let database = Database::new().await;
    let before = Bench::over(database.open().await);
    let ids = [before.add(keyed("a", "1")).await, before.add(keyed("a", "2")).await, before.add(job("3")).await];
    let call = before.claim(ids[0]).await;
    before.store.remember_steady("boot", 5).await.unwrap();
    let (jobs, events) = (all_jobs(&*before.store).await, before.store.events(0, 100).await.unwrap());
    let first = before.store.info().await.unwrap();
    // No close: what a kill leaves behind.
    drop(before);
    let after = Bench::over(database.open().await);
    assert_eq!(all_jobs(&*after.store).await, jobs);
    assert_eq!(after.store.events(0, 100).await.unwrap(), events);
    let info = after.store.info().await.unwrap();
    assert_eq!((info.steady, info.steady_floor), (Some(("boot".to_owned(), 5)), START));
    assert_eq!(info.durability, "fsync=on, synchronous_commit=on, full_page_writes=on");
    assert!(info.kind.starts_with("postgres 1"), "{}", info.kind);
    // Another opening is another daemon; the calls of the former one can be told from its own.
    assert_ne!(info.daemon, first.daemon);
    let open = |whose| after.store.open_calls(whose, CallId(0), 9);
    assert_eq!(open(Whose::Daemon(first.daemon.unwrap())).await.unwrap()[0].id, call);
    assert!(open(Whose::Daemon(info.daemon.unwrap())).await.unwrap().is_empty());
    assert_eq!(open(Whose::Anyone).await.unwrap().len(), 2);
    audit(&*after.store).await;
    assert!(after.finish(after.end(call, vec![(ids[0].seq, Next::Delivered)])).await.applied);
    assert_eq!(after.state(ids[1]).await, State::Waiting);
    assert!(after.claim(ids[1]).await > call);
}

#[tokio::test]
async fn the_database_says_which_leases_are_over() {
    let database = Database::new().await;
    let mut bench = Bench::over(database.open().await);
    // By the database's clock, whatever ours says.
    let now = bench.store.info().await.unwrap().db_now.unwrap();
    bench.now = now - Duration::from_secs(3_600);
    let flow = bench.job(bench.add(job("1")).await).await.flow;
    bench.enqueue(vec![job("2")]).await;
    let over = bench.begin(bench.take(flow, Class::Normal, 1)).await.remove(0).id;
    let lease_until = now + Duration::from_secs(3_600);
    bench.begin(Begin { lease_until, ..bench.take(flow, Class::Normal, 1) }).await;
    let ended = bench.store.open_calls(Whose::Nobody, CallId(0), 9).await.unwrap();
    assert_eq!(ended.iter().map(|call| call.id).collect::<Vec<_>>(), [over]);
}

#[tokio::test]
async fn daemons_that_start_together_make_one_schema() {
    let database = Database::bare().await;
    let (a, b, c, d) = tokio::join!(database.open(), database.open(), database.open(), database.open());
    for store in [&a, &b, &c, &d] {
        assert_eq!(store.info().await.unwrap().schema_version, a.info().await.unwrap().schema_version);
    }
    let bench = Bench::over(a);
    let id = bench.add(job("1")).await;
    assert_eq!(b.job(id).await.unwrap().unwrap().id, id);
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_a_hint() {
    let database = Database::new().await;
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                 values (999, 'later', true, '\\x00', 1)";
    sqlx::query(newer).execute(&mut database.connect().await).await.unwrap();
    let reason = match PgStore::open(PgOptions::new(database.url())).await {
        Err(Error::Open { reason }) => reason,
        other => panic!("expected a refusal to open, got {other:?}"),
    };
    assert!(reason.contains("got 999") && reason.contains("newer"), "{reason}");
}

#[tokio::test]
async fn an_epoch_moves_once_and_shuts_out_the_permits_of_before() {
    let database = Database::new().await;
    let bench = Bench::over(database.open().await);
    let other = database.open().await;
    let id = bench.add(job("1")).await;
    assert_eq!(bench.store.bump_epoch(0, "run-a").await.unwrap(), 1);
    // Too late: somebody else moved it.
    assert_eq!(other.bump_epoch(0, "run-b").await.unwrap(), 1);
    assert_eq!(other.info().await.unwrap().limiter_run.as_deref(), Some("run-a"));
    let take = bench.take(bench.job(id).await.flow, Class::Normal, 1);
    assert!(bench.begin(take.clone()).await.is_empty());
    assert_eq!(bench.begin(Begin { permit: Permit { epoch: 1, ..permit() }, ..take }).await.len(), 1);
}

#[tokio::test]
async fn connections_that_died_in_the_pool_cost_nothing_but_time() {
    let database = Database::new().await;
    let bench = Bench::over(database.open().await);
    bench.add(job("1")).await;
    let all = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> \
               pg_backend_pid()";
    sqlx::query(all).execute(&mut database.connect().await).await.unwrap();
    let id = bench.store.commit(Batch { enqueues: vec![job("2")], ..bench.batch() }).await.unwrap().enqueues.remove(0);
    assert_eq!(id.unwrap().how, Accepted::Created);
    audit(&*bench.store).await;
}

#[tokio::test]
async fn a_commit_that_was_cut_off_leaves_no_trace_or_all_of_it() {
    let database = Database::new().await;
    let bench = Bench::over(database.open().await);
    bench.add(job("1")).await;
    for n in 0..20u64 {
        // The caller goes away in the middle, wherever that is.
        let many = (0..50).map(|n| keyed(&n.to_string(), "1")).collect();
        let commit = bench.store.commit(Batch { enqueues: many, ..bench.batch() });
        drop(tokio::time::timeout(Duration::from_micros(n * 700), commit).await);
        bench.add(job("2")).await;
    }
    let flow = FlowId(1);
    assert!(!bench.begin(bench.take(flow, Class::Normal, 5)).await.is_empty());
}

#[tokio::test]
async fn the_hot_table_holds_only_work_to_do_and_old_days_are_dropped() {
    let database = Database::new().await;
    let mut bench = Bench::over(database.open().await);
    let mut conn = database.connect().await;
    let named = NewJob { idempotency_key: Some(IdempotencyKey::new("x").unwrap()), ..job("0") };
    let first = bench.add(named.clone()).await;
    bench.enqueue((1..10).map(|n| job(&n.to_string())).collect()).await;
    let flow = bench.job(first).await.flow;
    let calls = bench.begin(bench.take(flow, Class::Normal, 9)).await;
    for (n, call) in calls.iter().enumerate() {
        let next = if n == 8 { Next::Dead } else { Next::Delivered };
        bench.finish(bench.end(call.id, vec![(call.jobs[0].id.seq, next)])).await;
    }
    let dead = calls[8].jobs[0].id;
    assert_eq!(count(&mut conn, "job").await, 1);
    assert_eq!((count(&mut conn, "finished_done").await, count(&mut conn, "finished_dead").await), (8, 1));
    bench.pass(3 * DAY);
    let day = START.0 / 86_400_000_000;
    let partition = format!("pg_class where relname = 'finished_day_{day}'");
    assert_eq!(count(&mut conn, &partition).await, 1);
    let prune = |limit| Change::Prune {
        finished_before: bench.now - DAY,
        dead_before: bench.now - 10 * DAY,
        calls_before: Timestamp::ZERO,
        events_before: Timestamp::ZERO,
        limit,
    };
    let commit = |limit| bench.store.commit(Batch { changes: vec![prune(limit)], ..bench.batch() });
    // The one with an idempotency key goes by itself, its key with it; then the day is gone as a whole.
    assert_eq!(commit(1).await.unwrap().changes[0], Ok(Changed::Count(2)));
    assert_eq!(count(&mut conn, "idempotency").await, 0);
    assert_eq!(count(&mut conn, &partition).await, 1);
    assert_eq!(commit(100).await.unwrap().changes[0], Ok(Changed::Count(0)));
    assert_eq!(count(&mut conn, &partition).await, 0);
    let left: Vec<_> = all_jobs(&*bench.store).await.into_iter().map(|job| job.state).collect();
    assert_eq!(left, [State::Waiting, State::Dead]);
    // A dead one comes back from where it is kept.
    assert!(
        bench
            .store
            .commit(Batch { changes: vec![Change::ReviveJobs { jobs: vec![dead], fresh: true }], ..bench.batch() })
            .await
            .unwrap()
            .changes[0]
            .is_ok()
    );
    assert_eq!((count(&mut conn, "job").await, count(&mut conn, "finished_job").await), (2, 0));
    // The key is free again.
    let again = bench.store.commit(Batch { enqueues: vec![named], ..bench.batch() }).await.unwrap();
    assert_eq!(again.enqueues[0].as_ref().unwrap().how, Accepted::Created);
}

#[tokio::test]
async fn a_text_that_the_database_cannot_hold_does_not_stop_a_batch() {
    let database = Database::new().await;
    let bench = Bench::over(database.open().await);
    let odd = NewJob { traceparent: Some(Arc::from("a\0b")), ..job("\"\0\"") };
    let done = bench.enqueue(vec![job("1"), odd]).await;
    let odd = bench.job(done[1].as_ref().unwrap().id).await;
    assert_eq!((&*odd.payload, odd.traceparent.as_deref()), ("\"\u{fffd}\"", Some("a\u{fffd}b")));
}

#[tokio::test]
async fn every_query_file_can_be_prepared() {
    let database = Database::new().await;
    let mut conn = database.connect().await;
    let queries = queries();
    assert!(queries.len() > 80, "{}", queries.len());
    for (name, text) in queries {
        assert!(text.starts_with("-- "), "{name}: say what the query is for");
        let done = (&mut conn).prepare(AssertSqlSafe(text).into_sql_str()).await;
        assert!(done.is_ok(), "{name}: {:?}", done.err());
    }
}

/// Tables that grow with the work.
const LARGE: [&str; 8] = ["job", "finished", "call", "event", "flow", "idempotency", "run", "record"];

/// Queries that go along an index in its order, from one end, until they have as many rows as they want: there is no
/// condition to look up. A partial index holds nothing but what they look for.
const WALKS: [&str; 6] = [
    // The first and the last event; the oldest calls and events.
    "event_bounds",
    "prune_calls",
    "prune_events",
    // The oldest event too; and all flows that are idle, which the chore of every few minutes reads.
    "prune_flows",
    "prune_runs",
    // The first of the jobs that are not due yet.
    "save_counts",
];

/// Every query finds its rows by a condition on an index, as the store's connections plan it and as a server would that was
/// left to itself, on tables of the size given by TIDEGATE_EXPLAIN_ROWS (default 1,000,000).
#[tokio::test]
async fn no_query_reads_a_table_whole() {
    let rows: i64 = std::env::var("TIDEGATE_EXPLAIN_ROWS").map_or(1_000_000, |n| n.replace('_', "").parse().unwrap());
    let database = Database::new().await;
    fill(&mut database.connect().await, rows).await;
    let alone = [("plan_cache_mode", "force_generic_plan")];
    let mut findings = Vec::new();
    for (who, settings) in [("the store", &tidegate::store::postgres::SETTINGS[..]), ("the server", &alone)] {
        let mut conn = database.connect().await;
        for (name, value) in settings {
            let set = sqlx::query("select set_config($1, $2, false)").bind(name).bind(value);
            set.execute(&mut conn).await.unwrap();
        }
        for (name, text) in queries() {
            let plan = plan(&mut conn, &name, &text).await;
            look(&plan, &mut |node, table, by| {
                // A server left to itself reads ten thousand runs whole, once in a while, and days without a job.
                let filled = format!("finished_day_{}", START.0 / 86_400_000_000);
                let empty = table.starts_with("finished_day_") && table != filled;
                let small = who == "the server" && (table == "run" || empty);
                let walks = node != "Seq Scan" && WALKS.contains(&name.as_str());
                // Some condition is not enough: what a run delivered is found by the run.
                if name == "run_delivered"
                    && table.starts_with("finished")
                    && !by.is_some_and(|by| by.contains("run ="))
                {
                    findings.push(format!("{who}: {name}: {table} by {by:?}, not by the run"));
                }
                if (node == "Seq Scan" || by.is_none()) && !walks && !small {
                    findings.push(format!("{who}: {name}: {node} on {table} without a condition"));
                }
            });
        }
    }
    findings.sort();
    findings.dedup();
    assert!(findings.is_empty(), "{findings:#?}");
}

/// The plan for parameters that nobody knows yet.
async fn plan(conn: &mut PgConnection, name: &str, text: &str) -> serde_json::Value {
    // Not through the driver's cache: the plan must be that of a statement prepared by name.
    sqlx::raw_sql(AssertSqlSafe(format!("prepare p_{name} as {text}"))).execute(&mut *conn).await.unwrap();
    let types = sqlx::query("select cardinality(parameter_types) from pg_prepared_statements where name = $1");
    let types: i32 = types.bind(format!("p_{name}")).fetch_one(&mut *conn).await.unwrap().get(0);
    let nulls = vec!["null"; types as usize].join(", ");
    let args = if types == 0 { String::new() } else { format!("({nulls})") };
    let explain = format!("explain (format json) execute p_{name}{args}");
    let plan: String = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_one(conn).await.unwrap().get_unchecked(0);
    serde_json::from_str(&plan).unwrap()
}

/// Tells of each scan of a large table: what kind, of what, by which condition.
fn look(plan: &serde_json::Value, tell: &mut impl FnMut(&str, &str, Option<&str>)) {
    let text = |key: &str| plan[key].as_str();
    if let (Some(node), Some(table)) = (text("Node Type"), text("Relation Name"))
        && LARGE.iter().any(|large| table.starts_with(large))
        && node.ends_with("Scan")
    {
        let below = plan["Plans"][0]["Index Cond"].as_str();
        let by = if node == "Bitmap Heap Scan" { text("Recheck Cond").and(below) } else { text("Index Cond") };
        tell(node, table, by.or_else(|| text("TID Cond")));
    }
    match plan {
        serde_json::Value::Array(parts) => parts.iter().for_each(|part| look(part, tell)),
        serde_json::Value::Object(parts) => parts.values().for_each(|part| look(part, tell)),
        _ => {}
    }
}

/// A backlog, a history and a journal of `rows` each.
async fn fill(conn: &mut PgConnection, rows: i64) {
    let day = START.0 / 86_400_000_000;
    let (from, to) = (day * 86_400_000_000, (day + 1) * 86_400_000_000);
    let texts = [
        // Nobody minds if this is lost.
        "alter table job set unlogged; alter table call set unlogged; alter table event set unlogged".to_owned(),
        "insert into flow (id, provider, operation, account, tenant, run, ready_normal)
         select n, 'crm', 'sync', 'account-' || n, '', 0, 1 from generate_series(1, ROWS / 100) n"
            .to_owned(),
        "insert into job (seq, created_at, flow, turn, key_hash, due_at, updated_at, call, version, attempts, crashes,
           throttles, place, class, cancel_requested, named, key, payload)
         select n, 1, 1 + n % (ROWS / 100), n, n, n, n, 1, 1, 0, 0, 0, case when n % 100 < 90 then 0 else n % 5 end, 1, 0, 0,
           'k' || n, '{}' from generate_series(1, ROWS) n"
            .to_owned(),
        format!("create table finished_day_{day} partition of finished_done for values from ({from}) to ({to})"),
        "insert into finished_job (seq, created_at, flow, turn, finished_at, due_at, updated_at, call, version, attempts,
           crashes, throttles, place, class, cancel_requested, named, run, key, payload)
         select ROWS + n, 1, 1 + n % (ROWS / 100), n, FROM + n, n, n, 1, 1, 0, 0, 0, case when n % 10 = 0 then 6 else 5 end, 1, 0,
           (n % 50 = 0)::int, case when n % 20 = 0 then 1 + n % 1000 else 0 end, 'k' || n, '{}' from generate_series(1, ROWS) n"
            .to_owned(),
        "insert into idempotency select '', 'i' || n, '\\x00', ROWS + n, 1 from generate_series(1, ROWS, 50) n".to_owned(),
        "insert into call (id, provider, operation, lane, account, spends, granted_at, epoch, lease_until, jobs, begun_at,
           ended_at, settled_at, ending)
         select n, 'crm', 'sync', 0, '', '[]', n, 0, n, '\\x00', n, nullif(n, n * o), nullif(n, n * o), 2 - 2 * o
         from generate_series(1, ROWS) n, lateral (select (n % 1000 = 0)::int as o) as x"
            .to_owned(),
        "insert into event select n, 1, n, '[]' from generate_series(1, ROWS) n".to_owned(),
        "insert into run (seq, created_at, display_name, tenant, state, updated_at)
         select n, 1, '', '', 4, 1 from generate_series(1, ROWS / 100) n"
            .to_owned(),
        "insert into record
         select 'orders', 'o' || n, '{}', 'h' || n, 1, n, (n % 100 = 0)::int, 1, n, '{}', n % 3
         from generate_series(1, ROWS / 5) n"
            .to_owned(),
        "insert into record_index select 'orders', 'status', n % 7, 'o' || n from generate_series(1, ROWS / 5) n".to_owned(),
        "insert into record_group
         select 'orders', 'by_status', b, n, '{}', n from generate_series(1, ROWS / 500) n, generate_series(1, 100) b"
            .to_owned(),
        "insert into record_point
         select 'orders', 'by_status', n % 100, n % 7, 0, n, 'o' || n from generate_series(1, ROWS / 5) n"
            .to_owned(),
        "analyze".to_owned(),
    ];
    for text in texts {
        let text = text.replace("ROWS", &rows.to_string()).replace("FROM", &from.to_string());
        sqlx::raw_sql(AssertSqlSafe(text.clone())).execute(&mut *conn).await.unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}

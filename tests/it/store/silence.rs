//! A database that falls silent: every operation ends, nothing is done twice, and a commit whose answer was lost is asked
//! after, whatever became of it.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, Row};
use tidegate::model::id::CallId;
use tidegate::store::postgres::{PgOptions, PgStore};
use tidegate::store::*;

use super::factory::{Bench, all_jobs, audit, job};
use crate::support::process::until;
use crate::support::proxy::Proxy;
use crate::support::servers::Database;

/// How long the stores of these tests wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Longer than giving up a connection, making another and asking for the fate of a commit takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Held by a test, and waited for by the commits of its database.
const GATE: i64 = 42;

struct Cut {
    database: Database,
    proxy: Proxy,
    bench: Bench,
    /// Past the proxy.
    aside: PgConnection,
}

/// A store behind a proxy, with one job in it.
async fn behind_a_proxy() -> Cut {
    let database = Database::new().await;
    let url = database.url();
    let (head, name) = url.rsplit_once('/').unwrap();
    let (host, port) = head.rsplit_once(':').unwrap();
    let proxy = Proxy::to(port.parse().unwrap()).await;
    let options = PgOptions { answer_max: ANSWER_MAX, ..PgOptions::new(format!("{host}:{}/{name}", proxy.port)) };
    let bench = Bench::over(PgStore::open(options).await.unwrap());
    bench.add(job("0")).await;
    let aside = database.connect().await;
    Cut { database, proxy, bench, aside }
}

impl Cut {
    async fn run(&mut self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.aside).await.unwrap();
    }

    /// From now on each commit that writes events waits for the gate, when `deferred` within its very end.
    async fn shut_the_gate(&mut self, deferred: bool) {
        let when = if deferred { "deferrable initially deferred" } else { "not deferrable" };
        self.run(&format!(
            "create function wait_at_gate() returns trigger language plpgsql as
               $$ begin perform pg_advisory_xact_lock_shared({GATE}); return null; end $$;
             create constraint trigger gate after insert on event {when} for each row execute function wait_at_gate();
             select pg_advisory_lock({GATE})"
        ))
        .await;
    }

    async fn open_the_gate(&mut self) {
        self.run(&format!("select pg_advisory_unlock({GATE})")).await;
    }

    /// Returns with the session that waits at the gate.
    async fn somebody_waits(&mut self) -> i32 {
        let waits = "select pid from pg_locks where locktype = 'advisory' and objid = 42 and not granted";
        loop {
            if let Some(row) = sqlx::query(waits).fetch_optional(&mut self.aside).await.unwrap() {
                return row.get(0);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn is_gone(&mut self, pid: i32) -> bool {
        let there = sqlx::query("select from pg_stat_activity where pid = $1").bind(pid);
        there.fetch_optional(&mut self.aside).await.unwrap().is_none()
    }

    /// The commit of one job, beside what the test does meanwhile.
    fn commit(&self) -> tokio::task::JoinHandle<Result<Committed, Error>> {
        let (store, batch) = (self.bench.store.clone(), self.bench.batch());
        let batch = Batch { enqueues: vec![job("1")], ..batch };
        tokio::spawn(async move {
            tokio::time::timeout(PATIENCE, store.commit(batch)).await.expect("every wait has an end")
        })
    }

    /// Acknowledged once, and there once.
    async fn was_done_once(&self, commit: tokio::task::JoinHandle<Result<Committed, Error>>) {
        let done = commit.await.unwrap().unwrap();
        let id = done.enqueues[0].as_ref().unwrap().id;
        let jobs = all_jobs(&*self.bench.store).await;
        assert_eq!(jobs.len(), 2, "the one of before and the one of the commit");
        assert_eq!(jobs.iter().filter(|job| job.id == id && &*job.payload == "1").count(), 1);
        audit(&*self.bench.store).await;
        // And it goes on.
        self.bench.add(job("2")).await;
        assert_eq!(all_jobs(&self.database.open().await).await.len(), 3);
    }
}

#[tokio::test]
async fn silence_in_the_middle_of_a_commit_ends_its_connection_and_the_commit_starts_anew() {
    let mut cut = behind_a_proxy().await;
    cut.shut_the_gate(false).await;
    let commit = cut.commit();
    cut.somebody_waits().await;
    // The last statement is done on the server; nobody hears of it, and no commit follows.
    cut.proxy.silent(true);
    cut.open_the_gate().await;
    let all_free = "select from pg_locks where locktype = 'advisory' and objid = 42 and granted and mode = 'ShareLock'";
    until(PATIENCE, async || {
        let mut conn = cut.database.connect().await;
        sqlx::query(all_free).fetch_optional(&mut conn).await.unwrap().map(drop)
    })
    .await
    .expect("the statement is over and its transaction is not");
    cut.proxy.silent(false);
    cut.was_done_once(commit).await;
}

#[tokio::test]
async fn a_commit_that_happened_and_was_not_answered_is_acknowledged_and_not_repeated() {
    let mut cut = behind_a_proxy().await;
    cut.shut_the_gate(true).await;
    let commit = cut.commit();
    let pid = cut.somebody_waits().await;
    let query = sqlx::query("select query from pg_stat_activity where pid = $1").bind(pid);
    let query: String = query.fetch_one(&mut cut.aside).await.unwrap().get(0);
    assert_eq!(query.to_lowercase(), "commit", "it waits within the commit itself");
    cut.proxy.swallow(true);
    cut.open_the_gate().await;
    let jobs = "select from job where payload = '1'";
    until(PATIENCE, async || {
        sqlx::query(jobs).fetch_optional(&mut cut.database.connect().await).await.unwrap().map(drop)
    })
    .await
    .expect("the commit happened");
    cut.proxy.swallow(false);
    cut.was_done_once(commit).await;
}

#[tokio::test]
async fn a_commit_that_did_not_happen_and_was_not_answered_is_made_again() {
    let mut cut = behind_a_proxy().await;
    cut.shut_the_gate(true).await;
    let commit = cut.commit();
    let pid = cut.somebody_waits().await;
    cut.proxy.swallow(true);
    cut.run(&format!("select pg_terminate_backend({pid})")).await;
    cut.open_the_gate().await;
    while !cut.is_gone(pid).await {
        tokio::task::yield_now().await;
    }
    cut.proxy.swallow(false);
    cut.was_done_once(commit).await;
}

#[tokio::test]
async fn a_commit_that_still_hangs_on_the_server_is_ended_before_it_is_made_again() {
    let mut cut = behind_a_proxy().await;
    cut.shut_the_gate(true).await;
    let commit = cut.commit();
    let pid = cut.somebody_waits().await;
    // The gate stays shut for longer than an answer is waited for: the store ends the session itself. A lost connection
    // alone would not, for a session that waits for a lock does not look at it.
    while !cut.is_gone(pid).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cut.open_the_gate().await;
    cut.was_done_once(commit).await;
}

#[tokio::test]
async fn a_database_that_is_silent_is_away_and_no_read_or_write_waits_for_it_for_long() {
    let cut = behind_a_proxy().await;
    cut.proxy.silent(true);
    let reads = async {
        let store = &cut.bench.store;
        assert!(matches!(store.info().await, Err(Error::Unavailable { .. })));
        assert!(matches!(store.open_calls(Whose::Anyone, CallId(0), 1).await, Err(Error::Unavailable { .. })));
        assert!(matches!(store.bump_epoch(0, "x").await, Err(Error::Unavailable { .. })));
    };
    tokio::time::timeout(PATIENCE, reads).await.expect("every read has an end");
    assert!(matches!(cut.commit().await.unwrap(), Err(Error::Unavailable { .. })));
    cut.proxy.silent(false);
    // What was lent is back: more operations at once than there are connections.
    let asked = (0..20).map(|_| cut.bench.store.info());
    let all = tokio::time::timeout(PATIENCE, futures_util::future::join_all(asked)).await.unwrap();
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(all_jobs(&*cut.bench.store).await.len(), 1, "nothing of what was given up was done");
}

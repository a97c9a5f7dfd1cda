//! Jobs of runs that were written before the run stood beside them, and those that an older daemon writes beside newer ones.

use std::sync::Arc;

use sqlx::Connection;
use tidegate::model::flow::Class;
use tidegate::model::id::{JobId, RunId};
use tidegate::store::*;

use super::factory::{Bench, open};
use crate::support::servers::Database;

const JOBS: usize = 5;

/// A run with delivered jobs between those of another run and of none, and its jobs, the last one first.
async fn delivered(bench: &Bench) -> (RunId, Vec<JobId>) {
    let (run, other) = (bench.new_run().await, bench.new_run().await);
    let mut ids = Vec::new();
    for _ in 0..JOBS {
        let id = bench.add_to(run).await;
        for id in [id, bench.add_to(other).await, bench.add(super::factory::job("1")).await] {
            let flow = bench.job(id).await.flow;
            let call = bench.begin(bench.take(flow, Class::Normal, 1)).await.remove(0).id;
            bench.finish(bench.end(call, vec![(id.seq, Next::Delivered)])).await;
        }
        ids.insert(0, id);
    }
    (run, ids)
}

async fn told(bench: &Bench, run: RunId) -> Vec<i64> {
    bench.store.run_delivered(run, None, 100).await.unwrap().into_iter().map(|job| job.seq).collect()
}

/// Looks portion by portion, as many jobs at a time as asked for.
async fn look(bench: &Bench, run: RunId, limit: u32) -> usize {
    let (mut after, mut portions) = (0, 0);
    loop {
        match bench.change(Change::FillRun { run, after, limit }).await.unwrap() {
            Changed::Filled { upto: Some(upto) } => {
                assert!(upto > after, "it gets on");
                (after, portions) = (upto, portions + 1);
            }
            Changed::Filled { upto: None } => return portions,
            other => panic!("expected how far it is, got {other:?}"),
        }
    }
}

async fn are_found(bench: Bench, run: RunId, ids: &[JobId], then: impl AsyncFnOnce()) {
    let seqs: Vec<i64> = ids.iter().map(|id| id.seq).collect();
    assert_eq!(told(&bench, run).await, [0i64; 0], "they were written without their run");
    // Jobs of others count as looked at.
    assert_eq!(look(&bench, run, 4).await, (JOBS * 3).div_ceil(4));
    assert_eq!(told(&bench, run).await, seqs);
    // What is written now is found at once, and what an older daemon still writes by another look.
    let id = bench.add_to(run).await;
    let call = bench.claim(id).await;
    bench.finish(bench.end(call, vec![(id.seq, Next::Delivered)])).await;
    let all: Vec<i64> = [id.seq].into_iter().chain(seqs).collect();
    assert_eq!(told(&bench, run).await, all);
    then().await;
    assert_eq!(told(&bench, run).await, all[1..]);
    look(&bench, run, 100).await;
    assert_eq!(told(&bench, run).await, all);
}

#[tokio::test]
async fn sqlite_finds_jobs_of_runs_that_schema_17_had() {
    const NOT_YET: [&str; 3] =
        ["drop index job_of_run", "alter table job drop column run", "delete from _sqlx_migrations where version = 18"];
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::over(open(folder.path()).await.unwrap());
    let (run, ids) = delivered(&bench).await;
    bench.store.close().await;
    drop(bench);
    let url = format!("sqlite://{}", folder.path().join("tidegate.db").display());
    let mut db = sqlx::SqliteConnection::connect(&url).await.unwrap();
    for statement in NOT_YET {
        sqlx::query(statement).execute(&mut db).await.unwrap();
    }
    db.close().await.unwrap();
    let older = async || {
        let mut db = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("update job set run = 0 where seq = (select max(seq) from job)").execute(&mut db).await.unwrap();
        db.close().await.unwrap();
    };
    are_found(Bench::over(open(folder.path()).await.unwrap()), run, &ids, older).await;
}

#[tokio::test]
async fn postgres_finds_jobs_of_runs_that_schema_17_had_or_an_older_daemon_writes() {
    const NOT_YET: [&str; 4] = [
        "drop index finished_of_run",
        "alter table job drop column run",
        "alter table finished_job drop column run",
        "delete from _sqlx_migrations where version = 18",
    ];
    let database = Database::new().await;
    let bench = Bench::over_shared(Arc::new(database.open().await));
    let (run, ids) = delivered(&bench).await;
    bench.store.close().await;
    let mut db = database.connect().await;
    for statement in NOT_YET {
        sqlx::query(statement).execute(&mut db).await.unwrap();
    }
    let bench = Bench::over_shared(Arc::new(database.open().await));
    // As a daemon of before does, which does not know the column.
    let older = async || {
        let without = "update finished_job set run = 0 where seq = (select max(seq) from finished_job)";
        sqlx::query(without).execute(&mut db).await.unwrap();
    };
    are_found(bench, run, &ids, older).await;
}

//! What the two servers do on this machine without Tidegate, with the client on it too. Next: `permits`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Executor, PgPool};

use super::super::exit::Error;
use super::Figure;
use super::ceilings::in_flight;
use super::daemon::payload;
use super::servers::Servers;
use crate::clock::Clock;
use crate::limiter::redis::{FredLink, Link, Script};

const CLIENTS: u32 = 64;
const ROWS: u64 = 1_000;
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// As little as a limit can do: one read, one write.
static SMALL: Script =
    Script::new("small", "return tostring(redis.call('SET', KEYS[1], ARGV[1]) and redis.call('INCR', KEYS[1]))");

fn failed(e: impl std::fmt::Display) -> Error {
    Error::failed(format!("a ceiling: {e}"))
}

pub async fn postgres(servers: &Servers, jobs: u64) -> Result<Vec<Figure>, Error> {
    let pool = PgPoolOptions::new().max_connections(CLIENTS).min_connections(CLIENTS);
    let pool = pool.connect(&servers.postgres_url).await.map_err(failed)?;
    pool.execute("create table ceiling (id bigint primary key, state int not null, payload text not null)")
        .await
        .map_err(failed)?;
    let single = pool.clone();
    let took = in_flight(jobs, move |n| {
        let pool = single.clone();
        async move {
            let insert = sqlx::query("insert into ceiling values ($1, 0, $2)").bind(n as i64).bind(payload(n));
            insert.execute(&pool).await.map(drop).map_err(failed)
        }
    })
    .await?;
    let mut figures = vec![Figure::rate("ceiling: PostgreSQL, single-row commits, 64 clients", jobs, took)];
    let took = in_turns(&pool, jobs * 2 / ROWS, async |pool: &PgPool, turn| insert(pool, 1 << 40, turn).await).await?;
    figures.push(Figure::rate("ceiling: PostgreSQL, rows in commits of 1,000", jobs * 2 / ROWS * ROWS, took));
    let took = in_turns(&pool, jobs / ROWS, async |pool: &PgPool, turn| {
        insert(pool, 1 << 41, turn).await?;
        let first = (1 << 41) + turn * ROWS as i64;
        for each in [
            "update ceiling set state = 1 where id >= $1 and id < $1 + 1000",
            "delete from ceiling where id >= $1 and id < $1 + 1000",
        ] {
            sqlx::query(each).bind(first).execute(pool).await?;
        }
        Ok(())
    })
    .await?;
    figures.push(Figure::rate("ceiling: PostgreSQL, rows inserted, claimed, deleted", jobs / ROWS * ROWS, took));
    pool.execute("drop table ceiling").await.map_err(failed)?;
    pool.close().await;
    Ok(figures)
}

async fn insert(pool: &PgPool, base: i64, turn: i64) -> Result<(), sqlx::Error> {
    let ids: Vec<i64> = (0..ROWS as i64).map(|n| base + turn * ROWS as i64 + n).collect();
    let payloads: Vec<String> = ids.iter().map(|id| payload(*id as u64)).collect();
    let insert = sqlx::query(
        "insert into ceiling select u.id, 0, u.payload from unnest($1::bigint[], $2::text[]) as u(id, payload)",
    );
    insert.bind(ids).bind(payloads).execute(pool).await.map(drop)
}

/// Four clients take the turns.
async fn in_turns<F>(pool: &PgPool, turns: u64, turn: F) -> Result<Duration, Error>
where
    F: AsyncFn(&PgPool, i64) -> Result<(), sqlx::Error>,
{
    let (clock, next) = (Clock::system(), AtomicU64::new(0));
    let started = clock.steady();
    let client = async || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= turns {
                return Ok(());
            }
            turn(pool, n as i64).await?;
        }
    };
    tokio::try_join!(client(), client(), client(), client()).map_err(|e: sqlx::Error| failed(e))?;
    Ok(clock.steady().since(started))
}

pub async fn redis(servers: &Servers, jobs: u64) -> Result<Vec<Figure>, Error> {
    let link = Arc::new(FredLink::connect(&servers.redis_url, ANSWER_MAX, None).map_err(failed)?);
    link.changed(0).await;
    link.run(&SMALL, true, &[Bytes::from("small")], vec![Bytes::from("1")]).await.map_err(failed)?;
    let calls = jobs * 2;
    let took = in_flight(calls, move |n| {
        let link = link.clone();
        async move {
            let key = Bytes::from(format!("small:{}", n % 10_000));
            link.run(&SMALL, false, &[key], vec![Bytes::from("1")]).await.map(drop).map_err(failed)
        }
    })
    .await?;
    Ok(vec![Figure::rate("ceiling: Redis, EVALSHA of two commands, 64 in flight", calls, took)])
}

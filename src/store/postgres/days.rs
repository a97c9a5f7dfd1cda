//! The days of finished jobs: one partition each, made before anything can end on that day, dropped as a whole when all of
//! it is old. Each in a short transaction of its own, never in a commit's. Next: `commit`.
//!
//! Partitions are attached and not created in place, which lets reads and commits of other days go on. A drop needs the
//! table for itself for a moment; it gives up soon and is tried again with the next prune.

use std::collections::BTreeSet;
use std::sync::Mutex;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::lender::{Lender, within};
use super::row::Columns;
use super::{error, sql};
use crate::clock::Timestamp;
use crate::store::Error;

pub(super) const DAY_US: i64 = 86_400_000_000;
/// Days are made one at a time: for daemons that start together at midnight. The number is ours alone.
const LOCK: &str = "select pg_advisory_xact_lock(7598263422144913002)";

/// Days that are known to have a partition. Only a hint: a commit that finds none forgets them all and makes its own.
#[derive(Debug, Default)]
pub(super) struct Days(Mutex<BTreeSet<i64>>);

pub(super) fn day_of(at: Timestamp) -> i64 {
    at.0.div_euclid(DAY_US)
}

/// Numbers since the epoch, with room before it for virtual clocks.
fn name(day: i64) -> String {
    format!("finished_day_{}{}", if day < 0 { "m" } else { "" }, day.abs())
}

fn day_in(name: &str) -> Option<i64> {
    let number = name.strip_prefix("finished_day_")?;
    match number.strip_prefix('m') {
        Some(number) => number.parse::<i64>().ok().map(|day| -day),
        None => number.parse().ok(),
    }
}

impl Days {
    fn known(&self) -> std::sync::MutexGuard<'_, BTreeSet<i64>> {
        self.0.lock().expect("nothing panics while it holds the days")
    }

    pub(super) fn forget(&self) {
        self.known().clear();
    }

    /// Makes sure that jobs can end on the day of `at`.
    pub(super) async fn make(&self, lender: &Lender, at: Timestamp) -> Result<(), Error> {
        let day = day_of(at);
        if self.known().contains(&day) {
            return Ok(());
        }
        let mut lent = lender.lend().await.map_err(error::of)?;
        let made = within(lender.answer_max, make(lent.conn(), day)).await;
        lent.judge(made).map_err(error::of)?;
        self.known().insert(day);
        Ok(())
    }

    /// Drops the days that ended before `before`. Jobs with idempotency keys go one by one, up to `limit`, because their
    /// keys go with them; a day is dropped when none of them is left. Returns how many went one by one.
    pub(super) async fn drop_before(&self, lender: &Lender, before: Timestamp, limit: u32) -> Result<u64, Error> {
        let mut left = u64::from(limit);
        for day in days(lender).await?.into_iter().filter(|day| (day + 1).saturating_mul(DAY_US) <= before.0) {
            let named = drop_named(lender, day, left).await.map_err(error::of)?;
            left -= named.min(left);
            if left == 0 {
                break;
            }
            self.known().remove(&day);
            let mut lent = lender.lend().await.map_err(error::of)?;
            let dropped = within(lender.answer_max, drop_day(lent.conn(), day)).await;
            match lent.judge(dropped) {
                Ok(()) => {}
                // Somebody reads it (lock not available) or has dropped it (undefined table).
                Err(e) if matches!(code(&e).as_deref(), Some("55P03" | "42P01" | "40P01")) => {}
                Err(e) => return Err(error::of(e)),
            }
        }
        Ok(u64::from(limit) - left)
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

async fn days(lender: &Lender) -> Result<Vec<i64>, Error> {
    let rows = lender.ask(sqlx::query(sql::DAYS)).await.map_err(error::of)?;
    let mut days = Vec::with_capacity(rows.len());
    for row in rows {
        days.extend(day_in(Columns::of(&row).str()?));
    }
    days.sort_unstable();
    Ok(days)
}

async fn make(conn: &mut PgConnection, day: i64) -> Result<(), sqlx::Error> {
    let mut transaction = conn.begin().await?;
    sqlx::query(LOCK).execute(&mut *transaction).await?;
    let name = name(day);
    let there = sqlx::query("select to_regclass($1) is not null").bind(&name).fetch_one(&mut *transaction).await?;
    if !sqlx::Row::try_get::<bool, _>(&there, 0)? {
        let (from, to) = (day * DAY_US, (day + 1) * DAY_US);
        // A table is not a parameter; the numbers are ours. Finished jobs are written once and read rarely.
        let made = [
            format!(
                "create table {name} (like finished_job including all) with (autovacuum_vacuum_insert_scale_factor = 0.2)"
            ),
            format!("alter table finished_done attach partition {name} for values from ({from}) to ({to})"),
        ];
        for statement in made {
            sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await
}

async fn drop_named(lender: &Lender, day: i64, limit: u64) -> Result<u64, sqlx::Error> {
    let name = name(day);
    let gone = format!(
        "with gone as (
           delete from {name} where seq = any (array(select seq from {name} where named = 1 order by seq limit $1))
           returning seq
         ), keys as (
           delete from idempotency using gone where idempotency.job = gone.seq
         )
         select count(*) from gone"
    );
    let gone = sqlx::query(AssertSqlSafe(gone)).persistent(false).bind(limit as i64);
    let gone = lender.ask_one(gone).await?;
    Ok(sqlx::Row::try_get::<i64, _>(&gone, 0)?.unsigned_abs())
}

async fn drop_day(conn: &mut PgConnection, day: i64) -> Result<(), sqlx::Error> {
    let mut transaction = conn.begin().await?;
    sqlx::query("set local lock_timeout = '500ms'").execute(&mut *transaction).await?;
    let drop = format!("drop table {}", name(day));
    sqlx::query(AssertSqlSafe(drop)).persistent(false).execute(&mut *transaction).await?;
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_found_again_by_its_name() {
        for day in [-3, 0, 20_833] {
            assert_eq!(day_in(&name(day)), Some(day));
        }
        assert_eq!((day_of(Timestamp(-1)), day_of(Timestamp(DAY_US))), (-1, 1));
        assert_eq!(day_in("finished_dead"), None);
    }
}

//! Opening a database: a schema this program knows, brought up to date by whichever daemon comes first, and a durability
//! that was read back.
//!
//! Whatever does not fit is refused with what was found and what to do. Next: `commit`.

use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, PgConnection, Row, SqlSafeStr};

use super::lender::{CONNECT_WAIT, Lender, within};
use super::{PgOptions, error};
use crate::clock::Timestamp;
use crate::model::id::DaemonId;
use crate::store::Error;

const STATEMENTS_KEPT: usize = 256;
/// A migration may rewrite a large table.
const MIGRATE_MAX: Duration = Duration::from_secs(600);
/// Oldest server whose features are used (`unnest` is old; `pg_xact_status`, generated columns and attaching partitions
/// without a full lock are not).
const SERVER_MIN: i64 = 140_000;

/// All schemas, in order. Files of `migrations/postgres` never change once released.
const MIGRATIONS: [(i64, &str, &str); 12] = [
    (1, "first", include_str!("../../../migrations/postgres/0001_first.sql")),
    (2, "retention", include_str!("../../../migrations/postgres/0002_retention.sql")),
    (3, "cluster", include_str!("../../../migrations/postgres/0003_cluster.sql")),
    (4, "spread", include_str!("../../../migrations/postgres/0004_spread.sql")),
    (6, "tokens", include_str!("../../../migrations/postgres/0006_tokens.sql")),
    (7, "records", include_str!("../../../migrations/postgres/0007_records.sql")),
    (8, "schedules", include_str!("../../../migrations/postgres/0008_schedules.sql")),
    (9, "outside", include_str!("../../../migrations/postgres/0009_outside.sql")),
    (10, "no_saved_limits", include_str!("../../../migrations/postgres/0010_no_saved_limits.sql")),
    (12, "call_log", include_str!("../../../migrations/postgres/0012_call_log.sql")),
    (14, "webhooks", include_str!("../../../migrations/postgres/0014_webhooks.sql")),
    (17, "alerts", include_str!("../../../migrations/postgres/0017_alerts.sql")),
];

pub(super) struct Opened {
    pub lender: Lender,
    pub listeners: PgPool,
    pub daemon: DaemonId,
    pub schema_version: i64,
    pub kind: String,
    pub durability: String,
}

/// How every connection is set up.
///
/// Each query has one good plan, by the index that its file names, whatever the statistics of a table that was just
/// filled say: so plans are made once, and the planner may not read whole tables or hash them where an index serves.
pub const SETTINGS: [(&str, &str); 10] = [
    ("synchronous_commit", "on"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
    // Below the time for which an answer is waited for (`PgOptions::answer_max`): a server that is there says so itself.
    ("statement_timeout", "10s"),
    ("lock_timeout", "8s"),
    // A daemon that hangs in the middle of a commit must not hold its locks for ever.
    ("idle_in_transaction_session_timeout", "15s"),
    ("timezone", "UTC"),
];

pub(super) async fn open(options: &PgOptions) -> Result<Opened, Error> {
    let connect = connect_options(options)?;
    let mut conn = within(CONNECT_WAIT, connect.connect()).await.map_err(|e| away_or_refused(options, &e))?;
    let durability = within_open(options.answer_max, options, check_server(options, &mut conn)).await?;
    let schema_version = within_open(MIGRATE_MAX, options, migrate(options, &mut conn)).await?;
    let facts = sqlx::query("select current_setting('server_version'), gen_random_uuid()::text");
    let facts =
        within(options.answer_max, facts.fetch_one(&mut conn)).await.map_err(|e| away_or_refused(options, &e))?;
    let read = |at: usize| facts.try_get::<String, _>(at).map_err(|e| refuse(options, &e));
    let version = read(0)?.split_whitespace().next().unwrap_or_default().to_owned();
    let daemon = uuid::Uuid::from_str(&read(1)?).map_err(|e| Error::Open { reason: e.to_string() })?;
    let listeners =
        PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_WAIT).connect_lazy_with(connect.clone());
    // One of them all listens.
    let lender = Lender::new(connect, options.connections_max.saturating_sub(1), options.answer_max);
    Ok(Opened {
        lender,
        listeners,
        daemon: DaemonId(daemon),
        schema_version,
        kind: format!("postgres {version}"),
        durability,
    })
}

/// A server that went away in the middle may be there later.
async fn within_open<T>(
    most: Duration,
    options: &PgOptions,
    step: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let late = || Error::Unavailable { reason: format!("{}: no answer within {most:?}", place(options)) };
    tokio::time::timeout(most, step).await.unwrap_or_else(|_| Err(late()))
}

fn connect_options(options: &PgOptions) -> Result<PgConnectOptions, Error> {
    // It may be a secret, so nobody has looked at it yet. It is not shown.
    if !["postgres://", "postgresql://"].iter().any(|scheme| options.url.starts_with(scheme)) {
        return Err(Error::Open { reason: "expected a URL that begins with postgres://".to_owned() });
    }
    let connect = PgConnectOptions::from_str(&options.url).map_err(|e| refuse(options, &e))?;
    Ok(connect
        .application_name("tidegate")
        .statement_cache_capacity(STATEMENTS_KEPT)
        .options(SETTINGS)
        .disable_statement_logging())
}

/// The place, without a password.
fn place(options: &PgOptions) -> String {
    match PgConnectOptions::from_str(&options.url) {
        Ok(url) => format!("{}:{}/{}", url.get_host(), url.get_port(), url.get_database().unwrap_or("")),
        Err(_) => "the database".to_owned(),
    }
}

fn refuse(options: &PgOptions, found: &sqlx::Error) -> Error {
    Error::Open { reason: format!("{}: {found}", place(options)) }
}

/// A server that is not there, or not yet, may be there later; one that says no will say it again.
fn away_or_refused(options: &PgOptions, found: &sqlx::Error) -> Error {
    match error::is_disconnect(found) {
        true => Error::Unavailable { reason: format!("{}: {found}", place(options)) },
        false => refuse(options, found),
    }
}

/// What the server says, not what we asked it for.
async fn check_server(options: &PgOptions, conn: &mut PgConnection) -> Result<String, Error> {
    let names = ["fsync", "synchronous_commit", "full_page_writes", "server_version_num", "server_encoding"];
    let mut settings = Vec::with_capacity(names.len());
    for name in names {
        let row = sqlx::query("select current_setting($1)").bind(name).fetch_one(&mut *conn).await;
        let row = row.map_err(|e| refuse(options, &e))?;
        settings.push(row.try_get::<String, _>(0).map_err(|e| refuse(options, &e))?);
    }
    let [fsync, commit, pages, version, encoding] = settings.try_into().expect("as many as were asked for");
    let place = place(options);
    if version.parse::<i64>().is_ok_and(|version| version < SERVER_MIN) {
        let reason = format!("{place}: expected PostgreSQL 14 or newer, got {version}; upgrade it");
        return Err(Error::Open { reason });
    }
    if encoding != "UTF8" {
        let reason = format!("{place}: expected a database in UTF8, got {encoding}; create one with encoding 'UTF8'");
        return Err(Error::Open { reason });
    }
    durability(&fsync, &commit, &pages, options.unsafe_durability)
        .map_err(|reason| Error::Open { reason: format!("{place}: {reason}") })
}

/// What makes a commit durable, or why nothing does. `remote_apply` is more than `on`.
fn durability(fsync: &str, commit: &str, pages: &str, unsafe_is_fine: bool) -> Result<String, String> {
    let safe = fsync == "on" && pages == "on" && matches!(commit, "on" | "remote_apply");
    if safe || unsafe_is_fine {
        return Ok(format!("fsync={fsync}, synchronous_commit={commit}, full_page_writes={pages}"));
    }
    Err(format!(
        "expected fsync, full_page_writes and synchronous_commit on, got {fsync}, {pages} and {commit}; a power cut would \
         lose acknowledged jobs: set them in postgresql.conf"
    ))
}

/// What a database says of itself to somebody who only looks.
#[derive(Clone, Debug)]
pub struct Look {
    pub kind: String,
    pub durability: String,
    /// The newest schema that was applied; `None`: there is none yet.
    pub schema: Option<i64>,
    /// The newest that this program knows, to which an opening brings it.
    pub schema_known: i64,
    /// By the database's clock.
    pub now: Timestamp,
}

/// Changes nothing. Fails as an opening would, but for the schema, which is only told.
pub(super) async fn look(options: &PgOptions) -> Result<Look, Error> {
    let connect = connect_options(options)?;
    let mut conn = within(CONNECT_WAIT, connect.connect()).await.map_err(|e| away_or_refused(options, &e))?;
    let durability = within_open(options.answer_max, options, check_server(options, &mut conn)).await?;
    let facts = "select current_setting('server_version'), (extract(epoch from clock_timestamp()) * 1000000)::bigint, \
                 to_regclass('_sqlx_migrations') is not null";
    let facts = within(options.answer_max, sqlx::query(facts).fetch_one(&mut conn)).await;
    let facts = facts.map_err(|e| away_or_refused(options, &e))?;
    let unreadable = |e: sqlx::Error| refuse(options, &e);
    let version: String = facts.try_get(0).map_err(unreadable)?;
    let mut schema = None;
    if facts.try_get::<bool, _>(2).map_err(unreadable)? {
        let newest = sqlx::query("select max(version) from _sqlx_migrations where success").fetch_one(&mut conn);
        let newest = within(options.answer_max, newest).await.map_err(|e| away_or_refused(options, &e))?;
        schema = newest.try_get(0).map_err(unreadable)?;
    }
    Ok(Look {
        kind: format!("postgres {}", version.split_whitespace().next().unwrap_or_default()),
        durability,
        schema,
        schema_known: newest_known(),
        now: Timestamp(facts.try_get(1).map_err(unreadable)?),
    })
}

fn newest_known() -> i64 {
    MIGRATIONS.iter().map(|m| m.0).max().unwrap_or(0)
}

/// Under a lock of the database's (the migrator takes it), so daemons that start together wait for the first.
async fn migrate(options: &PgOptions, conn: &mut PgConnection) -> Result<i64, Error> {
    let known = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let newest = newest_known();
    let place = place(options);
    match Migrator::with_migrations(known.to_vec()).run(&mut *conn).await {
        Ok(()) => Ok(newest),
        Err(MigrateError::VersionMissing(found)) => {
            let reason = format!(
                "{place}: expected schema {newest} or older, got {found}; start the version of tidegate that wrote it, or \
                 a newer one"
            );
            Err(Error::Open { reason })
        }
        Err(e) => Err(Error::Open { reason: format!("{place}: the schema could not be brought up to date: {e}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_forgets_is_refused_unless_that_is_wanted() {
        assert!(durability("on", "on", "on", false).is_ok() && durability("on", "remote_apply", "on", false).is_ok());
        for [fsync, commit, pages] in
            [["off", "on", "on"], ["on", "off", "on"], ["on", "local", "on"], ["on", "on", "off"]]
        {
            let refused = durability(fsync, commit, pages, false).unwrap_err();
            assert!(refused.contains(&format!("got {fsync}, {pages} and {commit}")), "{refused}");
            assert!(durability(fsync, commit, pages, true).is_ok());
        }
    }
}

//! Opening a database: sole ownership, a schema this program knows, and a durability that was read back.
//!
//! Whatever does not fit is refused with what was found and what to do; nothing is ever recreated. Next: `desk`.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlSafeStr, SqliteConnection};

use super::row::Columns;
use super::{SqliteOptions, error};
use crate::mutant;
use crate::store::Error;

/// "TDGT": tells our files from those of other programs (SQLite's `application_id`).
const APPLICATION_ID: i64 = 0x5444_4754;

/// Page cache of the writer, KiB. Random keys of a long backlog live from the system's cache; this holds the upper
/// levels of the indexes.
const WRITER_CACHE_KIB: i64 = 16_384;
const READER_CACHE_KIB: i64 = 2_048;
/// Pages of the log after which a commit copies them back. More makes fewer but longer pauses.
const WAL_PAGES: u32 = 2_000;
/// The log is cut to this when it has been copied back.
const WAL_BYTES_KEPT: u32 = 64 << 20;
/// Rows a connection hands over ahead of its reader.
const ROWS_AHEAD: usize = 1_024;
const STATEMENTS_KEPT: usize = 256;
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// How long a killed owner may take to end, and how often that is looked at.
const DYING_MAX: Duration = Duration::from_secs(5);
const DYING_PAUSE: Duration = Duration::from_millis(20);

/// All schemas, in order. Files of `migrations/sqlite` never change once released.
const MIGRATIONS: [(i64, &str, &str); 13] = [
    (1, "first", include_str!("../../../migrations/sqlite/0001_first.sql")),
    (2, "retention", include_str!("../../../migrations/sqlite/0002_retention.sql")),
    (3, "cluster", include_str!("../../../migrations/sqlite/0003_cluster.sql")),
    (4, "spread", include_str!("../../../migrations/sqlite/0004_spread.sql")),
    (6, "tokens", include_str!("../../../migrations/sqlite/0006_tokens.sql")),
    (7, "records", include_str!("../../../migrations/sqlite/0007_records.sql")),
    (8, "schedules", include_str!("../../../migrations/sqlite/0008_schedules.sql")),
    (9, "outside", include_str!("../../../migrations/sqlite/0009_outside.sql")),
    (10, "no_saved_limits", include_str!("../../../migrations/sqlite/0010_no_saved_limits.sql")),
    (12, "call_log", include_str!("../../../migrations/sqlite/0012_call_log.sql")),
    (14, "webhooks", include_str!("../../../migrations/sqlite/0014_webhooks.sql")),
    (17, "alerts", include_str!("../../../migrations/sqlite/0017_alerts.sql")),
    (18, "jobs_of_runs", include_str!("../../../migrations/sqlite/0018_jobs_of_runs.sql")),
];

pub(super) struct Opened {
    pub lock: File,
    pub writer: SqliteConnection,
    pub readers: SqlitePool,
    pub schema_version: i64,
    pub kind: String,
    pub durability: String,
}

pub(super) async fn open(options: &SqliteOptions) -> Result<Opened, Error> {
    let lock = own(&options.path).await?;
    let mut writer = writer_options(options).connect().await.map_err(|e| refuse(&options.path, &e))?;
    check_owner(&options.path, &mut writer).await?;
    let schema_version = migrate(&options.path, &mut writer).await?;
    let durability = check_durability(&options.path, &mut writer).await?;
    let version: String =
        one(&options.path, &mut writer, "select sqlite_version()", |c| c.str().map(str::to_owned)).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(options.readers_max)
        .min_connections(0)
        .test_before_acquire(false)
        .acquire_timeout(BUSY_WAIT)
        .connect_lazy_with(reader_options(options));
    Ok(Opened { lock, writer, readers, schema_version, kind: format!("sqlite {version}"), durability })
}

fn base(options: &SqliteOptions, cache_kib: i64) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(&options.path)
        .busy_timeout(BUSY_WAIT)
        .statement_cache_capacity(STATEMENTS_KEPT)
        .row_buffer_size(ROWS_AHEAD)
        .pragma("cache_size", (-cache_kib).to_string())
        .pragma("temp_store", "memory")
        .disable_statement_logging()
}

fn writer_options(options: &SqliteOptions) -> SqliteConnectOptions {
    base(options, WRITER_CACHE_KIB)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(if mutant::on("no-fsync") { SqliteSynchronous::Normal } else { SqliteSynchronous::Full })
        .pragma("wal_autocheckpoint", WAL_PAGES.to_string())
        .pragma("journal_size_limit", WAL_BYTES_KEPT.to_string())
}

fn reader_options(options: &SqliteOptions) -> SqliteConnectOptions {
    base(options, READER_CACHE_KIB).pragma("query_only", "on")
}

/// Locks the file beside the database for as long as it is open, and leaves our process id in it.
async fn own(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let failed = |e: &dyn std::fmt::Display| Error::Open { reason: format!("{}: {e}", name.display()) };
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&name);
    let mut file = options.map_err(|e| failed(&e))?;
    let mut waited = Duration::ZERO;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(e) => return Err(failed(&e)),
        }
        let mut holder = String::new();
        // Best effort: without the number the refusal still says enough.
        file.rewind().and_then(|()| file.read_to_string(&mut holder)).ok();
        let holder = holder.trim();
        // A process that was killed holds its files until its last thread has ended.
        if waited < DYING_MAX && is_dying(holder) {
            tokio::time::sleep(DYING_PAUSE).await;
            waited += DYING_PAUSE;
            continue;
        }
        let holder = if holder.is_empty() { "unknown" } else { holder };
        let reason = format!("{} is in use by process {holder}; stop it first", path.display());
        return Err(Error::Open { reason });
    }
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|e| failed(&e))?;
    Ok(file)
}

/// Has the process ended, but for what the kernel has yet to clear away?
fn is_dying(holder: &str) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{holder}/status")) else { return !holder.is_empty() };
    status.lines().any(|line| line.starts_with("State:") && line.contains(['Z', 'X']))
}

fn refuse(path: &Path, found: &sqlx::Error) -> Error {
    let reason = match error::of_ref(found) {
        Error::Fatal { reason } => {
            format!("{}: {reason}; expected a tidegate database, restore a backup", path.display())
        }
        _ => format!("{}: {found}", path.display()),
    };
    Error::Open { reason }
}

async fn one<T>(
    path: &Path,
    conn: &mut SqliteConnection,
    query: &'static str,
    read: impl FnOnce(&mut Columns<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let row = sqlx::query(query).fetch_one(conn).await.map_err(|e| refuse(path, &e))?;
    read(&mut Columns::of(&row))
}

/// An empty file becomes ours; one with tables must carry our mark.
async fn check_owner(path: &Path, conn: &mut SqliteConnection) -> Result<(), Error> {
    let id = one(path, conn, "pragma application_id", |c| c.int()).await?;
    let tables = one(path, conn, "select count(*) from sqlite_schema", |c| c.int()).await?;
    if id == APPLICATION_ID {
        return Ok(());
    }
    if id != 0 || tables != 0 {
        let reason = format!(
            "{}: expected a tidegate database, got one of another program (application id {id}, {tables} tables and \
             indexes); choose another path",
            path.display()
        );
        return Err(Error::Open { reason });
    }
    let mark = sqlx::query("pragma application_id = 1413760852").execute(conn).await;
    mark.map(drop).map_err(|e| refuse(path, &e))
}

async fn migrate(path: &Path, conn: &mut SqliteConnection) -> Result<i64, Error> {
    let known = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let newest = MIGRATIONS.iter().map(|m| m.0).max().unwrap_or(0);
    match Migrator::with_migrations(known.to_vec()).run(&mut *conn).await {
        Ok(()) => Ok(newest),
        Err(MigrateError::VersionMissing(found)) => {
            let reason = format!(
                "{}: expected schema {newest} or older, got {found}; start the version of tidegate that wrote it, or a \
                 newer one",
                path.display()
            );
            Err(Error::Open { reason })
        }
        Err(e) => {
            Err(Error::Open { reason: format!("{}: the schema could not be brought up to date: {e}", path.display()) })
        }
    }
}

/// What SQLite says, not what we asked it for.
async fn check_durability(path: &Path, conn: &mut SqliteConnection) -> Result<String, Error> {
    let journal = one(path, conn, "pragma journal_mode", |c| c.str().map(str::to_owned)).await?;
    let synchronous = one(path, conn, "pragma synchronous", |c| c.int()).await?;
    if journal == "wal" && (synchronous == 2 || mutant::on("no-fsync")) {
        return Ok("wal, synchronous=FULL".to_owned());
    }
    let reason = format!(
        "{}: expected journal mode wal and synchronous 2 (FULL), got {journal} and {synchronous}; use a local disk",
        path.display()
    );
    Err(Error::Open { reason })
}

//! The embedded store: one SQLite file, one writer with group commit, a few readers.
//!
//! Every commit is one transaction: load in bulk what the batch touches, let `store::rules` decide, write back in
//! bulk. Costs follow the batch and never the backlog; `cargo bench --bench store` prints the figures. SQL lives in the files
//! beside this one. Must never know: providers' rules, HTTP. Next: `sqlite/open`, then `sqlite/work`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::RwLock;

use async_trait::async_trait;
use sqlx::{Connection, SqliteConnection, SqlitePool};
use tokio::sync::Mutex;

use self::desk::Desk;
use self::trip::Trip;
use self::work::Work;
use super::line::Line;
use super::row::{self, Columns};
use super::{
    AppliedProvider, Batch, CallPage, Committed, Delivered, Error, JobPage, JournalEntry, Store, StoreInfo, Tally,
    Whose, labels_text, packed,
};
use crate::clock::Timestamp;
use crate::model::alert::Raised;
use crate::model::call::Call;
use crate::model::event::Event;
use crate::model::filter::Filter;
use crate::model::flow::Flow;
use crate::model::id::{CallId, FlowId, JobId, RunId};
use crate::model::job::{ClaimedJob, Job};
use crate::model::name::ScheduleName;
use crate::model::run::Run;
use crate::model::schedule::Schedule;

mod begin;
mod bulk;
mod change;
mod desk;
mod enqueue;
mod error;
mod finish;
mod lists;
mod open;
mod read;
mod read_records;
mod records;
mod schedules;
mod sql;
mod tokens;
mod trip;
mod work;

/// How to open a database.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The database file. `path.lock`, `path-wal` and `path-shm` stand beside it.
    pub path: PathBuf,
    /// Reading connections at most, each a thread and about 2 MiB of cache. Default 3.
    pub readers_max: u32,
}

impl SqliteOptions {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        SqliteOptions { path: path.into(), readers_max: 3 }
    }
}

/// Store in one SQLite file, owned by this process alone while it is open.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    writer: Mutex<Option<Writer>>,
    readers: SqlitePool,
    kind: String,
    schema_version: i64,
    durability: String,
    facts: RwLock<Facts>,
}

#[derive(Debug)]
struct Writer {
    conn: SqliteConnection,
    desk: Desk,
    /// The last commit's outcome is not known to have reached the desk: read it anew before the next.
    in_doubt: bool,
    /// Held for as long as the writer lives.
    _lock: File,
}

/// What `info` tells of the writer without waiting for it.
#[derive(Clone, Copy, Debug)]
struct Facts {
    epoch: i64,
    steady_floor: Timestamp,
}

impl SqliteStore {
    /// Opens or creates the database. [`Error::Open`] says what is in the way: another process (with its number),
    /// another program's file, a newer schema, a file system that cannot make commits durable.
    pub async fn open(options: SqliteOptions) -> Result<SqliteStore, Error> {
        let mut opened = open::open(&options).await?;
        let desk = Desk::read(&mut opened.writer).await?;
        let facts = RwLock::new(Facts { epoch: desk.epoch, steady_floor: desk.steady_floor });
        Ok(SqliteStore {
            path: options.path,
            writer: Mutex::new(Some(Writer { conn: opened.writer, desk, in_doubt: false, _lock: opened.lock })),
            readers: opened.readers,
            kind: opened.kind,
            schema_version: opened.schema_version,
            durability: opened.durability,
            facts,
        })
    }

    fn readers(&self) -> Result<&SqlitePool, Error> {
        if self.readers.is_closed() { Err(closed()) } else { Ok(&self.readers) }
    }

    fn facts(&self) -> Facts {
        *self.facts.read().expect("nothing panics while it holds the facts")
    }
}

fn closed() -> Error {
    Error::Unavailable { reason: "the store is closed".to_owned() }
}

impl Writer {
    async fn commit(&mut self, batch: Batch) -> Result<Committed, Error> {
        self.settle().await?;
        self.in_doubt = true;
        let work = Work::new(Trip::begin(&mut self.conn), &mut self.desk, &batch);
        let done = work.apply(batch).await;
        if done.is_err() {
            // At once, so that nothing stays locked; when it fails too, the next commit begins with it.
            self.settle().await.ok();
        }
        let (done, learned) = done?;
        self.desk.learn(learned);
        self.in_doubt = false;
        Ok(done)
    }

    /// After a commit that failed or was cut off: rolls back whatever it left open and reads the desk anew.
    async fn settle(&mut self) -> Result<(), Error> {
        if self.in_doubt {
            // It is an error to roll back nothing, and no matter.
            sqlx::query("rollback").execute(&mut self.conn).await.ok();
            self.desk = Desk::read(&mut self.conn).await?;
            self.in_doubt = false;
        }
        Ok(())
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn commit(&self, batch: Batch) -> Result<Committed, Error> {
        let mut writer = self.writer.lock().await;
        let writer = writer.as_mut().ok_or_else(closed)?;
        let done = writer.commit(batch).await?;
        let facts = Facts { epoch: writer.desk.epoch, steady_floor: writer.desk.steady_floor };
        *self.facts.write().expect("nothing panics while it holds the facts") = facts;
        Ok(done)
    }

    async fn info(&self) -> Result<StoreInfo, Error> {
        let meta = sqlx::query(sql::META).fetch_one(self.readers()?).await.map_err(error::of)?;
        let mut meta = Columns::of(&meta);
        let _epoch = meta.int()?;
        let steady = meta.opt_str()?.map(str::to_owned).zip(meta.opt_int()?);
        let (_floor, _seq, _call) = (meta.int()?, meta.int()?, meta.int()?);
        let limiter_run = meta.opt_str()?.map(str::to_owned);
        let mut size_bytes = 0;
        for suffix in ["", "-wal"] {
            let mut name = self.path.as_os_str().to_owned();
            name.push(suffix);
            size_bytes += std::fs::metadata(name).map_or(0, |file| file.len());
        }
        let Facts { epoch, steady_floor } = self.facts();
        Ok(StoreInfo {
            kind: self.kind.clone(),
            schema_version: self.schema_version,
            durability: self.durability.clone(),
            epoch,
            steady,
            steady_floor,
            size_bytes,
            db_now: None,
            daemon: None,
            limiter_run,
        })
    }

    async fn remember_steady(&self, boot: &str, offset_us: i64) -> Result<(), Error> {
        let mut writer = self.writer.lock().await;
        let writer = writer.as_mut().ok_or_else(closed)?;
        writer.settle().await?;
        let save = sqlx::query(sql::SAVE_STEADY).bind(boot).bind(offset_us);
        save.execute(&mut writer.conn).await.map(drop).map_err(error::of)
    }

    async fn bump_epoch(&self, expect: i64, limiter_run: &str) -> Result<i64, Error> {
        let mut writer = self.writer.lock().await;
        let writer = writer.as_mut().ok_or_else(closed)?;
        writer.settle().await?;
        writer.in_doubt = true;
        let bump = sqlx::query(sql::BUMP_EPOCH).bind(expect).bind(limiter_run);
        bump.execute(&mut writer.conn).await.map_err(error::of)?;
        writer.settle().await?;
        let epoch = writer.desk.epoch;
        self.facts.write().expect("nothing panics while it holds the facts").epoch = epoch;
        Ok(epoch)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        Ok(self.read_jobs(&[id.seq]).await?.pop().filter(|job| job.id == id))
    }

    async fn jobs(&self, seqs: &[i64]) -> Result<Vec<Job>, Error> {
        self.read_jobs(seqs).await
    }

    async fn list_jobs(&self, filter: &Filter, before: Option<i64>, limit: usize) -> Result<JobPage, Error> {
        self.read_list(filter, before, limit).await
    }

    async fn blocker(&self, job: &Job) -> Result<Option<Job>, Error> {
        self.line_blocker(job).await
    }

    async fn ahead(&self, job: &Job) -> Result<u64, Error> {
        self.line_ahead(job).await
    }

    async fn oldest_ready(&self, flow: FlowId) -> Result<Option<Timestamp>, Error> {
        self.line_oldest(flow).await
    }

    async fn call(&self, id: CallId) -> Result<Option<Call>, Error> {
        Ok(self.read_calls(&[id]).await?.pop())
    }

    async fn calls(&self, ids: &[CallId]) -> Result<Vec<Call>, Error> {
        self.read_calls(ids).await
    }

    async fn list_calls(
        &self,
        filter: &Filter,
        before: Option<CallId>,
        limit: usize,
        bodies: bool,
    ) -> Result<CallPage, Error> {
        self.read_call_list(filter, before, limit, bodies).await
    }

    async fn open_calls(&self, _whose: Whose, after: CallId, limit: usize) -> Result<Vec<Call>, Error> {
        self.read_open_calls(after, limit).await
    }

    async fn claimed(&self, call: CallId) -> Result<Vec<ClaimedJob>, Error> {
        self.read_claimed(call).await
    }

    async fn journal(&self, since: Timestamp, after: CallId, limit: usize) -> Result<Vec<JournalEntry>, Error> {
        self.read_journal(since, after, limit).await
    }

    async fn flows(&self, after: FlowId, limit: usize) -> Result<Vec<Flow>, Error> {
        self.read_busy_flows(after, limit).await
    }

    async fn flow(&self, id: FlowId) -> Result<Option<Flow>, Error> {
        self.read_flow(id).await
    }

    async fn tallies(&self) -> Result<Vec<Tally>, Error> {
        self.read_tallies().await
    }

    async fn next_due(&self) -> Result<Timestamp, Error> {
        self.read_next_due().await
    }

    async fn run(&self, id: RunId) -> Result<Option<Run>, Error> {
        self.read_run(id).await
    }

    async fn list_runs(&self, before: Option<i64>, limit: usize) -> Result<Vec<Run>, Error> {
        self.read_runs(before, limit).await
    }

    async fn run_flows(&self, run: RunId, limit: usize) -> Result<Vec<Flow>, Error> {
        self.read_run_flows(run, limit).await
    }

    async fn run_delivered(
        &self,
        run: RunId,
        below: Option<(i64, i64)>,
        limit: usize,
    ) -> Result<Vec<Delivered>, Error> {
        self.read_delivered(run, below, limit).await
    }

    async fn providers(&self) -> Result<Vec<AppliedProvider>, Error> {
        self.read_providers().await
    }

    async fn schedules(&self) -> Result<Vec<Schedule>, Error> {
        self.read_schedules().await
    }

    async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>, Error> {
        self.read_schedule(name).await
    }

    async fn alerts(&self) -> Result<Vec<Raised>, Error> {
        self.read_alerts().await
    }

    async fn events(&self, after: i64, limit: usize) -> Result<Vec<Event>, Error> {
        self.read_events(after, limit).await
    }

    async fn event_bounds(&self) -> Result<(i64, i64), Error> {
        self.read_event_bounds().await
    }

    async fn backup(&self, path: &Path) -> Result<(), Error> {
        self.copy_to(path).await
    }

    async fn close(&self) {
        self.readers.close().await;
        if let Some(writer) = self.writer.lock().await.take() {
            // The last connection copies the log back; when it cannot, the next open does.
            writer.conn.close().await.ok();
        }
    }
}

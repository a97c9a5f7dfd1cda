//! The store that many daemons share: one PostgreSQL.
//!
//! Every commit is one transaction with a handful of statements, whatever the number of jobs: lock and load what the
//! batch touches, let `store::rules` decide, write back by arrays, add to the counters, take numbers for the events last.
//! Nothing that another daemon can change is remembered from one commit to the next. SQL lives in the files beside this
//! one. Must never know: providers' rules, HTTP. Next: `postgres/open`, then `postgres/commit`.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use self::days::Days;
use self::keys::Keys;
use self::lender::Lender;
pub use self::open::{Look, SETTINGS};
use super::line::Line;
use super::row::{self, Columns};
use super::{
    AppliedProvider, Batch, CallPage, Committed, Delivered, Error, JobPage, JournalEntry, Notice, Store, StoreInfo,
    Tally, Whose, labels_text,
};
use crate::clock::Timestamp;
use crate::model::alert::Raised;
use crate::model::call::Call;
use crate::model::event::Event;
use crate::model::filter::Filter;
use crate::model::flow::Flow;
use crate::model::id::{CallId, DaemonId, FlowId, JobId, RunId};
use crate::model::job::{ClaimedJob, Job};
use crate::model::name::ScheduleName;
use crate::model::run::Run;
use crate::model::schedule::Schedule;

mod arrays;
mod begin;
mod change;
mod commit;
mod counts;
mod days;
mod declare;
mod enqueue;
mod error;
mod finish;
mod keys;
mod leases;
mod lender;
mod lists;
mod notices;
mod open;
mod read;
mod read_records;
mod records;
mod runs;
mod schedules;
mod sql;
mod tokens;
mod work;

/// How to open a database.
#[derive(Clone)]
pub struct PgOptions {
    /// `postgres://user:password@host:port/database?sslmode=verify-full`
    pub url: String,
    /// Connections at most, the listening one among them. Default 8.
    pub connections_max: u32,
    /// An operation without an answer for this long is given up, and its connection with it. Default 12 s: the server gives
    /// up first, where it is there (`statement_timeout`), and an actor may be silent for 15 s.
    pub answer_max: Duration,
    /// For tests that need no durability: accept a server that loses commits in a power cut.
    pub unsafe_durability: bool,
}

impl PgOptions {
    pub fn new(url: impl Into<String>) -> Self {
        PgOptions { url: url.into(), connections_max: 8, answer_max: Duration::from_secs(12), unsafe_durability: false }
    }
}

/// Without the URL, which may hold a password.
impl std::fmt::Debug for PgOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgOptions").field("connections_max", &self.connections_max).finish_non_exhaustive()
    }
}

/// Store in one PostgreSQL database, shared with others of its kind.
#[derive(Debug)]
pub struct PgStore {
    lender: Lender,
    /// For the connection that listens: the driver takes it from a pool of its kind only.
    listeners: sqlx::PgPool,
    daemon: DaemonId,
    kind: String,
    schema_version: i64,
    durability: String,
    days: Days,
    keys: Keys,
    /// Passes notices on; ends with the store.
    listening: Mutex<JoinSet<()>>,
}

impl PgStore {
    /// Opens the database and brings its schema up to date. [`Error::Open`] says what is in the way: no connection, a
    /// newer schema, settings that would lose acknowledged jobs.
    pub async fn open(options: PgOptions) -> Result<PgStore, Error> {
        let opened = open::open(&options).await?;
        let store = PgStore {
            lender: opened.lender,
            listeners: opened.listeners,
            daemon: opened.daemon,
            kind: opened.kind,
            schema_version: opened.schema_version,
            durability: opened.durability,
            days: Days::default(),
            keys: Keys::default(),
            listening: Mutex::default(),
        };
        let today = store.db_now().await?;
        for day in 0..2 {
            store.days.make(&store.lender, Timestamp(today.0 + day * days::DAY_US)).await?;
        }
        Ok(store)
    }

    /// Looks at a database without opening it: nothing is changed, no schema is brought up to date.
    pub async fn look(options: PgOptions) -> Result<Look, Error> {
        open::look(&options).await
    }

    /// Who this opening of the store is among all that share it.
    pub fn daemon(&self) -> DaemonId {
        self.daemon
    }

    fn lender(&self) -> Result<&Lender, Error> {
        if self.lender.is_closed() { Err(closed()) } else { Ok(&self.lender) }
    }
}

fn closed() -> Error {
    Error::Unavailable { reason: "the store is closed".to_owned() }
}

#[async_trait]
impl Store for PgStore {
    async fn commit(&self, batch: Batch) -> Result<Committed, Error> {
        self.lender()?;
        self.commit_batch(&batch).await
    }

    async fn info(&self) -> Result<StoreInfo, Error> {
        let meta = self.lender()?.ask_one(sqlx::query(sql::META)).await.map_err(error::of)?;
        let mut meta = Columns::of(&meta);
        let epoch = meta.int()?;
        let steady = meta.opt_str()?.map(str::to_owned).zip(meta.opt_int()?);
        let steady_floor = meta.time()?;
        let limiter_run = meta.opt_str()?.map(str::to_owned);
        let (db_now, size) = (meta.time()?, meta.int()?);
        Ok(StoreInfo {
            kind: self.kind.clone(),
            schema_version: self.schema_version,
            durability: self.durability.clone(),
            epoch,
            steady,
            steady_floor,
            size_bytes: size.unsigned_abs(),
            db_now: Some(db_now),
            daemon: Some(self.daemon),
            limiter_run,
        })
    }

    async fn remember_steady(&self, boot: &str, offset_us: i64) -> Result<(), Error> {
        let save = sqlx::query(sql::SAVE_STEADY).bind(boot).bind(offset_us);
        self.lender()?.ask(save).await.map(drop).map_err(error::of)
    }

    async fn bump_epoch(&self, expect: i64, limiter_run: &str) -> Result<i64, Error> {
        let bump = sqlx::query(sql::BUMP_EPOCH).bind(expect).bind(limiter_run);
        self.lender()?.ask(bump).await.map_err(error::of)?;
        Ok(self.info().await?.epoch)
    }

    async fn notices(&self) -> Result<Option<mpsc::Receiver<Notice>>, Error> {
        let (receiver, work) =
            notices::listen(self.lender().map(|_| self.listeners.clone())?, self.daemon, self.lender.answer_max)
                .await?;
        let mut listening = self.listening.lock().await;
        listening.abort_all();
        listening.spawn(work);
        Ok(Some(receiver))
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

    async fn open_calls(&self, whose: Whose, after: CallId, limit: usize) -> Result<Vec<Call>, Error> {
        self.read_open_calls(whose, after, limit).await
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

    async fn backup(&self, _path: &Path) -> Result<(), Error> {
        let reason = "expected a store in a file, got one on a server; back it up with pg_dump or pg_basebackup";
        Err(Error::Unavailable { reason: reason.to_owned() })
    }

    async fn close(&self) {
        self.listening.lock().await.abort_all();
        self.lender.close().await;
        // Its connection ended with the task above.
        tokio::time::timeout(Duration::from_secs(1), self.listeners.close()).await.ok();
    }
}

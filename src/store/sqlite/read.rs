//! The reading half: every read is one indexed query on a connection of its own, or two.

use std::path::Path;

use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};

use super::bulk::json;
use super::row::{self, Columns};
use super::{SqliteStore, error, sql};
use crate::clock::Timestamp;
use crate::model::alert::Raised;
use crate::model::call::Call;
use crate::model::event::{Event, What};
use crate::model::flow::{Class, Flow};
use crate::model::id::{CallId, FlowId, RunId};
use crate::model::job::{ClaimedJob, Job};
use crate::model::name::ScheduleName;
use crate::model::run::Run;
use crate::model::schedule::Schedule;
use crate::store::line::Line;
use crate::store::{AppliedProvider, Delivered, Error, JournalEntry, PAGE_MAX, Tally, page};

pub(super) type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

impl SqliteStore {
    pub(super) async fn rows<T>(
        &self,
        query: Query<'_>,
        read: impl Fn(&SqliteRow) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let rows = query.fetch_all(self.readers()?).await.map_err(error::of)?;
        rows.iter().map(read).collect()
    }

    pub(super) async fn row<T>(
        &self,
        query: Query<'_>,
        read: impl Fn(&SqliteRow) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let row = query.fetch_optional(self.readers()?).await.map_err(error::of)?;
        row.as_ref().map(read).transpose()
    }

    pub(super) async fn read_jobs(&self, seqs: &[i64]) -> Result<Vec<Job>, Error> {
        let seqs = json(seqs.iter().take(PAGE_MAX).copied());
        self.rows(sqlx::query(sql::JOBS).bind(seqs), row::job).await
    }

    pub(super) async fn read_calls(&self, ids: &[CallId]) -> Result<Vec<Call>, Error> {
        let ids = json(ids.iter().take(PAGE_MAX).map(|id| id.0));
        self.rows(sqlx::query(sql::CALLS).bind(ids), row::call).await
    }

    pub(super) async fn read_open_calls(&self, after: CallId, limit: usize) -> Result<Vec<Call>, Error> {
        self.rows(sqlx::query(sql::OPEN_CALLS).bind(after.0).bind(page(limit) as i64), row::call).await
    }

    pub(super) async fn read_claimed(&self, id: CallId) -> Result<Vec<ClaimedJob>, Error> {
        let Some(call) = self.read_calls(&[id]).await?.pop() else { return Ok(Vec::new()) };
        self.rows(sqlx::query(sql::CLAIMED).bind(json(call.jobs)).bind(id.0), row::claimed).await
    }

    pub(super) async fn read_journal(
        &self,
        since: Timestamp,
        after: CallId,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, Error> {
        let query = sqlx::query(sql::JOURNAL).bind(since.0).bind(after.0).bind(page(limit) as i64);
        self.rows(query, row::journal_entry).await
    }

    pub(super) async fn read_flow(&self, id: FlowId) -> Result<Option<Flow>, Error> {
        self.row(sqlx::query(sql::FLOWS_BY_ID).bind(json([id.0])), row::flow).await
    }

    pub(super) async fn read_busy_flows(&self, after: FlowId, limit: usize) -> Result<Vec<Flow>, Error> {
        self.rows(sqlx::query(sql::BUSY_FLOWS).bind(after.0).bind(page(limit) as i64), row::flow).await
    }

    pub(super) async fn read_tallies(&self) -> Result<Vec<Tally>, Error> {
        self.rows(sqlx::query(sql::TALLIES), row::tally).await
    }

    pub(super) async fn read_next_due(&self) -> Result<Timestamp, Error> {
        let due = self.row(sqlx::query(sql::NEXT_DUE), |row| Columns::of(row).opt_int()).await?;
        Ok(due.flatten().map_or(Timestamp::NEVER, Timestamp))
    }

    pub(super) async fn read_run(&self, id: RunId) -> Result<Option<Run>, Error> {
        let run = self.row(sqlx::query(sql::RUNS_BY_SEQ).bind(json([id.seq])), row::run).await?;
        Ok(run.filter(|run| run.id == id))
    }

    pub(super) async fn read_runs(&self, before: Option<i64>, limit: usize) -> Result<Vec<Run>, Error> {
        let query = sqlx::query(sql::LIST_RUNS).bind(before.unwrap_or(i64::MAX)).bind(page(limit) as i64);
        self.rows(query, row::run).await
    }

    pub(super) async fn read_run_flows(&self, run: RunId, limit: usize) -> Result<Vec<Flow>, Error> {
        let query = sqlx::query(sql::RUN_FLOWS).bind(run.seq).bind(1i64).bind(page(limit) as i64);
        self.rows(query, row::flow).await
    }

    pub(super) async fn read_delivered(
        &self,
        run: RunId,
        below: Option<(i64, i64)>,
        limit: usize,
    ) -> Result<Vec<Delivered>, Error> {
        let (turn, seq) = below.unwrap_or((i64::MAX, i64::MAX));
        let query = sqlx::query(sql::RUN_DELIVERED).bind(run.seq).bind(turn).bind(seq).bind(page(limit) as i64);
        self.rows(query, row::delivered).await
    }

    pub(super) async fn read_providers(&self) -> Result<Vec<AppliedProvider>, Error> {
        self.rows(sqlx::query(sql::PROVIDERS), row::provider).await
    }

    pub(super) async fn read_schedules(&self) -> Result<Vec<Schedule>, Error> {
        self.rows(sqlx::query(sql::SCHEDULES), row::schedule).await
    }

    pub(super) async fn read_schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>, Error> {
        self.row(sqlx::query(sql::SCHEDULE).bind(name.as_str()), row::schedule).await
    }

    pub(super) async fn read_alerts(&self) -> Result<Vec<Raised>, Error> {
        self.rows(sqlx::query(sql::ALERTS), row::alert).await
    }

    pub(super) async fn read_events(&self, after: i64, limit: usize) -> Result<Vec<Event>, Error> {
        let limit = page(limit);
        // Each row holds at least one event, and the first may hold none that is wanted.
        let query = sqlx::query(sql::EVENTS).bind(after).bind(limit as i64 + 1);
        let groups = self.rows(query, |row| {
            let mut columns = Columns::of(row);
            let (first, at, data) = (columns.int()?, columns.time()?, columns.str()?);
            let whats: Vec<What> = serde_json::from_str(data).map_err(|e| error::strange("events", e))?;
            Ok((first..).zip(whats).map(move |(seq, what)| Event { seq, at, what }))
        });
        let events = groups.await?.into_iter().flatten();
        Ok(events.filter(|event| event.seq > after).take(limit).collect())
    }

    pub(super) async fn read_event_bounds(&self) -> Result<(i64, i64), Error> {
        let bounds = self.row(sqlx::query(sql::EVENT_BOUNDS), |row| {
            let mut columns = Columns::of(row);
            Ok(columns.opt_int()?.zip(columns.opt_int()?))
        });
        Ok(bounds.await?.flatten().unwrap_or((1, 0)))
    }

    pub(super) async fn copy_to(&self, path: &Path) -> Result<(), Error> {
        let path = path.to_str().ok_or_else(|| Error::Unavailable {
            reason: format!("expected a path in UTF-8, got {}", path.display()),
        })?;
        // Readers may not write at all; this one may, to another file, and is closed after it.
        let mut reader = self.readers()?.acquire().await.map_err(error::of)?.detach();
        sqlx::query("pragma query_only = off").execute(&mut reader).await.map_err(error::of)?;
        let copy = sqlx::query("vacuum into ?").bind(path).execute(&mut reader).await;
        copy.map(drop).map_err(error::of)
    }
}

impl Line for SqliteStore {
    async fn place_of(&self, job: i64) -> Result<Option<(i64, Option<i64>)>, Error> {
        let place = self.row(sqlx::query(sql::PLACE_OF).bind(job), |row| {
            let mut columns = Columns::of(row);
            Ok((columns.int()?, columns.opt_int()?))
        });
        place.await
    }

    async fn first_of(&self, key_hash: i64) -> Result<Option<i64>, Error> {
        self.row(sqlx::query(sql::BLOCKER).bind(key_hash), |row| Columns::of(row).int()).await
    }

    async fn count_before(&self, flow: FlowId, class: Class, turn: i64, most: u64) -> Result<u64, Error> {
        let count = sqlx::query(sql::AHEAD).bind(flow.0).bind(class as i64).bind(turn).bind(most as i64);
        let count = self.row(count, |row| Columns::of(row).int()).await?.unwrap_or(0);
        Ok(u64::try_from(count).unwrap_or(0))
    }

    async fn turns(&self, flow: FlowId, class: Class) -> Result<Option<(i64, i64)>, Error> {
        let turns = sqlx::query(sql::TURN_BOUNDS).bind(flow.0).bind(class as i64);
        let turns = self.row(turns, |row| {
            let mut columns = Columns::of(row);
            Ok(columns.opt_int()?.zip(columns.opt_int()?))
        });
        Ok(turns.await?.flatten())
    }

    async fn first_due(&self, flow: FlowId, class: Class) -> Result<Option<Timestamp>, Error> {
        let first = sqlx::query(sql::OLDEST_READY).bind(flow.0).bind(class as i64);
        self.row(first, |row| Columns::of(row).time()).await
    }
}

//! Rows of either database to words of the model. Columns are read in the order in which the queries list them, and
//! both databases list them alike. Must never know: SQL, connections. Next: `sqlite`, `postgres`.

mod calls;
mod records;

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Error as SqlError, Row};

pub(super) use calls::{call, journal_entry, seen_texts};
pub(super) use records::{collection, extremes, forgotten, group, pull_text, record, record_row};

use super::packed;
use crate::clock::Timestamp;
use crate::model::alert::Raised;
use crate::model::call::{Ending, LimitKey, Permit};
use crate::model::flow::{Class, Flow, FlowCounts, FlowKey};
use crate::model::id::{CallId, FlowId, Id, JobId};
use crate::model::job::{ClaimedJob, Job, Labels};
use crate::model::name::{Account, AlertName, Key, OperationName, ProviderName, ScheduleName, Tenant};
use crate::model::run::{Run, RunState};
use crate::model::schedule::Schedule;
use crate::store::rules::{Core, Stand};
use crate::store::{AppliedProvider, CALLS_KEPT, Delivered, Error, Tally};

/// The three kinds of values that our tables hold. A column has the type that the schema says (SQLite's tables are
/// strict), so no value is checked again.
pub(super) trait Cells {
    fn int_at(&self, at: usize) -> Result<Option<i64>, SqlError>;
    fn str_at(&self, at: usize) -> Result<Option<&str>, SqlError>;
    fn bytes_at(&self, at: usize) -> Result<Option<&[u8]>, SqlError>;
}

macro_rules! cells {
    ($row:ty) => {
        impl Cells for $row {
            fn int_at(&self, at: usize) -> Result<Option<i64>, SqlError> {
                self.try_get_unchecked(at)
            }

            fn str_at(&self, at: usize) -> Result<Option<&str>, SqlError> {
                self.try_get_unchecked(at)
            }

            fn bytes_at(&self, at: usize) -> Result<Option<&[u8]>, SqlError> {
                self.try_get_unchecked(at)
            }
        }
    };
}

cells!(SqliteRow);
cells!(PgRow);

/// Reads columns from the left.
pub(super) struct Columns<'r, R = SqliteRow> {
    row: &'r R,
    at: usize,
}

type Read<T> = Result<T, Error>;

/// A stored value that no version of this program writes.
pub(super) fn strange(what: &str, value: impl std::fmt::Display) -> Error {
    Error::Fatal { reason: format!("expected {what} in the database, got {value}; restore a backup") }
}

fn unreadable(error: SqlError) -> Error {
    Error::Fatal { reason: error.to_string() }
}

impl<'r, R: Cells> Columns<'r, R> {
    pub(super) fn of(row: &'r R) -> Self {
        Columns { row, at: 0 }
    }

    fn at(&mut self) -> usize {
        self.at += 1;
        self.at - 1
    }

    fn there<T>(&self, value: Option<T>) -> Read<T> {
        value.ok_or_else(|| strange("a value", format!("null in column {}", self.at)))
    }

    /// Passes over a column.
    pub(super) fn skip(&mut self) {
        self.at();
    }

    pub(super) fn int(&mut self) -> Read<i64> {
        let value = self.opt_int()?;
        self.there(value)
    }

    pub(super) fn opt_int(&mut self) -> Read<Option<i64>> {
        let at = self.at();
        self.row.int_at(at).map_err(unreadable)
    }

    pub(super) fn str(&mut self) -> Read<&'r str> {
        let value = self.opt_str()?;
        self.there(value)
    }

    pub(super) fn opt_str(&mut self) -> Read<Option<&'r str>> {
        let at = self.at();
        self.row.str_at(at).map_err(unreadable)
    }

    pub(super) fn bytes(&mut self) -> Read<&'r [u8]> {
        let at = self.at();
        let value = self.row.bytes_at(at).map_err(unreadable)?;
        self.there(value)
    }

    pub(super) fn text(&mut self) -> Read<Arc<str>> {
        Ok(self.str()?.into())
    }

    pub(super) fn opt_text(&mut self) -> Read<Option<Arc<str>>> {
        Ok(self.opt_str()?.map(Arc::from))
    }

    pub(super) fn time(&mut self) -> Read<Timestamp> {
        self.int().map(Timestamp)
    }

    fn opt_time(&mut self) -> Read<Option<Timestamp>> {
        Ok(self.opt_int()?.map(Timestamp))
    }

    fn small<T: TryFrom<i64>>(&mut self) -> Read<T> {
        let n = self.int()?;
        T::try_from(n).map_err(|_| strange("a small number", n))
    }

    fn status(&mut self) -> Read<Option<u16>> {
        Ok(self.opt_int()?.and_then(|n| u16::try_from(n).ok()))
    }

    fn one_of<T>(&mut self, what: &str, make: impl Fn(u8) -> Option<T>) -> Read<T> {
        let n = self.int()?;
        u8::try_from(n).ok().and_then(make).ok_or_else(|| strange(what, n))
    }

    fn name<T, E>(&mut self, what: &str, make: impl Fn(&'r str) -> Result<T, E>) -> Read<T> {
        let s = self.str()?;
        make(s).map_err(|_| strange(what, s))
    }

    pub(super) fn provider(&mut self) -> Read<ProviderName> {
        self.name("a provider name", ProviderName::new)
    }

    pub(super) fn operation(&mut self) -> Read<OperationName> {
        self.name("an operation name", OperationName::new)
    }

    pub(super) fn account(&mut self) -> Read<Account> {
        self.name("an account", Account::new)
    }

    fn tenant(&mut self) -> Read<Tenant> {
        self.name("a tenant", Tenant::new)
    }

    pub(super) fn key(&mut self) -> Read<Option<Key>> {
        let Some(s) = self.opt_str()? else { return Ok(None) };
        Key::new(s).map(Some).map_err(|_| strange("a key", s))
    }

    fn class(&mut self) -> Read<Class> {
        self.one_of("a class", Class::from_u8)
    }

    fn labels(&mut self) -> Read<Labels> {
        let Some(s) = self.opt_str()? else { return Ok(Labels::new()) };
        serde_json::from_str(s).map_err(|_| strange("labels", s))
    }

    fn call_id(&mut self) -> Read<Option<CallId>> {
        Ok(self.opt_int()?.map(CallId))
    }

    pub(super) fn core(&mut self) -> Read<Core> {
        let seq = self.int()?;
        Ok(Core {
            id: JobId { seq, created_at: self.time()? },
            flow: FlowId(self.int()?),
            stand: self.one_of("a place", |n| Stand::from_i64(i64::from(n)))?,
            class: self.class()?,
            turn: self.int()?,
            key_hash: self.opt_int()?,
            version: self.small()?,
            attempts: self.small()?,
            crashes: self.small()?,
            throttles: self.small()?,
            due_at: self.time()?,
            updated_at: self.time()?,
            finished_at: self.opt_time()?,
            cancel_requested: self.int()? != 0,
            call: self.call_id()?,
            first_sent_at: self.opt_time()?,
            last_status: self.status()?,
            last_error: self.opt_text()?,
            result: self.opt_text()?,
        })
    }

    fn counts(&mut self) -> Read<FlowCounts> {
        Ok(FlowCounts {
            ready: [self.small()?, self.small()?, self.small()?],
            later: self.small()?,
            behind: self.small()?,
            calling: self.small()?,
            unknown: self.small()?,
            delivered: self.small()?,
            dead: self.small()?,
            cancelled: self.small()?,
        })
    }

    fn flow_key(&mut self) -> Read<FlowKey> {
        Ok(FlowKey {
            provider: self.provider()?,
            operation: self.operation()?,
            account: self.account()?,
            tenant: self.tenant()?,
            run: self.int()?,
            part: self.small()?,
        })
    }

    pub(super) fn flow(&mut self) -> Read<Flow> {
        let (id, key, counts) = (FlowId(self.int()?), self.flow_key()?, self.counts()?);
        let version = self.int()?;
        let state = self.opt_int()?.and_then(|n| RunState::from_u8(u8::try_from(n).ok()?));
        let held = key.run != 0 && state.is_none_or(RunState::holds_jobs);
        Ok(Flow { id, key, counts, held, version })
    }

    fn permit(&mut self) -> Read<Permit> {
        let spends = match self.opt_str()? {
            None => Vec::new(),
            Some(s) => serde_json::from_str::<Vec<(Arc<str>, u32)>>(s).map_err(|_| strange("spends", s))?,
        };
        let spends = spends.into_iter().map(|(key, cost)| (LimitKey(key), cost)).collect();
        Ok(Permit { spends, granted_at: self.time()?, epoch: self.int()? })
    }

    fn ending(&mut self) -> Read<Ending> {
        self.one_of("an ending", Ending::from_u8)
    }

    pub(super) fn packed(&mut self) -> Read<Vec<i64>> {
        let bytes = self.bytes()?;
        packed::unpack(bytes).ok_or_else(|| strange("packed numbers", format!("{} bytes", bytes.len())))
    }
}

pub(super) fn core<R: Cells>(row: &R) -> Read<Core> {
    Columns::of(row).core()
}

pub(super) fn job<R: Cells>(row: &R) -> Read<Job> {
    let mut columns = Columns::of(row);
    let core = columns.core()?;
    let key = columns.key()?;
    let payload = columns.text()?;
    let labels = columns.labels()?;
    let traceparent = columns.opt_text()?;
    let calls = calls_of(columns.opt_str()?, core.call);
    Ok(Job {
        id: core.id,
        flow: core.flow,
        flow_key: columns.flow_key()?,
        key,
        class: core.class,
        state: core.state(),
        place: core.stand.place(),
        turn: core.turn,
        payload,
        version: core.version,
        attempts: core.attempts,
        crashes: core.crashes,
        throttles: core.throttles,
        due_at: core.due_at,
        updated_at: core.updated_at,
        finished_at: core.finished_at,
        cancel_requested: core.cancel_requested,
        labels,
        traceparent,
        calls,
        last_status: core.last_status,
        last_error: core.last_error,
        result: core.result,
    })
}

/// Former calls as `begin_jobs.sql` keeps them: the text is cut at 640 bytes, maybe within a number.
fn calls_of(former: Option<&str>, last: Option<CallId>) -> Vec<CallId> {
    let former = former.unwrap_or("");
    let whole = if former.len() < 640 { former } else { former.split_once(',').map_or("", |cut| cut.1) };
    let mut calls: Vec<CallId> = whole.split(',').filter_map(|n| n.parse().ok()).map(CallId).collect();
    calls.extend(last);
    calls.split_off(calls.len().saturating_sub(CALLS_KEPT))
}

pub(super) fn claimed<R: Cells>(row: &R) -> Read<ClaimedJob> {
    let mut columns = Columns::of(row);
    let seq = columns.int()?;
    Ok(ClaimedJob {
        id: JobId { seq, created_at: columns.time()? },
        flow: FlowId(columns.int()?),
        class: columns.class()?,
        key: columns.key()?,
        payload: columns.text()?,
        version: columns.small()?,
        due_at: columns.time()?,
        attempts: columns.small()?,
        crashes: columns.small()?,
        throttles: columns.small()?,
        first_sent_at: columns.opt_time()?,
        traceparent: columns.opt_text()?,
    })
}

/// A ready job with the texts that a call needs (`claim.sql`).
pub(super) fn ready<R: Cells>(row: &R, flow: FlowId, class: Class) -> Read<(Core, ClaimedJob)> {
    ready_of(&mut Columns::of(row), flow, class)
}

pub(super) fn ready_of<R: Cells>(columns: &mut Columns<'_, R>, flow: FlowId, class: Class) -> Read<(Core, ClaimedJob)> {
    let seq = columns.int()?;
    let core = Core {
        id: JobId { seq, created_at: columns.time()? },
        flow,
        class,
        stand: Stand::Ready,
        turn: columns.int()?,
        key_hash: columns.opt_int()?,
        version: columns.small()?,
        attempts: columns.small()?,
        crashes: columns.small()?,
        throttles: columns.small()?,
        due_at: columns.time()?,
        updated_at: Timestamp::ZERO,
        finished_at: None,
        cancel_requested: false,
        call: None,
        first_sent_at: columns.opt_time()?,
        last_status: columns.status()?,
        last_error: columns.opt_text()?,
        result: columns.opt_text()?,
    };
    let claimed = ClaimedJob {
        id: core.id,
        flow,
        class,
        key: columns.key()?,
        payload: columns.text()?,
        version: core.version,
        due_at: core.due_at,
        attempts: core.attempts,
        crashes: core.crashes,
        throttles: core.throttles,
        first_sent_at: core.first_sent_at,
        traceparent: columns.opt_text()?,
    };
    Ok((core, claimed))
}

pub(super) fn flow<R: Cells>(row: &R) -> Read<Flow> {
    Columns::of(row).flow()
}

pub(super) fn tally<R: Cells>(row: &R) -> Read<Tally> {
    let mut columns = Columns::of(row);
    Ok(Tally { provider: columns.provider()?, operation: columns.operation()?, counts: columns.counts()? })
}

pub(super) fn delivered<R: Cells>(row: &R) -> Read<Delivered> {
    let mut columns = Columns::of(row);
    let (turn, seq) = (columns.int()?, columns.int()?);
    Ok(Delivered { turn, seq, provider: columns.provider()?, operation: columns.operation()? })
}

pub(super) fn run<R: Cells>(row: &R) -> Read<Run> {
    let mut columns = Columns::of(row);
    let seq = columns.int()?;
    Ok(Run {
        id: Id { seq, created_at: columns.time()? },
        display_name: columns.str()?.to_owned(),
        tenant: columns.tenant()?,
        labels: columns.labels()?,
        state: columns.one_of("a run state", RunState::from_u8)?,
        counts: columns.counts()?,
        updated_at: columns.time()?,
        finished_at: columns.opt_time()?,
        undo_of: columns.opt_int()?,
    })
}

pub(super) fn provider<R: Cells>(row: &R) -> Read<AppliedProvider> {
    let mut columns = Columns::of(row);
    Ok(AppliedProvider {
        name: columns.provider()?,
        source: columns.str()?.to_owned(),
        revision: columns.int()?,
        paused: columns.int()? != 0,
        applied_at: columns.time()?,
        actor: columns.str()?.to_owned(),
        memory: columns.opt_str()?.map(str::to_owned),
    })
}

pub(super) fn schedule<R: Cells>(row: &R) -> Read<Schedule> {
    let mut columns = Columns::of(row);
    let json = |what: &str, e: serde_json::Error| strange(what, e);
    Ok(Schedule {
        name: columns.name("a schedule name", ScheduleName::new)?,
        spec: serde_json::from_str(columns.str()?).map_err(|e| json("a schedule", e))?,
        from_file: columns.int()? != 0,
        actor: columns.str()?.to_owned(),
        revision: columns.int()?,
        version: columns.int()?,
        paused: columns.int()? != 0,
        next_at: columns.time()?,
        queued: serde_json::from_str(columns.str()?).map_err(|e| json("ticks", e))?,
        last_tick_at: columns.opt_time()?,
        last_run: columns.opt_str()?.map(|id| id.parse().map_err(|e| strange("a run id", e))).transpose()?,
        last_outcome: columns.str()?.to_owned(),
        created_at: columns.time()?,
        updated_at: columns.time()?,
    })
}

pub(super) fn alert<R: Cells>(row: &R) -> Read<Raised> {
    let mut columns = Columns::of(row);
    Ok(Raised {
        name: columns.name("an alert name", AlertName::new)?,
        provider: columns.provider()?,
        raised_at: columns.time()?,
        told_at: columns.time()?,
        detail: columns.str()?.to_owned(),
    })
}

/// The columns of a schedule that hold JSON: what was declared, and the ticks that wait.
pub(super) fn schedule_texts(schedule: &Schedule) -> (String, String) {
    let json = "names and texts are JSON";
    (serde_json::to_string(&schedule.spec).expect(json), serde_json::to_string(&schedule.queued).expect(json))
}

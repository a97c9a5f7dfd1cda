//! One commit under way: what it has read under lock, what it adds to counters, what it will tell.
//!
//! Nothing is known from before: whatever another daemon may have changed is read again, under the lock that keeps it as
//! it is. Locks are taken in one order (jobs by key and number, flows, sums, runs, the tail), so two commits rarely wait
//! for each other; when they do, the database ends one of them and `commit` tries it again. Next: `finish`, `change`,
//! `enqueue`, `begin`, in the order of a commit; then `counts`.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Row};

use super::arrays::{Delta, bind_cores};
use super::error::Trouble;
use super::keys::Keys;
use super::notices::{self, Said};
use super::row::{self, Columns};
use super::sql;
use crate::clock::Timestamp;
use crate::model::event::{Event, What};
use crate::model::flow::{Class, Flow, FlowKey};
use crate::model::id::{CallId, DaemonId, FlowId};
use crate::model::invalidation::Which;
use crate::model::run::Run;
use crate::store::notices::Ends;
use crate::store::packer::Packer;
use crate::store::records::rules::counting;
use crate::store::records::shelf::{self, Shelf, names};
use crate::store::rules::{Core, Stand};
use crate::store::schedules::{counting_records, wished_records};
use crate::store::{Batch, Committed, RecordOp};

pub(super) type Step<T> = Result<T, Trouble>;

pub(super) struct Work<'a> {
    pub conn: &'a mut PgConnection,
    pub daemon: DaemonId,
    pub keys: &'a Keys,
    pub now: Timestamp,
    pub steady: Timestamp,
    pub packer: Packer,
    /// Keys of the flows met so far.
    pub flows: BTreeMap<FlowId, FlowKey>,
    /// What is still to be added to each touched flow.
    pub deltas: BTreeMap<FlowId, Delta>,
    /// Touched flows as the database has them.
    pub saved: BTreeMap<FlowId, Flow>,
    /// Runs as the database has them.
    pub runs: BTreeMap<i64, Run>,
    pub next_due: Option<Timestamp>,
    /// A job came to or left `Later`.
    pub due_changed: bool,
    /// A declaration of a provider changed.
    pub declarations: bool,
    /// Jobs whose calls are open were called off, or a run was: workers of other daemons are to hear of it.
    pub called_off: bool,
    /// Cached answers that others must throw away too.
    pub invalidated: Vec<Which>,
}

/// What a commit did, and what it takes to ask for its fate.
pub(super) struct Worked {
    pub done: Committed,
    pub transaction: Option<String>,
}

impl<'a> Work<'a> {
    pub(super) fn new(conn: &'a mut PgConnection, daemon: DaemonId, keys: &'a Keys, batch: &Batch) -> Self {
        Work {
            conn,
            daemon,
            keys,
            now: batch.now,
            steady: batch.steady,
            packer: Packer::telling(Ends::told_to(&batch.notify)),
            flows: BTreeMap::new(),
            deltas: BTreeMap::new(),
            saved: BTreeMap::new(),
            runs: BTreeMap::new(),
            next_due: None,
            due_changed: false,
            declarations: false,
            called_off: false,
            invalidated: Vec::new(),
        }
    }

    /// Does everything but the commit itself. Boxed: the compiler cannot see through this many borrowing futures that
    /// they may move between threads.
    pub(super) fn apply(self, batch: &'a Batch) -> BoxFuture<'a, Step<Worked>> {
        Box::pin(self.apply_parts(batch))
    }

    async fn apply_parts(mut self, batch: &Batch) -> Step<Worked> {
        // First: whoever holds jobs must not wait for a collection.
        let wished = wished_records(&batch.changes);
        let beside: Vec<RecordOp> = wished.iter().map(|(_, op)| op.clone()).collect();
        let mut names = names(&batch.pages, &batch.records);
        names.extend(shelf::names(&[], &beside));
        let sets = if names.is_empty() { Vec::new() } else { self.sets(&names).await? };
        let mut done = Committed { finishes: self.finish_all(&batch.finishes).await?, ..Committed::default() };
        for change in &batch.changes {
            self.packer.section();
            done.changes.push(self.change(change).await?);
        }
        self.packer.section();
        let pages = counting(batch.pages.clone(), &batch.finishes, &done.finishes);
        let mut records = batch.records.clone();
        records.extend(counting_records(wished, &done.changes));
        match self.records(sets, pages, records).await? {
            None => done.enqueues = self.enqueue_all(&batch.enqueues).await?,
            Some(mut sheet) => {
                let enqueues = [batch.enqueues.clone(), sheet.take_jobs()].concat();
                done.enqueues = self.enqueue_all(&enqueues).await?;
                sheet.enqueued(done.enqueues.split_off(batch.enqueues.len()));
                self.save_collections(&sheet).await?;
                done.records = sheet.answers;
                done.records.truncate(batch.records.len());
            }
        }
        done.begins = self.begin_all(&batch.begins).await?;
        // Before the flows are locked; those of runs cannot, and are few.
        self.notify().await?;
        self.flush().await?;
        self.end_runs().await?;
        self.notify().await?;
        self.flush().await?;
        done.flows = std::mem::take(&mut self.saved).into_values().collect();
        done.next_due = match self.next_due {
            Some(due) => due,
            None => self.read_next_due().await?,
        };
        let whats = std::mem::take(&mut self.packer).finish();
        // What began or was settled moves the floor of the steady line; the rest need not pay for writing it down.
        let moves_floor = !batch.begins.is_empty() || !batch.finishes.is_empty();
        let wrote = moves_floor || self.declarations || !names.is_empty();
        if whats.is_empty() && done.flows.is_empty() && !wrote {
            return Ok(Worked { done, transaction: None });
        }
        let notice = notices::payload(
            self.daemon,
            &done.flows,
            Said {
                events: !whats.is_empty(),
                declarations: self.declarations,
                due: self.due_changed,
                called_off: self.called_off,
                invalidated: std::mem::take(&mut self.invalidated),
            },
        );
        let (events, transaction) = self.log(whats, notice).await?;
        done.events = events;
        Ok(Worked { done, transaction: Some(transaction) })
    }

    /// Enqueues the notices of what has ended. They have no run and no idempotency key, so nothing refuses them.
    async fn notify(&mut self) -> Step<()> {
        let (flows, runs) = (&self.flows, &self.runs);
        let notices = self.packer.ends.notices(|id| flows.get(&id).cloned(), |seq| runs.get(&seq).cloned(), self.now);
        self.enqueue_all(&notices).await.map(drop)
    }

    async fn read_next_due(&mut self) -> Step<Timestamp> {
        let row = sqlx::query(sql::NEXT_DUE).fetch_one(&mut *self.conn).await?;
        Ok(Columns::of(&row).opt_int()?.map_or(Timestamp::NEVER, Timestamp))
    }

    /// Takes numbers for the events and tells the others: the last statement of the commit.
    async fn log(&mut self, whats: Vec<What>, notice: String) -> Step<(Vec<Event>, String)> {
        let data = serde_json::to_string(&whats).expect("events have string keys only");
        let tail = sqlx::query(sql::INSERT_EVENTS).bind(whats.len() as i64).bind(self.steady.0).bind(self.now.0);
        let row = tail.bind(data).bind(notice).fetch_one(&mut *self.conn).await?;
        let first = Columns::of(&row).int()?;
        let events = (first..).zip(whats).map(|(seq, what)| Event { seq, at: self.now, what }).collect();
        Ok((events, row.try_get::<String, _>(1)?))
    }

    /// Learns the keys of flows.
    pub(super) async fn need_flows(&mut self, ids: BTreeSet<FlowId>) -> Step<()> {
        let mut missing: Vec<i64> = Vec::new();
        for id in ids.into_iter().filter(|id| !self.flows.contains_key(id)).collect::<Vec<_>>() {
            match self.keys.of(id) {
                Some(key) => drop(self.flows.insert(id, key)),
                None => missing.push(id.0),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        for flow in sqlx::query(sql::FLOWS_BY_ID).bind(missing).fetch_all(&mut *self.conn).await? {
            let flow = row::flow(&flow)?;
            self.keys.learn(flow.id, &flow.key);
            self.flows.insert(flow.id, flow.key);
        }
        Ok(())
    }

    /// Moves a job between counters.
    pub(super) fn count(&mut self, flow: FlowId, from: Option<(Stand, Class)>, to: Option<(Stand, Class)>) {
        let delta = self.deltas.entry(flow).or_default();
        if from == to {
            return;
        }
        delta.count(from, -1);
        delta.count(to, 1);
        let later = |at: Option<(Stand, Class)>| at.is_some_and(|(stand, _)| stand == Stand::Later);
        self.due_changed |= later(from) || later(to);
    }

    /// Writes changed jobs back, counts them, and lets the next of their keys go where one became final. The rows are
    /// locked, or were just moved by this commit.
    pub(super) async fn save_jobs(&mut self, changed: Vec<(Core, Core)>) -> Step<()> {
        if changed.is_empty() {
            return Ok(());
        }
        self.need_flows(changed.iter().map(|(_, new)| new.flow).collect()).await?;
        let mut freed = BTreeSet::new();
        let (mut stay, mut end, mut revive): (Vec<&Core>, Vec<&Core>, Vec<&Core>) = Default::default();
        for (old, new) in &changed {
            self.count(new.flow, Some((old.stand, old.class)), Some((new.stand, new.class)));
            // Due times may move within `Later` too.
            self.due_changed |= new.stand == Stand::Later;
            match (old.stand.is_hot(), new.stand.is_hot()) {
                (true, true) => stay.push(new),
                (true, false) => {
                    end.push(new);
                    freed.extend(new.key_hash);
                }
                (false, true) => revive.push(new),
                (false, false) => {}
            }
        }
        for (query, cores) in [(sql::UPDATE_JOBS, stay), (sql::FINISH_JOBS, end), (sql::REVIVE_JOBS, revive)] {
            if cores.is_empty() {
                continue;
            }
            let moved = bind_cores(sqlx::query(query), &cores).execute(&mut *self.conn).await?.rows_affected();
            if moved != cores.len() as u64 {
                return Err(Trouble::Again(format!("expected {} jobs to change, {moved} did", cores.len())));
            }
        }
        self.release(freed).await
    }

    async fn release(&mut self, freed: BTreeSet<i64>) -> Step<()> {
        let mut freed: Vec<i64> = freed.into_iter().collect();
        let mut released = Vec::new();
        while !freed.is_empty() {
            let rows = sqlx::query(sql::RELEASED).bind(&freed).fetch_all(&mut *self.conn).await?;
            freed.clear();
            for row in rows {
                let mut columns = Columns::of(&row);
                let hash = columns.int()?;
                if row.try_get::<Option<i64>, _>(1)?.is_none() {
                    // It was cancelled while we waited for its lock: the one behind it is next.
                    freed.push(hash);
                    continue;
                }
                let old = columns.core()?;
                let mut new = old.clone();
                new.release(self.now);
                released.push((old, new));
            }
        }
        // They go from one waiting place to another, which frees nothing further.
        Box::pin(self.save_jobs(released)).await
    }

    pub(super) async fn draw_turn(&mut self) -> Step<i64> {
        let row = sqlx::query(sql::DRAW_TURN).fetch_one(&mut *self.conn).await?;
        Ok(Columns::of(&row).int()?)
    }

    pub(super) async fn draw_calls(&mut self, count: usize) -> Step<Vec<CallId>> {
        let rows = sqlx::query(sql::DRAW_CALLS).bind(count as i64).fetch_all(&mut *self.conn).await?;
        let ids: Result<Vec<CallId>, _> = rows.iter().map(|row| Columns::of(row).int().map(CallId)).collect();
        Ok(ids?)
    }
}

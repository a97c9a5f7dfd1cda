//! One commit under way: working copies of the flows, sums and runs that it touches, and what it will tell the desk.
//!
//! Nothing here outlives a failure: the desk learns of the work only after the database said yes. Next: `finish`,
//! `change`, `enqueue`, `begin`, in the order of a commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::future::BoxFuture;

use super::bulk::{Cells, json};
use super::desk::{self, Desk, Numbers};
use super::trip::Trip;
use super::{row, sql};
use crate::clock::Timestamp;
use crate::model::event::{Event, What};
use crate::model::flow::{Class, Flow, FlowCounts, FlowKey};
use crate::model::id::{CallId, FlowId};
use crate::model::name::{OperationName, ProviderName};
use crate::model::run::{Run, RunState};
use crate::store::notices::Ends;
use crate::store::packer::Packer;
use crate::store::records::rules::{Sheet, counting};
use crate::store::rules::{self, Core, Stand};
use crate::store::schedules::{counting_records, wished_records};
use crate::store::{Batch, Committed, Error, Tally};

pub(super) struct Work<'a> {
    pub trip: Trip<'a>,
    pub desk: &'a mut Desk,
    pub now: Timestamp,
    pub packer: Packer,
    pub numbers: Numbers,
    /// Working copies; those in `touched` are written back.
    pub flows: BTreeMap<FlowId, Flow>,
    /// Those that this commit makes: the database has none of them before its end.
    pub flows_made: HashMap<FlowKey, FlowId>,
    pub touched: BTreeSet<FlowId>,
    pub tallies: BTreeMap<(ProviderName, OperationName), FlowCounts>,
    pub runs: BTreeMap<i64, Run>,
    pub runs_changed: BTreeSet<i64>,
    /// Jobs that are on the wire after this commit, and numbers of those that no longer are.
    pub calling: HashMap<i64, Option<Core>>,
    pub calls_begun: Vec<(CallId, Vec<i64>)>,
    pub calls_ended: Vec<CallId>,
    /// A job came to or left `Later`.
    pub due_changed: bool,
    /// Numbers must be written down because rows that carried them may go.
    pub save_numbers: bool,
    pub steady_floor: Timestamp,
}

/// What the desk learns once the commit is durable.
pub(super) struct Learned {
    numbers: Numbers,
    flows: Vec<Flow>,
    tallies: BTreeMap<(ProviderName, OperationName), FlowCounts>,
    calling: HashMap<i64, Option<Core>>,
    calls_begun: Vec<(CallId, Vec<i64>)>,
    calls_ended: Vec<CallId>,
    next_due: Timestamp,
    steady_floor: Timestamp,
}

impl Desk {
    pub(super) fn learn(&mut self, learned: Learned) {
        self.numbers = learned.numbers;
        self.next_due = learned.next_due;
        self.steady_floor = learned.steady_floor;
        self.tallies.extend(learned.tallies);
        for flow in learned.flows {
            self.keep_flow(flow);
        }
        for (seq, core) in learned.calling {
            match core {
                Some(core) => self.keep_calling(core),
                None => drop(self.calling.remove(&seq)),
            }
        }
        for (id, jobs) in learned.calls_begun {
            self.keep_call(id, jobs);
        }
        for id in learned.calls_ended {
            self.open_calls.remove(&id);
        }
    }
}

impl<'a> Work<'a> {
    pub(super) fn new(trip: Trip<'a>, desk: &'a mut Desk, batch: &Batch) -> Self {
        Work {
            now: batch.now,
            numbers: desk.numbers,
            steady_floor: desk.steady_floor.max(batch.steady),
            packer: Packer::telling(Ends::told_to(&batch.notify)),
            flows: BTreeMap::new(),
            flows_made: HashMap::new(),
            touched: BTreeSet::new(),
            tallies: BTreeMap::new(),
            runs: BTreeMap::new(),
            runs_changed: BTreeSet::new(),
            calling: HashMap::new(),
            calls_begun: Vec::new(),
            calls_ended: Vec::new(),
            due_changed: false,
            save_numbers: false,
            trip,
            desk,
        }
    }

    /// Does everything, durably. Boxed: the compiler cannot see through this many borrowing futures that
    /// they may move between threads.
    pub(super) fn apply(self, batch: Batch) -> BoxFuture<'a, Result<(Committed, Learned), Error>> {
        Box::pin(self.apply_parts(batch))
    }

    async fn apply_parts(mut self, batch: Batch) -> Result<(Committed, Learned), Error> {
        let mut done = Committed::default();
        // What began or was settled moves the floor of the steady line; the rest need not pay for writing it down.
        self.save_numbers = !batch.begins.is_empty() || !batch.finishes.is_empty();
        done.finishes = self.finish_all(&batch.finishes).await?;
        let wished = wished_records(&batch.changes);
        for change in batch.changes {
            self.packer.section();
            done.changes.push(self.change(change).await?);
        }
        self.packer.section();
        let pages = counting(batch.pages, &batch.finishes, &done.finishes);
        let records_asked = batch.records.len();
        let mut records = batch.records;
        records.extend(counting_records(wished, &done.changes));
        let sheet = self.records(pages, records).await?;
        let mut enqueues = batch.enqueues;
        let asked = enqueues.len();
        enqueues.extend(sheet.as_ref().map(Sheet::take_jobs).unwrap_or_default());
        done.enqueues = self.enqueue_all(enqueues).await?;
        if let Some(mut sheet) = sheet {
            sheet.enqueued(done.enqueues.split_off(asked));
            self.save_collections(&sheet).await?;
            done.records = sheet.answers;
            done.records.truncate(records_asked);
        }
        for begin in batch.begins {
            done.begins.push(self.begin(begin).await?);
        }
        self.notify().await?;
        self.end_runs().await?;
        self.notify().await?;
        self.save_counts().await?;
        let whats = std::mem::take(&mut self.packer).finish();
        done.events = self.log(whats);
        if self.save_numbers {
            self.save_meta();
        }
        done.next_due = match self.due_changed {
            true => desk::earliest(&self.trip.read(sql::NEXT_DUE, &[]).await?)?,
            false => self.desk.next_due,
        };
        self.trip.commit().await?;
        let flows: Vec<Flow> = self.flows.into_values().collect();
        done.flows = flows.iter().filter(|flow| self.touched.contains(&flow.id)).cloned().collect();
        let learned = Learned {
            numbers: self.numbers,
            flows,
            tallies: self.tallies,
            calling: self.calling,
            calls_begun: self.calls_begun,
            calls_ended: self.calls_ended,
            next_due: done.next_due,
            steady_floor: self.steady_floor,
        };
        Ok((done, learned))
    }

    /// Makes working copies of flows, and of the runs they belong to.
    pub(super) async fn need_flows(&mut self, ids: BTreeSet<FlowId>) -> Result<(), Error> {
        let mut missing = BTreeSet::new();
        let mut runs = BTreeSet::new();
        for id in ids {
            if !self.flows.contains_key(&id) {
                match self.desk.flows.get(&id) {
                    Some(flow) => drop(self.flows.insert(id, flow)),
                    None => drop(missing.insert(id.0)),
                }
            }
            runs.extend(self.flows.get(&id).map(|flow| flow.key.run));
        }
        if !missing.is_empty() {
            for flow in self.trip.read(sql::FLOWS_BY_ID, &[json(missing).into()]).await? {
                let flow = row::flow(&flow)?;
                runs.insert(flow.key.run);
                self.flows.insert(flow.id, flow);
            }
        }
        self.need_runs(runs).await
    }

    pub(super) async fn need_runs(&mut self, seqs: BTreeSet<i64>) -> Result<(), Error> {
        let missing: Vec<i64> = seqs.into_iter().filter(|seq| *seq != 0 && !self.runs.contains_key(seq)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        for run in self.trip.read(sql::RUNS_BY_SEQ, &[json(missing).into()]).await? {
            let run = row::run(&run)?;
            self.runs.insert(run.id.seq, run);
        }
        Ok(())
    }

    /// Moves a job between counters. Its flow has a working copy.
    pub(super) fn count(&mut self, flow: FlowId, from: Option<(Stand, Class)>, to: Option<(Stand, Class)>) {
        self.touched.insert(flow);
        if from == to {
            return;
        }
        let later = |at: Option<(Stand, Class)>| at.is_some_and(|(stand, _)| stand == Stand::Later);
        self.due_changed |= later(from) || later(to);
        let flow = self.flows.get_mut(&flow).expect("need_flows was called for the flow");
        rules::recount(&mut flow.counts, from, to);
        let operation = (flow.key.provider.clone(), flow.key.operation.clone());
        let known = &self.desk.tallies;
        let tally = self.tallies.entry(operation);
        let tally = tally.or_insert_with_key(|operation| known.get(operation).cloned().unwrap_or_default());
        rules::recount(tally, from, to);
        if let Some(run) = self.runs.get_mut(&flow.key.run) {
            rules::recount(&mut run.counts, from, to);
            self.runs_changed.insert(flow.key.run);
        }
    }

    /// Writes changed jobs back, counts them, and lets the next of their keys go where one became final.
    pub(super) async fn save_jobs(&mut self, changed: Vec<(Core, Core)>) -> Result<(), Error> {
        self.need_flows(changed.iter().map(|(_, new)| new.flow).collect()).await?;
        let mut freed = BTreeSet::new();
        let mut cores = Vec::with_capacity(changed.len());
        // Most jobs that end are delivered and leave nothing but their status.
        let mut delivered: BTreeMap<Option<u16>, Vec<i64>> = BTreeMap::new();
        for (old, new) in changed {
            self.count(new.flow, Some((old.stand, old.class)), Some((new.stand, new.class)));
            // Due times may move within `Later` too.
            self.due_changed |= new.stand == Stand::Later;
            if old.stand.is_hot() && !new.stand.is_hot() {
                freed.extend(new.key_hash);
            }
            self.remember(&new);
            if is_delivery(&old, &new) {
                delivered.entry(new.last_status).or_default().push(new.id.seq);
            } else {
                cores.push(new);
            }
        }
        for (status, seqs) in delivered {
            let values = [json(seqs).into(), status.map(i64::from).into(), self.now.0.into()];
            self.trip.write(sql::DELIVER_JOBS, &values);
        }
        sql::bulk().update_jobs.write(&mut self.trip, &cores, fill_core).await?;
        self.release(freed).await
    }

    pub(super) fn remember(&mut self, core: &Core) {
        if core.stand == Stand::Calling {
            self.calling.insert(core.id.seq, Some(core.clone()));
        } else if self.calling.contains_key(&core.id.seq) || self.desk.calling.contains_key(&core.id.seq) {
            self.calling.insert(core.id.seq, None);
        }
    }

    async fn release(&mut self, freed: BTreeSet<i64>) -> Result<(), Error> {
        if freed.is_empty() {
            return Ok(());
        }
        let mut released = Vec::new();
        for old in self.trip.read(sql::RELEASED, &[json(freed).into()]).await? {
            let old = row::core(&old)?;
            let mut new = old.clone();
            new.release(self.now);
            released.push((old, new));
        }
        if released.is_empty() {
            return Ok(());
        }
        // They go from one waiting place to another, which frees nothing further.
        Box::pin(self.save_jobs(released)).await
    }

    /// Enqueues the notices of what has ended. They have no run and no idempotency key, so nothing refuses them.
    async fn notify(&mut self) -> Result<(), Error> {
        let (flows, runs) = (&self.flows, &self.runs);
        let flow = |id| flows.get(&id).map(|flow| flow.key.clone());
        let notices = self.packer.ends.notices(flow, |seq| runs.get(&seq).cloned(), self.now);
        self.enqueue_all(notices).await.map(drop)
    }

    async fn end_runs(&mut self) -> Result<(), Error> {
        self.packer.section();
        let runs: BTreeSet<i64> = self.touched.iter().map(|id| self.flows[id].key.run).collect();
        for run in runs {
            self.end_run(run).await?;
        }
        Ok(())
    }

    /// Ends a run that has nothing left to do.
    pub(super) async fn end_run(&mut self, seq: i64) -> Result<(), Error> {
        let Some(run) = self.runs.get_mut(&seq) else { return Ok(()) };
        let Some(state) = rules::run_end(run.state, rules::hot(&run.counts)) else { return Ok(()) };
        run.finished_at = Some(self.now);
        self.set_run_state(seq, state).await
    }

    /// Changes a run's state, and with it whether its flows are held.
    pub(super) async fn set_run_state(&mut self, seq: i64, state: RunState) -> Result<(), Error> {
        for flow in self.trip.read(sql::RUN_FLOWS, &[seq.into(), 0.into(), i64::MAX.into()]).await? {
            let flow = row::flow(&flow)?;
            self.flows.entry(flow.id).or_insert(flow);
        }
        let run = self.runs.get_mut(&seq).expect("the caller found the run");
        run.state = state;
        run.updated_at = self.now;
        self.packer.note(What::run(run.id, state));
        self.runs_changed.insert(seq);
        for flow in self.flows.values_mut().filter(|flow| flow.key.run == seq) {
            flow.held = state.holds_jobs();
            self.touched.insert(flow.id);
        }
        Ok(())
    }

    async fn save_counts(&mut self) -> Result<(), Error> {
        let (bulk, now) = (sql::bulk(), self.now);
        let flows: Vec<&Flow> = self.touched.iter().map(|id| &self.flows[id]).collect();
        let fill = |cells: &mut Cells<'_>, flow: &&Flow| {
            cells.int(flow.id.0);
            cells.str(flow.key.provider.as_str());
            cells.str(flow.key.operation.as_str());
            cells.str(flow.key.account.as_str());
            cells.str(flow.key.tenant.as_str());
            cells.int(flow.key.run);
            cells.int(i64::from(flow.key.part));
            fill_counts(cells, &flow.counts);
            cells.int(i64::from(rules::hot(&flow.counts) > 0));
            cells.int(now.0);
        };
        bulk.save_flows.write(&mut self.trip, &flows, fill).await?;
        let tallies: Vec<Tally> = self.tallies.iter().map(|(operation, counts)| tally(operation, counts)).collect();
        let fill = |cells: &mut Cells<'_>, tally: &Tally| {
            cells.str(tally.provider.as_str());
            cells.str(tally.operation.as_str());
            fill_counts(cells, &tally.counts);
        };
        bulk.save_tallies.write(&mut self.trip, &tallies, fill).await?;
        let runs: Vec<&Run> = self.runs_changed.iter().map(|seq| &self.runs[seq]).collect();
        bulk.save_runs.write(&mut self.trip, &runs, |cells, run| fill_run(cells, run)).await
    }

    fn log(&mut self, whats: Vec<What>) -> Vec<Event> {
        if whats.is_empty() {
            return Vec::new();
        }
        let (first, count) = (self.numbers.event, whats.len() as i64);
        self.numbers.event += count;
        let data = serde_json::to_string(&whats).expect("events have string keys only");
        self.trip.write(sql::INSERT_EVENTS, &[first.into(), count.into(), self.now.0.into(), data.into()]);
        (first..).zip(whats).map(|(seq, what)| Event { seq, at: self.now, what }).collect()
    }

    fn save_meta(&mut self) {
        let values = [self.steady_floor.0.into(), self.numbers.seq.into(), self.numbers.call.into()];
        self.trip.write(sql::SAVE_META, &values);
    }
}

/// Did nothing happen to the job but what `deliver_jobs.sql` writes?
fn is_delivery(old: &Core, new: &Core) -> bool {
    let counters = |core: &Core| (core.version, core.attempts, core.crashes, core.throttles, core.cancel_requested);
    new.stand == Stand::Delivered
        && new.last_error.is_none()
        && new.result == old.result
        && counters(new) == counters(old)
        && (new.class, new.turn, new.due_at) == (old.class, old.turn, old.due_at)
}

fn fill_core(cells: &mut Cells<'_>, core: &Core) {
    cells.int(core.id.seq);
    cells.int(core.stand as i64);
    cells.int(core.class as i64);
    cells.int(core.turn);
    cells.opt_int(core.key_hash.filter(|_| core.stand.is_hot()));
    for n in [core.version, core.attempts, core.crashes, core.throttles] {
        cells.int(i64::from(n));
    }
    cells.int(core.due_at.0);
    cells.int(core.updated_at.0);
    cells.opt_int(core.finished_at.map(|t| t.0));
    cells.int(i64::from(core.cancel_requested));
    cells.opt_int(core.first_sent_at.map(|t| t.0));
    cells.opt_int(core.last_status.map(i64::from));
    cells.opt_text(core.last_error.as_ref());
    cells.opt_text(core.result.as_ref());
}

fn tally((provider, operation): &(ProviderName, OperationName), counts: &FlowCounts) -> Tally {
    Tally { provider: provider.clone(), operation: operation.clone(), counts: counts.clone() }
}

fn fill_counts(cells: &mut Cells<'_>, c: &FlowCounts) {
    let [urgent, normal, bulk] = c.ready;
    let all = [urgent, normal, bulk, c.later, c.behind, c.calling, c.unknown, c.delivered, c.dead, c.cancelled];
    for n in all {
        cells.int(n as i64);
    }
}

fn fill_run(cells: &mut Cells<'_>, run: &Run) {
    cells.int(run.id.seq);
    cells.int(run.id.created_at.0);
    cells.str(&run.display_name);
    cells.str(run.tenant.as_str());
    cells.opt_str(super::labels_text(&run.labels).as_deref());
    cells.int(run.state as i64);
    fill_counts(cells, &run.counts);
    cells.int(run.updated_at.0);
    cells.opt_int(run.finished_at.map(|t| t.0));
    cells.opt_int(run.undo_of);
}

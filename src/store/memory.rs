//! The reference model: the store's contract in ordered maps, as plainly as it can be said.
//!
//! Deterministic and never waiting, so the deterministic simulation runs on it. A clone is the same store: it survives
//! "the process dies" as a file would. Must never know: files, SQL. Next: `memory/finish`, `change`, `enqueue`,
//! `begin` in the order of a commit; `sqlite` does the same to a database.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;

use super::notices::Ends;
use super::packer::Packer;
use super::records::rules::counting;
use super::rules::{self, Core, Stand};
use super::schedules::{counting_records, wished_records};
use super::tokens::TokenKey;
use super::{
    AppliedProvider, Batch, CallPage, Committed, Delivered, Error, JobPage, JournalEntry, Store, StoreInfo, Tally,
    Whose,
};
use crate::clock::Timestamp;
use crate::model::alert::Raised;
use crate::model::call::Call;
use crate::model::event::{Event, What};
use crate::model::filter::Filter;
use crate::model::flow::{Class, Flow, FlowCounts, FlowKey};
use crate::model::id::{CallId, FlowId, JobId, RunId};
use crate::model::job::{ClaimedJob, Job, Labels, Payload};
use crate::model::name::{AlertName, IdempotencyKey, Key, OperationName, ProviderName, ScheduleName, Tenant};
use crate::model::run::{Run, RunState};
use crate::model::schedule::Schedule;

mod begin;
mod change;
mod enqueue;
mod finish;
mod prune;
mod read;
mod records;
mod schedules;
mod tokens;

/// Store in memory. Clones share everything but [`Store::close`].
#[derive(Debug, Default)]
pub struct MemoryStore {
    world: Arc<Mutex<World>>,
    closed: AtomicBool,
}

impl Clone for MemoryStore {
    /// The same store, opened anew.
    fn clone(&self) -> Self {
        MemoryStore { world: self.world.clone(), closed: AtomicBool::new(false) }
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    fn world(&self) -> Result<MutexGuard<'_, World>, Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::Unavailable { reason: "the store is closed".to_owned() });
        }
        Ok(self.world.lock().expect("no commit panics half-way"))
    }
}

/// A job with its texts.
#[derive(Clone, Debug)]
struct Row {
    core: Core,
    key: Option<Key>,
    payload: Payload,
    labels: Labels,
    traceparent: Option<Arc<str>>,
    calls: Vec<CallId>,
}

/// Events of one commit.
#[derive(Debug)]
struct Group {
    first: i64,
    at: Timestamp,
    whats: Vec<What>,
}

#[derive(Debug, Default)]
struct World {
    jobs: BTreeMap<i64, Row>,
    ready: BTreeSet<(FlowId, Class, i64, i64)>,
    later: BTreeSet<(Timestamp, i64)>,
    /// Hot jobs of a key by turn.
    chains: BTreeMap<i64, BTreeSet<(i64, i64)>>,
    flows: BTreeMap<FlowId, (FlowKey, FlowCounts)>,
    flow_ids: BTreeMap<FlowKey, FlowId>,
    tallies: BTreeMap<(ProviderName, OperationName), FlowCounts>,
    /// When a flow was touched last, by the latest wall time seen.
    touched_at: BTreeMap<FlowId, Timestamp>,
    runs: BTreeMap<i64, Run>,
    calls: BTreeMap<CallId, Call>,
    idempotency: BTreeMap<(Tenant, IdempotencyKey), ([u8; 32], JobId)>,
    providers: BTreeMap<ProviderName, AppliedProvider>,
    schedules: BTreeMap<ScheduleName, Schedule>,
    events: VecDeque<Group>,
    steady: Option<(String, i64)>,
    epoch: i64,
    limiter_run: Option<String>,
    tokens: BTreeMap<TokenKey, tokens::TokenRow>,
    steady_floor: Timestamp,
    records: records::Book,
    /// Messages of webhooks, and until when they are remembered.
    deliveries: BTreeMap<[u8; 32], Timestamp>,
    alerts: BTreeMap<AlertName, Raised>,
    last_seq: i64,
    last_flow: i64,
    last_run: i64,
    last_call: i64,
    last_event: i64,
}

/// One commit under way.
struct Work<'a> {
    world: &'a mut World,
    now: Timestamp,
    packer: Packer,
    touched: BTreeSet<FlowId>,
}

impl World {
    fn commit(&mut self, mut batch: Batch) -> Committed {
        self.steady_floor = self.steady_floor.max(batch.steady);
        let packer = Packer::telling(Ends::told_to(&batch.notify));
        let mut work = Work { now: batch.now, world: self, packer, touched: BTreeSet::new() };
        let mut done = Committed::default();
        for call in &batch.finishes {
            done.finishes.push(work.finish(call));
        }
        let wished = wished_records(&batch.changes);
        for change in batch.changes {
            work.packer.section();
            done.changes.push(work.change(change));
        }
        work.packer.section();
        let asked = batch.enqueues.len();
        let pages = counting(batch.pages, &batch.finishes, &done.finishes);
        let records_asked = batch.records.len();
        batch.records.extend(counting_records(wished, &done.changes));
        let sheet = work.records(pages, batch.records, &mut batch.enqueues);
        for job in batch.enqueues {
            done.enqueues.push(work.enqueue(job));
        }
        if let Some(mut sheet) = sheet {
            sheet.enqueued(done.enqueues.split_off(asked));
            work.save_collections(&sheet);
            done.records = sheet.answers;
            done.records.truncate(records_asked);
        }
        for begin in batch.begins {
            done.begins.push(work.begin(begin));
        }
        work.notify();
        work.end_runs();
        work.notify();
        let (whats, touched) = (work.packer.finish(), work.touched);
        for id in &touched {
            let at = self.touched_at.entry(*id).or_insert(batch.now);
            *at = batch.now.max(*at);
        }
        done.flows = touched.into_iter().filter_map(|id| self.flow(id)).collect();
        done.events = self.log(batch.now, whats);
        done.next_due = self.next_due();
        done
    }

    fn log(&mut self, at: Timestamp, whats: Vec<What>) -> Vec<Event> {
        if whats.is_empty() {
            return Vec::new();
        }
        let first = self.last_event + 1;
        let group = Group { first, at, whats };
        let events: Vec<Event> = group.events().collect();
        self.last_event += events.len() as i64;
        self.events.push_back(group);
        events
    }

    fn flow(&self, id: FlowId) -> Option<Flow> {
        let (key, counts) = self.flows.get(&id)?;
        let held = key.run != 0 && self.runs.get(&key.run).is_none_or(|r| r.state.holds_jobs());
        Some(Flow { id, key: key.clone(), counts: counts.clone(), held, version: 0 })
    }

    fn next_due(&self) -> Timestamp {
        self.later.first().map_or(Timestamp::NEVER, |l| l.0)
    }

    fn index(&mut self, core: &Core, add: bool) {
        fn set<T: Ord>(set: &mut BTreeSet<T>, item: T, add: bool) {
            let changed = if add { set.insert(item) } else { set.remove(&item) };
            debug_assert!(changed, "an index had lost touch with its jobs");
        }
        let seq = core.id.seq;
        if core.stand == Stand::Ready {
            set(&mut self.ready, (core.flow, core.class, core.turn, seq), add);
        }
        if core.stand == Stand::Later {
            set(&mut self.later, (core.due_at, seq), add);
        }
        if let Some(hash) = core.key_hash.filter(|_| core.stand.is_hot()) {
            let chain = self.chains.entry(hash).or_default();
            set(chain, (core.turn, seq), add);
            if chain.is_empty() {
                self.chains.remove(&hash);
            }
        }
    }

    fn count(&mut self, flow: FlowId, from: Option<(Stand, Class)>, to: Option<(Stand, Class)>) {
        let (key, counts) = self.flows.get_mut(&flow).expect("a job's flow exists");
        rules::recount(counts, from, to);
        let tally = self.tallies.entry((key.provider.clone(), key.operation.clone())).or_default();
        rules::recount(tally, from, to);
        if let Some(run) = self.runs.get_mut(&key.run) {
            rules::recount(&mut run.counts, from, to);
        }
    }
}

impl Group {
    fn events(&self) -> impl Iterator<Item = Event> + '_ {
        (self.first..).zip(&self.whats).map(|(seq, what)| Event { seq, at: self.at, what: what.clone() })
    }

    fn last(&self) -> i64 {
        self.first + self.whats.len() as i64 - 1
    }
}

impl Work<'_> {
    fn core(&self, seq: i64) -> Option<&Core> {
        self.world.jobs.get(&seq).map(|r| &r.core)
    }

    fn flow_mut(&mut self, id: FlowId) {
        self.touched.insert(id);
    }

    /// Puts a changed core back: the only place where indexes and counts follow a job.
    fn put(&mut self, new: Core) {
        let row = self.world.jobs.get_mut(&new.id.seq).expect("a job that was read is there");
        let old = std::mem::replace(&mut row.core, new.clone());
        self.world.index(&old, false);
        self.world.index(&new, true);
        self.world.count(new.flow, Some((old.stand, old.class)), Some((new.stand, new.class)));
        self.flow_mut(new.flow);
        if old.stand.is_hot() && !new.stand.is_hot() {
            self.release_next(&new);
        }
    }

    /// A job became final: the next of its key may go.
    fn release_next(&mut self, done: &Core) {
        let first = done.key_hash.and_then(|hash| self.world.chains.get(&hash)?.first().copied());
        let Some(mut next) = first.and_then(|(_, seq)| self.core(seq)).cloned() else { return };
        if next.stand == Stand::Behind {
            next.release(self.now);
            self.put(next);
        }
    }

    /// Enqueues the notices of what has ended.
    fn notify(&mut self) {
        let world = &*self.world;
        let flow = |id| world.flows.get(&id).map(|(key, _)| key.clone());
        let notices = self.packer.ends.notices(flow, |seq| world.runs.get(&seq).cloned(), self.now);
        for notice in notices {
            self.enqueue(notice).expect("a notice has no run and no idempotency key, which could be refused");
        }
    }

    fn end_runs(&mut self) {
        let runs: BTreeSet<i64> = self.touched.iter().map(|id| self.world.flows[id].0.run).collect();
        self.packer.section();
        for run in runs {
            self.end_run(run);
        }
    }

    /// Ends a run that has nothing left to do.
    fn end_run(&mut self, seq: i64) {
        let Some(run) = self.world.runs.get_mut(&seq) else { return };
        if let Some(state) = rules::run_end(run.state, rules::hot(&run.counts)) {
            run.finished_at = Some(self.now);
            self.set_run_state(seq, state);
        }
    }

    fn set_run_state(&mut self, seq: i64, state: RunState) {
        let run = self.world.runs.get_mut(&seq).expect("the caller found the run");
        run.state = state;
        run.updated_at = self.now;
        self.packer.note(What::run(run.id, state));
        let flows = self.world.flows.iter().filter(|(_, (key, _))| key.run == seq);
        self.touched.extend(flows.map(|(id, _)| *id));
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, batch: Batch) -> Result<Committed, Error> {
        Ok(self.world()?.commit(batch))
    }

    async fn info(&self) -> Result<StoreInfo, Error> {
        let world = self.world()?;
        Ok(StoreInfo {
            kind: "memory".to_owned(),
            schema_version: 0,
            durability: "none: ends with the process".to_owned(),
            epoch: world.epoch,
            steady: world.steady.clone(),
            steady_floor: world.steady_floor,
            size_bytes: 0,
            db_now: None,
            daemon: None,
            limiter_run: world.limiter_run.clone(),
        })
    }

    async fn remember_steady(&self, boot: &str, offset_us: i64) -> Result<(), Error> {
        self.world()?.steady = Some((boot.to_owned(), offset_us));
        Ok(())
    }

    async fn bump_epoch(&self, expect: i64, limiter_run: &str) -> Result<i64, Error> {
        let mut world = self.world()?;
        if world.epoch == expect {
            world.epoch += 1;
            world.limiter_run = Some(limiter_run.to_owned());
        }
        Ok(world.epoch)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        Ok(self.world()?.job(id.seq).filter(|job| job.id == id))
    }

    async fn jobs(&self, seqs: &[i64]) -> Result<Vec<Job>, Error> {
        let world = self.world()?;
        Ok(seqs.iter().take(super::PAGE_MAX).filter_map(|&seq| world.job(seq)).collect())
    }

    async fn list_jobs(&self, filter: &Filter, before: Option<i64>, limit: usize) -> Result<JobPage, Error> {
        Ok(self.world()?.list_jobs(filter, before, limit))
    }

    async fn blocker(&self, job: &Job) -> Result<Option<Job>, Error> {
        Ok(self.world()?.blocker(job))
    }

    async fn ahead(&self, job: &Job) -> Result<u64, Error> {
        Ok(self.world()?.ahead(job))
    }

    async fn oldest_ready(&self, flow: FlowId) -> Result<Option<Timestamp>, Error> {
        Ok(self.world()?.oldest_ready(flow))
    }

    async fn call(&self, id: CallId) -> Result<Option<Call>, Error> {
        Ok(self.world()?.calls.get(&id).cloned())
    }

    async fn calls(&self, ids: &[CallId]) -> Result<Vec<Call>, Error> {
        let world = self.world()?;
        Ok(ids.iter().take(super::PAGE_MAX).filter_map(|id| world.calls.get(id)).cloned().collect())
    }

    async fn list_calls(
        &self,
        filter: &Filter,
        before: Option<CallId>,
        limit: usize,
        bodies: bool,
    ) -> Result<CallPage, Error> {
        Ok(self.world()?.list_calls(filter, before, limit, bodies))
    }

    async fn open_calls(&self, _whose: Whose, after: CallId, limit: usize) -> Result<Vec<Call>, Error> {
        Ok(self.world()?.open_calls(after, limit))
    }

    async fn claimed(&self, call: CallId) -> Result<Vec<ClaimedJob>, Error> {
        Ok(self.world()?.claimed(call))
    }

    async fn journal(&self, since: Timestamp, after: CallId, limit: usize) -> Result<Vec<JournalEntry>, Error> {
        Ok(self.world()?.journal(since, after, limit))
    }

    async fn flows(&self, after: FlowId, limit: usize) -> Result<Vec<Flow>, Error> {
        Ok(self.world()?.busy_flows(after, limit))
    }

    async fn flow(&self, id: FlowId) -> Result<Option<Flow>, Error> {
        Ok(self.world()?.flow(id))
    }

    async fn tallies(&self) -> Result<Vec<Tally>, Error> {
        Ok(self.world()?.tallies())
    }

    async fn next_due(&self) -> Result<Timestamp, Error> {
        Ok(self.world()?.next_due())
    }

    async fn run(&self, id: RunId) -> Result<Option<Run>, Error> {
        Ok(self.world()?.runs.get(&id.seq).filter(|r| r.id == id).cloned())
    }

    async fn list_runs(&self, before: Option<i64>, limit: usize) -> Result<Vec<Run>, Error> {
        let world = self.world()?;
        let below = world.runs.range(..before.unwrap_or(i64::MAX)).rev();
        Ok(below.take(super::page(limit)).map(|(_, run)| run.clone()).collect())
    }

    async fn run_flows(&self, run: RunId, limit: usize) -> Result<Vec<Flow>, Error> {
        Ok(self.world()?.run_flows(run, limit))
    }

    async fn run_delivered(
        &self,
        run: RunId,
        below: Option<(i64, i64)>,
        limit: usize,
    ) -> Result<Vec<Delivered>, Error> {
        Ok(self.world()?.run_delivered(run, below, limit))
    }

    async fn providers(&self) -> Result<Vec<AppliedProvider>, Error> {
        Ok(self.world()?.providers.values().cloned().collect())
    }

    async fn schedules(&self) -> Result<Vec<Schedule>, Error> {
        Ok(self.world()?.schedules.values().cloned().collect())
    }

    async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>, Error> {
        Ok(self.world()?.schedules.get(name).cloned())
    }

    async fn alerts(&self) -> Result<Vec<Raised>, Error> {
        Ok(self.world()?.alerts.values().cloned().collect())
    }

    async fn events(&self, after: i64, limit: usize) -> Result<Vec<Event>, Error> {
        Ok(self.world()?.events_after(after, limit))
    }

    async fn event_bounds(&self) -> Result<(i64, i64), Error> {
        let world = self.world()?;
        Ok(world.events.front().map_or((1, 0), |group| (group.first, world.last_event)))
    }

    async fn backup(&self, _path: &std::path::Path) -> Result<(), Error> {
        Err(Error::Unavailable { reason: "expected a store with a file, got one in memory".to_owned() })
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

//! The desk where workers take jobs: who is there, which seats are free, which lease is whose, and who was heard when.
//!
//! Nothing here is durable: the journal has every lease as an open call, and `recover` brings those of a dead process
//! back, to wait for their workers. A heartbeat touches the worker alone; leases are measured by it. Must never know:
//! limits, flows, wires. Next: `gate/leases`, which takes seats; `caller/lease`, which waits for a worker's word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::notes::Notes;
use super::registry::Registry;
use crate::clock::{Clock, Timestamp};
use crate::model::id::{CallId, FlowId, Id, JobId};
use crate::model::name::{OperationName, ProviderName};
use crate::model::worker::{Ended, LeaseView, Offer, Progress, Told, Word, Work, WorkerView};

pub mod notes;

/// Workers at one time. More are refused.
pub const WORKERS_MAX: usize = 1_000;
/// Messages that a worker may leave unread beside three per seat (a job, its end, a word that it was called off), before it
/// is cut off.
const UNREAD_SPARE: usize = 64;
/// Leases that are shown of one worker.
const LEASES_SHOWN_MAX: usize = 20;

/// Number of a worker within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerId(u64);

#[derive(Debug)]
pub struct Desk {
    clock: Clock,
    registry: Registry,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    workers: BTreeMap<WorkerId, Worker>,
    leases: BTreeMap<CallId, Lease>,
    /// Calls of the leases by their jobs.
    jobs: BTreeMap<i64, CallId>,
    notes: Notes,
}

#[derive(Debug)]
struct Worker {
    offer: Offer,
    taken: u32,
    joined_at: Timestamp,
    heard_at: Timestamp,
    patience: Duration,
    tell: mpsc::Sender<Told>,
}

#[derive(Debug)]
struct Lease {
    token: Id,
    job: JobId,
    flow: FlowId,
    provider: ProviderName,
    operation: OperationName,
    /// `None`: its stream broke, or a former process gave it out.
    worker: Option<WorkerId>,
    /// When its worker was heard last, while it is away.
    heard_at: Timestamp,
    /// How long it holds unheard.
    patience: Duration,
    /// How long it holds at most.
    until: Timestamp,
    ends_at: Timestamp,
    progress: Option<Noted>,
    called_off: bool,
    /// Taken by the first word.
    say: Option<oneshot::Sender<Word>>,
}

/// What was said last of how far a job is, and the number of the note.
#[derive(Debug)]
struct Noted {
    number: u64,
    progress: Progress,
}

/// Room for one job at a worker. Given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    desk: Option<Arc<Desk>>,
    worker: WorkerId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.take() {
            desk.free(self.worker);
        }
    }
}

/// How long a lease holds. Steady time.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    pub patience: Duration,
    pub until: Timestamp,
}

impl Worker {
    fn silent_at(&self) -> Timestamp {
        self.heard_at + self.patience
    }

    fn has_free(&self, provider: &ProviderName, operation: &OperationName, now: Timestamp) -> u32 {
        let serves = self.offer.serves.iter().any(|(p, o)| p == provider && o == operation);
        if serves && now < self.silent_at() { self.offer.seats.saturating_sub(self.taken) } else { 0 }
    }
}

impl State {
    fn ends_at(&self, lease: &Lease) -> Timestamp {
        let heard_at = lease.worker.and_then(|w| self.workers.get(&w)).map_or(lease.heard_at, |w| w.heard_at);
        (heard_at + lease.patience).min(lease.until)
    }

    /// What it holds, it holds for the rest of its time.
    fn leave(&mut self, worker: WorkerId) {
        let Some(gone) = self.workers.remove(&worker) else { return };
        for lease in self.leases.values_mut().filter(|lease| lease.worker == Some(worker)) {
            (lease.worker, lease.heard_at) = (None, gone.heard_at);
        }
    }

    /// A worker that does not read what it is told is let go.
    fn tell(&mut self, worker: WorkerId, told: Told) -> bool {
        let heard = self.workers.get(&worker).is_some_and(|w| w.tell.try_send(told).is_ok());
        if !heard {
            self.leave(worker);
        }
        heard
    }
}

impl Desk {
    pub fn new(clock: Clock, registry: Registry) -> Self {
        Desk { clock, registry, state: Mutex::default() }
    }

    /// A worker that is to be heard at least each third of `patience`. `None`: there are too many.
    pub fn join(&self, offer: Offer, patience: Duration) -> Option<(WorkerId, mpsc::Receiver<Told>)> {
        let (tell, told) = mpsc::channel(offer.seats as usize * 3 + UNREAD_SPARE);
        let (now, wall) = (self.clock.steady(), self.clock.now());
        let serves = offer.serves.clone();
        let worker = Worker { offer, taken: 0, joined_at: wall, heard_at: now, patience, tell };
        let mut state = self.lock();
        if state.workers.len() >= WORKERS_MAX {
            return None;
        }
        state.next += 1;
        let id = WorkerId(state.next);
        state.workers.insert(id, worker);
        drop(state);
        self.wake(&serves);
        Some((id, told))
    }

    pub fn leave(&self, worker: WorkerId) {
        self.lock().leave(worker);
    }

    /// A sign of life, whatever it was.
    pub fn heard(&self, worker: WorkerId) {
        let now = self.clock.steady();
        if let Some(worker) = self.lock().workers.get_mut(&worker) {
            worker.heard_at = now;
        }
    }

    /// Steady time at which the worker is given up if it is not heard before.
    pub fn silent_at(&self, worker: WorkerId) -> Timestamp {
        self.lock().workers.get(&worker).map_or(Timestamp::ZERO, Worker::silent_at)
    }

    /// At most `max` seats of those that can do it, from the least busy on.
    pub fn seats(self: &Arc<Self>, provider: &ProviderName, operation: &OperationName, max: u32) -> Vec<Seat> {
        let now = self.clock.steady();
        let mut state = self.lock();
        let free = |(id, w): (&WorkerId, &Worker)| (w.has_free(provider, operation, now), *id);
        let mut free: Vec<(u32, WorkerId)> = state.workers.iter().map(free).filter(|(free, _)| *free > 0).collect();
        free.sort_by(|a, b| b.cmp(a));
        let mut seats = Vec::new();
        while !free.is_empty() && seats.len() < max as usize {
            // One of each in turn, so that no worker gets all.
            for (left, id) in free.iter_mut().take(max as usize - seats.len()) {
                *left -= 1;
                seats.push(Seat { desk: Some(self.clone()), worker: *id });
                if let Some(worker) = state.workers.get_mut(id) {
                    worker.taken += 1;
                }
            }
            free.retain(|(left, _)| *left > 0);
        }
        seats
    }

    fn free(&self, worker: WorkerId) {
        let serves = self.lock().workers.get_mut(&worker).map(|w| {
            w.taken = w.taken.saturating_sub(1);
            w.offer.serves.clone()
        });
        self.wake(&serves.unwrap_or_default());
    }

    /// The gates that may have waited for a seat.
    fn wake(&self, serves: &[(ProviderName, OperationName)]) {
        let providers: BTreeSet<&ProviderName> = serves.iter().map(|(provider, _)| provider).collect();
        for entry in providers.into_iter().filter_map(|name| self.registry.get(name)) {
            entry.gate.seats_freed();
        }
    }

    /// Hands a job out. `None`: its worker has gone away and was told nothing.
    pub fn lend(&self, mut seat: Seat, call: CallId, work: Work, term: Term) -> Option<oneshot::Receiver<Word>> {
        let mut state = self.lock();
        let (lease, word) = lease(&work, Some(seat.worker), term, self.clock.steady());
        if !state.tell(seat.worker, Told::Job(Box::new(work))) {
            return None;
        }
        // The lease has it from here on.
        seat.desk = None;
        state.jobs.insert(lease.job.seq, call);
        state.leases.insert(call, lease);
        Some(word)
    }

    /// A lease of a former process, whose worker may come back for it. `None`: it is here already.
    pub fn expect_back(&self, call: CallId, work: &Work, term: Term) -> Option<oneshot::Receiver<Word>> {
        let mut state = self.lock();
        if state.leases.contains_key(&call) {
            return None;
        }
        let (lease, word) = lease(work, None, term, self.clock.steady());
        state.jobs.insert(lease.job.seq, call);
        state.leases.insert(call, lease);
        Some(word)
    }

    /// Is there a lease of this token?
    pub fn has(&self, token: Id) -> bool {
        self.lock().leases.get(&CallId(token.seq)).is_some_and(|lease| lease.token == token)
    }

    /// Gives a lease to the worker that has its token. False: it is over.
    pub fn resume(&self, worker: WorkerId, token: Id) -> bool {
        let mut state = self.lock();
        let Some(lease) = state.leases.get_mut(&CallId(token.seq)).filter(|lease| lease.token == token) else {
            return false;
        };
        // Of a stream that is not known to be broken yet, it is taken all the same.
        let (before, called_off) = (lease.worker.replace(worker), lease.called_off);
        if before == Some(worker) {
            return true;
        }
        if let Some(worker) = before.and_then(|before| state.workers.get_mut(&before)) {
            worker.taken = worker.taken.saturating_sub(1);
        }
        if let Some(worker) = state.workers.get_mut(&worker) {
            worker.taken += 1;
        }
        if called_off {
            // Its former stream may have broken before it was read there.
            state.tell(worker, Told::CalledOff(token));
        }
        true
    }

    /// What became of a job. False: the worker does not hold it.
    pub fn say(&self, worker: WorkerId, token: Id, word: Word) -> bool {
        let mut state = self.lock();
        let lease = state.leases.get_mut(&CallId(token.seq));
        let Some(lease) = lease.filter(|l| l.token == token && l.worker == Some(worker)) else { return false };
        if let Some(say) = lease.say.take() {
            // Nobody listens while the daemon stops: it is said again after the restart.
            let _ = say.send(word);
        }
        true
    }

    /// Numbers of up to `max` jobs above `after` that workers have and that nobody has called off.
    pub fn jobs(&self, after: i64, max: usize) -> Vec<i64> {
        let state = self.lock();
        let wanted = |(_, call): &(&i64, &CallId)| state.leases.get(call).is_some_and(|lease| !lease.called_off);
        state.jobs.range(after + 1..).filter(wanted).map(|(job, _)| *job).take(max).collect()
    }

    /// A job is called off: whoever has it is told, now or when it comes back.
    pub fn call_off(&self, job: i64) {
        let mut state = self.lock();
        let Some(call) = state.jobs.get(&job).copied() else { return };
        let Some(lease) = state.leases.get_mut(&call).filter(|lease| !lease.called_off) else { return };
        lease.called_off = true;
        if let (Some(worker), token) = (lease.worker, lease.token) {
            state.tell(worker, Told::CalledOff(token));
        }
    }

    /// Steady time at which the lease ends, as things are.
    pub fn ends_at(&self, call: CallId) -> Timestamp {
        let state = self.lock();
        state.leases.get(&call).map_or(Timestamp::ZERO, |lease| state.ends_at(lease))
    }

    /// Ends the lease if its time is over: nothing that is said of it counts from here on.
    pub fn expire(&self, call: CallId) -> bool {
        let now = self.clock.steady();
        let mut state = self.lock();
        let over = state.leases.get(&call).is_none_or(|lease| state.ends_at(lease) <= now);
        if let (true, Some(lease)) = (over, state.leases.get_mut(&call)) {
            lease.say = None;
        }
        over
    }

    /// The job is out of its worker's hands. Tells it, if it is there, and frees its seat.
    pub fn end(&self, call: CallId, recorded: bool, reason: &Arc<str>) {
        let mut state = self.lock();
        let Some(lease) = state.leases.remove(&call) else { return };
        state.jobs.remove(&lease.job.seq);
        if let Some(noted) = &lease.progress {
            state.notes.forget(noted.number, lease.flow, call);
        }
        let Some(worker) = lease.worker else { return };
        let ended = Ended { token: lease.token, recorded, reason: reason.clone() };
        state.tell(worker, Told::Ended(ended));
        drop(state);
        self.free(worker);
    }

    /// Everybody who is here, by their coming.
    pub fn views(&self) -> Vec<WorkerView> {
        let state = self.lock();
        let shown = |(id, worker): (&WorkerId, &Worker)| {
            let own = state.leases.values().filter(|lease| lease.worker == Some(*id));
            let leases = own.take(LEASES_SHOWN_MAX).map(|lease| LeaseView {
                job: lease.job,
                provider: lease.provider.clone(),
                operation: lease.operation.clone(),
                ends_at: lease.ends_at,
                progress: lease.progress.as_ref().map(|noted| noted.progress.clone()),
            });
            WorkerView {
                name: worker.offer.name.clone(),
                serves: worker.offer.serves.clone(),
                seats: worker.offer.seats,
                taken: worker.taken,
                joined_at: worker.joined_at,
                heard_at: super::wall_of(&self.clock, worker.heard_at),
                leases: leases.collect(),
            }
        };
        state.workers.iter().map(shown).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

fn lease(work: &Work, worker: Option<WorkerId>, term: Term, heard_at: Timestamp) -> (Lease, oneshot::Receiver<Word>) {
    let (say, word) = oneshot::channel();
    let lease = Lease {
        token: work.token,
        job: work.job.id,
        flow: work.job.flow,
        provider: work.provider.clone(),
        operation: work.operation.clone(),
        worker,
        heard_at,
        patience: term.patience,
        until: term.until,
        ends_at: work.ends_at,
        progress: None,
        called_off: false,
        say: Some(say),
    };
    (lease, word)
}

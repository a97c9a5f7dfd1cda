//! The group-commit writer: one actor, one transaction at a time, carrying everything that arrived since the last.
//!
//! While a transaction is being made durable, requests gather; there is no artificial wait, so a lone request is
//! committed at once and a flood shares fsyncs. Answers go out only after the commit. Outcomes of calls are evidence
//! and are never dropped: they are tried again until the store takes them. Must never know: limits, HTTP, gRPC.
//! Next: `store`, which does the work; `gate`, which hears what changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};

use super::EngineError;
use super::signal::Signals;
use super::subscriptions::Subscriptions;
use super::supervisor::{ActorResult, BEAT_EVERY, Beat, Supervisor};
use crate::clock::Clock;
use crate::model::event::What;
use crate::model::flow::Flow;
use crate::model::id::FlowId;
use crate::model::job::NewJob;
use crate::store::{
    self, Batch, Begin, Begun, Change, Changed, Committed, Enqueued, FinishCall, Finished, PageEnd, PageWhat,
    RecordDone, RecordOp, Refusal, Store,
};
use crate::telemetry::metrics::Metrics;

/// Requests that may wait for the next commit.
const INBOX_MAX: usize = 4_096;
/// Jobs of one commit, so that one giant request does not hold up the small ones for long.
const GROUP_JOBS_MAX: usize = 4_000;
/// Payload bytes that may wait in the inbox, in KiB.
const INBOX_KIB_MAX: usize = 64 * 1_024;
/// An enqueue waits this long for room before it is told to come back.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);
/// Waits between tries while the store is away.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The end of a call, and the page that it fetched.
type Ended = (FinishCall, Option<PageEnd>);
type RecordResults = Vec<Result<RecordDone, Refusal>>;
type EnqueueResults = Vec<Result<Enqueued, Refusal>>;
type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

#[derive(Debug)]
enum Request {
    Enqueue { jobs: Vec<NewJob>, reply: Reply<EnqueueResults>, _room: tokio::sync::OwnedSemaphorePermit },
    Change { change: Box<Change>, reply: Reply<Result<Changed, Refusal>> },
    Begin { begins: Vec<Begin>, reply: Reply<Vec<Begun>> },
    Records { ops: Vec<RecordOp>, reply: Reply<RecordResults>, _room: tokio::sync::OwnedSemaphorePermit },
    Finish { ended: Box<Ended>, reply: oneshot::Sender<Finished> },
}

#[derive(Clone, Debug)]
pub struct Writer {
    inbox: mpsc::Sender<Request>,
    /// Bounds the bytes that wait, where the inbox bounds the requests.
    room: Arc<Semaphore>,
}

impl Writer {
    /// Starts the actor. What it commits is told to `signals`.
    pub fn start(
        supervisor: &Supervisor,
        clock: Clock,
        store: Arc<dyn Store>,
        signals: Arc<Signals>,
        metrics: Arc<Metrics>,
        subscriptions: Subscriptions,
    ) -> Self {
        let (inbox, outbox) = mpsc::channel(INBOX_MAX);
        // The receiver outlives a restart of the actor.
        let outbox = Arc::new(Mutex::new(outbox));
        let giver_up = supervisor.clone();
        supervisor.actor("writer", Default::default(), move |beat| {
            let actor = Actor {
                clock: clock.clone(),
                store: store.clone(),
                signals: signals.clone(),
                metrics: metrics.clone(),
                subscriptions: subscriptions.clone(),
                supervisor: giver_up.clone(),
                unsettled: Vec::new(),
            };
            let outbox = outbox.clone();
            async move { actor.run(beat, &mut *outbox.lock().await).await }
        });
        Writer { inbox, room: Arc::new(Semaphore::new(INBOX_KIB_MAX)) }
    }

    /// Durable when it returns.
    pub async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<EnqueueResults, EngineError> {
        let bytes: usize = jobs.iter().map(|j| j.payload.len() + 256).sum();
        let room = self.room(bytes).await?;
        self.ask(|reply| Request::Enqueue { jobs, reply, _room: room }).await
    }

    async fn room(&self, bytes: usize) -> Result<tokio::sync::OwnedSemaphorePermit, EngineError> {
        let kib = (bytes / 1_024 + 1).min(INBOX_KIB_MAX) as u32;
        let room = self.room.clone().acquire_many_owned(kib);
        let Ok(room) = tokio::time::timeout(ROOM_WAIT_MAX, room).await else {
            return Err(EngineError::Busy { waiting: INBOX_MAX - self.inbox.capacity() });
        };
        room.map_err(|_| EngineError::Draining)
    }

    /// Durable when it returns. One result per thing to do, in order.
    pub async fn records(&self, ops: Vec<RecordOp>) -> Result<RecordResults, EngineError> {
        let bytes = |op: &RecordOp| match op {
            RecordOp::Write(write) => write.document.as_ref().map_or(0, |d| d.data.len()) + 512,
            _ => 512,
        };
        let room = self.room(ops.iter().map(bytes).sum()).await?;
        self.ask(|reply| Request::Records { ops, reply, _room: room }).await
    }

    pub async fn change(&self, change: Change) -> Result<Changed, EngineError> {
        Ok(self.ask(|reply| Request::Change { change: Box::new(change), reply }).await??)
    }

    pub async fn begin(&self, begins: Vec<Begin>) -> Result<Vec<Begun>, EngineError> {
        self.ask(|reply| Request::Begin { begins, reply }).await
    }

    /// Returns when the outcome is durable, however long the store is away. `None`: the daemon ends, and the next one
    /// judges the call.
    pub async fn finish(&self, finish: FinishCall) -> Option<Finished> {
        self.finish_page(finish, None).await
    }

    /// The same; what the call fetched is stored by the transaction that ends it.
    pub async fn finish_page(&self, finish: FinishCall, page: Option<PageEnd>) -> Option<Finished> {
        let (reply, done) = oneshot::channel();
        let ended = Box::new((finish, page));
        self.inbox.send(Request::Finish { ended, reply }).await.ok()?;
        // An error means that the writer went away: the sweeper of the next process judges the call.
        done.await.ok()
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(request(reply)).await.map_err(|_| EngineError::Draining)?;
        answer.await.map_err(|_| {
            EngineError::Unavailable("the writer restarted; it is not known whether this was done".to_owned())
        })?
    }
}

struct Actor {
    clock: Clock,
    store: Arc<dyn Store>,
    signals: Arc<Signals>,
    metrics: Arc<Metrics>,
    subscriptions: Subscriptions,
    supervisor: Supervisor,
    /// Outcomes that the store could not take yet.
    unsettled: Vec<(Ended, oneshot::Sender<Finished>)>,
}

/// One commit's requests, taken apart into a batch and the replies that wait for it.
#[derive(Default)]
struct Group {
    batch: Batch,
    enqueues: Vec<(usize, Reply<EnqueueResults>)>,
    changes: Vec<Reply<Result<Changed, Refusal>>>,
    records: Vec<(usize, Reply<RecordResults>)>,
    begins: Vec<(usize, Reply<Vec<Begun>>)>,
    finishes: Vec<oneshot::Sender<Finished>>,
}

impl Group {
    /// Returns how much it adds to the commit.
    fn end(&mut self, (finish, page): Ended, reply: oneshot::Sender<Finished>) -> usize {
        let records = page.as_ref().map_or(0, |page| match &page.what {
            PageWhat::Stored { writes, .. } => writes.len(),
            PageWhat::Failed { .. } => 0,
        });
        let weight = finish.outcomes.len() + records;
        self.batch.finishes.push(finish);
        self.batch.pages.extend(page);
        self.finishes.push(reply);
        weight
    }
}

impl Actor {
    async fn run(mut self, beat: Beat, inbox: &mut mpsc::Receiver<Request>) -> ActorResult {
        let mut waiting: std::collections::VecDeque<Request> = Default::default();
        let mut arrived = Vec::new();
        let mut retry_after = None;
        loop {
            beat.beat();
            if waiting.is_empty() && self.unsettled.is_empty() {
                tokio::select! {
                    biased;
                    n = inbox.recv_many(&mut arrived, INBOX_MAX) => if n == 0 { return Ok(()) },
                    () = tokio::time::sleep(BEAT_EVERY) => continue,
                    // Last: what is in the inbox is written before the actor ends.
                    () = beat.stop.cancelled() => return Ok(()),
                }
            } else if let Some(delay) = retry_after {
                tokio::time::sleep(delay).await;
            }
            while let Ok(request) = inbox.try_recv() {
                arrived.push(request);
                if arrived.len() >= INBOX_MAX {
                    break;
                }
            }
            waiting.extend(arrived.drain(..));
            let group = self.gather(&mut waiting);
            retry_after = match beat.through(self.commit(group)).await {
                Ok(()) => None,
                Err(store::Error::Unavailable { reason }) => {
                    tracing::warn!(%reason, "the store is not available");
                    Some(retry_after.map_or(RETRY_FIRST, |d: Duration| (d * 2).min(RETRY_MAX)))
                }
                Err(fatal) => {
                    self.supervisor.fail(fatal.to_string());
                    return Err(fatal.to_string());
                }
            };
        }
    }

    /// Takes requests until the commit is big enough. What is left goes with the next one.
    fn gather(&mut self, waiting: &mut std::collections::VecDeque<Request>) -> Group {
        let mut group = Group::default();
        for (ended, reply) in self.unsettled.drain(..) {
            group.end(ended, reply);
        }
        let mut jobs_in_group = 0;
        while jobs_in_group < GROUP_JOBS_MAX {
            let Some(request) = waiting.pop_front() else { break };
            match request {
                Request::Enqueue { jobs, reply, _room } => {
                    jobs_in_group += jobs.len();
                    group.enqueues.push((jobs.len(), reply));
                    group.batch.enqueues.extend(jobs);
                }
                Request::Change { change, reply } => {
                    jobs_in_group += 1;
                    group.batch.changes.push(*change);
                    group.changes.push(reply);
                }
                Request::Begin { begins, reply } => {
                    jobs_in_group += begins.iter().flat_map(|b| &b.takes).map(|t| t.count as usize).sum::<usize>();
                    group.begins.push((begins.len(), reply));
                    group.batch.begins.extend(begins);
                }
                Request::Records { ops, reply, _room } => {
                    jobs_in_group += ops.len();
                    group.records.push((ops.len(), reply));
                    group.batch.records.extend(ops);
                }
                Request::Finish { ended, reply } => jobs_in_group += group.end(*ended, reply),
            }
        }
        group
    }

    async fn commit(&mut self, mut group: Group) -> Result<(), store::Error> {
        group.batch.now = self.clock.now();
        group.batch.notify = self.subscriptions.now();
        let started = self.clock.steady();
        group.batch.steady = started;
        // Kept because an outcome must survive a failed commit; small beside the transaction itself.
        let page_of = |finish: &FinishCall| group.batch.pages.iter().find(|page| page.call == finish.call).cloned();
        let finishes: Vec<Ended> = group.batch.finishes.iter().map(|f| (f.clone(), page_of(f))).collect();
        if crate::mutant::on("ack-before-commit") {
            for (n, reply) in group.enqueues.drain(..) {
                let guess = |i| {
                    Ok(Enqueued {
                        id: crate::model::id::Id::new(group.batch.now, i as i64 + 1),
                        how: store::Accepted::Created,
                    })
                };
                let _ = reply.send(Ok((0..n).map(guess).collect()));
            }
        }
        match self.store.commit(group.batch).await {
            Ok(committed) => {
                self.metrics.store_commit(self.clock.steady().since(started));
                count(&self.metrics, &committed);
                let records = std::mem::take(&mut group.records);
                group_reply(
                    group.enqueues,
                    group.changes,
                    records,
                    group.begins,
                    group.finishes,
                    &self.signals,
                    committed,
                );
                Ok(())
            }
            Err(e) => {
                let away = || EngineError::Unavailable(e.to_string());
                group.enqueues.into_iter().for_each(|(_, r)| drop(r.send(Err(away()))));
                group.changes.into_iter().for_each(|r| drop(r.send(Err(away()))));
                group.records.into_iter().for_each(|(_, r)| drop(r.send(Err(away()))));
                group.begins.into_iter().for_each(|(_, r)| drop(r.send(Err(away()))));
                self.unsettled.extend(finishes.into_iter().zip(group.finishes));
                Err(e)
            }
        }
    }
}

/// Counts what a commit did, once per commit and flow and not once per job.
fn count(metrics: &Metrics, committed: &Committed) {
    let flows: BTreeMap<FlowId, &Flow> = committed.flows.iter().map(|f| (f.id, f)).collect();
    let flow = |id: FlowId| flows.get(&id);
    for event in &committed.events {
        match &event.what {
            What::Enqueued { flow: id, jobs } => {
                if let Some(f) = flow(*id) {
                    metrics.jobs_enqueued(f.key.provider.as_str(), f.key.operation.as_str(), jobs.len() as u64);
                }
            }
            What::Changed { flow: id, jobs, to, .. } if to.is_final() => {
                if let Some(f) = flow(*id) {
                    let (provider, operation) = (f.key.provider.as_str(), f.key.operation.as_str());
                    metrics.jobs_finished(provider, operation, to.name(), jobs.len() as u64);
                }
            }
            _ => {}
        }
    }
}

/// Tells everybody: first the actors that have work to do, then the clients that wait.
fn group_reply(
    enqueues: Vec<(usize, Reply<EnqueueResults>)>,
    changes: Vec<Reply<Result<Changed, Refusal>>>,
    records: Vec<(usize, Reply<RecordResults>)>,
    begins: Vec<(usize, Reply<Vec<Begun>>)>,
    finishes: Vec<oneshot::Sender<Finished>>,
    signals: &Signals,
    mut committed: Committed,
) {
    signals.committed(&mut committed);
    // A caller that has gone away does not mind: what it asked for is done.
    let mut begun = committed.begins.into_iter();
    for (n, reply) in begins {
        let _ = reply.send(Ok(begun.by_ref().take(n).collect()));
    }
    let mut enqueued = committed.enqueues.into_iter();
    for (n, reply) in enqueues {
        let _ = reply.send(Ok(enqueued.by_ref().take(n).collect()));
    }
    let mut written = committed.records.into_iter();
    for (n, reply) in records {
        let _ = reply.send(Ok(written.by_ref().take(n).collect()));
    }
    for (changed, reply) in committed.changes.into_iter().zip(changes) {
        let _ = reply.send(Ok(changed));
    }
    for (finished, reply) in committed.finishes.into_iter().zip(finishes) {
        let _ = reply.send(finished);
    }
}

//! Brings back what is due or was left behind, and throws away what is old.
//!
//! Due retries become ready the moment they are due; open calls whose lease has ended are judged as crashed; runs that
//! are being called off lose their jobs in bounded steps; history is pruned. Must never know: limits, HTTP.
//! Next: `calloff`; `recover`, which judges what a dead process left open.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use super::calloff;
use super::desk::Desk;
use super::lender::Lender;
use super::recover::recover_expired;
use super::registry::Registry;
use super::signal::Signals;
use super::supervisor::{ActorResult, BEAT_EVERY, Beat, Supervisor};
use super::writer::Writer;
use super::{EngineError, Retention};
use crate::clock::{Clock, Timestamp};
use crate::model::id::RunId;
use crate::model::run::RunState;
use crate::store::{Change, Changed, PAGE_MAX, Refusal, Store};

/// Rows that one chore moves in one transaction.
const CHORE_ROWS: u32 = 1_000;
const LEASES_EVERY: Duration = Duration::from_secs(5);
const PRUNE_EVERY: Duration = Duration::from_secs(30);
/// Runs waiting to be called off. More are found again at the next look.
const CANCELS_MAX: usize = 1_024;

#[derive(Debug)]
pub struct Sweeper {
    pub desk: Arc<Desk>,
    pub lender: Arc<Lender>,
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub writer: Writer,
    pub registry: Registry,
    pub signals: Arc<Signals>,
    pub retention: Retention,
}

/// Tells the sweeper that a run is to be called off.
#[derive(Clone, Debug)]
pub struct SweeperHandle(mpsc::Sender<RunId>);

impl SweeperHandle {
    pub fn cancel_run(&self, run: RunId) {
        // Full: the sweeper looks for such runs by itself as well.
        let _ = self.0.try_send(run);
    }
}

impl Sweeper {
    pub fn start(self, supervisor: &Supervisor) -> SweeperHandle {
        let (tell, inbox) = mpsc::channel(CANCELS_MAX);
        let inbox = Arc::new(Mutex::new(inbox));
        let sweeper = Arc::new(self);
        supervisor.actor("sweeper", Default::default(), move |beat| {
            let (sweeper, inbox) = (sweeper.clone(), inbox.clone());
            async move { sweeper.run(beat, &mut *inbox.lock().await).await }
        });
        SweeperHandle(tell)
    }

    async fn run(&self, beat: Beat, inbox: &mut mpsc::Receiver<RunId>) -> ActorResult {
        let mut next_due = self.signals.next_due();
        let mut leases_at = self.clock.steady();
        let mut prune_at = self.clock.steady() + PRUNE_EVERY;
        // Runs that wait for the calls that are on the wire: a job that comes back from there is called off too.
        let mut calling_off = BTreeSet::new();
        let mut look_after = 0;
        beat.through(self.cancel_left_runs(&mut calling_off)).await;
        loop {
            beat.beat();
            let due = *next_due.borrow_and_update();
            let now = self.clock.steady();
            // Due times are wall times; the sleep is measured on the steady line.
            let due_in = due.since(self.clock.now());
            let wake_at = (now + due_in).min(leases_at).min(prune_at).min(now + BEAT_EVERY);
            tokio::select! {
                biased;
                () = beat.stop.cancelled() => return Ok(()),
                // Not taken when nobody can ask any more: else it would answer at once, for ever.
                Some(run) = inbox.recv() => beat.through(self.cancel_run(run, &mut calling_off)).await,
                _ = next_due.changed() => {}
                () = self.clock.sleep_until(wake_at) => {}
            }
            if *next_due.borrow() <= self.clock.now() {
                self.settle(beat.through(self.chore(|| Change::PromoteDue { limit: CHORE_ROWS })).await);
            }
            if self.clock.steady() >= leases_at {
                let expired = recover_expired(&self.store, &self.writer, &self.registry, &self.clock, &self.lender);
                self.settle(beat.through(expired).await);
                for run in std::mem::take(&mut calling_off) {
                    beat.through(self.cancel_run(run, &mut calling_off)).await;
                }
                match beat.through(calloff::look(&self.desk, &*self.store, look_after)).await {
                    Ok(next) => look_after = next,
                    Err(e) => self.settle(Err(e.into())),
                }
                leases_at = self.clock.steady() + LEASES_EVERY;
            }
            if self.clock.steady() >= prune_at {
                self.settle(beat.through(self.prune()).await);
                prune_at = self.clock.steady() + PRUNE_EVERY;
            }
        }
    }

    /// A chore that failed is done at the next turn: nothing depends on when.
    fn settle(&self, done: Result<(), EngineError>) {
        if let Err(e) = done {
            tracing::warn!(error = %e, "the sweeper could not finish a chore");
        }
    }

    /// Repeats a bounded change until it finds nothing more to do.
    async fn chore(&self, change: impl Fn() -> Change) -> Result<(), EngineError> {
        loop {
            match self.writer.change(change()).await? {
                Changed::Count(moved) if moved >= u64::from(CHORE_ROWS) => {}
                _ => return Ok(()),
            }
        }
    }

    /// Calls off what waits, tells the workers, and remembers the run if calls of it are still on the wire.
    async fn cancel_run(&self, run: RunId, calling_off: &mut BTreeSet<RunId>) {
        let done = match self.chore(|| Change::CancelRunJobs { run, limit: CHORE_ROWS }).await {
            Err(EngineError::Refused(Refusal::NoRun(_) | Refusal::WrongRunState { .. })) => return,
            Ok(()) => calloff::look_at_all(&self.desk, &*self.store).await.map_err(EngineError::from),
            Err(e) => Err(e),
        };
        let state = self.store.run(run).await.map(|run| run.map(|run| run.state));
        if !matches!(state, Ok(Some(RunState::Cancelled) | None)) && calling_off.len() < CANCELS_MAX {
            calling_off.insert(run);
        }
        self.settle(done);
    }

    /// Runs whose cancellation a dead process left half done.
    async fn cancel_left_runs(&self, calling_off: &mut BTreeSet<RunId>) {
        let runs = self.store.list_runs(None, PAGE_MAX).await.unwrap_or_default();
        for run in runs.into_iter().filter(|r| r.state == RunState::Cancelling) {
            self.cancel_run(run.id, calling_off).await;
        }
    }

    async fn prune(&self) -> Result<(), EngineError> {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let keep_calls = self.registry.longest_window() + self.retention.calls;
        let finished_before = now - self.retention.finished;
        let dead_before = now - self.retention.dead;
        let events_before = now - self.retention.events;
        let calls_before: Timestamp = steady - keep_calls;
        self.chore(|| Change::Prune { finished_before, dead_before, calls_before, events_before, limit: CHORE_ROWS })
            .await
    }
}

//! The scheduler: sleeps until the next tick and carries it out.
//!
//! Every daemon runs one. They wake at the same moment, and whoever commits first has the tick: a tick, what it starts and
//! that it has happened are one transaction, which names the version that it saw. So neither a crash nor a second daemon
//! loses or doubles one. Must never know: cron lines (`model/schedule`), SQL. Next: `store/schedules`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;

use super::EngineError;
use super::collections::PullError;
use super::handle::Handle;
use super::supervisor::{ActorResult, BEAT_EVERY, Beat, Supervisor};
use crate::clock::Timestamp;
use crate::model::event::What;
use crate::model::invalidation::Which;
use crate::model::job::NewJob;
use crate::model::name::{ScheduleName, Tenant};
use crate::model::run::NewRun;
use crate::model::schedule::{Decision, JobSpec, Schedule, Spec, Target, Timer, decide};
use crate::store::{Apply, Change, Changed, Refusal, ScheduleChange, Start, Tick};

/// Wait before the next try while the store is away.
const AGAIN: Duration = Duration::from_secs(1);
/// Schedules with ticks that wait are looked at this often, in case the news of a run's end was lost.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Who ticks, for the record.
const ACTOR: &str = "scheduler";

/// What others hold of the scheduler.
#[derive(Clone, Debug, Default)]
pub struct SchedulerHandle(Arc<Notify>);

impl SchedulerHandle {
    /// Declarations changed: all are read again.
    pub fn changed(&self) {
        self.0.notify_one();
    }

    pub(super) fn start(&self, handle: Handle, supervisor: &Supervisor) {
        let changed = self.0.clone();
        supervisor.actor("scheduler", Default::default(), move |beat| {
            let scheduler = Scheduler {
                handle: handle.clone(),
                changed: changed.clone(),
                known: BTreeMap::new(),
                wakes: BTreeSet::new(),
                stale: true,
                look_at: Timestamp::ZERO,
            };
            scheduler.run(beat)
        });
    }
}

struct Scheduler {
    handle: Handle,
    changed: Arc<Notify>,
    known: BTreeMap<ScheduleName, Known>,
    /// When each is to be looked at, wall time.
    wakes: BTreeSet<(Timestamp, ScheduleName)>,
    /// All are to be read again.
    stale: bool,
    /// When those that wait for a run are looked at again, wall time.
    look_at: Timestamp,
}

struct Known {
    wake_at: Timestamp,
    waits: bool,
}

impl Scheduler {
    async fn run(mut self, beat: Beat) -> ActorResult {
        let clock = self.handle.clock().clone();
        loop {
            beat.beat();
            let mut wait = match self.turn().await {
                Ok(()) => self.next_wake().since(clock.now()),
                Err(e) => {
                    // No fault of this actor: a store that is away must not spend its restarts.
                    tracing::warn!(error = %e, "schedules wait");
                    self.stale = true;
                    AGAIN
                }
            };
            // The wall clock may be set meanwhile.
            wait = wait.min(BEAT_EVERY);
            let wake_at = clock.steady() + wait;
            // Whoever watches events on a cluster makes the relay read them: only while something waits for a run.
            let watching = self.known.values().any(|known| known.waits);
            let ended = async {
                match watching {
                    true => run_ended(&self.handle).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = beat.stop.cancelled() => return Ok(()),
                () = self.changed.notified() => self.stale = true,
                () = ended => self.look_at = Timestamp::ZERO,
                () = clock.sleep_until(wake_at) => {}
            }
        }
    }

    fn next_wake(&self) -> Timestamp {
        self.wakes.first().map_or(Timestamp::NEVER, |(at, _)| *at)
    }

    async fn turn(&mut self) -> Result<(), EngineError> {
        if self.handle.is_draining() {
            return Ok(());
        }
        let now = self.handle.clock().now();
        if self.stale {
            let all = self.handle.store().schedules().await?;
            (self.known, self.wakes) = (BTreeMap::new(), BTreeSet::new());
            all.iter().for_each(|schedule| self.learn(schedule));
            (self.stale, self.look_at) = (false, Timestamp::ZERO);
        }
        let mut due: BTreeSet<ScheduleName> =
            self.wakes.iter().take_while(|(at, _)| *at <= now).map(|(_, name)| name.clone()).collect();
        if now >= self.look_at {
            self.look_at = now + LOOK_EVERY;
            due.extend(self.known.iter().filter(|(_, known)| known.waits).map(|(name, _)| name.clone()));
        }
        for name in due {
            self.look(&name).await?;
        }
        Ok(())
    }

    fn learn(&mut self, schedule: &Schedule) {
        self.forget(&schedule.name);
        let timer = Timer::new(&schedule.name, &schedule.spec);
        if let Err(e) = &timer {
            // It was checked when it was declared; the zones of this machine may be others.
            tracing::error!(schedule = %schedule.name, error = %e, "the schedule does not tick here");
        }
        let wake_at = timer.map_or(Timestamp::NEVER, |timer| timer.fires_at(schedule.next_at));
        if wake_at != Timestamp::NEVER {
            self.wakes.insert((wake_at, schedule.name.clone()));
        }
        self.known.insert(schedule.name.clone(), Known { wake_at, waits: !schedule.queued.is_empty() });
    }

    fn forget(&mut self, name: &ScheduleName) {
        if let Some(known) = self.known.remove(name) {
            self.wakes.remove(&(known.wake_at, name.clone()));
        }
    }

    /// Reads the schedule as it stands and does what is due.
    async fn look(&mut self, name: &ScheduleName) -> Result<(), EngineError> {
        let Some(schedule) = self.handle.store().schedule(name).await? else {
            self.forget(name);
            return Ok(());
        };
        let Ok(timer) = Timer::new(name, &schedule.spec) else {
            self.learn(&schedule);
            return Ok(());
        };
        let busy = match schedule.last_run {
            Some(run) => self.handle.store().run(run).await?.is_some_and(|run| !run.state.is_final()),
            None => false,
        };
        let Some(decision) = decide(&timer, &schedule, busy, self.handle.clock().now()) else {
            self.learn(&schedule);
            return Ok(());
        };
        tracing::info!(schedule = %name, outcome = decision.outcome, "tick");
        match self.handle.tick(tick(&self.handle, &schedule, decision).await?).await {
            Ok(schedule) => self.learn(&schedule),
            // Another daemon was faster, or it was changed or deleted in this moment: the row says.
            Err(EngineError::Refused(Refusal::ScheduleMoved(_) | Refusal::NoSchedule(_))) => {
                match self.handle.store().schedule(name).await? {
                    Some(schedule) => self.learn(&schedule),
                    None => self.forget(name),
                }
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

/// Resolves when a run has come to an end, or when news were lost.
async fn run_ended(handle: &Handle) {
    let mut events = handle.events();
    loop {
        match events.recv().await {
            Ok(events) => {
                let ended = |what: &What| matches!(what, What::Run { state, .. } if state.is_final());
                if events.iter().any(|event| ended(&event.what)) {
                    return;
                }
            }
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

async fn tick(handle: &Handle, schedule: &Schedule, decision: Decision) -> Result<Tick, EngineError> {
    let Decision { starts, cancels, queued, next_at, last_tick_at, mut outcome } = decision;
    let target = &schedule.spec.target;
    let mut pull = None;
    if let (Target::Pull(spec), false) = (target, starts.is_empty()) {
        let by = format!("schedule {}", schedule.name);
        match handle.pull_to_start(&spec.collection, spec.full, &by).await {
            Ok(start) => pull = Some(Box::new(start)),
            Err(PullError::Engine(e)) => return Err(e),
            // Not declared so any more: the tick has happened, and says why nothing came of it.
            Err(e) => outcome = format!("not pulled: {e}"),
        }
    }
    Ok(Tick {
        name: schedule.name.clone(),
        version: schedule.version,
        next_at,
        queued,
        last_tick_at,
        outcome,
        cancels: schedule.last_run.filter(|_| cancels),
        invalidates: invalidates(target).filter(|_| !starts.is_empty()),
        starts: starts.into_iter().filter_map(|at| start(handle, &schedule.name, target, at)).collect(),
        pull,
        actor: ACTOR.to_owned(),
    })
}

fn invalidates(target: &Target) -> Option<Which> {
    match target {
        Target::Invalidate(which) => Some(which.clone()),
        Target::Jobs(_) | Target::Pull(_) => None,
    }
}

fn start(handle: &Handle, name: &ScheduleName, target: &Target, at: Timestamp) -> Option<Start> {
    let Target::Jobs(jobs) = target else { return None };
    let tenant: Tenant = jobs.first().map(|job| job.tenant.clone()).unwrap_or_default();
    let labels = [("schedule".to_owned(), name.to_string()), ("tick".to_owned(), at.to_string())].into();
    let run = NewRun { display_name: format!("schedule {name}, {at}"), tenant, labels, undo_of: None };
    let mut jobs: Vec<NewJob> = jobs.iter().map(|job| new_job(handle, job)).collect();
    handle.place(&mut jobs);
    Some(Start { run, jobs })
}

fn new_job(handle: &Handle, spec: &JobSpec) -> NewJob {
    // A provider that is gone leaves its jobs waiting until it is declared again, as ever.
    let operation = handle.registry().operation(&spec.provider, &spec.operation);
    let job = NewJob::new(spec.provider.clone(), spec.operation.clone(), spec.payload.clone());
    NewJob {
        account: spec.account.clone(),
        tenant: spec.tenant.clone(),
        key: spec.key.clone(),
        class: spec.class,
        labels: spec.labels.clone(),
        coalesce: operation.map(|(_, operation)| operation.coalesce).unwrap_or_default(),
        ..job
    }
}

/// What the edges ask for.
impl Handle {
    /// Puts a checked declaration in force. `spec` has a timer that can be made.
    pub async fn apply_schedule(
        &self,
        name: ScheduleName,
        spec: Spec,
        from_file: bool,
        expect: Option<i64>,
        actor: &str,
    ) -> Result<Schedule, EngineError> {
        let next_at = next_tick(&name, &spec, self.clock().now());
        let apply = Apply { name, spec, from_file, expect, next_at, actor: actor.to_owned() };
        self.schedule(ScheduleChange::Apply(apply)).await
    }

    pub async fn delete_schedule(&self, name: &ScheduleName, actor: &str) -> Result<(), EngineError> {
        let delete = ScheduleChange::Delete { name: name.clone(), actor: actor.to_owned() };
        self.change(Change::Schedule(Box::new(delete))).await?;
        self.scheduler().changed();
        Ok(())
    }

    pub async fn pause_schedule(
        &self,
        schedule: &Schedule,
        paused: bool,
        actor: &str,
    ) -> Result<Schedule, EngineError> {
        let next = || next_tick(&schedule.name, &schedule.spec, self.clock().now());
        let next_at = if paused { Timestamp::NEVER } else { next() };
        let (name, actor) = (schedule.name.clone(), actor.to_owned());
        self.schedule(ScheduleChange::Pause { name, paused, next_at, actor }).await
    }

    /// Starts now what a tick would start. Refused when the schedule is no longer as it was read.
    pub async fn run_schedule(&self, schedule: &Schedule, actor: &str) -> Result<Schedule, EngineError> {
        if self.is_draining() {
            return Err(EngineError::Draining);
        }
        let decision = Decision {
            starts: vec![self.clock().now()],
            cancels: false,
            queued: schedule.queued.clone(),
            next_at: schedule.next_at,
            last_tick_at: schedule.last_tick_at,
            outcome: "started by hand".to_owned(),
        };
        let tick = Tick { actor: actor.to_owned(), ..tick(self, schedule, decision).await? };
        let after = self.tick(tick).await?;
        self.scheduler().changed();
        Ok(after)
    }

    async fn tick(&self, tick: Tick) -> Result<Schedule, EngineError> {
        let (cancels, invalidates) = (tick.cancels, tick.invalidates.clone());
        let change = Change::Schedule(Box::new(ScheduleChange::Tick(tick)));
        let schedule = schedule_of(self.change(change).await?)?;
        if let Some(run) = cancels {
            self.call_off(run);
        }
        if let Some(which) = invalidates {
            self.cache().invalidate(&which);
        }
        Ok(schedule)
    }

    async fn schedule(&self, change: ScheduleChange) -> Result<Schedule, EngineError> {
        let schedule = schedule_of(self.change(Change::Schedule(Box::new(change))).await?)?;
        self.scheduler().changed();
        Ok(schedule)
    }
}

fn schedule_of(changed: Changed) -> Result<Schedule, EngineError> {
    match changed {
        Changed::Schedule(schedule) => Ok(*schedule),
        other => Err(EngineError::Unavailable(format!("the store answered a change of a schedule with {other:?}"))),
    }
}

fn next_tick(name: &ScheduleName, spec: &Spec, now: Timestamp) -> Timestamp {
    Timer::new(name, spec).map_or(Timestamp::NEVER, |timer| timer.next_after(now))
}

//! Owns every task of the daemon: its name, its restarts with their reasons, its heartbeat, its end.
//!
//! The only place that spawns. An actor that panics or fails is started again from its factory, up to a budget of
//! restarts; when the budget is spent the daemon ends non-zero and systemd takes over. Must never know what an actor
//! does. Next: `signal`, `writer`, `gate`.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::status::ActorInfo;
use crate::clock::{Clock, Timestamp};
use crate::telemetry::metrics::Metrics;

/// How often an actor may be started again before the daemon gives up.
#[derive(Clone, Copy, Debug)]
pub struct RestartPolicy {
    pub restarts_max: usize,
    pub within: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        RestartPolicy { restarts_max: 5, within: Duration::from_secs(60) }
    }
}

/// An actor without a beat for this long counts as hung; the watchdog is then no longer fed.
pub const BEAT_MAX_AGE: Duration = Duration::from_secs(15);
/// Idle actors beat at least this often.
pub const BEAT_EVERY: Duration = Duration::from_secs(3);

/// First wait before a restart; doubles with each restart within the policy's time.
const RESTART_DELAY: Duration = Duration::from_millis(50);

/// Why an actor's future ended early. `Ok(())` means that it was asked to stop.
pub type ActorResult = Result<(), String>;
type ActorFuture = Pin<Box<dyn Future<Output = ActorResult> + Send>>;

#[derive(Clone, Debug)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Cancelled when actors must end, after the drain.
    stop: CancellationToken,
    /// Cancelled to drop every task where it stands, as a dying process does.
    kill: CancellationToken,
    /// Actors and the tasks that they own.
    tracker: TaskTracker,
    actors: Mutex<BTreeMap<String, Entry>>,
    /// Set once, when a budget is spent or an actor met a fatal failure.
    fatal: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct Entry {
    started_at: Timestamp,
    restarts: u32,
    last_reason: Option<String>,
    beat: Beat,
    alive: bool,
    /// Ends this actor alone.
    stop: CancellationToken,
}

/// An actor's sign of life and its order to stop.
#[derive(Clone, Debug)]
pub struct Beat {
    at: Arc<AtomicI64>,
    clock: Clock,
    pub stop: CancellationToken,
}

impl Beat {
    pub fn beat(&self) {
        self.at.store(self.clock.steady().0, Ordering::Relaxed);
    }

    /// Beats while `work` goes on. Only for work that is bounded by itself, as every operation of a store is: waiting for a
    /// database that is away is no hang, and must not starve the watchdog.
    pub async fn through<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(BEAT_EVERY) => self.beat(),
            }
        }
    }
}

impl Supervisor {
    pub fn new(clock: Clock, metrics: Arc<Metrics>) -> Self {
        Supervisor(Arc::new(Inner {
            clock,
            metrics,
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            tracker: TaskTracker::new(),
            actors: Mutex::new(BTreeMap::new()),
            fatal: watch::channel(None).0,
        }))
    }

    /// Starts a supervised actor. `make` builds its future anew at each start; what must outlive a restart (its
    /// inbox) lives outside of the future.
    pub fn actor<F, Fut>(&self, name: impl Into<String>, policy: RestartPolicy, make: F)
    where
        F: Fn(Beat) -> Fut + Send + 'static,
        Fut: Future<Output = ActorResult> + Send + 'static,
    {
        let name = name.into();
        let stop = self.0.stop.child_token();
        let beat = Beat {
            at: Arc::new(AtomicI64::new(self.0.clock.steady().0)),
            clock: self.0.clock.clone(),
            stop: stop.clone(),
        };
        let entry = Entry {
            started_at: self.0.clock.now(),
            restarts: 0,
            last_reason: None,
            beat: beat.clone(),
            alive: true,
            stop,
        };
        self.lock().insert(name.clone(), entry);
        let supervisor = self.clone();
        let make = move |beat: Beat| -> ActorFuture { Box::pin(make(beat)) };
        self.0.tracker.spawn(async move { supervisor.keep(name, policy, beat, make).await });
    }

    async fn keep(self, name: String, policy: RestartPolicy, beat: Beat, make: impl Fn(Beat) -> ActorFuture) {
        let mut restarts: Vec<Timestamp> = Vec::new();
        loop {
            beat.beat();
            // A task of its own, so that a panic ends here as a reason and not as a poisoned supervisor.
            let life = self.0.kill.clone().run_until_cancelled_owned(make(beat.clone()));
            let reason = match self.0.tracker.spawn(life).await {
                Ok(None | Some(Ok(()))) => break,
                Ok(Some(Err(reason))) => reason,
                Err(e) if e.is_panic() => format!("panicked: {}", panic_text(e.into_panic())),
                Err(_) => break,
            };
            let now = self.0.clock.steady();
            restarts.retain(|&at| now.since(at) < policy.within);
            restarts.push(now);
            tracing::error!(actor = %name, %reason, restarts = restarts.len(), "actor failed");
            self.0.metrics.actor_restarted(&name);
            if let Some(entry) = self.lock().get_mut(&name) {
                entry.restarts += 1;
                entry.last_reason = Some(reason.clone());
            }
            if restarts.len() > policy.restarts_max {
                self.fail(format!("{name} failed {} times within {:?}: {reason}", restarts.len(), policy.within));
                break;
            }
            let delay = RESTART_DELAY * 2u32.pow(restarts.len().min(10) as u32 - 1);
            tokio::select! {
                biased;
                () = beat.stop.cancelled() => break,
                () = tokio::time::sleep(delay) => {}
            }
        }
        if let Some(entry) = self.lock().get_mut(&name) {
            entry.alive = false;
        }
    }

    /// Runs a bounded piece of work that its caller answers for: it must end by itself.
    pub fn task(&self, work: impl Future<Output = ()> + Send + 'static) {
        let life = self.0.kill.clone().run_until_cancelled_owned(work);
        self.0.tracker.spawn(life);
    }

    /// Drops every actor and task where it stands: what `kill -9` does to a process. For the simulation.
    pub fn kill(&self) {
        self.0.kill.cancel();
    }

    /// Ends one actor and forgets it.
    pub fn end_actor(&self, name: &str) {
        if let Some(entry) = self.lock().remove(name) {
            entry.stop.cancel();
        }
    }

    /// Gives the whole daemon up. The first reason counts.
    pub fn fail(&self, reason: String) {
        self.0.fatal.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                tracing::error!(%reason, "giving up");
                *slot = Some(reason);
            }
            first
        });
    }

    /// Resolves with the reason once the daemon must end non-zero.
    pub async fn failed(&self) -> String {
        let mut fatal = self.0.fatal.subscribe();
        let reason = fatal.wait_for(Option::is_some).await.map(|r| r.clone().unwrap_or_default());
        reason.unwrap_or_default()
    }

    pub fn actors(&self) -> Vec<ActorInfo> {
        let view = |(name, e): (&String, &Entry)| ActorInfo {
            name: name.clone(),
            started_at: e.started_at,
            restarts: e.restarts,
            last_reason: e.last_reason.clone(),
            last_beat_at: self.wall(Timestamp(e.beat.at.load(Ordering::Relaxed))),
            alive: e.alive,
        };
        self.lock().iter().map(view).collect()
    }

    /// The first actor that has not beaten for [`BEAT_MAX_AGE`], if any.
    pub fn hung(&self) -> Option<String> {
        let now = self.0.clock.steady();
        let late = |e: &Entry| e.alive && now.since(Timestamp(e.beat.at.load(Ordering::Relaxed))) > BEAT_MAX_AGE;
        self.lock().iter().find(|(_, e)| late(e)).map(|(name, _)| name.clone())
    }

    /// Tells all actors to end.
    pub fn stop(&self) {
        self.0.stop.cancel();
        self.0.tracker.close();
    }

    pub fn stopping(&self) -> CancellationToken {
        self.0.stop.clone()
    }

    /// Resolves when every actor and task has ended. After [`Supervisor::stop`].
    pub async fn ended(&self) {
        self.0.tracker.wait().await;
    }

    fn wall(&self, steady: Timestamp) -> Timestamp {
        self.0.clock.now() - self.0.clock.steady().since(steady)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.actors.lock().expect("no panic happens while the list is held")
    }
}

fn panic_text(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn supervisor() -> Supervisor {
        Supervisor::new(Clock::tokio(Timestamp::from_secs(1_000)), Arc::new(Metrics::new()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_panicking_actor_is_restarted_and_its_reason_kept() {
        let s = supervisor();
        let starts = Arc::new(AtomicUsize::new(0));
        let (done, mut seen) = watch::channel(false);
        let counter = starts.clone();
        s.actor("fragile", RestartPolicy::default(), move |beat| {
            let (counter, done) = (counter.clone(), done.clone());
            async move {
                if counter.fetch_add(1, Ordering::SeqCst) == 0 {
                    panic!("first start goes wrong");
                }
                let _ = done.send(true);
                beat.stop.cancelled().await;
                Ok(())
            }
        });
        seen.wait_for(|d| *d).await.unwrap();
        let info = &s.actors()[0];
        assert_eq!((info.restarts, info.alive), (1, true));
        assert_eq!(info.last_reason.as_deref(), Some("panicked: first start goes wrong"));
        s.stop();
        s.ended().await;
        assert!(!s.actors()[0].alive);
    }

    #[tokio::test(start_paused = true)]
    async fn a_spent_restart_budget_fails_the_daemon_with_the_reason() {
        let s = supervisor();
        let policy = RestartPolicy { restarts_max: 2, within: Duration::from_secs(60) };
        s.actor("hopeless", policy, |_| async { Err("no luck".to_owned()) });
        let reason = s.failed().await;
        assert!(reason.starts_with("hopeless failed 3 times") && reason.ends_with("no luck"), "{reason}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_actor_that_stops_beating_is_found() {
        let s = supervisor();
        s.actor("stuck", RestartPolicy::default(), |beat| async move {
            beat.stop.cancelled().await;
            Ok(())
        });
        // The actor's first beat must lie before the advance.
        tokio::task::yield_now().await;
        assert_eq!(s.hung(), None);
        tokio::time::advance(BEAT_MAX_AGE + Duration::from_secs(1)).await;
        assert_eq!(s.hung().as_deref(), Some("stuck"));
    }
}

//! Whether the counts in Redis are all there, and rebuilding them from the journal when they are not.
//!
//! The truth lies in SQL. The epoch on record stands for one server process of Redis; when another one answers, or when
//! limits are missing under the present epoch, the epoch is raised by compare and swap and every provider is rebuilt from
//! the journal. Permits of the old epoch cannot be journaled any more, so what the journal does not know was never sent.
//! Until that is done nothing is granted: jobs wait, and waiting costs a durable queue only time. Must never know: SQL,
//! scripts. Next: `limiter/redis.rs`, which refuses to guess.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::standing::Standing;
use crate::clock::Clock;
use crate::engine::registry::{Registry, longest_window};
use crate::engine::supervisor::{ActorResult, BEAT_EVERY, Beat, Supervisor};
use crate::limiter::redis::Level;
use crate::limiter::{self, RedisLimiter, Seed};
use crate::model::id::CallId;
use crate::model::provider::Provider;
use crate::store::{JournalEntry, PAGE_MAX, Store};

/// What is said while it is going on.
pub const REBUILDING: &str = "rebuilding limits from the journal";
/// Wait before the next try while Redis or the store is away.
const AGAIN: Duration = Duration::from_millis(200);

/// Gates tell here that the limiter refused to answer.
#[derive(Clone, Debug, Default)]
pub struct Doubts(Arc<Notify>);

impl Doubts {
    /// The limiter could not answer. What it says about its counts is looked into; that it is away is not a doubt.
    pub fn raise(&self, error: &limiter::Error) {
        match error {
            limiter::Error::Unavailable { .. } => {}
            limiter::Error::Unseeded { .. } | limiter::Error::Restarted { .. } => self.0.notify_one(),
        }
    }
}

#[derive(Debug)]
pub struct Truth {
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub limiter: Arc<RedisLimiter>,
    pub registry: Registry,
    pub doubts: Doubts,
    pub standing: Arc<Standing>,
    /// That limits cannot be trusted has been said.
    pub said: AtomicBool,
    /// The last epoch under which this process saw all limits in their place; 0: none yet, since the first is 1.
    pub built: AtomicI64,
}

impl Truth {
    pub fn start(self, supervisor: &Supervisor) {
        let truth = Arc::new(self);
        supervisor.actor("truth", Default::default(), move |beat| {
            let truth = truth.clone();
            async move { truth.run(beat).await }
        });
    }

    async fn run(&self, beat: Beat) -> ActorResult {
        let mut seen = 0;
        loop {
            beat.beat();
            let settled = beat.through(self.settle()).await;
            match &settled {
                Ok(()) => {
                    self.standing.limits_are_in_doubt(None);
                    self.said.store(false, Ordering::Relaxed);
                }
                // Once for each time that it is away.
                Err(reason) if !self.said.swap(true, Ordering::Relaxed) => {
                    tracing::warn!(%reason, "the shared limits cannot be trusted; jobs are held");
                }
                Err(_) => {}
            }
            if let Err(reason) = &settled {
                self.standing.limits_are_in_doubt(Some(format!("the shared limits cannot be trusted: {reason}")));
            }
            loop {
                beat.beat();
                tokio::select! {
                    biased;
                    () = beat.stop.cancelled() => return Ok(()),
                    () = self.doubts.0.notified() => break,
                    () = self.clock.sleep_until(self.clock.steady() + AGAIN), if settled.is_err() => break,
                    connection = self.limiter.next_connection(seen), if settled.is_ok() => {
                        seen = connection.map_or(seen, |(number, _)| number);
                        // Another connection may lead to another process, and one that cannot be asked is no better.
                        break;
                    }
                    () = tokio::time::sleep(BEAT_EVERY) => {
                        // Somebody heard no answer: whether there is one again must not wait for the next job.
                        if self.limiter.is_away() {
                            break;
                        }
                    }
                }
            }
            if settled.is_ok() {
                // A storm of doubts is one doubt.
                self.clock.sleep_until(self.clock.steady() + AGAIN / 20).await;
            }
        }
    }

    /// Brings epoch, server and counts together.
    async fn settle(&self) -> Result<(), String> {
        let run = self.limiter.run_id().await.map_err(|e| e.to_string())?;
        let info = self.store.info().await.map_err(|e| e.to_string())?;
        let (mut epoch, known) = (info.epoch, info.limiter_run.as_deref() == Some(run.as_str()));
        // It may have been away when this process started, or be another since, and be set to forget.
        let findings = self.limiter.check().await.map_err(|e| e.to_string())?;
        if let Some(refused) = findings.into_iter().find(|f| f.level == Level::Refused) {
            return Err(format!("Redis {}: {}", refused.about, refused.text));
        }
        if !known || self.has_lost(&run, epoch).await? {
            self.standing.limits_are_in_doubt(Some(REBUILDING.to_owned()));
            epoch = self.store.bump_epoch(epoch, &run).await.map_err(|e| e.to_string())?;
            let info = self.store.info().await.map_err(|e| e.to_string())?;
            if info.limiter_run.as_deref() != Some(run.as_str()) {
                return Err("another daemon speaks with another Redis process".to_owned());
            }
            tracing::warn!(epoch, "the shared limits are rebuilt from the journal");
        }
        self.limiter.trust(&run, epoch);
        for entry in self.registry.all().values() {
            self.rebuild(&entry.provider).await?;
            entry.gate.wake();
        }
        self.built.store(epoch, Ordering::SeqCst);
        Ok(())
    }

    /// Are limits missing that were there under this epoch? Under one that is new to this process they are rebuilt by
    /// whoever raised it: to raise it again would undo that work, and where there are many calls no rebuild would ever
    /// end. A process that has just started cannot tell the two apart, and takes them for lost: a call that was granted
    /// before the loss may not be in the journal yet.
    async fn has_lost(&self, run: &str, epoch: i64) -> Result<bool, String> {
        if ![0, epoch].contains(&self.built.load(Ordering::SeqCst)) {
            return Ok(false);
        }
        self.limiter.trust(run, epoch);
        for entry in self.registry.all().values() {
            if !self.is_seeded(&entry.provider).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn is_seeded(&self, provider: &Provider) -> Result<bool, String> {
        self.limiter.is_seeded(self.clock.steady(), provider.name.as_str()).await.map_err(|e| e.to_string())
    }

    /// What the journal says about a provider, for a limiter that has not heard it under this epoch.
    async fn rebuild(&self, provider: &Provider) -> Result<(), String> {
        // Of all daemons one is the first, and the others need not read the journal.
        if self.is_seeded(provider).await? {
            return Ok(());
        }
        let name = provider.name.as_str();
        let now = self.clock.steady();
        let since = now - longest_window(provider);
        let mut seeds = Vec::new();
        let mut after = CallId(0);
        loop {
            let page = self.store.journal(since, after, PAGE_MAX).await.map_err(|e| e.to_string())?;
            let short = page.len() < PAGE_MAX;
            after = page.last().map_or(after, |e| e.call);
            let ours = page.into_iter().filter(|e| belongs(e, name) && (e.sent || e.settled_at.is_none()));
            seeds.extend(ours.map(|e| seed(e, provider, now)));
            if short {
                break;
            }
        }
        self.limiter.rebuild(self.clock.steady(), name, &seeds).await.map_err(|e| e.to_string())
    }
}

fn belongs(entry: &JournalEntry, provider: &str) -> bool {
    entry.permit.spends.iter().any(|(key, _)| key.0.split('/').next() == Some(provider))
}

fn seed(entry: JournalEntry, provider: &Provider, now: crate::clock::Timestamp) -> Seed {
    let open = crate::engine::open_until(&entry, now, provider.timeouts.total);
    Seed { anchored_at: entry.settled_at.unwrap_or(open), permit: entry.permit }
}

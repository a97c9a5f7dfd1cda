//! Buries the dead: gives what a daemon that died holds of the shared limits a time by which it has ended.
//!
//! The permits of a daemon that was killed stay in flight, for nobody can say what became of its calls; without a burial
//! the limiter would wait twenty minutes, and an account whose permits were all out would stand still for as long. A
//! daemon that only slept, or was cut off, may go on with what it was granted before it was buried, so a burial allows for
//! the longest lease; what it asks for afterwards it is granted under another number (`limiter/redis.rs`). Every daemon
//! buries, and the first is believed. Must never know: SQL, scripts. Next: `limiter/redis/seed.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::standing::Standing;
use crate::clock::{Clock, Timestamp};
use crate::engine::LEASE_MARGIN;
use crate::engine::registry::Registry;
use crate::engine::supervisor::{ActorResult, Beat, Supervisor};
use crate::limiter::RedisLimiter;
use crate::limiter::redis::number_of;
use crate::model::id::{CallId, DaemonId};
use crate::model::name::ProviderName;
use crate::store::{PAGE_MAX, Store, Whose};

/// How often the list of daemons is looked at: it is in memory.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct Undertaker {
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub limiter: Arc<RedisLimiter>,
    pub registry: Registry,
    pub standing: Arc<Standing>,
}

impl Undertaker {
    pub fn start(self, supervisor: &Supervisor) {
        let undertaker = Arc::new(self);
        supervisor.actor("undertaker", Default::default(), move |beat| {
            let undertaker = undertaker.clone();
            async move { undertaker.run(beat).await }
        });
    }

    async fn run(&self, beat: Beat) -> ActorResult {
        // After a restart of the actor all once more, which changes nothing.
        let mut buried: BTreeSet<DaemonId> = BTreeSet::new();
        loop {
            beat.beat();
            let dead = self.standing.dead();
            // As many as the store remembers.
            buried.retain(|daemon| dead.contains(daemon));
            for daemon in dead {
                if buried.contains(&daemon) {
                    continue;
                }
                match beat.through(self.bury(daemon)).await {
                    Ok(()) => drop(buried.insert(daemon)),
                    // Redis or the store is away, or being rebuilt, and whoever minds that says so.
                    Err(reason) => tracing::debug!(%reason, "what a dead daemon held is looked at again"),
                }
            }
            tokio::select! {
                biased;
                () = beat.stop.cancelled() => return Ok(()),
                () = self.clock.sleep_until(self.clock.steady() + LOOK_EVERY) => {}
            }
        }
    }

    async fn bury(&self, daemon: DaemonId) -> Result<(), String> {
        let leases = self.leases(daemon).await?;
        for (name, entry) in self.registry.all().iter() {
            let now = self.clock.steady();
            let longest = now + entry.provider.timeouts.total + LEASE_MARGIN;
            let ended_at = leases.get(name).map_or(longest, |lease| longest.max(*lease));
            let buried = self.limiter.bury(now, name.as_str(), number_of(daemon), ended_at).await;
            buried.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Until when what it has in the journal may be used: a program outside may hold permits for long.
    async fn leases(&self, daemon: DaemonId) -> Result<BTreeMap<ProviderName, Timestamp>, String> {
        let (mut leases, mut after) = (BTreeMap::new(), CallId(0));
        loop {
            let page =
                self.store.open_calls(Whose::Daemon(daemon), after, PAGE_MAX).await.map_err(|e| e.to_string())?;
            let short = page.len() < PAGE_MAX;
            after = page.last().map_or(after, |call| call.id);
            for call in page {
                let until = leases.entry(call.provider).or_insert(call.lease_until);
                *until = call.lease_until.max(*until);
            }
            if short {
                return Ok(leases);
            }
        }
    }
}

//! Shares the accounts between the living daemons: beats, claims what is free, gives up what is another's due.
//!
//! Every daemon computes the same shares from the same list, so nobody has to be asked: partitions are spread evenly over
//! the daemons in the order of their ids. A partition changes hands within moments: its owner stops planning for it, gives
//! it back, and whoever is due more beats at once when the news come; calls on the wire end where they began, because the
//! store fences begins and not ends. A daemon that cannot beat holds nothing. Must never know: SQL, flows. Next: `relay`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::standing::Standing;
use super::{Cluster, Owned, Shards};
use crate::clock::Clock;
use crate::engine::registry::Registry;
use crate::engine::supervisor::{ActorResult, BEAT_EVERY, Beat, Supervisor};
use crate::model::id::DaemonId;
use crate::model::name::ProviderName;
use crate::model::shard::SHARDS;
use crate::store::Error;
use crate::store::leases::{DaemonNow, Lease};

/// How long a daemon is taken for alive after its last beat, by the database's clock. A silent one is replaced after
/// this and a beat of another.
pub const LEASE: Duration = Duration::from_secs(8);
const BEAT: Duration = Duration::from_millis(900);
/// Until the next look when partitions that are nobody's could not be had: their last owner is still about to begin calls,
/// in vain, and that takes milliseconds.
const BEAT_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Members {
    pub clock: Clock,
    pub cluster: Cluster,
    pub registry: Registry,
    pub owned: Owned,
    pub standing: Arc<Standing>,
    /// Cancelled when the daemon begins to stop: everything is given back at once.
    pub draining: CancellationToken,
}

impl Members {
    pub fn start(self, supervisor: &Supervisor) {
        let members = Arc::new(self);
        supervisor.actor("members", Default::default(), move |beat| {
            let members = members.clone();
            async move { members.run(beat).await }
        });
    }

    async fn run(&self, beat: Beat) -> ActorResult {
        let mut good_at = self.clock.steady();
        let mut away = false;
        loop {
            beat.beat();
            if self.draining.is_cancelled() {
                self.leave().await;
                return rest(&beat).await;
            }
            let begun = self.clock.steady();
            // A connection over which nothing comes any more must not make a daemon believe in its lease.
            let turn = tokio::time::timeout(LEASE, self.turn()).await;
            let silent = |_| Err(Error::Unavailable { reason: format!("no answer for {} s", LEASE.as_secs()) });
            let mut next = BEAT;
            match turn.unwrap_or_else(silent) {
                Ok(settled) => {
                    (good_at, away) = (begun, false);
                    next = if settled { BEAT } else { BEAT_AGAIN };
                }
                Err(e) => {
                    self.standing.could_not_beat(e.to_string());
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(error = %e, "the daemon cannot beat; it holds nothing once its lease is over");
                    }
                    if self.clock.steady().since(good_at) > LEASE {
                        self.hold(BTreeMap::new());
                    }
                }
            }
            tokio::select! {
                biased;
                () = beat.stop.cancelled() => {
                    self.leave().await;
                    return Ok(());
                }
                () = self.draining.cancelled() => {}
                () = self.cluster.given_back.notified() => {}
                () = self.clock.sleep_until(begun + next) => {}
            }
        }
    }

    /// One beat: prolongs the lease and moves towards an even share of every provider. False: there was more to be had,
    /// but not yet.
    async fn turn(&self) -> Result<bool, Error> {
        let Cluster { leases, daemon, name, .. } = &self.cluster;
        leases.beat(*daemon, name, LEASE).await?;
        let mut daemons = leases.daemons().await?;
        let mut held: BTreeMap<ProviderName, Arc<Shards>> = BTreeMap::new();
        let mut settled = true;
        for provider in self.registry.all().keys() {
            let mut mine = shards_of(&daemons, *daemon, provider);
            let goal = goal(&daemons, *daemon);
            if mine.len() > goal {
                let surplus: Vec<u16> = mine.keys().copied().rev().take(mine.len() - goal).collect();
                mine.retain(|shard, _| !surplus.contains(shard));
                // The gate must stop planning before another may begin.
                held.insert(provider.clone(), Arc::new(mine.clone()));
                self.hold_one(provider, &mine);
                leases.release(*daemon, provider, &surplus).await?;
            } else if mine.len() < goal && free(&daemons, provider) > 0 {
                let due = (goal - mine.len()).min(free(&daemons, provider));
                let claimed = leases.claim(*daemon, provider, due).await?;
                settled &= claimed.len() == due;
                mine.extend(claimed);
            }
            held.insert(provider.clone(), Arc::new(mine));
        }
        // What this beat claimed and gave up is in nobody's list yet.
        if let Some(me) = daemons.iter_mut().find(|d| d.id == *daemon) {
            let lease = |provider: &ProviderName, (&shard, &fence): (&u16, &i64)| Lease {
                provider: provider.clone(),
                shard,
                fence,
            };
            me.leases = held.iter().flat_map(|(p, shards)| shards.iter().map(move |s| lease(p, s))).collect();
        }
        self.hold(held);
        self.standing.saw(daemons);
        Ok(settled)
    }

    /// Gives everything back, so that the others need not wait for the lease to end.
    async fn leave(&self) {
        self.hold(BTreeMap::new());
        let Cluster { leases, daemon, name, .. } = &self.cluster;
        // Who is taken for alive has a share, so this comes first: without it the others would leave it alone until the
        // lease is over.
        if let Err(e) = leases.beat(*daemon, name, Duration::ZERO).await {
            tracing::warn!(error = %e, "the lease could not be ended; it ends by itself");
        }
        for (provider, shards) in by_provider(leases.owned(*daemon).await.unwrap_or_default()) {
            if let Err(e) = leases.release(*daemon, &provider, &shards).await {
                tracing::warn!(%provider, error = %e, "partitions could not be given back; they are free when the lease ends");
            }
        }
    }

    fn hold(&self, held: BTreeMap<ProviderName, Arc<Shards>>) {
        if self.owned.replace(held) {
            self.registry.all().values().for_each(|entry| entry.gate.wake());
        }
    }

    fn hold_one(&self, provider: &ProviderName, shards: &Shards) {
        let mut held: BTreeMap<ProviderName, Arc<Shards>> = BTreeMap::new();
        for name in self.registry.all().keys() {
            held.insert(name.clone(), self.owned.of(name).unwrap_or_default());
        }
        held.insert(provider.clone(), Arc::new(shards.clone()));
        self.hold(held);
    }
}

/// Nothing is held and nothing is to be done any more; still alive.
async fn rest(beat: &Beat) -> ActorResult {
    loop {
        beat.beat();
        tokio::select! {
            biased;
            () = beat.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(BEAT_EVERY) => {}
        }
    }
}

fn by_provider(leases: Vec<Lease>) -> BTreeMap<ProviderName, Vec<u16>> {
    let mut all: BTreeMap<ProviderName, Vec<u16>> = BTreeMap::new();
    for lease in leases {
        all.entry(lease.provider).or_default().push(lease.shard);
    }
    all
}

fn shards_of(daemons: &[DaemonNow], daemon: DaemonId, provider: &ProviderName) -> Shards {
    let own = daemons.iter().filter(|d| d.id == daemon && d.alive).flat_map(|d| &d.leases);
    own.filter(|lease| lease.provider == *provider).map(|lease| (lease.shard, lease.fence)).collect()
}

/// Partitions of a provider that a daemon should hold: an even share, the odd ones to the first.
fn goal(daemons: &[DaemonNow], daemon: DaemonId) -> usize {
    let mut alive: Vec<DaemonId> = daemons.iter().filter(|d| d.alive).map(|d| d.id).collect();
    alive.sort_unstable();
    let Some(place) = alive.iter().position(|id| *id == daemon) else { return 0 };
    let (each, odd) = (usize::from(SHARDS) / alive.len(), usize::from(SHARDS) % alive.len());
    each + usize::from(place < odd)
}

/// Partitions that no living daemon holds.
fn free(daemons: &[DaemonNow], provider: &ProviderName) -> usize {
    let held = daemons.iter().filter(|d| d.alive).flat_map(|d| &d.leases).filter(|l| l.provider == *provider);
    usize::from(SHARDS).saturating_sub(held.count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn daemon(n: u128, alive: bool) -> DaemonNow {
        DaemonNow {
            id: DaemonId(uuid::Uuid::from_u128(n)),
            name: format!("d{n}"),
            started_at: Timestamp::ZERO,
            heartbeat_until: Timestamp::ZERO,
            alive,
            leases: Vec::new(),
        }
    }

    #[test]
    fn the_living_share_all_partitions_and_the_dead_none() {
        for count in 1..=70u128 {
            let mut daemons: Vec<DaemonNow> = (1..=count).map(|n| daemon(n, true)).collect();
            daemons.push(daemon(99, false));
            let goals: Vec<usize> = daemons.iter().map(|d| goal(&daemons, d.id)).collect();
            assert_eq!(goals.iter().sum::<usize>(), usize::from(SHARDS));
            assert_eq!(goals.last(), Some(&0));
            let (least, most) = (goals[..count as usize].iter().min(), goals.iter().max());
            assert!(most.unwrap() - least.unwrap() <= 1, "{goals:?}");
        }
    }
}

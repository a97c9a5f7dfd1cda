//! Whether the daemon can do its work right now, and how all providers stand. For probes, scrapes and the watchdog.
//!
//! Must never know: HTTP. Next: `http`.

use std::time::Duration;

use super::Api;
use crate::engine::cluster::standing::Standing;
use crate::engine::status::ProviderStatus;

/// A store that takes longer to answer one indexed read is not ready.
pub const STORE_ANSWER_MAX: Duration = Duration::from_secs(2);

/// How limits and daemons stand.
#[derive(Clone, Copy, Debug)]
pub struct LimitsNow {
    /// No limit can be had: jobs wait.
    pub held: bool,
    pub epoch: i64,
    /// Alive, this one among them.
    pub daemons: usize,
}

/// How fit the daemon is.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// What keeps the daemon from accepting jobs, one sentence each; empty: it is ready.
    pub obstacles: Vec<String>,
    /// What holds jobs although they are accepted.
    pub remarks: Vec<String>,
}

impl Api {
    /// Ready means: send clients here, what they hand in is kept. Without its database a daemon can keep nothing, so it
    /// is not ready. Without Redis it accepts as ever and its jobs wait: taking it out would refuse at the door what can
    /// be kept, and all daemons at once, because they share the one Redis. The same for a daemon without partitions: what
    /// it accepts others send.
    pub async fn health(&self) -> Health {
        Health { obstacles: self.obstacles().await, remarks: self.remarks() }
    }

    /// For a scrape: asks nobody.
    pub fn limits_now(&self) -> LimitsNow {
        let standing = self.engine().standing();
        LimitsNow {
            held: standing.is_some_and(|s| s.limiter_fault().is_some()),
            epoch: self.engine().limiter_epoch(),
            daemons: standing.map_or(1, Standing::alive),
        }
    }

    fn remarks(&self) -> Vec<String> {
        let Some(standing) = self.engine().standing() else { return Vec::new() };
        let mut found: Vec<String> = standing.limiter_fault().into_iter().collect();
        let providers = self.engine().providers();
        if !providers.is_empty() && providers.iter().all(|(p, ..)| standing.partitions_held(&p.name) == 0) {
            found.push("no partitions are held: jobs are accepted here and sent by other daemons".to_owned());
        }
        found
    }

    async fn obstacles(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.is_draining() {
            found.push("the daemon is shutting down".to_owned());
        }
        match tokio::time::timeout(STORE_ANSWER_MAX, self.engine().store().next_due()).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => found.push(format!("the store does not answer: {e}")),
            Err(_) => found.push(format!("the store has not answered for {} s", STORE_ANSWER_MAX.as_secs())),
        }
        for actor in self.engine().actors().into_iter().filter(|actor| !actor.alive) {
            let why = actor.last_reason.unwrap_or_else(|| "no reason is known".to_owned());
            found.push(format!("{} is not alive: {why}", actor.name));
        }
        found
    }

    /// How every provider stands, by name. One that is deleted meanwhile is left out.
    pub async fn provider_statuses(&self) -> Vec<ProviderStatus> {
        let mut found = Vec::new();
        for (provider, ..) in self.engine().providers() {
            found.extend(self.engine().provider_status(&provider.name).await);
        }
        found
    }
}

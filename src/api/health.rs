//! Whether the daemon can do its work right now, and how all providers stand. For probes, scrapes and the watchdog.
//!
//! Must never know: HTTP. Next: `http`.

use std::time::Duration;

use super::Api;
use crate::engine::status::ProviderStatus;

/// A store that takes longer to answer one indexed read is not ready.
pub const STORE_ANSWER_MAX: Duration = Duration::from_secs(2);

impl Api {
    /// What keeps the daemon from its work, one sentence each; empty: it is ready.
    pub async fn obstacles(&self) -> Vec<String> {
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

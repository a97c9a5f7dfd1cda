//! How long ready work was held back, and by what: feeds `tidegate_wait_seconds_total`. Reads, never decides.
//!
//! One cause at a time, the first that would have to go: a paused provider is paused, whatever its limits say. With
//! several groups the limit that was looked at last speaks for all. Next: `actor`, which notes every turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::actor::Gate;
use crate::clock::Timestamp;
use crate::limiter::LimitView;
use crate::model::call::LimitKey;
use crate::model::flow::Class;
use crate::outbound::breaker::State;

/// Time under one cause is counted at least this often, so that a scrape is not far behind.
const COUNT_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Waits {
    /// What holds ready work back, and since when it is not counted yet. `None`: work leaves, or there is none.
    held: Option<(Arc<str>, Timestamp)>,
    /// The limit that had nothing left when a group was looked at last.
    limit: Option<Arc<str>>,
}

impl Waits {
    /// A group's limits as its turn found them.
    pub fn look(&mut self, views: &[LimitView]) {
        let full = views.iter().find(|view| view.calls(Class::Normal) == 0).map(|view| limit_name(&view.key));
        if self.limit.as_deref() != full {
            self.limit = full.map(Arc::from);
        }
    }

    /// What the limiter named when it refused.
    pub fn bound(&mut self, binder: &LimitKey) {
        if self.limit.as_deref() != Some(limit_name(binder)) {
            self.limit = Some(Arc::from(limit_name(binder)));
        }
    }
}

/// `core` of `crm/core:3600s@acct-7`: the account is no label.
fn limit_name(key: &LimitKey) -> &str {
    let declared = key.0.split(':').next().unwrap_or_default();
    declared.rsplit('/').next().unwrap_or_default()
}

impl Gate {
    /// Counts the time since the last turn, and notes what holds the work from here on.
    pub fn note_wait(&mut self, released: bool) {
        let now = self.now();
        let cause = if released { None } else { self.held_by(now) };
        if let Some((before, since)) = &self.waits.held {
            if cause.as_deref() == Some(before) && now.since(*since) < COUNT_EVERY {
                return;
            }
            self.parts.metrics.waited(self.current.provider.name.as_str(), before, now.since(*since));
        }
        self.waits.held = cause.map(|cause| (cause, now));
    }

    fn held_by(&self, now: Timestamp) -> Option<Arc<str>> {
        // What is being journaled is on its way.
        if !self.turns.have_work() || !self.begins.under_way.is_empty() {
            return None;
        }
        let shared = &self.shared;
        let cause = if shared.paused.load(Ordering::Relaxed) {
            "paused"
        } else if shared.held.load(Ordering::Relaxed) {
            "draining"
        } else if self.current.transport.is_err() {
            "unusable"
        } else if matches!(self.host.state(), State::Open { until } if now < until) {
            "breaker"
        } else if self.parts.standing.as_ref().is_some_and(|s| s.limiter_fault().is_some()) {
            "limiter"
        } else if now < self.held_until {
            "throttled"
        } else if shared.in_flight() >= self.current.provider.in_flight_max {
            "in_flight"
        } else if self.all_work_lacks_credentials(now) {
            "breaker"
        } else if !self.seatless.is_empty() {
            "worker"
        } else if let Some(limit) = &self.waits.limit {
            return Some(limit.clone());
        } else {
            // The planner waits for a batch to fill, or for the turn of a lane.
            "tide"
        };
        Some(Arc::from(cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_named_without_its_account() {
        let name = |text: &str| limit_name(&LimitKey(Arc::from(text))).to_owned();
        assert_eq!(name("crm/core:3600s@a/b:c"), "core");
        assert_eq!(name("crm/sync_user.batch/calls:2s"), "calls");
    }
}

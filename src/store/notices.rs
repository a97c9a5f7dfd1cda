//! What a commit brings to an end, told to those who want to hear of it: jobs of the same transaction.
//!
//! So a notice is as durable as what it tells, and is told once however the daemon ends. Must never know: how a store keeps
//! anything. Next: `packer`, which sees the ends; `model/notify`.

use std::sync::Arc;

use serde_json::json;

use super::AlertChange;
use super::rules::Core;
use crate::clock::Timestamp;
use crate::model::alert::Step;
use crate::model::flow::FlowKey;
use crate::model::id::FlowId;
use crate::model::job::NewJob;
use crate::model::notify::{Occasion, Subscription};
use crate::model::run::Run;

/// Ends that were seen and not told yet. Keeps nothing while nobody listens.
#[derive(Debug, Default)]
pub(super) struct Ends {
    subscriptions: Arc<Vec<Subscription>>,
    jobs: Vec<Core>,
    /// Numbers.
    runs: Vec<i64>,
    alerts: Vec<AlertChange>,
}

impl Ends {
    pub fn told_to(subscriptions: &Arc<Vec<Subscription>>) -> Ends {
        Ends { subscriptions: subscriptions.clone(), ..Ends::default() }
    }

    pub fn job(&mut self, core: &Core) {
        if !self.subscriptions.is_empty() && !core.stand.is_hot() {
            self.jobs.push(core.clone());
        }
    }

    pub fn run(&mut self, seq: i64) {
        if !self.subscriptions.is_empty() {
            self.runs.push(seq);
        }
    }

    pub fn alert(&mut self, change: &AlertChange) {
        if !self.subscriptions.is_empty() {
            self.alerts.push(change.clone());
        }
    }

    /// The notices of what ended since the last time.
    pub fn notices(
        &mut self,
        flow: impl Fn(FlowId) -> Option<FlowKey>,
        run: impl Fn(i64) -> Option<Run>,
        now: Timestamp,
    ) -> Vec<NewJob> {
        let mut notices = Vec::new();
        for core in std::mem::take(&mut self.jobs) {
            let (Some(key), Some(occasion)) = (flow(core.flow), Occasion::of_job(core.state())) else { continue };
            let wanted = self.subscriptions.iter().filter(|subscription| subscription.wants_job(occasion, &key));
            let mut data = None;
            notices.extend(wanted.map(|subscription| {
                let data = data.get_or_insert_with(|| of_job(&core, &key));
                subscription.notice(occasion, &format!("job {}", core.id), data, now)
            }));
        }
        for run in std::mem::take(&mut self.runs).into_iter().filter_map(run) {
            let Some(occasion) = Occasion::of_run(run.state) else { continue };
            let wanted = self.subscriptions.iter().filter(|subscription| subscription.wants(occasion));
            let data = of_run(&run);
            notices.extend(wanted.map(|s| s.notice(occasion, &format!("run {}", run.id), &data, now)));
        }
        for change in std::mem::take(&mut self.alerts) {
            let occasion = match change.step {
                Step::Raise | Step::Repeat => Occasion::AlertRaised,
                Step::Clear => Occasion::AlertCleared,
            };
            let wanted = self.subscriptions.iter().filter(|subscription| subscription.wants(occasion));
            let (data, about) = (of_alert(&change), format!("alert {}", change.alert.name));
            notices.extend(wanted.map(|s| s.notice(occasion, &about, &data, now)));
        }
        notices
    }
}

fn of_alert(change: &AlertChange) -> serde_json::Value {
    let alert = &change.alert;
    json!({"alert": {
        "name": alert.name,
        "provider": alert.provider,
        "raised_at": alert.raised_at.to_string(),
        "detail": alert.detail,
        "repeated": change.step == Step::Repeat,
    }})
}

/// What helps to find the job. No payload and no answer: a notice leaves the house.
fn of_job(core: &Core, key: &FlowKey) -> serde_json::Value {
    json!({"job": {
        "id": core.id.to_string(),
        "provider": key.provider,
        "operation": key.operation,
        "account": key.account,
        "tenant": key.tenant,
        "state": core.state().name(),
        "attempts": core.attempts,
        "status": core.last_status,
        "error": core.last_error.as_deref(),
    }})
}

fn of_run(run: &Run) -> serde_json::Value {
    json!({"run": {
        "id": run.id.to_string(),
        "name": run.display_name,
        "tenant": run.tenant,
        "labels": run.labels,
        "state": run.state.name(),
        "delivered": run.counts.delivered,
        "dead": run.counts.dead,
        "cancelled": run.counts.cancelled,
    }})
}

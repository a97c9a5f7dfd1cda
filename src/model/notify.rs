//! Who wants to be told of what: the subscriptions of `[notify.NAME]`, and the notices that they are sent.
//!
//! A notice is a job of a provider that the daemon makes for each subscription, so it is limited, retried, broken off and
//! given up like every other. Its payload is made by the commit that it tells of. Must never know: stores, signatures. Next:
//! `store/notices`, which finds what is to be told; `config/notify` for the provider.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::flow::FlowKey;
use super::job::NewJob;
use super::name::{Key, OperationName, ProviderName};
use super::run::RunState;
use super::state::State;
use crate::clock::Timestamp;

/// Providers that begin so belong to subscriptions; nobody else may declare one or hand jobs in.
pub const PREFIX: &str = "notify-";
/// The one operation of such a provider.
pub const OPERATION: &str = "send";

/// Does the name belong to a subscription?
pub fn is_reserved(provider: &str) -> bool {
    provider.starts_with(PREFIX)
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Occasion {
    JobDelivered,
    JobDead,
    JobCancelled,
    RunFinished,
    RunCancelled,
    /// Also when it is told again.
    AlertRaised,
    AlertCleared,
}

impl Occasion {
    pub const ALL: [Occasion; 7] = [
        Occasion::JobDelivered,
        Occasion::JobDead,
        Occasion::JobCancelled,
        Occasion::RunFinished,
        Occasion::RunCancelled,
        Occasion::AlertRaised,
        Occasion::AlertCleared,
    ];

    /// The `type` of a notice.
    pub fn name(self) -> &'static str {
        match self {
            Occasion::JobDelivered => "job.delivered",
            Occasion::JobDead => "job.dead",
            Occasion::JobCancelled => "job.cancelled",
            Occasion::RunFinished => "run.finished",
            Occasion::RunCancelled => "run.cancelled",
            Occasion::AlertRaised => "alert.raised",
            Occasion::AlertCleared => "alert.cleared",
        }
    }

    /// `None` while there is more to come.
    pub fn of_job(state: State) -> Option<Occasion> {
        match state {
            State::Delivered => Some(Occasion::JobDelivered),
            State::Dead => Some(Occasion::JobDead),
            State::Cancelled => Some(Occasion::JobCancelled),
            State::Waiting | State::Calling | State::Unknown => None,
        }
    }

    pub fn of_run(state: RunState) -> Option<Occasion> {
        match state {
            RunState::Finished => Some(Occasion::RunFinished),
            RunState::Cancelled => Some(Occasion::RunCancelled),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The provider that sends its notices.
    pub provider: ProviderName,
    /// At least one.
    pub on: BTreeSet<Occasion>,
    /// Of jobs, only those of these providers; empty: of all but those of subscriptions.
    pub providers: BTreeSet<ProviderName>,
}

impl Subscription {
    /// Is the end of a job of this flow to be told? Of notices nobody is told: that would never end.
    pub fn wants_job(&self, occasion: Occasion, flow: &FlowKey) -> bool {
        let of_it = self.providers.is_empty() || self.providers.contains(&flow.provider);
        of_it && self.on.contains(&occasion) && !is_reserved(flow.provider.as_str())
    }

    pub fn wants(&self, occasion: Occasion) -> bool {
        self.on.contains(&occasion)
    }

    /// The job that tells it. `about`: what it is about; notices about one thing arrive in order.
    pub fn notice(&self, occasion: Occasion, about: &str, data: &Value, at: Timestamp) -> NewJob {
        let payload = json!({"type": occasion.name(), "timestamp": at.to_string(), "data": data}).to_string();
        let operation = OperationName::new(OPERATION).expect("it is a word");
        let mut job = NewJob::new(self.provider.clone(), operation, payload);
        job.key = Key::new(about).ok();
        job.labels.insert("notice".to_owned(), occasion.name().to_owned());
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::{Account, Tenant};

    #[test]
    fn of_notices_nobody_is_told_and_of_jobs_only_who_asked() {
        let flow = |provider: &str| FlowKey {
            provider: ProviderName::new(provider).unwrap(),
            operation: OperationName::new("sync").unwrap(),
            account: Account::default(),
            tenant: Tenant::default(),
            run: 0,
            part: 0,
        };
        let all = Subscription {
            provider: ProviderName::new("notify-ops").unwrap(),
            on: Occasion::ALL.into(),
            providers: BTreeSet::new(),
        };
        assert!(all.wants_job(Occasion::JobDead, &flow("crm")));
        assert!(
            !all.wants_job(Occasion::JobDead, &flow("notify-ops"))
                && !all.wants_job(Occasion::JobDead, &flow("notify-x"))
        );
        let named = Subscription { on: [Occasion::JobDead].into(), providers: [flow("crm").provider].into(), ..all };
        assert!(named.wants_job(Occasion::JobDead, &flow("crm")) && !named.wants_job(Occasion::JobDead, &flow("erp")));
        assert!(!named.wants_job(Occasion::JobDelivered, &flow("crm")));
    }
}

//! Events: what happened, in one increasing sequence, written in the transaction that did it.
//!
//! Stored packed: one event per call or per group of jobs changed alike, not one per job, so the log costs a fraction
//! of the work it describes. Readers unpack and filter.

use super::id::{CallId, FlowId, RunId};
use super::invalidation::Which;
use super::name::ProviderName;
use super::run::RunState;
use super::state::{Event as JobChange, State};
use crate::clock::Timestamp;

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Event {
    /// Position in the log, from 1.
    pub seq: i64,
    pub at: Timestamp,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum What {
    /// Jobs of one flow were accepted. `jobs` are sequence numbers.
    Enqueued {
        flow: FlowId,
        jobs: Vec<i64>,
    },
    /// Jobs of one flow changed state in the same way at once.
    Changed {
        flow: FlowId,
        jobs: Vec<i64>,
        change: JobChange,
        to: State,
        #[serde(skip_serializing_if = "Option::is_none")]
        call: Option<CallId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// For retries: when the next try is due.
        #[serde(skip_serializing_if = "Option::is_none")]
        due_at: Option<Timestamp>,
    },
    /// A late success of a call whose lease had ended, after a newer attempt had begun.
    DuplicateObserved {
        call: CallId,
        jobs: Vec<i64>,
    },
    Run {
        run: i64,
        created_at: Timestamp,
        state: RunState,
    },
    /// Something about a provider: applied, deleted, paused, resumed, breaker moved.
    Provider {
        provider: String,
        kind: String,
        detail: String,
        actor: String,
    },
    /// Records of a collection changed: numbers of the first and last change of the commit.
    Records {
        collection: String,
        first: i64,
        last: i64,
    },
    /// A pull began, got through its pages, ended.
    Pull {
        collection: String,
        pull: i64,
        state: super::record::PullState,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// Something about a schedule: applied, deleted, paused, resumed, ticked.
    Schedule {
        schedule: String,
        kind: String,
        detail: String,
        actor: String,
    },
    /// Cached answers were thrown away.
    Invalidated {
        which: Which,
        actor: String,
    },
    /// Something about the daemon itself: started, draining, an actor restarted.
    Daemon {
        kind: String,
        detail: String,
    },
}

impl What {
    pub fn run(id: RunId, state: RunState) -> Self {
        What::Run { run: id.seq, created_at: id.created_at, state }
    }

    pub fn provider(provider: &ProviderName, kind: &str, detail: impl Into<String>, actor: &str) -> Self {
        What::Provider {
            provider: provider.to_string(),
            kind: kind.to_owned(),
            detail: detail.into(),
            actor: actor.to_owned(),
        }
    }
}

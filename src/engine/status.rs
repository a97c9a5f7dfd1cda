//! What the engine says about itself: answers for status pages, forecasts and explanations. Plain data.

use std::sync::Arc;
use std::time::Duration;

use super::caller::told::Told;
use crate::clock::Timestamp;
use crate::limiter::LimitView;
use crate::model::call::Lane;
use crate::model::flow::FlowCounts;
use crate::model::id::JobId;
use crate::model::name::{Account, OperationName, ProviderName};

/// How a provider stands right now.
#[derive(Clone, Debug)]
pub struct ProviderStatus {
    pub name: ProviderName,
    pub revision: i64,
    pub paused: bool,
    /// Why nothing can leave at all, when so: a missing secret, a store that is away.
    pub fault: Option<String>,
    /// Of the host or of the provider's own credential, whichever holds more back.
    pub breaker: BreakerView,
    /// Credentials that do not work, at most 100.
    pub credentials: Vec<CredentialView>,
    /// Provider-wide limits and those of lanes; for limits per account or key, the busiest ones, at most 100.
    pub limits: Vec<LimitStatus>,
    pub operations: Vec<OperationStatus>,
    pub counts: FlowCounts,
    pub in_flight: u32,
    pub in_flight_max: u32,
    /// Jobs sent in the last minute, per second.
    pub sending_per_second: f64,
    /// The most the limits allow for the work at hand, jobs per second; `None`: no limit binds.
    pub allowed_per_second: Option<f64>,
    /// Wall time at which the present backlog is through; `None` when it cannot be said (paused, breaker open).
    pub drains_at: Option<Timestamp>,
    /// Partitions of the accounts, of [`ClusterView::partitions`], that this daemon sends for; `None`: it is alone.
    pub partitions_held: Option<usize>,
    /// The limit that binds the forecast.
    pub bound_by: Option<String>,
    /// Creation time of the oldest ready job.
    pub oldest_ready_at: Option<Timestamp>,
    /// 429s and the like since the daemon started. The number to keep at 0.
    pub throttled_total: u64,
    pub last_throttled_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub struct LimitStatus {
    pub name: String,
    /// As declared: `50/1h`, `8 concurrent`.
    pub declared: String,
    pub view: LimitView,
    /// The view's maximum was learned; this is the one at which it was refused last.
    pub refused_at_max: Option<u32>,
    /// What the provider last said of it. Steady times.
    pub told: Option<Told>,
}

#[derive(Clone, Debug)]
pub struct OperationStatus {
    pub name: OperationName,
    pub counts: FlowCounts,
    pub lanes: Vec<LaneStatus>,
}

#[derive(Clone, Debug)]
pub struct LaneStatus {
    pub lane: Lane,
    pub in_flight: u32,
    pub calls_total: u64,
    pub jobs_total: u64,
    /// Tide credits of a batch lane.
    pub credits: Option<f64>,
    /// Sustainable interval of a batch lane.
    pub interval: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BreakerView {
    pub state: BreakerState,
    pub failures_in_a_row: u32,
    /// Wall time of the next probe while open.
    pub probe_at: Option<Timestamp>,
    pub opened_at: Option<Timestamp>,
    pub last_error: Option<Arc<str>>,
}

/// A credential that holds its jobs back.
#[derive(Clone, Debug, PartialEq)]
pub struct CredentialView {
    /// Whose it is; "" is the provider's own.
    pub account: Account,
    pub breaker: BreakerView,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

/// Why a job waits and when it will go.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub job: JobId,
    pub waiting_on: WaitingOn,
    /// One sentence for people.
    pub sentence: String,
    /// Wall time of the earliest departure; `None` when it cannot be said.
    pub next_attempt_at: Option<Timestamp>,
    /// Jobs of the flow that go before it.
    pub ahead: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum WaitingOn {
    /// Final, or on the wire.
    Nothing,
    /// Next in turn.
    Turn,
    NotDue {
        due_at: Timestamp,
    },
    Key {
        behind: JobId,
    },
    Limit {
        name: String,
    },
    Breaker,
    Paused,
    RunPaused,
    /// The daemon's own cap on calls in flight.
    InFlight,
    /// A free seat of a worker.
    Worker,
    UnknownProvider,
    /// `unknown`: a person must decide.
    Decision,
    Draining,
    /// The shared limits: they do not answer, or are being rebuilt.
    Limiter,
    /// Another daemon sends for its account. `None`: none does yet.
    OtherDaemon {
        name: Option<String>,
    },
}

/// The daemons that share the work, as this one saw them last.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// Id of this daemon.
    pub daemon: String,
    /// By start; the dead ones for a day.
    pub daemons: Vec<MemberView>,
    /// Partitions of each provider.
    pub partitions: u16,
    /// Why the database or the shared limits cannot be used, one sentence, when so.
    pub store_fault: Option<String>,
    pub limiter_fault: Option<String>,
}

#[derive(Clone, Debug)]
pub struct MemberView {
    pub id: String,
    pub name: String,
    /// Times by the database's clock.
    pub started_at: Timestamp,
    pub heartbeat_until: Timestamp,
    pub alive: bool,
    /// By provider.
    pub held: Vec<HeldView>,
}

/// Partitions of a provider that a daemon holds: number and fence.
#[derive(Clone, Debug)]
pub struct HeldView {
    pub provider: ProviderName,
    pub partitions: Vec<(u16, i64)>,
}

/// One supervised task.
#[derive(Clone, Debug)]
pub struct ActorInfo {
    pub name: String,
    pub started_at: Timestamp,
    pub restarts: u32,
    /// Reason of the last restart.
    pub last_reason: Option<String>,
    pub last_beat_at: Timestamp,
    pub alive: bool,
}

/// What one test call found.
#[derive(Clone, Debug)]
pub struct TestReport {
    /// `None`: no answer came; `error` says why.
    pub status: Option<u16>,
    pub error: Option<String>,
    pub took: Duration,
    /// Response headers that speak of limits, as the call log has them.
    pub limit_headers: Vec<(String, String)>,
}

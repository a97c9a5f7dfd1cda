//! Providers, their declarations and how they stand, as proto.
//!
//! Must never know: policy. Next: `api/providers`, `engine/status`.

use super::{count, counts, duration, lane, small, time};
use crate::api::providers::ProviderView;
use crate::clock::{Clock, Timestamp};
use crate::engine::status::{
    BreakerState, BreakerView, CredentialView, LaneStatus, LimitStatus, OperationStatus, ProviderStatus, TestReport,
};
use crate::grpc::pb;
use crate::model::call::Lane;
use crate::model::job::Coalesce;
use crate::model::provider::{LaneSpec, Limit, Operation, Scope};

pub fn provider(view: ProviderView, full: bool) -> pb::Provider {
    let declared = &view.provider;
    pb::Provider {
        name: declared.name.to_string(),
        base_url: declared.base_url.to_string(),
        revision: view.revision,
        etag: view.etag,
        paused: view.paused,
        apply_time: view.applied_at.and_then(time),
        actor: view.actor,
        limits: declared.limits.iter().map(|l| limit(l)).collect(),
        operations: declared.operations.values().map(|o| operation(o)).collect(),
        source: if full { view.source } else { String::new() },
        in_flight_max: small(declared.in_flight_max),
        spread: i32::from(declared.spread),
    }
}

fn operation(operation: &Operation) -> pb::Operation {
    let coalesce = match operation.coalesce {
        Coalesce::Never => "never",
        Coalesce::Replace => "replace",
        Coalesce::Merge => "merge",
    };
    let lanes = Lane::ALL.into_iter().filter_map(|l| operation.lane(l).map(|spec| operation_lane(l, spec)));
    pb::Operation {
        name: operation.name.to_string(),
        coalesce: coalesce.to_owned(),
        attempts_max: small(operation.retry.attempts_max),
        lanes: lanes.collect(),
    }
}

fn operation_lane(which: Lane, spec: &LaneSpec) -> pb::OperationLane {
    pb::OperationLane {
        lane: lane(which) as i32,
        method: spec.method.to_string(),
        path: spec.request.path.source().to_owned(),
        size_max: small(spec.size_max),
        limits: spec.limits.iter().map(|l| limit(l)).collect(),
    }
}

fn limit(limit: &Limit) -> pb::DeclaredLimit {
    let scope = match limit.scope {
        Scope::Provider => "provider",
        Scope::Account => "account",
        Scope::Key => "key",
    };
    pb::DeclaredLimit { name: limit.name.to_string(), declared: limit.kind.to_string(), scope: scope.to_owned() }
}

/// The gate's times are steady ones; people read wall time.
struct Wall {
    now: Timestamp,
    steady: Timestamp,
}

impl Wall {
    fn time(&self, steady: Timestamp) -> Option<prost_types::Timestamp> {
        if steady == Timestamp::NEVER {
            return None;
        }
        time(Timestamp(self.now.0.saturating_add(steady.0.saturating_sub(self.steady.0))))
    }
}

pub fn status(status: ProviderStatus, clock: &Clock) -> pb::ProviderStatus {
    let wall = Wall { now: clock.now(), steady: clock.steady() };
    pb::ProviderStatus {
        name: status.name.to_string(),
        revision: status.revision,
        paused: status.paused,
        fault: status.fault.unwrap_or_default(),
        breaker: Some(breaker(status.breaker)),
        limits: status.limits.into_iter().map(|l| limit_status(l, &wall)).collect(),
        operations: status.operations.into_iter().map(operation_status).collect(),
        counts: Some(counts(&status.counts)),
        in_flight: small(status.in_flight),
        in_flight_max: small(status.in_flight_max),
        sending_per_second: status.sending_per_second,
        allowed_per_second: status.allowed_per_second,
        drain_time: status.drains_at.and_then(time),
        bound_by: status.bound_by.unwrap_or_default(),
        oldest_ready_time: status.oldest_ready_at.and_then(time),
        throttled_count: count(status.throttled_total),
        last_throttled_time: status.last_throttled_at.and_then(time),
        time: time(wall.now),
        partitions_held: status.partitions_held.map(small),
        credentials: status.credentials.into_iter().map(credential).collect(),
    }
}

fn credential(view: CredentialView) -> pb::CredentialStatus {
    pb::CredentialStatus { account: view.account.to_string(), breaker: Some(breaker(view.breaker)) }
}

pub fn breaker(view: BreakerView) -> pb::Breaker {
    let state = match view.state {
        BreakerState::Closed => pb::breaker::State::Closed,
        BreakerState::Open => pb::breaker::State::Open,
        BreakerState::HalfOpen => pb::breaker::State::HalfOpen,
    };
    pb::Breaker {
        state: state as i32,
        failures_in_a_row: small(view.failures_in_a_row),
        probe_time: view.probe_at.and_then(time),
        open_time: view.opened_at.and_then(time),
        last_error: view.last_error.map(|e| e.to_string()).unwrap_or_default(),
    }
}

fn limit_status(status: LimitStatus, wall: &Wall) -> pb::LimitStatus {
    let view = status.view;
    pb::LimitStatus {
        name: status.name,
        declared: status.declared,
        key: view.key.to_string(),
        max: i64::from(view.max),
        used: i64::from(view.used),
        in_flight: i64::from(view.in_flight),
        free: i64::from(view.free),
        next_free_time: wall.time(view.next_free_at),
        // The end of our patience with the call that goes first after a refusal is nothing that the provider said.
        blocked_until_time: view.blocked_until.filter(|_| !view.is_probing).and_then(|at| wall.time(at)),
        refused_at_max: status.refused_at_max.map(i64::from),
        told: status.told.map(|told| pb::ToldLimit {
            max: told.max.map(i64::from),
            remaining: told.left.map(i64::from),
            reset_time: told.reset_at.and_then(|at| wall.time(at)),
            heard_time: told.heard_at.and_then(|at| wall.time(at)),
        }),
    }
}

fn operation_status(status: OperationStatus) -> pb::OperationStatus {
    pb::OperationStatus {
        name: status.name.to_string(),
        counts: Some(counts(&status.counts)),
        lanes: status.lanes.into_iter().map(lane_status).collect(),
    }
}

fn lane_status(status: LaneStatus) -> pb::LaneStatus {
    pb::LaneStatus {
        lane: lane(status.lane) as i32,
        in_flight: small(status.in_flight),
        call_count: count(status.calls_total),
        job_count: count(status.jobs_total),
        credits: status.credits,
        interval: status.interval.map(duration),
    }
}

pub fn test_report(report: TestReport) -> pb::TestProviderResponse {
    let headers = report.limit_headers.into_iter();
    pb::TestProviderResponse {
        answered: report.status.is_some(),
        status: report.status.map_or(0, i32::from),
        latency: Some(duration(report.took)),
        error: report.error.unwrap_or_default(),
        limit_headers: headers.map(|(name, value)| pb::LimitHeader { name, value }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_times_are_told_as_wall_times() {
        let wall = Wall { now: Timestamp::from_secs(1_000), steady: Timestamp::from_secs(400) };
        assert_eq!(wall.time(Timestamp::from_secs(430)).unwrap().seconds, 1_030);
        assert_eq!(wall.time(Timestamp::NEVER), None);
    }
}

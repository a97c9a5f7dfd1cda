//! `/metrics`: the gauges are taken from how every provider stands at the time of the scrape.
//!
//! Must never know: how instruments are written. Next: `telemetry/scrape.rs`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Shared;
use crate::clock::{Clock, Timestamp};
use crate::engine::status::{BreakerState, LimitStatus, ProviderStatus};
use crate::telemetry::scrape::{CONTENT_TYPE, LimitGauges, ProviderGauges};

pub(super) async fn scrape(State(shared): State<Shared>) -> Response {
    let statuses = shared.api.provider_statuses().await;
    let clock = shared.api.clock();
    if let Ok((readers, lag)) = shared.api.event_lag().await {
        shared.metrics.event_log(readers, lag);
    }
    let limits = shared.api.limits_now();
    shared.metrics.cluster(limits.held, limits.epoch, limits.daemons);
    let gauges: Vec<ProviderGauges> = statuses.iter().map(|status| gauges(status, clock)).collect();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], shared.metrics.scrape(&gauges)).into_response()
}

fn gauges(status: &ProviderStatus, clock: &Clock) -> ProviderGauges {
    let (now, steady) = (clock.now(), clock.steady());
    let counts = &status.counts;
    ProviderGauges {
        provider: status.name.to_string(),
        // Final states are counters (`tidegate_jobs_finished_total`): these are the jobs that are still work.
        jobs: vec![
            ("ready", counts.ready_all()),
            ("later", counts.later),
            ("behind", counts.behind),
            ("calling", counts.calling),
            ("unknown", counts.unknown),
        ],
        oldest_seconds: status.oldest_ready_at.map(|at| now.since(at).as_secs_f64()),
        drain_seconds: status.drains_at.map(|at| at.since(now).as_secs_f64()),
        partitions_held: status.partitions_held,
        breaker: match status.breaker.state {
            BreakerState::Closed => 0,
            BreakerState::Open => 1,
            BreakerState::HalfOpen => 2,
        },
        limits: limits(&status.limits, steady),
    }
}

/// One gauge per declared limit and window. Of those that count per account or key, the one nearest to its end: their
/// values are no labels.
fn limits(all: &[LimitStatus], steady: Timestamp) -> Vec<LimitGauges> {
    let mut found: Vec<LimitGauges> = Vec::new();
    for status in all {
        let view = &status.view;
        let next = view.next_free_at;
        let gauges = LimitGauges {
            limit: format!("{} {}", status.name, status.declared),
            max: view.max,
            used: view.used,
            in_flight: view.in_flight,
            reset_seconds: (next != Timestamp::NEVER).then(|| next.since(steady).as_secs_f64()),
        };
        match found.iter_mut().find(|g| g.limit == gauges.limit) {
            Some(seen) if share(&gauges) > share(seen) => *seen = gauges,
            Some(_) => {}
            None => found.push(gauges),
        }
    }
    found
}

fn share(g: &LimitGauges) -> f64 {
    f64::from(g.used.saturating_add(g.in_flight)) / f64::from(g.max.max(1))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::limiter::LimitView;
    use crate::model::call::LimitKey;

    fn of_account(account: &str, used: u32) -> LimitStatus {
        LimitStatus {
            name: "core".into(),
            declared: "50/1h".into(),
            view: LimitView {
                key: LimitKey(Arc::from(format!("crm/core:3600s@{account}"))),
                max: 50,
                used,
                in_flight: 1,
                free: 0,
                free_by_class: [0; 3],
                kept_by_class: [0; 3],
                cost: 1,
                per: std::time::Duration::from_secs(3_600),
                next_free_at: Timestamp::from_secs(90),
                blocked_until: None,
                is_probing: false,
                said: None,
                returns: Vec::new(),
            },
            told: None,
            refused_at_max: None,
        }
    }

    #[test]
    fn accounts_are_no_labels_and_the_fullest_one_speaks_for_all() {
        let all = [of_account("a", 3), of_account("b", 40), of_account("c", 7)];
        let shown = limits(&all, Timestamp::from_secs(60));
        assert_eq!(shown.len(), 1);
        assert_eq!((shown[0].used, shown[0].reset_seconds), (40, Some(30.0)));
        assert_eq!(shown[0].limit, "core 50/1h");
    }
}

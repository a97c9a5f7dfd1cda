//! A scrape: gauges are taken from how things stand now, then everything is written in OpenMetrics text.
//!
//! Gauges are filled anew each time, so that what no longer exists is no longer shown. Next: `http/metrics.rs`.

use prometheus_client::encoding::text::encode;

use super::family::{ByLimit, ByProvider, ByState};
use super::metrics::Metrics;

/// The content type of [`Metrics::scrape`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How a provider stands, for its gauges.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProviderGauges {
    pub provider: String,
    /// Jobs by the name of their state or place.
    pub jobs: Vec<(&'static str, u64)>,
    /// Age of the oldest ready job, in seconds.
    pub oldest_seconds: Option<f64>,
    /// Seconds until the backlog is through.
    pub drain_seconds: Option<f64>,
    /// Of its accounts; `None`: the daemon is alone.
    pub partitions_held: Option<usize>,
    /// 0 closed, 1 open, 2 half open.
    pub breaker: u8,
    pub limits: Vec<LimitGauges>,
}

/// How a limit stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitGauges {
    pub limit: String,
    pub max: u32,
    pub used: u32,
    pub in_flight: u32,
    /// Seconds until a used permit returns; `None` when none is used.
    pub reset_seconds: Option<f64>,
}

impl Metrics {
    /// Everything as OpenMetrics text. Costs memory for the text, no I/O.
    pub fn scrape(&self, providers: &[ProviderGauges]) -> String {
        let all = &*self.inner;
        // Also keeps two scrapes from clearing each other's gauges. A poisoned lock guards only gauges that are
        // filled anew right here.
        let registry = all.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.clear_gauges();
        for provider in providers {
            all.fill(provider);
        }
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a String cannot fail");
        text
    }
}

impl super::metrics::Inner {
    fn clear_gauges(&self) {
        self.queue_jobs.clear();
        for family in [&self.queue_oldest, &self.drain_forecast, &self.breaker_state, &self.partitions_held] {
            family.clear();
        }
        for family in
            [&self.limit_max, &self.limit_used, &self.limit_in_flight, &self.limit_reset, &self.limit_utilization]
        {
            family.clear();
        }
    }

    fn fill(&self, one: &ProviderGauges) {
        let by_provider = ByProvider::of(&one.provider);
        for (state, jobs) in &one.jobs {
            self.queue_jobs.with(&ByState::of(&one.provider, state), |g| g.set(*jobs as f64));
        }
        if let Some(seconds) = one.oldest_seconds {
            self.queue_oldest.with(&by_provider, |g| g.set(seconds));
        }
        if let Some(seconds) = one.drain_seconds {
            self.drain_forecast.with(&by_provider, |g| g.set(seconds));
        }
        if let Some(held) = one.partitions_held {
            self.partitions_held.with(&by_provider, |g| g.set(held as f64));
        }
        self.breaker_state.with(&by_provider, |g| g.set(f64::from(one.breaker)));
        for limit in &one.limits {
            let labels = ByLimit::of(&one.provider, &limit.limit);
            self.limit_max.with(&labels, |g| g.set(f64::from(limit.max)));
            self.limit_used.with(&labels, |g| g.set(f64::from(limit.used)));
            self.limit_in_flight.with(&labels, |g| g.set(f64::from(limit.in_flight)));
            if let Some(seconds) = limit.reset_seconds {
                self.limit_reset.with(&labels, |g| g.set(seconds));
            }
            if limit.max > 0 {
                let share = f64::from(limit.used.saturating_add(limit.in_flight)) / f64::from(limit.max);
                self.limit_utilization.with(&labels, |g| g.set(share));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::family::RpcCall;
    use super::*;

    fn crm() -> ProviderGauges {
        ProviderGauges {
            provider: "crm".into(),
            jobs: vec![("waiting", 1_204), ("calling", 3)],
            oldest_seconds: Some(12.5),
            drain_seconds: Some(60.0),
            partitions_held: Some(21),
            breaker: 1,
            limits: vec![LimitGauges {
                limit: "core".into(),
                max: 50,
                used: 24,
                in_flight: 1,
                reset_seconds: Some(2.0),
            }],
        }
    }

    #[test]
    fn what_happened_is_counted_under_its_public_name() {
        let m = Metrics::new();
        m.jobs_enqueued("crm", "sync_user", 7);
        m.jobs_finished("crm", "sync_user", "delivered", 5);
        m.attempt("crm", "batch", Some(207));
        m.attempt("crm", "single", None);
        m.throttled("crm", "core");
        m.limit_headers_ignored("crm", 3);
        m.waited("crm", "core", Duration::from_millis(1_500));
        m.batch_records("crm", "sync_user", 1_000);
        m.http_call("crm", "POST", Some(200), Duration::from_millis(20));
        m.rpc_call(&RpcCall::of("tidegate.v1.JobService/EnqueueJob", "OK"), Duration::from_millis(2));
        m.actor_restarted("gate/crm");
        let text = m.scrape(&[]);
        let expected = [
            "tidegate_jobs_enqueued_total{provider=\"crm\",operation=\"sync_user\"} 7",
            "tidegate_jobs_finished_total{provider=\"crm\",operation=\"sync_user\",outcome=\"delivered\"} 5",
            "tidegate_attempts_total{provider=\"crm\",lane=\"batch\",status_class=\"2xx\"} 1",
            "tidegate_attempts_total{provider=\"crm\",lane=\"single\",status_class=\"none\"} 1",
            "tidegate_throttled_total{provider=\"crm\",limit=\"core\"} 1",
            "tidegate_limit_headers_ignored_total{provider=\"crm\"} 3",
            "tidegate_wait_seconds_total{provider=\"crm\",cause=\"core\"} 1.5",
            "tidegate_actor_restarts_total{actor=\"gate/crm\"} 1",
            "tidegate_build_info{version=",
            "http_client_request_duration_seconds_count{provider=\"crm\",http_request_method=\"POST\",http_response_status_code=\"200\"} 1",
            "# EOF",
        ];
        for line in expected {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_gauge_shows_how_things_stand_and_leaves_with_its_provider() {
        let m = Metrics::new();
        let text = m.scrape(&[crm()]);
        let expected = [
            "tidegate_queue_jobs{provider=\"crm\",state=\"waiting\"} 1204.0",
            "tidegate_limit_utilization_ratio{provider=\"crm\",limit=\"core\"} 0.5",
            "tidegate_breaker_state{provider=\"crm\"} 1.0",
            "tidegate_drain_forecast_seconds{provider=\"crm\"} 60.0",
            "tidegate_partitions_held{provider=\"crm\"} 21.0",
        ];
        for line in expected {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!m.scrape(&[]).contains("provider=\"crm\""));
    }
}

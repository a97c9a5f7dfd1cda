//! Every instrument of the daemon, in one list: name, unit, labels, and who feeds it.
//!
//! Counters and histograms are fed where things happen, once per commit or call rather than per job; gauges are taken
//! from the engine's status when somebody scrapes (`scrape.rs`). Base units, `_total` on counters, never an id as a
//! label. Must never know: how anything is measured. Next: `scrape.rs`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::family::{
    Bounded, Build, ByActor, ByAlert, ByCause, ByLimit, ByOperation, ByOutcome, ByProvider, ByState, ByStatus,
    ByWebhook, HttpCall, RpcCall,
};

/// Seconds of a call on the wire: the buckets of OpenTelemetry's HTTP conventions.
const CALL_SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Seconds a job waits: from at once to a day, since a queue behind an hourly quota is as normal as an idle one.
const WAIT_SECONDS: [f64; 16] =
    [0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0];
/// Jobs in one batch call.
const RECORDS: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 5_000.0];
/// Seconds of a commit: an fsync takes from 50 us to the worst of disks.
const COMMIT_SECONDS: [f64; 12] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

type Counters<L> = Bounded<L, Counter>;
type GaugeF = Gauge<f64, std::sync::atomic::AtomicU64>;
type Gauges<L> = Bounded<L, GaugeF>;
/// Counters of seconds.
type Seconds<L> = Bounded<L, Counter<f64, std::sync::atomic::AtomicU64>>;
type Histograms<L> = Bounded<L, Histogram, fn() -> Histogram>;

/// All instruments. Cheap to clone; methods cost a lookup and an atomic addition.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub registry: Mutex<Registry>,
    jobs_enqueued: Counters<ByOperation>,
    jobs_finished: Counters<ByOutcome>,
    attempts: Counters<ByStatus>,
    throttled: Counters<ByLimit>,
    limit_headers_ignored: Counters<ByProvider>,
    wait_seconds: Seconds<ByCause>,
    actor_restarts: Counters<ByActor>,
    webhooks: Counters<ByWebhook>,
    alerts: Gauges<ByAlert>,
    job_wait: Histograms<ByOperation>,
    job_total: Histograms<ByOperation>,
    batch_records: Histograms<ByOperation>,
    http_client: Histograms<HttpCall>,
    rpc_server: Histograms<RpcCall>,
    store_commit: Histogram,
    event_readers: GaugeF,
    event_lag: GaugeF,
    limiter_away: GaugeF,
    limiter_epoch: GaugeF,
    cluster_daemons: GaugeF,
    pub partitions_held: Gauges<ByProvider>,
    pub queue_jobs: Gauges<ByState>,
    pub queue_oldest: Gauges<ByProvider>,
    pub drain_forecast: Gauges<ByProvider>,
    pub limit_max: Gauges<ByLimit>,
    pub limit_used: Gauges<ByLimit>,
    pub limit_in_flight: Gauges<ByLimit>,
    pub limit_reset: Gauges<ByLimit>,
    pub limit_utilization: Gauges<ByLimit>,
    pub breaker_state: Gauges<ByProvider>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Instruments at zero, registered under their public names.
    pub fn new() -> Self {
        let inner = Inner {
            registry: Mutex::default(),
            jobs_enqueued: Bounded::default(),
            jobs_finished: Bounded::default(),
            attempts: Bounded::default(),
            throttled: Bounded::default(),
            limit_headers_ignored: Bounded::default(),
            wait_seconds: Bounded::default(),
            actor_restarts: Bounded::default(),
            webhooks: Bounded::default(),
            alerts: Bounded::default(),
            job_wait: Bounded::with_constructor(|| Histogram::new(WAIT_SECONDS)),
            job_total: Bounded::with_constructor(|| Histogram::new(WAIT_SECONDS)),
            batch_records: Bounded::with_constructor(|| Histogram::new(RECORDS)),
            http_client: Bounded::with_constructor(|| Histogram::new(CALL_SECONDS)),
            rpc_server: Bounded::with_constructor(|| Histogram::new(CALL_SECONDS)),
            store_commit: Histogram::new(COMMIT_SECONDS),
            event_readers: GaugeF::default(),
            event_lag: GaugeF::default(),
            limiter_away: GaugeF::default(),
            limiter_epoch: GaugeF::default(),
            cluster_daemons: GaugeF::default(),
            partitions_held: Bounded::default(),
            queue_jobs: Bounded::default(),
            queue_oldest: Bounded::default(),
            drain_forecast: Bounded::default(),
            limit_max: Bounded::default(),
            limit_used: Bounded::default(),
            limit_in_flight: Bounded::default(),
            limit_reset: Bounded::default(),
            limit_utilization: Bounded::default(),
            breaker_state: Bounded::default(),
        };
        let registry = inner.register();
        Metrics { inner: Arc::new(Inner { registry: Mutex::new(registry), ..inner }) }
    }

    /// Jobs accepted, after their commit. Coalesced and repeated ones count too: they were asked for.
    pub fn jobs_enqueued(&self, provider: &str, operation: &str, jobs: u64) {
        self.inner.jobs_enqueued.with(&ByOperation::of(provider, operation), |c| c.inc_by(jobs));
    }

    /// Jobs that reached an end, after its commit. `outcome` is the state's name.
    pub fn jobs_finished(&self, provider: &str, operation: &str, outcome: &str, jobs: u64) {
        self.inner.jobs_finished.with(&ByOutcome::of(provider, operation, outcome), |c| c.inc_by(jobs));
    }

    /// One call that left, by the status that came back; `None` when none came.
    pub fn attempt(&self, provider: &str, lane: &str, status: Option<u16>) {
        self.inner.attempts.with(&ByStatus::of(provider, lane, status_class(status)), Counter::inc);
    }

    /// Values of limit headers that could not be meant.
    pub fn limit_headers_ignored(&self, provider: &str, values: u32) {
        self.inner.limit_headers_ignored.with(&ByProvider::of(provider), |c| {
            c.inc_by(u64::from(values));
        });
    }

    /// One "not now" from a provider: the number to keep at 0. `limit`: the limit it spoke of, "" when it did not say.
    pub fn throttled(&self, provider: &str, limit: &str) {
        self.inner.throttled.with(&ByLimit::of(provider, limit), Counter::inc);
    }

    /// Time that a gate with work ready could not release any, by what held it.
    pub fn waited(&self, provider: &str, cause: &str, time: Duration) {
        self.inner.wait_seconds.with(&ByCause::of(provider, cause), |c| c.inc_by(time.as_secs_f64()));
    }

    /// Times of jobs from their due times to the start of their first call.
    pub fn jobs_waited(&self, provider: &str, operation: &str, times: impl Iterator<Item = Duration>) {
        let mut times = times.peekable();
        if times.peek().is_some() {
            let of = ByOperation::of(provider, operation);
            self.inner.job_wait.with(&of, |h| times.for_each(|time| h.observe(time.as_secs_f64())));
        }
    }

    /// Times of jobs from their creation to the call that delivered them or that they gave up with.
    pub fn jobs_done(&self, provider: &str, operation: &str, times: &[Duration]) {
        if !times.is_empty() {
            let of = ByOperation::of(provider, operation);
            self.inner.job_total.with(&of, |h| times.iter().for_each(|time| h.observe(time.as_secs_f64())));
        }
    }

    /// Jobs that left in one batch call.
    pub fn batch_records(&self, provider: &str, operation: &str, jobs: u32) {
        self.inner.batch_records.with(&ByOperation::of(provider, operation), |h| h.observe(f64::from(jobs)));
    }

    /// One call on the wire, from its first byte to the end of its answer.
    pub fn http_call(&self, provider: &str, method: &str, status: Option<u16>, time: Duration) {
        let status = status.map_or_else(String::new, |s| s.to_string());
        self.inner.http_client.with(&HttpCall::of(provider, method, &status), |h| h.observe(time.as_secs_f64()));
    }

    /// One call answered by this daemon; method as `tidegate.v1.JobService/EnqueueJob`, status as `OK`.
    pub fn rpc_call(&self, call: &RpcCall, time: Duration) {
        self.inner.rpc_server.with(call, |h| h.observe(time.as_secs_f64()));
    }

    /// Readers of the event log, and how many events the slowest of them has not read yet.
    pub fn event_log(&self, readers: usize, lag: u64) {
        self.inner.event_readers.set(readers as f64);
        self.inner.event_lag.set(lag as f64);
    }

    /// How the limits stand, and how many daemons share the work.
    pub fn cluster(&self, limiter_held: bool, limiter_epoch: i64, daemons: usize) {
        self.inner.limiter_away.set(f64::from(u8::from(limiter_held)));
        self.inner.limiter_epoch.set(limiter_epoch as f64);
        self.inner.cluster_daemons.set(daemons as f64);
    }

    /// One durable commit of the store.
    pub fn store_commit(&self, time: Duration) {
        self.inner.store_commit.observe(time.as_secs_f64());
    }

    /// One message that came to a webhook. `outcome`: `accepted`, `not_wanted`, `repeated`, or the reason in lower case.
    pub fn webhook(&self, webhook: &str, outcome: &str) {
        self.inner.webhooks.with(&ByWebhook::of(webhook, outcome), Counter::inc);
    }

    /// How an alert stands.
    pub fn alert(&self, alert: &str, provider: &str, raised: bool) {
        self.inner.alerts.with(&ByAlert::of(alert, provider), |g| g.set(f64::from(u8::from(raised))));
    }

    /// One restart of a supervised task.
    pub fn actor_restarted(&self, actor: &str) {
        self.inner.actor_restarts.with(&ByActor::of(actor), Counter::inc);
    }
}

impl Inner {
    /// The public names. `_total` is added to counters by the encoder.
    fn register(&self) -> Registry {
        let mut to = Registry::default();
        to.register("tidegate_jobs_enqueued", "Jobs accepted", self.jobs_enqueued.share());
        to.register("tidegate_jobs_finished", "Jobs that reached an end, by outcome", self.jobs_finished.share());
        to.register("tidegate_attempts", "Calls that left, by class of the answer's status", self.attempts.share());
        let ignored = "Values of limit headers that could not be meant, and were ignored";
        to.register("tidegate_limit_headers_ignored", ignored, self.limit_headers_ignored.share());
        to.register("tidegate_throttled", "Answers that said \"not now\"; keep at 0", self.throttled.share());
        let help = "Seconds that ready work of a provider was held, by cause";
        to.register("tidegate_wait_seconds", help, self.wait_seconds.share());
        to.register("tidegate_actor_restarts", "Restarts of supervised tasks", self.actor_restarts.share());
        let help = "1 while an alert of the configuration is raised, else 0; told by the daemon that looks after it";
        to.register("tidegate_alert_raised", help, self.alerts.share());
        to.register("tidegate_webhooks", "Messages that webhooks brought, by outcome", self.webhooks.share());
        let help = "Seconds from a job's due time to the start of its first call";
        to.register("tidegate_job_wait_seconds", help, self.job_wait.share());
        to.register(
            "tidegate_job_total_seconds",
            "Seconds from a job's creation to its delivery or death",
            self.job_total.share(),
        );
        to.register("tidegate_batch_records", "Jobs in one batch call", self.batch_records.share());
        let help = "Seconds of a call to a provider";
        to.register("http_client_request_duration_seconds", help, self.http_client.share());
        let help = "Seconds of a call to this daemon";
        to.register("rpc_server_call_duration_seconds", help, self.rpc_server.share());
        let help = "Seconds of one durable commit of the store";
        to.register("tidegate_store_commit_seconds", help, self.store_commit.clone());
        to.register("tidegate_event_readers", "Watches that read the event log", self.event_readers.clone());
        let help = "Events that the slowest watch has not read yet";
        to.register("tidegate_event_lag_events", help, self.event_lag.clone());
        let help = "1 while no limit can be had (Redis is away, or limits are rebuilt) and jobs are held, else 0";
        to.register("tidegate_limiter_away", help, self.limiter_away.clone());
        let help = "Epoch of the limits; grows when they were rebuilt from the journal because Redis forgot";
        to.register("tidegate_limiter_epoch", help, self.limiter_epoch.clone());
        let help = "Daemons alive that share the work, this one among them";
        to.register("tidegate_cluster_daemons", help, self.cluster_daemons.clone());
        let help = "Partitions of a provider's accounts that this daemon sends for; absent when it is alone";
        to.register("tidegate_partitions_held", help, self.partitions_held.share());
        to.register("tidegate_queue_jobs", "Jobs by state", self.queue_jobs.share());
        to.register("tidegate_queue_oldest_seconds", "Age of the oldest ready job", self.queue_oldest.share());
        let help = "Seconds until the present backlog is through; absent when it cannot be said";
        to.register("tidegate_drain_forecast_seconds", help, self.drain_forecast.share());
        to.register("tidegate_limit_max", "Calls a window admits", self.limit_max.share());
        to.register("tidegate_limit_used", "Answered calls that still count", self.limit_used.share());
        to.register("tidegate_limit_in_flight", "Calls that wait for their answer", self.limit_in_flight.share());
        let help = "Seconds until a used permit returns";
        to.register("tidegate_limit_reset_seconds", help, self.limit_reset.share());
        let help = "Share of a limit that is used or in flight, 0 to 1";
        to.register("tidegate_limit_utilization_ratio", help, self.limit_utilization.share());
        to.register("tidegate_breaker_state", "0 closed, 1 open, 2 half open", self.breaker_state.share());
        let build: Gauges<Build> = Bounded::default();
        build.with(&Build::of(env!("CARGO_PKG_VERSION")), |g| g.set(1.0));
        to.register("tidegate_build_info", "What is running", build.share());
        to
    }
}

fn status_class(status: Option<u16>) -> &'static str {
    match status.map(|s| s / 100) {
        Some(1) => "1xx",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(5) => "5xx",
        Some(_) => "odd",
        None => "none",
    }
}

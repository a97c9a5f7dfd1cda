//! A provider: a third-party API as declared, checked and ready to use.
//!
//! `config/` builds these from TOML; everything else only reads them. Nothing here is secret: credentials are
//! references, resolved when a call is made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::call::Lane;
use super::job::Coalesce;
use super::name::{Account, LimitName, OperationName, ProviderName, Tenant};
use super::request::{BatchResult, Template};

pub use super::limit_headers::{CostSource, HeaderNames, LimitHeaders, TimeUnit};

pub use super::auth::{Auth, ClientStyle, Grant, OAuth2, SecretRef};

#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    pub name: ProviderName,
    /// Scheme, host, port and path prefix; no user info, no query, no fragment.
    pub base_url: url::Url,
    pub auth: Auth,
    /// Accounts with a way of their own.
    pub accounts: BTreeMap<Account, Auth>,
    /// Sent with every call. Values may be templates.
    pub headers: Vec<(http::HeaderName, Template)>,
    /// Limits that every call of the provider spends.
    pub limits: Vec<Arc<Limit>>,
    pub operations: BTreeMap<OperationName, Arc<Operation>>,
    pub breaker: BreakerPolicy,
    /// Which answers mean "not now" (beside status 429, which always does).
    pub throttled: Vec<Match>,
    pub timeouts: Timeouts,
    /// Calls on the wire at one time, all operations together. A guard of the daemon, not a limit of the provider.
    pub in_flight_max: u32,
    /// Parts of an account, each of which a daemon of its own may serve ([`super::shard`]). 1: one daemon per account.
    pub spread: u16,
    /// May the base URL resolve to private, loopback or link-local addresses?
    pub allow_private: bool,
    /// Bytes of a response body kept in memory, after decompression; the rest is cut off.
    pub response_bytes_max: usize,
    /// Send `traceparent` to the provider.
    pub propagate_trace: bool,
    /// Weights of tenants in turns; those not named have 1.
    pub tenants: BTreeMap<Tenant, u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    pub name: OperationName,
    /// At least one lane exists.
    pub single: Option<LaneSpec>,
    pub batch: Option<LaneSpec>,
    pub coalesce: Coalesce,
    /// Is sending a call again safe when its answer was lost?
    pub repeat: Repeat,
    pub idempotency: Option<IdempotencyHeader>,
    pub retry: Backoff,
    /// Answers beside 2xx that count as delivered, as "DELETE of what is already gone".
    pub delivered_if: Vec<Match>,
    /// Answers that look like success but are not, as 200 with an error body.
    pub failed_if: Vec<Match>,
    /// Answers worth another try beside 408, 425, 500, 502, 503, 504.
    pub retry_if: Vec<Match>,
    /// Bytes of the answer kept with the job. 0 keeps none.
    pub keep_bytes: usize,
    /// Bodies of its calls go to the call log.
    pub log_bodies: Option<super::call_log::LogBodies>,
    /// What takes a delivered job back.
    pub undo: Option<Undo>,
    /// It lists things page by page, so a collection can be pulled by it.
    pub pages: Option<Arc<super::pages::Pages>>,
    /// How answers to callers who wait are cached. Jobs are never answered from a cache.
    pub cache: CacheRule,
    /// Workers carry its jobs out, and the daemon makes no call of its own; the single lane has only limits then.
    pub external: Option<External>,
}

impl Provider {
    /// Headers by which limits of such a call are declared to be told of, under names of their own.
    pub fn limit_header_names<'a>(&'a self, operation: &'a Operation, lane: Lane) -> Vec<&'a http::HeaderName> {
        let own = operation.lane(lane).map(|spec| &spec.limits);
        let limits = self.limits.iter().chain(own.into_iter().flatten());
        let names = limits.flat_map(|limit| {
            let cost = limit.cost_from.as_deref().and_then(CostSource::header);
            limit.headers.as_deref().map(LimitHeaders::names).unwrap_or_default().into_iter().chain(cost)
        });
        names.collect()
    }
}

/// How long a worker may have a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct External {
    /// Without being heard.
    pub lease: Duration,
    /// At most, however often it is heard.
    pub within: Duration,
}

/// How long an answer is good for those who ask for the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheRule {
    #[default]
    Off,
    /// As long as its headers say; then it is asked whether it still is, by its ETag or Last-Modified.
    Etag,
    /// RFC 9111: as before, and a tenth of its age where the headers say nothing; stale-while-revalidate is honoured.
    Rules,
    /// For `ttl` whatever its headers say, and for `stale` more while a fresh one is fetched.
    Ttl { ttl: Duration, stale: Duration },
}

/// The inverse of an operation: another one of the same provider, for the same account and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    pub operation: OperationName,
    /// Its payload is `{"payload": the original one, "result": the kept answer}`, and not the original one alone.
    pub with_result: bool,
}

impl Operation {
    /// What a call of no declared operation is: a request of this method that has rules and limits of nobody's.
    pub fn bare(name: OperationName, method: http::Method) -> Operation {
        let request =
            RequestTemplate { path: Template::literal(""), query: Vec::new(), headers: Vec::new(), body: None };
        let single = LaneSpec { method, request, limits: Vec::new(), size_max: 1, bytes_max: usize::MAX, result: None };
        Operation {
            name,
            single: Some(single),
            batch: None,
            coalesce: Coalesce::Never,
            repeat: Repeat::ByMethod,
            idempotency: None,
            retry: Backoff::default(),
            delivered_if: Vec::new(),
            failed_if: Vec::new(),
            retry_if: Vec::new(),
            keep_bytes: 0,
            log_bodies: None,
            undo: None,
            pages: None,
            cache: CacheRule::Off,
            external: None,
        }
    }

    pub fn lane(&self, lane: Lane) -> Option<&LaneSpec> {
        match lane {
            Lane::Single => self.single.as_ref(),
            Lane::Batch => self.batch.as_ref(),
        }
    }
}

/// How one lane makes its request, and what it spends.
#[derive(Clone, Debug, PartialEq)]
pub struct LaneSpec {
    pub method: http::Method,
    /// Path, query, headers and body, parsed and checked against the variables that exist.
    pub request: RequestTemplate,
    /// Limits that only this lane spends, beside the provider's.
    pub limits: Vec<Arc<Limit>>,
    /// Jobs in one call: 1 on the single lane.
    pub size_max: u32,
    /// Bytes of all payloads in one call.
    pub bytes_max: usize,
    /// Where a batch answer tells the fate of each job. `None`: the status speaks for all.
    pub result: Option<BatchResult>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RequestTemplate {
    /// Appended to the base URL's path; variables are percent-encoded as one path segment each.
    pub path: Template,
    pub query: Vec<(String, Template)>,
    pub headers: Vec<(http::HeaderName, Template)>,
    pub body: Option<super::request::BodyTemplate>,
}

/// Is it safe to send a call again when the answer to the first was lost?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// By the method: GET, HEAD, PUT, DELETE, OPTIONS yes; POST and PATCH only with an idempotency header within its
    /// life.
    ByMethod,
    Always,
    Never,
}

/// The outbound idempotency key: stable over the retries of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct IdempotencyHeader {
    pub name: http::HeaderName,
    /// How long the provider remembers a key. A repeat after that is not safe.
    pub life: Duration,
}

/// A question about an answer. All parts given must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// Inclusive range.
    pub status: Option<(u16, u16)>,
    /// Header name and exact value; an empty value asks only for presence.
    pub header: Option<(http::HeaderName, String)>,
    /// The body contains this text.
    pub body: Option<String>,
    /// A JSON pointer that exists and is neither null, false, "" nor 0; or that equals the value.
    pub json: Option<(String, Option<serde_json::Value>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution, TCP and TLS.
    pub connect: Duration,
    /// From the request's last byte to the status line.
    pub first_byte: Duration,
    /// Between two reads of the body.
    pub idle: Duration,
    /// The whole call.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(20),
            idle: Duration::from_secs(10),
            total: Duration::from_secs(30),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerPolicy {
    /// Opens after this many failures in a row.
    pub failures_in_a_row: u32,
    /// Or when at least this share of at least `calls_min` calls within `window` failed.
    pub failure_share: f64,
    pub calls_min: u32,
    pub window: Duration,
    /// First open time; doubles with each reopening up to `open_max`, +-20 %.
    pub open_base: Duration,
    pub open_max: Duration,
    /// Good probes that close it.
    pub probes: u32,
    /// After closing, the share of calls let through grows from 10 % to 100 % over this time.
    pub ramp: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        BreakerPolicy {
            failures_in_a_row: 5,
            failure_share: 0.5,
            calls_min: 10,
            window: Duration::from_secs(60),
            open_base: Duration::from_secs(5),
            open_max: Duration::from_secs(600),
            probes: 3,
            ramp: Duration::from_secs(30),
        }
    }
}

/// One declared restriction.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    pub name: LimitName,
    pub kind: LimitKind,
    pub scope: Scope,
    /// Calls of these methods only; empty: all.
    pub methods: Vec<http::Method>,
    /// Permits one call costs. At least 1, at most the limit's maximum.
    pub cost: u32,
    /// Permits kept back for `urgent`, and for `urgent` and `normal` together.
    pub reserve: Reserve,
    /// Statuses of answers that the provider does not count, as GitHub's 304.
    pub not_counted: Vec<u16>,
    /// How answers speak of it, where they do. What they say can only tighten what is declared.
    pub headers: Option<Arc<LimitHeaders>>,
    /// The provider publishes no number: `max` is the most that makes sense, and refusals teach what it really is.
    pub learned: bool,
    /// Where an answer says what its call has cost. `cost` is then the most that a call may cost.
    pub cost_from: Option<Arc<CostSource>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    pub urgent: u32,
    pub normal: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Provider,
    Account,
    /// One count per key of a job: every job of a call spends its own.
    Key,
}

#[derive(Clone, Debug, PartialEq)]
pub enum LimitKind {
    /// `max` per any interval of length `per`.
    Window { max: u32, per: Duration, anchor: Anchor },
    /// A bucket of `capacity` refilled at `refill` per `per`; the capacity used is reduced by rate x jitter.
    Bucket { capacity: u32, refill: u32, per: Duration, jitter: Duration },
    /// At most `max` calls on the wire.
    Concurrency { max: u32 },
    /// `max` per hour, day or month of a time zone.
    Calendar { max: u32, period: CalendarPeriod, zone: jiff::tz::TimeZone },
    /// Evenly spaced, for providers that count approximately: one per `per / (max - 1)` plus jitter.
    Paced { max: u32, per: Duration, jitter: Duration },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalendarPeriod {
    Hour,
    Day,
    Month,
}

/// From when a used slot of a window counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// From the answer: exact whatever the delays. The default.
    Answer,
    /// From the send; exact while the delays to the provider spread by less than `jitter`.
    Send { jitter: Duration },
}

impl LimitKind {
    /// Permits that there ever are at one time.
    pub fn max(&self) -> u32 {
        match *self {
            LimitKind::Window { max, .. }
            | LimitKind::Concurrency { max }
            | LimitKind::Calendar { max, .. }
            | LimitKind::Paced { max, .. } => max,
            LimitKind::Bucket { capacity, .. } => capacity,
        }
    }
}

/// As in a declaration: `50/1h`, `8 concurrent`.
impl std::fmt::Display for LimitKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LimitKind::Window { max, per, .. } => write!(f, "{max}/{}", span(*per)),
            LimitKind::Bucket { capacity, refill, per, .. } => {
                write!(f, "{refill}/{} bucket of {capacity}", span(*per))
            }
            LimitKind::Concurrency { max } => write!(f, "{max} concurrent"),
            LimitKind::Calendar { max, period, zone } => {
                let period = match period {
                    CalendarPeriod::Hour => "hour",
                    CalendarPeriod::Day => "day",
                    CalendarPeriod::Month => "month",
                };
                write!(f, "{max}/calendar {period} {}", zone.iana_name().unwrap_or("fixed offset"))
            }
            LimitKind::Paced { max, per, .. } => write!(f, "{max}/{} paced", span(*per)),
        }
    }
}

/// In the largest unit that divides it.
fn span(d: Duration) -> String {
    let fits = |&(s, _): &(u64, &str)| d.subsec_nanos() == 0 && d.as_secs() >= s && d.as_secs().is_multiple_of(s);
    match [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")].into_iter().find(|unit| fits(unit)) {
        Some((seconds, unit)) => format!("{}{unit}", d.as_secs() / seconds),
        None => format!("{}ms", d.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_reads_as_it_is_declared() {
        let window = |per| LimitKind::Window { max: 50, per, anchor: Anchor::Answer }.to_string();
        assert_eq!(window(Duration::from_secs(3_600)), "50/1h");
        assert_eq!(window(Duration::from_secs(90)), "50/90s");
        assert_eq!(window(Duration::from_millis(1_500)), "50/1500ms");
        assert_eq!(window(Duration::from_secs(172_800)), "50/2d");
        assert_eq!(LimitKind::Concurrency { max: 8 }.to_string(), "8 concurrent");
    }
}

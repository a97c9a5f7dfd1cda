//! What a simulated provider is declared to be: limits, answers, latency and faults, from TOML, JSON or flags.
//!
//! Pure data that checks itself. Must never know: sockets. Next: `core`, which carries it out.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::documents::Documents;
use super::tokens::TokenRules;

mod rule;

pub use rule::{Cost, LimitRule, Per, Rule, parse_duration, show_duration};

/// Rules that one simulator carries at most.
pub const LIMITS_MAX: usize = 64;
/// The longest window, so that arithmetic on microseconds stays far from overflow.
pub const WINDOW_MAX: Duration = Duration::from_secs(32 * 86_400);
/// The largest count of a rule.
pub const COUNT_MAX: u32 = 10_000_000;

/// What is wrong with a declaration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    #[error(
        "expected a rule like rolling:50/60s, fixed:50/1h, two-counter:50/60s, bucket:100,10/1s or concurrency:8, got {0:?}"
    )]
    Rule(String),
    #[error("expected a duration like 20ms, 60s, 5m, 1h or 1d, got {0:?}")]
    Duration(String),
    #[error("expected a count of 1 to {COUNT_MAX} per more than 0 and at most 32 days, got {0:?}")]
    Range(String),
    #[error("expected a share between 0 and 1 for {name}, got {got}")]
    Share { name: &'static str, got: String },
    #[error("expected at most {LIMITS_MAX} limits, got {0}")]
    TooMany(usize),
    #[error("limit {0:?} is declared twice; give each its own name")]
    Twice(String),
    #[error("limit {0:?} counts per account, which needs account_header")]
    NoAccountHeader(String),
    #[error("records.set needs records.keep = true: what is not remembered cannot be in a set")]
    SetNotKept,
    #[error("headers_of names limit {0:?}; expected the name of a declared one")]
    NoSuchLimit(String),
    #[error("expected a limit like [NAME=]RULE[@[METHOD ]PATH][;COST@[METHOD ]PATH], got {0:?}")]
    Limit(String),
    #[error(
        "limit {name:?} takes {cost} units of a request; expected 1 to its {max}, or 1 where unanswered ones are counted"
    )]
    Cost { name: String, cost: u32, max: u32 },
}

/// A whole simulated provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimulatorConfig {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Same seed, same dice: latency and faults by probability.
    pub seed: u64,
    pub limits: Vec<LimitRule>,
    /// What a refusal answers: 429, or 403 as some do.
    pub refuse_status: u16,
    /// And what it says, where the words matter.
    pub refuse_body: String,
    pub headers: HeaderStyle,
    /// The limits that the numbers in the headers are about, where an API does not tell of all: of those that count a
    /// request the tightest. None: any. A refusal by another says `Retry-After`.
    pub headers_of: Vec<String>,
    /// The header that names the account, for limits `per = "account"`.
    pub account_header: Option<String>,
    pub latency: Latency,
    pub faults: Faults,
    pub records: Records,
    /// Calls must show a token of this endpoint. Default: nobody asks who they are.
    pub tokens: Option<TokenRules>,
    /// Lists that are read page by page.
    pub lists: Vec<super::lists::ListRule>,
    /// Answers to GETs; absent: as to everything else.
    pub documents: Option<Documents>,
    /// Arrivals as JSON lines go here.
    pub log: Option<PathBuf>,
    /// Newest arrivals kept in memory for tests.
    pub keep_arrivals: usize,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        SimulatorConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: 1,
            limits: Vec::new(),
            refuse_status: 429,
            refuse_body: r#"{"error":"too many requests"}"#.to_owned(),
            headers: HeaderStyle::RetryAfter,
            headers_of: Vec::new(),
            account_header: None,
            latency: Latency::default(),
            faults: Faults::default(),
            records: Records::default(),
            tokens: None,
            lists: Vec::new(),
            documents: None,
            log: None,
            keep_arrivals: 0,
        }
    }
}

impl SimulatorConfig {
    /// Answers at once, looks at no body, counts only: what a bench measures against.
    pub fn bare() -> Self {
        SimulatorConfig {
            latency: Latency::none(),
            records: Records { read: false, ..Records::default() },
            ..SimulatorConfig::default()
        }
    }

    /// Adds a limit as on the command line: `[NAME=]RULE[@[METHOD ]PATH][;COST@[METHOD ]PATH]`.
    pub fn limit(mut self, text: &str) -> Result<Self, BadConfig> {
        self.limits.push(text.parse()?);
        Ok(self)
    }

    pub fn check(&self) -> Result<(), BadConfig> {
        if self.limits.len() > LIMITS_MAX {
            return Err(BadConfig::TooMany(self.limits.len()));
        }
        for (i, limit) in self.limits.iter().enumerate() {
            if self.limits[..i].iter().any(|l| l.name == limit.name) {
                return Err(BadConfig::Twice(limit.name.clone()));
            }
            if limit.per == Per::Account && self.account_header.is_none() {
                return Err(BadConfig::NoAccountHeader(limit.name.clone()));
            }
            let max = if matches!(limit.rule, Rule::Concurrency { .. }) { 1 } else { limit.rule.max() };
            if let Some(&Cost { cost, .. }) = limit.costs.iter().find(|c| !(1..=max).contains(&c.cost)) {
                return Err(BadConfig::Cost { name: limit.name.clone(), cost, max: limit.rule.max() });
            }
        }
        if let Some(name) = self.headers_of.iter().find(|name| !self.limits.iter().any(|l| l.name == **name)) {
            return Err(BadConfig::NoSuchLimit(name.clone()));
        }
        if self.records.set && !self.records.keep {
            return Err(BadConfig::SetNotKept);
        }
        let f = &self.faults;
        for (name, share) in [
            ("latency.tail_share", self.latency.tail_share),
            ("faults.error_share", f.error_share),
            ("faults.silence_share", f.silence_share),
            ("faults.reset_share", f.reset_share),
            ("faults.slow_share", f.slow_share),
            ("faults.record_failure_share", f.record_failure_share),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(BadConfig::Share { name, got: share.to_string() });
            }
        }
        Ok(())
    }
}

/// What the answers say about the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum HeaderStyle {
    /// `Retry-After: 12` on a refusal.
    #[default]
    RetryAfter,
    /// `Retry-After` as an HTTP date.
    RetryAfterDate,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset` (epoch seconds) on every answer.
    #[value(name = "x-ratelimit")]
    #[serde(rename = "x-ratelimit")]
    XRatelimit,
    /// `RateLimit-Limit`, `-Remaining`, `-Reset` (seconds from now) on every answer but a refusal, which has only
    /// `Retry-After`: as Klaviyo.
    RatelimitLegacy,
    /// `X-Shopify-Shop-Api-Call-Limit: 39/40` on every answer, and `Retry-After: 2.0` on a refusal.
    Shopify,
    /// `X-HubSpot-RateLimit-Max`, `-Remaining`, `-Interval-Milliseconds`, and `-Daily`, `-Daily-Remaining` of a limit of
    /// one day, on every answer; no reset.
    Hubspot,
    /// `RateLimit` and `RateLimit-Policy` as in draft-ietf-httpapi-ratelimit-headers-10, on every answer.
    RatelimitDraft,
    None,
}

/// How long an answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Latency {
    /// Half of the answers are faster: they spread evenly over half to one and a half of it.
    #[serde(with = "text")]
    pub median: Duration,
    /// How long the stragglers take.
    #[serde(with = "text")]
    pub tail: Duration,
    /// The share of stragglers.
    pub tail_share: f64,
}

impl Default for Latency {
    fn default() -> Self {
        Latency { median: Duration::from_millis(20), tail: Duration::from_millis(300), tail_share: 0.01 }
    }
}

impl Latency {
    pub fn none() -> Self {
        Latency { median: Duration::ZERO, tail: Duration::ZERO, tail_share: 0.0 }
    }
}

/// How the provider misbehaves. Nothing by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Share of requests answered with `error_status`, without taking effect.
    pub error_share: f64,
    pub error_status: u16,
    /// From start (or reset) plus the first to start plus the second: every request gets `error_status`.
    pub outages: Vec<Outage>,
    /// Share of requests that take effect and are never answered.
    pub silence_share: f64,
    /// Share of requests that take effect, and whose connection is then reset.
    pub reset_share: f64,
    /// Share of requests answered only after `slow`.
    pub slow_share: f64,
    #[serde(with = "text")]
    pub slow: Duration,
    /// Share of records that fail inside an answered call.
    pub record_failure_share: f64,
    /// Records whose id contains one of these always fail.
    pub record_failures: Vec<String>,
    /// A call that carries a record whose id contains one of these is refused as a whole with 400.
    pub poison: Vec<String>,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            error_share: 0.0,
            error_status: 503,
            outages: Vec::new(),
            silence_share: 0.0,
            reset_share: 0.0,
            slow_share: 0.0,
            slow: Duration::from_secs(5),
            record_failure_share: 0.0,
            record_failures: Vec::new(),
            poison: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    #[serde(with = "text")]
    pub from: Duration,
    #[serde(with = "text")]
    pub to: Duration,
}

/// How records are found in bodies and named in answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Records {
    /// Look into bodies at all. Off: every answer is `{}`.
    pub read: bool,
    /// JSON pointer to a record's id. A call whose body has none takes the last segment of its path.
    pub id: String,
    /// JSON pointer to a whole number that grows with each change of a record, for the log and the checker.
    pub version: String,
    /// Name of the list in a batch answer.
    pub results: String,
    /// Name of the id in a result.
    pub result_id: String,
    /// Name of the reason in a failed result.
    pub result_error: String,
    /// Remember the newest version of each record, up to `core::RECORDS_MAX`.
    pub keep: bool,
    /// The records make a set, as the tracks of a library: a DELETE takes them out, anything else puts them in. What is so
    /// already is answered well and changes nothing. Needs `keep`.
    pub set: bool,
}

impl Default for Records {
    fn default() -> Self {
        Records {
            read: true,
            id: "/id".to_owned(),
            version: "/n".to_owned(),
            results: "results".to_owned(),
            result_id: "id".to_owned(),
            result_error: "error".to_owned(),
            keep: true,
            set: false,
        }
    }
}

pub(super) mod text {
    use super::*;

    pub fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&show_duration(*d))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toml_file_says_it_all_and_unknown_keys_are_errors() {
        let config: SimulatorConfig = toml::from_str(
            r#"
            headers = "x-ratelimit"
            account_header = "x-account"
            latency = { median = "5ms" }
            limits = [{ name = "core", rule = "rolling:5000/1h", per = "account", costs = [{ cost = 5, method = "POST" }] }]
            faults = { error_share = 0.1, outages = [{ from = "1s", to = "2s" }] }
            "#,
        )
        .unwrap();
        config.check().unwrap();
        assert_eq!(config.latency.tail, Duration::from_millis(300));
        assert_eq!((config.limits[0].cost("POST", "/x"), config.limits[0].cost("GET", "/x")), (5, 1));
        assert!(toml::from_str::<SimulatorConfig>("limit = []").is_err());
    }

    #[test]
    fn a_config_that_cannot_work_is_refused() {
        let refused = |config: SimulatorConfig| config.check().unwrap_err().to_string();
        let twice = SimulatorConfig::default().limit("a=rolling:1/1s").unwrap().limit("a=rolling:2/1s").unwrap();
        assert!(refused(twice).contains("declared twice"));
        for costly in ["a=rolling:9/1s;10@POST", "a=rolling:9/1s;0@POST", "a=concurrency:9;2@POST"] {
            let costly = SimulatorConfig::default().limit(costly).unwrap();
            assert!(refused(costly).contains("expected 1 to its 9"));
        }
        let nobody = SimulatorConfig { headers_of: vec!["core".into()], ..SimulatorConfig::default() };
        assert!(refused(nobody).contains("expected the name of a declared one"));
        let share =
            SimulatorConfig { faults: Faults { error_share: 1.5, ..Faults::default() }, ..SimulatorConfig::default() };
        assert!(refused(share).contains("faults.error_share"));
        let records = Records { set: true, keep: false, ..Records::default() };
        assert!(refused(SimulatorConfig { records, ..SimulatorConfig::default() }).contains("records.keep"));
    }
}

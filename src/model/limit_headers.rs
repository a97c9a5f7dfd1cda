//! How the answers of a provider speak of one of its limits: which headers, in which units. The declaration only.
//!
//! Must never know: what an answer said; `limit/feedback` reads that. Next: `config/limits`, which declares it.

use http::HeaderName;

/// The words in which a provider tells how a limit stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitHeaders {
    /// Only `Retry-After`, and it speaks of this limit: a refusal blocks no other.
    RetryAfter,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset`, as GitHub sends them; also written `X-Rate-Limit-...`.
    XRatelimit,
    /// `RateLimit-Limit`, `-Remaining`, `-Reset`: the three fields of older drafts.
    RatelimitLegacy,
    /// `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers, structured fields.
    RatelimitDraft,
    /// Names of their own.
    Named(Box<HeaderNames>),
}

impl LimitHeaders {
    /// The presets by the names that a declaration gives them.
    pub const PRESETS: [(&'static str, LimitHeaders); 4] = [
        ("retry-after", LimitHeaders::RetryAfter),
        ("x-ratelimit", LimitHeaders::XRatelimit),
        ("ratelimit-legacy", LimitHeaders::RatelimitLegacy),
        ("ratelimit-draft", LimitHeaders::RatelimitDraft),
    ];

    /// Headers that are named one by one.
    pub fn names(&self) -> Vec<&HeaderName> {
        let LimitHeaders::Named(names) = self else { return Vec::new() };
        let HeaderNames { limit, remaining, used, usage, reset, retry } = &**names;
        let times = [reset, retry].into_iter().flatten().map(|(name, _)| name);
        [limit, remaining, used, usage].into_iter().flatten().chain(times).collect()
    }
}

/// A provider's own names. Either what is left or what was used is named, or both in one (`usage`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderNames {
    /// The maximum, in permits.
    pub limit: Option<HeaderName>,
    /// Permits left.
    pub remaining: Option<HeaderName>,
    /// Permits used; what is left is the maximum less these.
    pub used: Option<HeaderName>,
    /// Both in one, as `39/40` or `api-usage=18/5000`.
    pub usage: Option<HeaderName>,
    /// When there is more again.
    pub reset: Option<(HeaderName, TimeUnit)>,
    /// How long to wait after a refusal, where it is not `Retry-After`.
    pub retry: Option<(HeaderName, TimeUnit)>,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// Told by its looks: a number above 10^12 is epoch milliseconds, above 10^9 epoch seconds, else seconds from now; a
    /// text is a duration, an ISO time or an HTTP date.
    #[default]
    Any,
    /// From now, perhaps with decimals.
    Seconds,
    Milliseconds,
    EpochSeconds,
    EpochMilliseconds,
    /// RFC 3339.
    Iso,
    HttpDate,
    /// `6m0s`, `20ms`.
    Text,
}

impl TimeUnit {
    /// By the names that a declaration gives them.
    pub const NAMES: [(&'static str, TimeUnit); 8] = [
        ("any", TimeUnit::Any),
        ("seconds", TimeUnit::Seconds),
        ("milliseconds", TimeUnit::Milliseconds),
        ("epoch-seconds", TimeUnit::EpochSeconds),
        ("epoch-milliseconds", TimeUnit::EpochMilliseconds),
        ("iso", TimeUnit::Iso),
        ("http-date", TimeUnit::HttpDate),
        ("text", TimeUnit::Text),
    ];
}

/// Where an answer says how many permits its call has cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CostSource {
    Header(HeaderName),
    /// A JSON pointer into the body.
    Json(String),
}

impl CostSource {
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            CostSource::Header(name) => Some(name),
            CostSource::Json(_) => None,
        }
    }
}

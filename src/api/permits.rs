//! Permits for programs that make their own calls: which asks are well formed.
//!
//! Must never know: proto types. Next: `engine/permits`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::error::{Error, Result, parse_id};
use super::{Api, enqueue};
use crate::clock::Timestamp;
use crate::engine::gate::Lending;
use crate::engine::lender::Loan;
use crate::engine::permits::{Seen, Settled, Spending, Wanted};
use crate::model::call::Lane;
use crate::model::flow::Class;
use crate::model::id::Id;
use crate::model::name::{Account, Key, ProviderName};
use crate::store::Refusal;

/// Permits of one grant.
pub const PERMITS_MAX: u32 = 1_000;
/// Longest wait of one ask.
pub const WAIT_MAX: Duration = Duration::from_secs(25);
/// How long permits may be used.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(60);
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// A shared limiter takes a daemon's calls for answered when it was granted nothing for 20 minutes: a lease must end
/// before.
pub const LEASE_MAX: Duration = Duration::from_secs(600);
/// Headers of one answer.
pub const HEADERS_MAX: usize = 64;

/// An ask as a client makes it, unchecked.
#[derive(Clone, Debug, Default)]
pub struct PermitSpec {
    pub provider: String,
    /// Empty: by method.
    pub operation: String,
    /// `None`: the single lane, or the only one.
    pub lane: Option<Lane>,
    /// Empty: GET.
    pub method: String,
    pub account: String,
    /// Empty: none.
    pub key: String,
    /// 0: 1.
    pub min: i32,
    /// 0: as `min`.
    pub max: i32,
    pub class: Class,
    pub wait: Option<Duration>,
    pub lease: Option<Duration>,
}

/// Permits, or when to ask again.
#[derive(Clone, Debug)]
pub enum Permits {
    Granted { token: Id, count: u32, expires_at: Timestamp },
    Later { earliest: Option<Timestamp>, why: String },
}

/// What a client saw, unchecked.
#[derive(Clone, Debug, Default)]
pub struct SeenSpec {
    pub token: String,
    pub sent: i32,
    /// 0: no answer.
    pub status: i32,
    pub headers: Vec<(String, String)>,
}

impl Api {
    pub async fn acquire_permits(&self, spec: PermitSpec) -> Result<Permits> {
        if self.is_draining() {
            return Err(Error::draining());
        }
        let wanted = self.wanted(spec)?;
        Ok(match self.engine().acquire_permits(wanted).await? {
            Lending::Granted(Loan { token, count, until }) => {
                Permits::Granted { token, count, expires_at: self.engine().wall(until) }
            }
            Lending::Later { earliest, why } => {
                Permits::Later { earliest: earliest.map(|at| self.engine().wall(at)), why: why.to_string() }
            }
        })
    }

    fn wanted(&self, spec: PermitSpec) -> Result<Wanted> {
        let name = ProviderName::new(&spec.provider).map_err(|e| Error::field("provider", "BAD_NAME", e))?;
        let provider = self.engine().provider(&name).ok_or_else(|| Error::from(Refusal::NoProvider(name.clone())))?;
        let account = Account::new(&spec.account).map_err(|e| Error::field("account", "BAD_NAME", e))?;
        let key = match spec.key.as_str() {
            "" => None,
            key => Some(Key::new(key).map_err(|e| Error::field("key", "BAD_NAME", e))?),
        };
        let spending = if spec.operation.is_empty() {
            if spec.lane.is_some() {
                return Err(Error::field("lane", "LANE_OF_NOTHING", "expected an operation with the lane"));
            }
            Spending::Method(method(&spec.method)?)
        } else {
            if !spec.method.is_empty() {
                let said = "expected an operation or a method, got both: an operation's lane says its method";
                return Err(Error::field("method", "TWO_WAYS", said));
            }
            let operation = provider.operations.get(spec.operation.as_str());
            let operation = operation.ok_or_else(|| enqueue::unknown_operation(&provider, &spec.operation))?;
            let only = if operation.single.is_some() { Lane::Single } else { Lane::Batch };
            let lane = spec.lane.unwrap_or(only);
            if operation.lane(lane).is_none() {
                let said = format!("expected the {only} lane: {} has no {lane} lane", operation.name);
                return Err(Error::field("lane", "NO_SUCH_LANE", said));
            }
            Spending::Operation(operation.name.clone(), lane)
        };
        let min = number("min_count", spec.min, 1)?;
        let max = number("max_count", spec.max, min)?;
        if max < min {
            let said = format!("expected min_count ({min}) or more, got {max}");
            return Err(Error::field("max_count", "BAD_COUNT", said));
        }
        let wait = within("wait", spec.wait.unwrap_or_default(), Duration::ZERO, WAIT_MAX)?;
        let lease = within("lease", spec.lease.unwrap_or(LEASE_DEFAULT), LEASE_MIN, LEASE_MAX)?;
        Ok(Wanted { provider: name, spending, account, key, min, max, class: spec.class, wait, lease })
    }

    /// True: counted as told. False: the grant had ended before.
    pub async fn settle_permits(&self, spec: SeenSpec) -> Result<bool> {
        let token = parse_id("token", &spec.token)?;
        let sent = u32::try_from(spec.sent)
            .map_err(|_| Error::field("sent_count", "BAD_COUNT", format!("expected 0 or more, got {}", spec.sent)))?;
        let status = match spec.status {
            0 => None,
            100..=999 => Some(spec.status as u16),
            got => return Err(Error::field("status", "BAD_STATUS", format!("expected 100 to 999, or 0, got {got}"))),
        };
        let seen = Seen { sent, status, headers: headers(&spec.headers)? };
        match self.engine().settle_permits(token, seen).await? {
            Settled::Now => Ok(true),
            Settled::Before => Ok(false),
            Settled::NoSuchGrant => Err(Error::not_found("grant", token)),
            Settled::TooMany { granted } => {
                let said = format!("expected at most the {granted} that were granted, got {sent}");
                Err(Error::field("sent_count", "MORE_THAN_GRANTED", said))
            }
        }
    }
}

fn method(text: &str) -> Result<Method> {
    if text.is_empty() {
        return Ok(Method::GET);
    }
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let said = || format!("expected one of {}, got {text:?}", known.join(", "));
    let fits = known.contains(&text).then(|| text.parse().ok()).flatten();
    fits.ok_or_else(|| Error::field("method", "BAD_METHOD", said()))
}

/// 0 stands for the default.
fn number(field: &str, got: i32, default: u32) -> Result<u32> {
    let said = || format!("expected 1 to {PERMITS_MAX}, or 0 for the default, got {got}");
    match u32::try_from(got) {
        Ok(0) => Ok(default),
        Ok(n) if n <= PERMITS_MAX => Ok(n),
        _ => Err(Error::field(field, "BAD_COUNT", said())),
    }
}

fn within(field: &str, got: Duration, min: Duration, max: Duration) -> Result<Duration> {
    if (min..=max).contains(&got) {
        return Ok(got);
    }
    let said = format!("expected {} to {} seconds, got {}", min.as_secs(), max.as_secs(), got.as_secs_f64());
    Err(Error::field(field, "BAD_DURATION", said))
}

fn headers(given: &[(String, String)]) -> Result<HeaderMap> {
    if given.len() > HEADERS_MAX {
        let said =
            format!("expected at most {HEADERS_MAX}, got {}; those that speak of limits are enough", given.len());
        return Err(Error::field("headers", "TOO_MANY_HEADERS", said));
    }
    let mut headers = HeaderMap::new();
    for (at, (name, value)) in given.iter().enumerate() {
        let bad = |part: &str| Error::field(format!("headers[{at}].{part}"), "BAD_HEADER", "expected an HTTP header");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("name"))?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| bad("value"))?);
    }
    Ok(headers)
}

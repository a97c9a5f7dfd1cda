//! Answers kept for a while: how long one is good, how it is asked for again, whose it is.
//!
//! RFC 9111 by `http-cache-semantics`, as a cache of one account's own: nothing is shared between accounts, and requests
//! that differ in any header are different. Kept in memory, bounded; told to forget by key and prefix. Must never know:
//! limits, who asks. Next: `cache/shelf`, where they stand; `engine/call`, which asks.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method};
use http_cache_semantics::{AfterResponse, BeforeRequest, CacheOptions, CachePolicy};
use sha2::{Digest, Sha256};

use super::Request;
use crate::clock::Timestamp;
use crate::model::invalidation::Which;
use crate::model::name::Namespace;
use crate::model::provider::CacheRule;
use crate::model::verdict::Answer;

pub mod shelf;

use shelf::{Mark, Place, Shelf};

/// All answers of a daemon together, bytes.
pub const BYTES: usize = 64 << 20;
/// Statuses that a declared time to live is for; what the provider says of itself decides elsewhere.
const KEPT_STATUSES: [u16; 8] = [200, 203, 204, 300, 301, 308, 404, 410];
/// A declaration or a header that says more is taken for this.
const GOOD_MAX: Duration = Duration::from_secs(366 * 86_400);

#[derive(Debug)]
pub struct Cache(Shelf<Arc<Kept>>);

/// An answer and how long it is good.
#[derive(Debug)]
pub struct Kept {
    pub answer: Answer,
    policy: CachePolicy,
    pub stored_at: Timestamp,
    fresh_until: Timestamp,
    /// Until then it may be told although it is not fresh, while a fresh one is fetched.
    stale_until: Timestamp,
}

/// What the cache has for a request.
#[derive(Debug)]
pub enum Found {
    Fresh(Arc<Kept>),
    /// Good enough for now; it should be fetched again, with these headers where it had a validator.
    Stale(Arc<Kept>, Option<HeaderMap>),
    /// May be asked for again with these headers: a 304 makes it fresh.
    Old(Arc<Kept>, HeaderMap),
    Nothing,
}

/// What became of an answer that was fetched.
#[derive(Debug)]
pub enum Fetched {
    /// A new answer, kept or not.
    New(Answer),
    /// The old one is good again.
    Revalidated(Arc<Kept>),
    /// A 304 that does not fit what was kept; that is forgotten, and the request must go without conditions.
    Unfit,
}

/// A request as the cache knows it.
#[derive(Clone, Debug)]
pub struct Asked {
    place: Place,
    rule: CacheRule,
    request: http::Request<()>,
}

impl Asked {
    /// `None`: such requests are not cached. `whose`: the credential, as provider, revision and account. `base`: the URL's part before the key.
    pub fn new(
        rule: CacheRule,
        namespace: Namespace,
        whose: &str,
        request: &Request,
        base: &url::Url,
    ) -> Option<Asked> {
        if rule == CacheRule::Off || !matches!(request.method, Method::GET | Method::HEAD) {
            return None;
        }
        let url = request.url.as_str();
        let mut hash = Sha256::new().chain_update(request.method.as_str()).chain_update([0]).chain_update(url);
        let mut names: Vec<_> = request.headers.iter().collect();
        names.sort_by_key(|(name, _)| name.as_str());
        for (name, value) in names {
            // A trace is another one each time and changes no answer.
            if name != "traceparent" {
                hash = hash.chain_update([0]).chain_update(name.as_str()).chain_update([0]).chain_update(value);
            }
        }
        let variant = hash.finalize().iter().take(12).map(|b| format!("{b:02x}")).collect::<String>();
        let key = url.strip_prefix(base.as_str().trim_end_matches('/')).unwrap_or(url);
        let place = Place { namespace, key: Arc::from(key), who: Arc::from(format!("{variant}/{whose}")) };
        let mut plain = http::Request::builder().method(request.method.clone()).uri(url).body(()).ok()?;
        *plain.headers_mut() = request.headers.clone();
        Some(Asked { place, rule, request: plain })
    }

    /// One text for one answer: who asks for the same waits for one fetch.
    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn key(&self) -> &str {
        &self.place.key
    }
}

impl Default for Cache {
    fn default() -> Self {
        Cache(Shelf::new(BYTES))
    }
}

impl Cache {
    pub fn look(&self, asked: &Asked, now: Timestamp) -> Found {
        let Some(kept) = self.0.get(&asked.place) else { return Found::Nothing };
        if now < kept.fresh_until {
            return Found::Fresh(kept);
        }
        if now < kept.stale_until {
            let headers = kept.conditions(asked);
            return Found::Stale(kept, headers);
        }
        match kept.conditions(asked) {
            Some(headers) => Found::Old(kept, headers),
            None => Found::Nothing,
        }
    }

    /// To be taken before the fetch.
    pub fn mark(&self) -> Mark {
        self.0.mark()
    }

    /// Takes in what was fetched. `former`: what the request's conditions were made of.
    pub fn fetched(
        &self,
        asked: &Asked,
        answer: Answer,
        former: Option<Arc<Kept>>,
        mark: Mark,
        now: Timestamp,
    ) -> Fetched {
        if answer.status == 304
            && let Some(former) = former
        {
            let response = response(&answer);
            return match former.policy.after_response(&asked.request, &response, system(now)) {
                AfterResponse::NotModified(policy, parts) => {
                    let again = Answer {
                        status: former.answer.status,
                        headers: parts.headers,
                        body: former.answer.body.clone(),
                        truncated: false,
                        received_at: answer.received_at,
                    };
                    let kept = Arc::new(Kept::new(asked.rule, again, policy, now));
                    self.put(asked, kept.clone(), mark);
                    Fetched::Revalidated(kept)
                }
                AfterResponse::Modified(..) => {
                    self.0.remove(&asked.place);
                    Fetched::Unfit
                }
            };
        }
        let policy = CachePolicy::new_options(&asked.request, &response(&answer), system(now), options(asked.rule));
        let storable = match asked.rule {
            CacheRule::Ttl { .. } => KEPT_STATUSES.contains(&answer.status),
            _ => policy.is_storable(),
        };
        if storable && !answer.truncated {
            self.put(asked, Arc::new(Kept::new(asked.rule, answer.clone(), policy, now)), mark);
        }
        Fetched::New(answer)
    }

    fn put(&self, asked: &Asked, kept: Arc<Kept>, mark: Mark) {
        // Neither fresh nor to be asked for again: of no use.
        if kept.fresh_until <= kept.stored_at && kept.stale_until <= kept.stored_at && kept.conditions(asked).is_none()
        {
            return;
        }
        let headers: usize = kept.answer.headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 64).sum();
        // The policy has the headers once more.
        let bytes = kept.answer.body.len() + 3 * headers + asked.place.key.len() + 512;
        self.0.put(asked.place.clone(), kept, bytes, mark);
    }

    pub fn invalidate(&self, which: &Which) -> usize {
        self.0.invalidate(which)
    }

    pub fn clear(&self) {
        self.0.clear();
    }

    /// Answers and their bytes.
    pub fn size(&self) -> (usize, usize) {
        self.0.size()
    }
}

impl Kept {
    fn new(rule: CacheRule, answer: Answer, policy: CachePolicy, now: Timestamp) -> Kept {
        let (good, more) = match rule {
            CacheRule::Ttl { ttl, stale } => (ttl, stale),
            CacheRule::Rules => (policy.time_to_live(system(now)), stale_while_revalidate(&answer.headers)),
            CacheRule::Etag | CacheRule::Off => (policy.time_to_live(system(now)), Duration::ZERO),
        };
        let fresh_until = now + good.min(GOOD_MAX);
        Kept { answer, policy, stored_at: now, fresh_until, stale_until: fresh_until + more.min(GOOD_MAX) }
    }

    /// The headers of the request with `If-None-Match` or `If-Modified-Since`; `None` when the answer had no validator.
    fn conditions(&self, asked: &Asked) -> Option<HeaderMap> {
        let has = |name| self.answer.headers.contains_key(name);
        if !has(http::header::ETAG) && !has(http::header::LAST_MODIFIED) {
            return None;
        }
        // Far ahead: whatever its age, we have decided that it is to be asked for.
        let later = system(self.stored_at) + GOOD_MAX;
        match self.policy.before_request(&asked.request, later) {
            BeforeRequest::Stale { request, matches: true } => Some(request.headers),
            _ => None,
        }
    }
}

/// Without heuristics where only validators are asked for: what the provider does not call fresh is asked for again.
fn options(rule: CacheRule) -> CacheOptions {
    let cache_heuristic = if rule == CacheRule::Rules { 0.1 } else { 0.0 };
    CacheOptions { shared: false, cache_heuristic, ..CacheOptions::default() }
}

fn stale_while_revalidate(headers: &HeaderMap) -> Duration {
    let all = headers.get_all(http::header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok());
    let mut seconds = 0;
    for part in all.flat_map(|text| text.split(',')).map(str::trim) {
        if part.eq_ignore_ascii_case("must-revalidate") || part.eq_ignore_ascii_case("no-cache") {
            return Duration::ZERO;
        }
        if let Some(("stale-while-revalidate", n)) = part.split_once('=') {
            seconds = n.trim_matches('"').parse().unwrap_or(0);
        }
    }
    Duration::from_secs(seconds)
}

fn response(answer: &Answer) -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(answer.status).unwrap_or(http::StatusCode::IM_A_TEAPOT);
    *response.headers_mut() = answer.headers.clone();
    response
}

fn system(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(at.0).unwrap_or(0))
}

#[cfg(test)]
mod tests;

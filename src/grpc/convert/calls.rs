//! Calls that are waited for, as proto.
//!
//! Must never know: policy. Next: `api/calls`.

use super::{class_from, duration, duration_from, time};
use crate::api::Result;
use crate::api::calls::{CacheStatus, CallSpec, Told};
use crate::clock::Timestamp;
use crate::grpc::pb;
use crate::model::invalidation::{Keys, Which};

/// Largest body of an answer: what a message may hold, less its other parts.
const BODY_BYTES_MAX: usize = 15 << 20;
const HEADERS_MAX: usize = 100;
/// Headers of the connection to the provider, and what belongs to its cookie jar.
const KEPT_BACK: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "content-encoding",
];

pub fn spec(request: pb::CallRequest) -> Result<CallSpec> {
    let class = class_from("priority_class", request.priority_class)?;
    let wait = duration_from("max_wait", request.max_wait)?;
    let pb::CallRequest { provider, operation, account, tenant, key, payload, namespace, fresh, .. } = request;
    Ok(CallSpec { provider, operation, account, tenant, key, payload, class, wait, namespace, fresh })
}

pub fn told(told: &Told, now: Timestamp) -> pb::CallResponse {
    let cache = match told.cache {
        CacheStatus::Bypass => pb::CacheStatus::Bypass,
        CacheStatus::Miss => pb::CacheStatus::Miss,
        CacheStatus::Hit => pb::CacheStatus::Hit,
        CacheStatus::Revalidated => pb::CacheStatus::Revalidated,
        CacheStatus::Stale => pb::CacheStatus::Stale,
    };
    let answer = &told.answer;
    let shown = answer.headers.iter().filter(|(name, _)| !KEPT_BACK.contains(&name.as_str()));
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| pb::Header {
        name: name.to_string(),
        value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    let fits = answer.body.len() <= BODY_BYTES_MAX;
    pb::CallResponse {
        status: i32::from(answer.status),
        headers: shown.take(HEADERS_MAX).map(header).collect(),
        body: answer.body[..answer.body.len().min(BODY_BYTES_MAX)].to_vec(),
        truncated: answer.truncated || !fits,
        cache: cache as i32,
        age: Some(duration(now.since(told.answered_at))),
        waited: Some(duration(told.waited)),
        answer_time: time(told.answered_at),
    }
}

pub fn keys(which: Option<pb::invalidate_cache_request::Which>) -> Option<Keys> {
    use pb::invalidate_cache_request::Which as W;
    which.map(|which| match which {
        W::Key(key) => Keys::Exactly(key),
        W::Prefix(prefix) => Keys::Beginning(prefix),
    })
}

pub fn invalidation(which: &Which) -> pb::InvalidateCacheRequest {
    use pb::invalidate_cache_request::Which as W;
    let keys = match which.keys.clone() {
        Keys::Exactly(key) => W::Key(key),
        Keys::Beginning(prefix) => W::Prefix(prefix),
    };
    pb::InvalidateCacheRequest { namespace: which.namespace.to_string(), which: Some(keys) }
}

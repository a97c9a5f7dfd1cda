//! From jobs to a request: a lane's templates filled in. Pure; strict both when parsed and when rendered.
//!
//! `request/template.rs` is the `{name}` language of paths, queries and headers, `request/body.rs` that of JSON bodies.
//! Payload text goes into a body byte for byte: no number is parsed and printed again on the way. Must never know:
//! HTTP clients, files. Next: `model/verdict.rs`, which reads the answer.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::call::Lane;
use super::job::ClaimedJob;
use super::name::{Account, Tenant};
use super::provider::{Operation, Provider};

mod body;
mod template;

pub use body::BodyTemplate;
pub use template::{BadTemplate, Facts, Into, Site, Template, Variable};

/// A request ready to be sent, but for the credentials, which the outbound stack adds last.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: http::Method,
    pub url: url::Url,
    pub headers: http::HeaderMap,
    pub body: bytes::Bytes,
}

/// Where a batch answer tells the fate of each job.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchResult {
    /// JSONPath (RFC 9535) to the per-record results.
    pub each: serde_json_path::JsonPath,
    /// JSON pointer within a result to the job's key: a text, or a number that reads like the key.
    pub key: String,
    /// JSON pointer whose presence (not null, false, "" or 0) means that this record failed.
    pub failed_if: Option<String>,
    /// JSON pointer, and the value that must be there (`None`: anything that is something): this record failed for the
    /// moment only, and is tried again by itself. Asked before `failed_if`.
    pub retry_if: Option<(String, Option<serde_json::Value>)>,
}

/// Why a request cannot be made from these jobs. Nothing was sent; only the named job is at fault and is rejected, the
/// others of the call may go without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RenderError {
    /// Index in the slice of jobs.
    pub job: usize,
    /// One sentence.
    pub reason: String,
}

/// Longest URL that is sent, bytes. What servers take differs; 8 KiB is the common default.
pub const URL_BYTES_MAX: usize = 8 * 1024;
/// Headers that the transport owns; a declaration may not set them.
pub const RESERVED_HEADERS: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "proxy-authorization",
    "proxy-connection",
    "expect",
    "accept-encoding",
];

/// Fills the lane's templates in. `jobs` are those of the call: one on the single lane, 1..n of one (operation,
/// account) on the batch lane. `tenant` is the flow's, and used on the single lane only.
pub fn render(
    provider: &Provider,
    operation: &Operation,
    lane: Lane,
    account: &Account,
    tenant: &Tenant,
    jobs: &[ClaimedJob],
) -> Result<Request, RenderError> {
    let all = |reason: String| RenderError { job: 0, reason };
    let spec = operation
        .lane(lane)
        .ok_or_else(|| all(format!("expected operation {} to have a {lane} lane, it has none", operation.name)))?;
    let facts = Facts { account, tenant, jobs };
    let mut headers = http::HeaderMap::with_capacity(8);
    for (name, template) in provider.headers.iter().chain(&spec.request.headers) {
        let text = template.text(&facts, Into::Header)?;
        let value = http::HeaderValue::from_str(&text)
            .map_err(|_| all(format!("expected header {name} of visible ASCII characters, got {text:?}")))?;
        headers.insert(name.clone(), value);
    }
    let body = match &spec.request.body {
        None => bytes::Bytes::new(),
        Some(template) => {
            let json = http::HeaderValue::from_static("application/json");
            headers.entry(http::header::CONTENT_TYPE).or_insert(json);
            template.bytes(&facts)?.into()
        }
    };
    if let Some(idempotency) = &operation.idempotency {
        headers.insert(idempotency.name.clone(), idempotency_value(lane, jobs));
    }
    if provider.propagate_trace
        && let (Lane::Single, [job]) = (lane, jobs)
        && let Some(parent) = &job.traceparent
        && let Ok(value) = http::HeaderValue::from_str(parent)
    {
        headers.insert("traceparent", value);
    }
    let url = render_url(provider, spec, &facts)?;
    Ok(Request { method: spec.method.clone(), url, headers, body })
}

fn render_url(
    provider: &Provider,
    spec: &super::provider::LaneSpec,
    facts: &Facts<'_>,
) -> Result<url::Url, RenderError> {
    let all = |reason: String| RenderError { job: 0, reason };
    let base = provider.base_url.as_str().trim_end_matches('/');
    let mut text = String::with_capacity(base.len() + 96);
    text.push_str(base);
    let path_at = text.len();
    spec.request.path.text_into(&mut text, facts, Into::Segment)?;
    // A URL parser resolves these, so a key named ".." would reach another resource than the one declared.
    let dots = |s: &str| matches!(s.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if let Some(segment) = text[path_at..].split('/').find(|s| s.starts_with(['.', '%']) && dots(s)) {
        return Err(all(format!("expected a path without dot segments, got {segment:?} from a variable")));
    }
    for (i, (name, value)) in spec.request.query.iter().enumerate() {
        text.push(if i == 0 { '?' } else { '&' });
        template::encode_into(&mut text, name);
        text.push('=');
        value.text_into(&mut text, facts, Into::Query)?;
    }
    if text.len() > URL_BYTES_MAX {
        return Err(all(format!("expected a URL of at most {URL_BYTES_MAX} bytes, got {}", text.len())));
    }
    url::Url::parse(&text).map_err(|e| all(format!("expected a URL, got {text:?}: {e}")))
}

/// Value of the idempotency header: on the single lane job id and version, so stable over the retries of a job and new
/// when its payload is; on the batch lane a hash over those of all its jobs, so the same jobs in any order agree.
pub fn idempotency_value(lane: Lane, jobs: &[ClaimedJob]) -> http::HeaderValue {
    let text = match (lane, jobs) {
        (Lane::Single, [job]) => format!("{}-{}", job.id, job.version),
        _ => {
            let mut parts: Vec<_> = jobs.iter().map(|j| (j.id.uuid().as_u128(), j.version)).collect();
            parts.sort_unstable();
            let mut hash = Sha256::new();
            for (id, version) in parts {
                hash.update(id.to_be_bytes());
                hash.update(version.to_be_bytes());
            }
            hash.finalize()[..16].iter().fold(String::with_capacity(32), |mut s, b| {
                let _ = write!(s, "{b:02x}");
                s
            })
        }
    };
    http::HeaderValue::from_str(&text).expect("hexadecimal digits and dashes are visible ASCII")
}

#[cfg(test)]
mod tests;

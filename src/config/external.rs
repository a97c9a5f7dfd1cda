//! `external` of an operation: workers carry its jobs out, within its limits.
//!
//! Must never know: who the workers are. Next: `operation.rs`.

use std::time::Duration;

use super::limits::{self, Placed};
use super::problem::Problem;
use super::reader::Reader;
use super::tree::{Node, Value};
use super::values::{self, expected};
use crate::model::provider::{External, LaneSpec, RequestTemplate};
use crate::model::request::Template;

const SECOND: Duration = Duration::from_secs(1);
/// A worker is to be heard each third of it.
const LEASE: Duration = Duration::from_secs(30);
const WITHIN: Duration = Duration::from_secs(600);
/// A shared limiter takes a daemon's calls for answered when it was granted nothing for 20 minutes: a lease must end
/// before.
const WITHIN_MAX: Duration = Duration::from_secs(600);

/// What only calls of the daemon have.
const OF_CALLS: [&str; 13] = [
    "request",
    "query",
    "headers",
    "body",
    "batch",
    "pages",
    "cache",
    "idempotency",
    "delivered_if",
    "failed_if",
    "retry_if",
    "log_bodies",
    "redact",
];

/// `external = true`, or `{ lease = "30s", within = "10m" }`. The lane that comes with it has limits and no request; limits
/// that count by method take it for a POST.
pub fn read(
    reader: &Reader<'_>,
    node: &Node,
    limit_name: &str,
    placed: &mut Vec<Placed>,
) -> Option<(External, LaneSpec)> {
    let found = reader.found;
    let external = match &node.value {
        Value::Boolean(true) => External { lease: LEASE, within: WITHIN },
        Value::Table(_) => {
            let own = Reader::of(found, node)?;
            let lease = own.get("lease", values::time(SECOND..=WITHIN_MAX)).unwrap_or(LEASE);
            let within = own.get("within", values::time(SECOND..=WITHIN_MAX)).unwrap_or(WITHIN);
            own.finish();
            External { lease, within }
        }
        _ => {
            found.add(expected("true, or a table such as { lease = \"30s\", within = \"10m\" }", node));
            return None;
        }
    };
    for key in OF_CALLS {
        if let Some(entry) = reader.entry(key) {
            let said = format!("an external operation has no `{key}`: the daemon makes no call for it");
            found.add(Problem::new(said).at(&entry.key_at).help("remove it, or remove `external`"));
        }
    }
    let own = reader.node("limits").map(|n| limits::read(found, n, limit_name)).unwrap_or_default();
    let limits = own.iter().map(|(limit, _)| limit.clone()).collect();
    placed.extend(own);
    let request = RequestTemplate { path: Template::literal("/"), query: Vec::new(), headers: Vec::new(), body: None };
    let method = http::Method::POST;
    Some((external, LaneSpec { method, request, limits, size_max: 1, bytes_max: usize::MAX, result: None }))
}

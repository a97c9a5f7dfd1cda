//! An operation with its lanes: request line, query, headers, body, limits and rules.
//!
//! Must never know: how requests are rendered or sent. Next: `model/request.rs` for the templates.

use std::sync::Arc;

use super::external;
use super::limits::{self, Placed};
use super::pages;
use super::problem::{Found, Problem};
use super::reader::{Reader, Unfit};
use super::rules;
use super::tree::{self, Entry, Node, Value};
use super::values::{self, expected};
use crate::model::backoff::Backoff;
use crate::model::call_log::{LogBodies, REDACT_MAX, folded};
use crate::model::job::Coalesce;
use crate::model::name::OperationName;
use crate::model::provider::{CacheRule, LaneSpec, Operation, Repeat, RequestTemplate};
use crate::model::request::{BatchResult, BodyTemplate, Site, Template, Variable};

/// Jobs in one batch at most.
const SIZE_MAX: u32 = 10_000;
/// Default and bound of a batch's payload bytes.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_BYTES_MAX: usize = 64 << 20;
/// Answer bytes kept with a job.
const KEEP_BYTES: usize = 2 << 10;
const KEEP_BYTES_MAX: usize = 256 << 10;
/// Query parameters and headers of one lane.
const PAIRS_MAX: usize = 64;

/// Reads `[providers.x.operations.NAME]`. Adds the limits of its lanes to `placed`.
pub fn read(
    found: &Found,
    name: &str,
    entry: &Entry,
    retry: Backoff,
    cache: CacheRule,
    placed: &mut Vec<Placed>,
) -> Option<(OperationName, Arc<Operation>)> {
    let before = found.count();
    let checked = OperationName::new(name).map_err(|e| found.add(Problem::new(e.to_string()).at(&entry.key_at))).ok();
    let reader = Reader::of(found, &entry.node)?;
    // Names of limits are words of at most 63 bytes, like names of operations.
    let batch_limits = format!("{}-batch", &name[..name.floor_char_boundary(57)]);
    let outside = reader.node("external").and_then(|n| external::read(&reader, n, name, placed));
    let single = match &outside {
        Some((_, limits_only)) => Some(limits_only.clone()),
        None if reader.has("request") => lane(&reader, Site::Single, name, placed),
        None => None,
    };
    let batch = reader.node("batch").and_then(|node| {
        let batch = Reader::of(found, node)?;
        let spec = lane(&batch, Site::Batch, &batch_limits, placed);
        batch.finish();
        spec
    });
    if !reader.has("request") && !reader.has("external") {
        // Asked for in any case, so that a single lane without its request line says only this.
        for key in ["request", "body", "query", "headers", "limits"] {
            if let (Some(entry), true) = (reader.entry(key), reader.has("batch")) {
                let said = format!("`{key}` belongs to the single lane, which has no `request`");
                found.add(
                    Problem::new(said).at(&entry.key_at).help("add request = \"POST /path\", or move it to the batch"),
                );
            }
        }
        if !reader.has("batch") {
            let problem = Problem::new("expected the key `request` here").at(&entry.node.at);
            found.add(problem.help("say what to call: request = \"PUT /users/{key}\""));
        }
    }
    let coalesces = [("never", Coalesce::Never), ("replace", Coalesce::Replace), ("merge", Coalesce::Merge)];
    let repeats = [("by-method", Repeat::ByMethod), ("always", Repeat::Always), ("never", Repeat::Never)];
    let list = |key| reader.node(key).map(|n| rules::matches(found, n)).unwrap_or_default();
    let operation = Operation {
        name: checked.clone().unwrap_or_else(|| OperationName::new("x").expect("one letter is a name")),
        single,
        batch,
        coalesce: reader.get("coalesce", values::choice(&coalesces)).unwrap_or_default(),
        repeat: reader.get("repeat", values::choice(&repeats)).unwrap_or(Repeat::ByMethod),
        idempotency: reader.node("idempotency").and_then(|n| rules::idempotency(found, n)),
        retry: reader.node("retry").and_then(|n| rules::retry(found, n, retry)).unwrap_or(retry),
        delivered_if: list("delivered_if"),
        failed_if: list("failed_if"),
        retry_if: list("retry_if"),
        undo: reader.node("undo").and_then(|n| rules::undo(found, n)),
        keep_bytes: reader.get("keep_bytes", values::size(0..=KEEP_BYTES_MAX)).unwrap_or(KEEP_BYTES),
        log_bodies: log_bodies(&reader),
        pages: reader.node("pages").and_then(|n| pages::read(found, n)).map(Arc::new),
        cache: reader.node("cache").and_then(|n| rules::cache(found, n)).unwrap_or(cache),
        external: outside.map(|(external, _)| external),
    };
    if operation.pages.is_some() && operation.single.is_none() {
        found.add(Problem::new("expected `pages` at an operation with a single lane").at(&entry.node.at));
    }
    reader.finish();
    (found.count() == before).then_some((checked?, Arc::new(operation)))
}

/// `log_bodies = true`, and names of fields to hide: `redact = ["card_number"]`.
fn log_bodies(reader: &Reader<'_>) -> Option<LogBodies> {
    let on = reader.get("log_bodies", values::boolean).unwrap_or(false);
    let hide = reader.get("redact", |node| {
        let names: Vec<&str> = values::list(node)?.iter().map(values::filled).collect::<Result<_, _>>()?;
        if names.len() > REDACT_MAX {
            return Err(expected(format_args!("at most {REDACT_MAX} names of fields"), node));
        }
        if !on {
            let problem = Problem::new("`redact` hides nothing without `log_bodies = true`").at(&node.at);
            return Err(problem.help("bodies are kept only where `log_bodies` says so"));
        }
        Ok(names.into_iter().map(folded).collect())
    });
    on.then(|| LogBodies { hide: hide.unwrap_or_default() })
}

fn lane(reader: &Reader<'_>, site: Site, limit_name: &str, placed: &mut Vec<Placed>) -> Option<LaneSpec> {
    let found = reader.found;
    let is_batch = site == Site::Batch;
    let line = reader.need("request", "say what to call: request = \"POST /users/batch\"", |n| request_line(n, site));
    let mut query = reader.node("query").map(|n| pairs(found, n, site)).unwrap_or_default();
    let headers = reader.node("headers").map(|n| headers(found, n, site)).unwrap_or_default();
    let body = reader.get("body", |n| {
        let template = BodyTemplate::parse(tree::json(n)?, site);
        template.map_err(|e| Problem::new(e.to_string()).at(&n.at))
    });
    let own = reader.node("limits").map(|n| limits::read(found, n, limit_name)).unwrap_or_default();
    let (size_max, bytes_max, result) = if is_batch {
        let help = "say how many jobs one call may carry: size = 1000";
        let size = reader.need("size", help, values::whole(1..=SIZE_MAX));
        let bytes = reader.get("bytes", values::size(1..=BATCH_BYTES_MAX)).unwrap_or(BATCH_BYTES);
        (size, bytes, reader.node("result").and_then(|n| batch_result(found, n)))
    } else {
        (Some(1), usize::MAX, None)
    };
    let limits = own.iter().map(|(limit, _)| limit.clone()).collect();
    placed.extend(own);
    let (method, path, in_line) = line?;
    query.splice(0..0, in_line);
    if body.is_some() && matches!(method, http::Method::GET | http::Method::HEAD) {
        found.add(Problem::new(format!("{method} has no body")).at(reader.at).help("use another method, or a query"));
    }
    let carries = |v: &Variable| body.as_ref().is_some_and(|b| b.uses(v)) || query.iter().any(|(_, t)| t.uses(v));
    if is_batch && !reader.has("body") && !carries(&Variable::Keys)
        || is_batch && body.is_some() && !carries(&Variable::Payloads) && !carries(&Variable::Keys)
    {
        let problem =
            Problem::new("expected {payloads} or {keys} in a batch: without them the jobs are not in the call");
        let at = reader.node("body").map_or(reader.at, |n| &n.at);
        found.add(problem.at(at).help("for example body = { users = \"{payloads}\" }"));
    }
    let request = RequestTemplate { path, query, headers, body };
    Some(LaneSpec { method, request, limits, size_max: size_max?, bytes_max, result })
}

/// Method, path and the pairs of the query.
type RequestLine = (http::Method, Template, Vec<(String, Template)>);

/// `PUT /users/{key}?notify={account}`.
fn request_line(node: &Node, site: Site) -> Result<RequestLine, Unfit> {
    let what = "a method and a path like \"PUT /users/{key}\"";
    let text = values::text(node)?;
    let (method, target) = text.split_once(' ').ok_or_else(|| expected(what, node))?;
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    if !known.contains(&method) {
        return Err(expected(format_args!("{what} with one of {}", known.join(", ")), node));
    }
    let method = method.parse().map_err(|_| expected(what, node))?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let unfit = |e: &dyn std::fmt::Display| Problem::new(e.to_string()).at(&node.at);
    if !path.starts_with('/') {
        return Err(expected(format_args!("{what}: the path starts with '/'"), node));
    }
    let path = Template::parse(path, site).map_err(|e| unfit(&e))?;
    for literal in path.literals() {
        let fits = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(c);
        if let Some(c) = literal.chars().find(|c| !fits(*c)) {
            return Err(unfit(&format_args!("expected a path in which {c:?} is percent-encoded")));
        }
    }
    if path.source().split('/').any(|s| matches!(s.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")) {
        return Err(unfit(&"expected a path without '.' and '..' segments"));
    }
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = |s: &str| percent_encoding::percent_decode_str(s).decode_utf8().map(std::borrow::Cow::into_owned);
        let (name, value) =
            plain(name).and_then(|n| Ok((n, plain(value)?))).map_err(|_| unfit(&"expected a query in UTF-8"))?;
        pairs.push((name, Template::parse(&value, site).map_err(|e| unfit(&e))?));
    }
    Ok((method, path, pairs))
}

/// A text, or a number or boolean as it is written.
fn value_template(node: &Node, site: Site) -> Result<Template, Unfit> {
    match &node.value {
        Value::Text(text) => Template::parse(text, site).map_err(|e| Problem::new(e.to_string()).at(&node.at)),
        Value::Integer(n) => Ok(Template::literal(&n.to_string())),
        Value::Boolean(b) => Ok(Template::literal(&b.to_string())),
        _ => Err(expected("a text", node)),
    }
}

fn pairs(found: &Found, node: &Node, site: Site) -> Vec<(String, Template)> {
    let Some(reader) = Reader::of(found, node) else { return Vec::new() };
    let entries = reader.entries();
    if entries.len() > PAIRS_MAX {
        found.add(Problem::new(format!("expected at most {PAIRS_MAX} entries, got {}", entries.len())).at(&node.at));
    }
    let read = |(name, entry): (&str, &Entry)| {
        let template = reader.note(&entry.node.at, value_template(&entry.node, site))?;
        Some((name.to_owned(), template))
    };
    entries.into_iter().take(PAIRS_MAX).filter_map(read).collect()
}

/// A table of headers.
pub fn headers(found: &Found, node: &Node, site: Site) -> Vec<(http::HeaderName, Template)> {
    let mut made: Vec<(http::HeaderName, Template)> = Vec::new();
    let Some(reader) = Reader::of(found, node) else { return made };
    for (name, entry) in reader.entries().into_iter().take(PAIRS_MAX) {
        let checked = reader.note(&entry.key_at, rules::header_name(name));
        let template = reader.note(&entry.node.at, value_template(&entry.node, site));
        let (Some(checked), Some(template)) = (checked, template) else { continue };
        let say = |said: String, help: &str| found.add(Problem::new(said).at(&entry.key_at).help(help));
        if checked == http::header::AUTHORIZATION {
            say("a credential does not belong into a header's text".into(), "use auth = { ... } with a reference");
        } else if made.iter().any(|(other, _)| *other == checked) {
            say(format!("the header {checked} is declared twice"), "names of headers know no upper and lower case");
        } else if template.literals().any(|t| t.chars().any(|c| c.is_control() || !c.is_ascii())) {
            found.add(Problem::new("expected visible ASCII without line ends in a header").at(&entry.node.at));
        } else {
            made.push((checked, template));
        }
    }
    made
}

fn batch_result(found: &Found, node: &Node) -> Option<BatchResult> {
    let reader = Reader::of(found, node)?;
    let help = "where the results are: each = \"$.results[*]\"";
    let each = reader.need("each", help, |n| {
        serde_json_path::JsonPath::parse(values::text(n)?)
            .map_err(|e| Problem::new(format!("expected a JSONPath like \"$.results[*]\": {e}")).at(&n.at))
    });
    let key = reader.need("key", "where a result names its record: key = \"/id\"", rules::pointer);
    let failed_if = reader.get("failed_if", rules::pointer);
    let retry_if = reader.get("retry_if", rules::json);
    reader.finish();
    Some(BatchResult { each: each?, key: key?, failed_if, retry_if })
}

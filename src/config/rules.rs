//! The smaller tables of a provider: references to secrets, matches, timeouts, breaker, retry, idempotency, cache.
//!
//! Must never know: the values of secrets. Next: `operation.rs`.

use std::path::PathBuf;
use std::time::Duration;

use super::problem::{Found, Problem};
use super::reader::{Reader, Unfit};
use super::tree::{self, Node, Value};
use super::values::{self, expected};
use crate::model::auth::ACCOUNT;
use crate::model::backoff::Backoff;
use crate::model::name::OperationName;
use crate::model::provider::{BreakerPolicy, CacheRule, IdempotencyHeader, Match, SecretRef, Timeouts, Undo};
use crate::model::request::RESERVED_HEADERS;

const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// Matches in one list.
const MATCHES_MAX: usize = 32;

pub const HOW: &str =
    "name where the secret is: { credential = \"x\" } (systemd), { file = \"/path\" } or { env = \"NAME\" }";

pub fn secret(found: &Found, node: &Node) -> Option<SecretRef> {
    let Value::Table(table) = &node.value else {
        let said = format!("expected a reference to a secret, got {}", node.value.kind());
        found.add(Problem::new(said).at(&node.at).help(HOW));
        return None;
    };
    let reader = Reader::new(found, &node.at, table);
    if table.len() != 1 {
        found.add(Problem::new("expected exactly one of credential, file and env").at(&node.at).help(HOW));
    }
    let plain = |n: &Node| {
        let name = values::filled(n)?;
        if name.contains(['/', '\0', '=']) || name.starts_with('.') {
            return Err(expected("a plain name without '/'", n));
        }
        placeholder(n, name)?;
        Ok(name.to_owned())
    };
    let credential = reader.get("credential", plain).map(SecretRef::Credential);
    let env = reader.get("env", plain).map(SecretRef::Env);
    let file = reader.get("file", |n| {
        let path = PathBuf::from(values::filled(n)?);
        placeholder(n, &path.to_string_lossy())?;
        if path.is_absolute() { Ok(SecretRef::File(path)) } else { Err(expected("an absolute path", n)) }
    });
    reader.finish();
    credential.or(env).or(file)
}

/// Of templates only `{account}` has a meaning in a reference.
fn placeholder(node: &Node, text: &str) -> Result<(), Unfit> {
    if text.replace(ACCOUNT, "").contains(['{', '}']) {
        return Err(expected("no braces but {account}, which stands for the job's account", node));
    }
    Ok(())
}

/// A name that a declaration may set.
pub fn header_name(text: &str) -> Result<http::HeaderName, Unfit> {
    let name = http::HeaderName::try_from(text)
        .map_err(|_| Problem::new(format!("expected the name of a header, got {text:?}")))?;
    if RESERVED_HEADERS.contains(&name.as_str()) {
        let said = format!("the header {name} belongs to the transport; it cannot be declared");
        return Err(Problem::new(said).help("remove it"));
    }
    Ok(name)
}

/// A list of matches.
pub fn matches(found: &Found, node: &Node) -> Vec<Match> {
    let Ok(items) = values::list(node).map_err(|p| found.add(p.help("write a list: [{ status = 429 }]"))) else {
        return Vec::new();
    };
    if items.len() > MATCHES_MAX {
        found.add(expected(format_args!("at most {MATCHES_MAX} matches"), node));
    }
    items.iter().take(MATCHES_MAX).filter_map(|item| one_match(found, item)).collect()
}

fn one_match(found: &Found, node: &Node) -> Option<Match> {
    let reader = Reader::of(found, node)?;
    let made = Match {
        status: reader.get("status", status),
        header: reader.get("header", header),
        body: reader.get("body", values::filled).map(str::to_owned),
        json: reader.get("json", json),
    };
    reader.finish();
    if matches!(&node.value, Value::Table(t) if t.is_empty()) {
        let said = "expected at least one of status, header, body and json: an empty match fits every answer";
        found.add(Problem::new(said).at(&node.at));
        return None;
    }
    Some(made)
}

/// `404`, `"500-599"` or `"5xx"`.
fn status(node: &Node) -> Result<(u16, u16), Unfit> {
    let unfit = || expected("a status like 404, \"5xx\" or \"500-599\"", node);
    let valid = 100..=999;
    let range = match &node.value {
        Value::Integer(n) => u16::try_from(*n).ok().map(|n| (n, n)),
        Value::Text(text) => match text.split_once('-') {
            Some((low, high)) => low.trim().parse().ok().zip(high.trim().parse().ok()),
            None => match text.strip_suffix("xx").map(str::parse::<u16>) {
                Some(Ok(hundred @ 1..=9)) => Some((hundred * 100, hundred * 100 + 99)),
                _ => None,
            },
        },
        _ => None,
    };
    range.filter(|(low, high)| valid.contains(low) && valid.contains(high) && low <= high).ok_or_else(unfit)
}

fn header(node: &Node) -> Result<(http::HeaderName, String), Unfit> {
    let unfit = || expected("one header like { x-ratelimit-remaining = \"0\" }", node);
    let Value::Table(table) = &node.value else { return Err(unfit()) };
    let mut entries = table.iter();
    let (Some((name, entry)), None) = (entries.next(), entries.next()) else { return Err(unfit()) };
    let name = http::HeaderName::try_from(name.as_str()).map_err(|_| unfit())?;
    let value = match &entry.node.value {
        Value::Text(text) => text.trim().to_owned(),
        Value::Integer(n) => n.to_string(),
        _ => return Err(expected("a text; \"\" asks only whether the header is there", &entry.node)),
    };
    Ok((name, value))
}

/// `"/error"` or `{ "/error/code" = 17 }`.
pub fn json(node: &Node) -> Result<(String, Option<serde_json::Value>), Unfit> {
    match &node.value {
        Value::Text(_) => Ok((pointer(node)?, None)),
        Value::Table(table) if table.len() == 1 => {
            let (text, entry) = table.iter().next().ok_or_else(|| expected("one pointer", node))?;
            let at = Node { at: entry.key_at.clone(), value: Value::Text(text.clone()) };
            Ok((pointer(&at)?, Some(tree::json(&entry.node)?)))
        }
        _ => Err(expected("a JSON pointer like \"/error\", or { \"/error/code\" = 17 }", node)),
    }
}

/// A JSON pointer, RFC 6901.
pub fn pointer(node: &Node) -> Result<String, Unfit> {
    let text = values::text(node)?;
    let escapes = text.match_indices('~').all(|(at, _)| matches!(text.as_bytes().get(at + 1), Some(b'0' | b'1')));
    if (text.is_empty() || text.starts_with('/')) && escapes {
        return Ok(text.to_owned());
    }
    let unfit = expected("a JSON pointer that starts with '/', as \"/error\"", node);
    Err(match text.strip_prefix("$.") {
        Some(path) => unfit.help(format!("did you mean \"/{}\"?", path.replace('.', "/"))),
        None => unfit,
    })
}

pub fn timeouts(found: &Found, node: &Node) -> Option<Timeouts> {
    let reader = Reader::of(found, node)?;
    let default = Timeouts::default();
    let bound = 10 * MS..=15 * MINUTE;
    let made = Timeouts {
        connect: reader.get("connect", values::time(bound.clone())).unwrap_or(default.connect),
        first_byte: reader.get("first_byte", values::time(bound.clone())).unwrap_or(default.first_byte),
        idle: reader.get("idle", values::time(bound.clone())).unwrap_or(default.idle),
        total: reader.get("total", values::time(bound)).unwrap_or(default.total),
    };
    reader.finish();
    Some(made)
}

pub fn breaker(found: &Found, node: &Node) -> Option<BreakerPolicy> {
    let reader = Reader::of(found, node)?;
    let default = BreakerPolicy::default();
    let times = || values::time(100 * MS..=DAY);
    let made = BreakerPolicy {
        failures_in_a_row: reader
            .get("failures_in_a_row", values::whole(1..=1_000))
            .unwrap_or(default.failures_in_a_row),
        failure_share: reader.get("failure_share", values::share).unwrap_or(default.failure_share),
        calls_min: reader.get("calls_min", values::whole(1..=100_000)).unwrap_or(default.calls_min),
        window: reader.get("window", values::time(1_000 * MS..=HOUR)).unwrap_or(default.window),
        open_base: reader.get("open_base", times()).unwrap_or(default.open_base),
        open_max: reader.get("open_max", times()).unwrap_or(default.open_max),
        probes: reader.get("probes", values::whole(1..=100)).unwrap_or(default.probes),
        ramp: reader.get("ramp", values::time(Duration::ZERO..=HOUR)).unwrap_or(default.ramp),
    };
    if made.open_base > made.open_max {
        let said = format!("expected open_base of at most open_max ({:?}), got {:?}", made.open_max, made.open_base);
        found.add(Problem::new(said).at(reader.at));
    }
    reader.finish();
    Some(made)
}

/// `{ attempts = 6, base = "2s", cap = "10m" }`; what is not said is taken from `under`.
pub fn retry(found: &Found, node: &Node, under: Backoff) -> Option<Backoff> {
    let reader = Reader::of(found, node)?;
    let attempts = reader.get("attempts", values::whole(1..=1_000)).unwrap_or(under.attempts_max);
    let base = reader.get("base", values::time(MS..=DAY)).unwrap_or(under.base);
    let cap = reader.get("cap", values::time(MS..=7 * DAY)).unwrap_or(under.cap);
    let made = Backoff::new(base, cap, attempts).map_err(|e| Problem::new(e.to_string()));
    let made = reader.note(&node.at, made);
    reader.finish();
    made
}

pub fn idempotency(found: &Found, node: &Node) -> Option<IdempotencyHeader> {
    let reader = Reader::of(found, node)?;
    let name = reader.need("header", "the header's name, as \"Idempotency-Key\"", |n| header_name(values::text(n)?));
    let help = "how long the provider remembers a key, as life = \"24h\"";
    let life = reader.need("life", help, values::time(MINUTE..=values::TIME_MAX));
    reader.finish();
    Some(IdempotencyHeader { name: name?, life: life? })
}

/// `undo = "restore_track"`, or a table that says more.
pub fn undo(found: &Found, node: &Node) -> Option<Undo> {
    let name = |n: &Node| OperationName::new(values::text(n)?).map_err(|e| Problem::new(e.to_string()).at(&n.at));
    if let Value::Text(_) = &node.value {
        return match name(node) {
            Ok(operation) => Some(Undo { operation, with_result: false }),
            Err(problem) => {
                found.add(problem);
                None
            }
        };
    }
    let reader = Reader::of(found, node)?;
    let operation = reader.need("operation", "the operation that takes it back, as operation = \"restore\"", name);
    let with_result = reader.get("with_result", values::boolean).unwrap_or(false);
    reader.finish();
    Some(Undo { operation: operation?, with_result })
}

/// `"off"`, `"etag"`, `"rules"` or `{ ttl = "5m", stale = "1m" }`.
pub fn cache(found: &Found, node: &Node) -> Option<CacheRule> {
    let Value::Table(_) = &node.value else {
        let words = [("off", CacheRule::Off), ("etag", CacheRule::Etag), ("rules", CacheRule::Rules)];
        let help = "or how long an answer is good: cache = { ttl = \"5m\", stale = \"1m\" }";
        return values::choice(&words)(node)
            .map_err(|problem| found.add(if problem.help.is_some() { problem } else { problem.help(help) }))
            .ok();
    };
    let reader = Reader::of(found, node)?;
    let ttl =
        reader.need("ttl", "how long an answer is good, as ttl = \"5m\"", values::time(1_000 * MS..=values::TIME_MAX));
    let stale = reader.get("stale", values::time(Duration::ZERO..=values::TIME_MAX)).unwrap_or_default();
    reader.finish();
    Some(CacheRule::Ttl { ttl: ttl?, stale })
}

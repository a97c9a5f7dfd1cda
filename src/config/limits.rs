//! Limits: `"3600/h"` or a table, made into a [`Limit`].
//!
//! Must never know: how limits are enforced. Next: `operation.rs` and `provider.rs`, which list them.

use std::sync::Arc;
use std::time::Duration;

use super::limit_headers;
use super::problem::{At, Found, Problem};
use super::reader::{Reader, Unfit};
use super::tree::{Node, Value};
use super::values::{self, expected};
use crate::limit::learned;
use crate::model::name::LimitName;
use crate::model::provider::{Anchor, CalendarPeriod, Limit, LimitKind, Reserve, Scope};

/// Windows shorter than this cannot be kept over a network.
const WINDOW_MIN: Duration = Duration::from_millis(10);
/// Longest window; longer quotas are calendar ones.
const WINDOW_MAX: Duration = Duration::from_secs(32 * 86_400);
/// Largest count of any limit.
const COUNT_MAX: u32 = 100_000_000;
/// Limits in one list.
const LIMITS_MAX: usize = 32;
/// Statuses that one limit does not count.
const STATUSES_MAX: usize = 16;
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// A limit and where it was declared.
pub type Placed = (Arc<Limit>, At);

/// Reads a list of limits. `unnamed` is the name of those that have none of their own.
pub fn read(found: &Found, node: &Node, unnamed: &str) -> Vec<Placed> {
    let items = match values::list(node) {
        Ok(items) => items,
        Err(problem) => {
            found.add(problem.help("write a list: limits = [\"3600/h\"]"));
            return Vec::new();
        }
    };
    if items.len() > LIMITS_MAX {
        found.add(expected(format_args!("at most {LIMITS_MAX} limits"), node));
    }
    let mut placed: Vec<Placed> = Vec::new();
    for item in items.iter().take(LIMITS_MAX) {
        let Some(limit) = one(found, item, unnamed) else { continue };
        // Calls of other methods may cost something else and share the count.
        let apart = |other: &Limit| !other.methods.is_empty() && !limit.methods.is_empty() && disjoint(other, &limit);
        if let Some((_, first)) = placed.iter().find(|(other, _)| same_count(other, &limit) && !apart(other)) {
            found.add(
                Problem::new(format!("two limits named `{}` over the same window and scope", limit.name))
                    .at(&item.at)
                    .also(first, "the first one")
                    .help(
                        "give one of them another name, another window, another scope or other methods, or remove it",
                    ),
            );
            continue;
        }
        placed.push((Arc::new(limit), item.at.clone()));
    }
    placed
}

/// Does no call spend both?
fn disjoint(a: &Limit, b: &Limit) -> bool {
    a.methods.iter().all(|method| !b.methods.contains(method))
}

/// Would both count in one place?
pub fn same_count(a: &Limit, b: &Limit) -> bool {
    let window = |kind: &LimitKind| match kind {
        LimitKind::Window { per, .. } | LimitKind::Paced { per, .. } => (0, *per),
        LimitKind::Bucket { .. } => (1, Duration::ZERO),
        LimitKind::Concurrency { .. } => (2, Duration::ZERO),
        LimitKind::Calendar { period, .. } => (3, Duration::from_secs(*period as u64)),
    };
    a.name == b.name && a.scope == b.scope && window(&a.kind) == window(&b.kind)
}

fn one(found: &Found, node: &Node, unnamed: &str) -> Option<Limit> {
    match &node.value {
        Value::Text(text) => match rate(text) {
            Ok((max, per)) => Some(Limit {
                name: LimitName::new(unnamed).ok()?,
                kind: LimitKind::Window { max, per, anchor: Anchor::Answer },
                scope: Scope::Provider,
                methods: Vec::new(),
                cost: 1,
                reserve: Reserve::default(),
                not_counted: Vec::new(),
                learned: false,
                cost_from: None,
                headers: None,
            }),
            Err(problem) => {
                found.add(problem.at(&node.at));
                None
            }
        },
        Value::Table(_) => table(Reader::of(found, node)?, node, unnamed),
        _ => {
            let what = "a rate like \"3600/h\" or a table like { name = \"core\", max = 5000, per = \"1h\" }";
            found.add(expected(what, node));
            None
        }
    }
}

/// Reads `3600/h` or `100/10s`.
pub fn rate(text: &str) -> Result<(u32, Duration), Unfit> {
    let unfit = || Problem::new(format!("expected a rate like \"10/s\", \"3600/h\" or \"100/10s\", got {text:?}"));
    let (count, per) = text.split_once('/').ok_or_else(unfit)?;
    let digits = per.find(|c: char| !c.is_ascii_digit()).unwrap_or(per.len());
    let (times, unit) = per.split_at(digits);
    let Some(length) = values::unit_time(unit) else {
        return Err(match values::short_unit(unit) {
            Some(short) => unfit().help(format!("did you mean \"{count}/{times}{short}\"?")),
            None => unfit().help("units are ms, s, m, h and d"),
        });
    };
    let max: u32 = count.parse().map_err(|_| unfit())?;
    if !(1..=COUNT_MAX).contains(&max) {
        let said = format!("expected a limit of 1 to {COUNT_MAX}, got {max} in {text:?}");
        return Err(Problem::new(said).help("to let nothing out, pause the provider"));
    }
    let times: u32 = if times.is_empty() { 1 } else { times.parse().map_err(|_| unfit())? };
    let per = length.saturating_mul(times);
    if !(WINDOW_MIN..=WINDOW_MAX).contains(&per) {
        let (low, high) = (values::show_time(WINDOW_MIN), values::show_time(WINDOW_MAX));
        return Err(Problem::new(format!("expected a window from {low} to {high}, got {text:?}")));
    }
    Ok((max, per))
}

fn table(reader: Reader<'_>, node: &Node, unnamed: &str) -> Option<Limit> {
    let before = reader.found.count();
    let name =
        reader.get("name", |n| LimitName::new(values::text(n)?).map_err(|e| Problem::new(e.to_string()).at(&n.at)));
    let name = name.or_else(|| LimitName::new(unnamed).ok());
    let kind = kind(&reader, node);
    let scopes = [("provider", Scope::Provider), ("account", Scope::Account), ("key", Scope::Key)];
    let scope = reader.get("scope", values::choice(&scopes)).unwrap_or(Scope::Provider);
    let methods = reader.get("methods", methods).unwrap_or_default();
    let cost = reader.get("cost", values::whole(1..=COUNT_MAX)).unwrap_or(1);
    let not_counted = reader.get("not_counted", statuses).unwrap_or_default();
    let headers = reader.node("headers").and_then(|n| limit_headers::read(reader.found, n)).map(Arc::new);
    if headers.is_some() && matches!(kind, Some(LimitKind::Concurrency { .. })) {
        let at = reader.node("headers").map_or(&node.at, |n| &n.at);
        let said = "`headers` means nothing here: calls on the wire are counted here, whatever answers say";
        reader.found.add(Problem::new(said).at(at).help("remove it"));
    }
    let learned = reader.get("learned", values::boolean).unwrap_or(false);
    if learned {
        let at = reader.node("learned").map_or(&node.at, |n| &n.at);
        if kind.as_ref().is_some_and(|kind| learned::number(kind).is_none()) {
            let said = "`learned` means nothing here: only the number of `max` with `per` is learned";
            reader.found.add(Problem::new(said).at(at).help("remove it, or write a window: max = 100, per = \"1s\""));
        }
        if scope == Scope::Key {
            let said = "`learned` means nothing here: nothing is learned of single keys";
            reader.found.add(Problem::new(said).at(at).help("say scope = \"account\", or remove it"));
        }
    }
    let cost_from = reader.node("cost_from").and_then(|n| limit_headers::cost(reader.found, n)).map(Arc::new);
    if cost_from.is_some() && cost == 1 {
        let at = reader.node("cost_from").map_or(&node.at, |n| &n.at);
        let said = "expected `cost` beside `cost_from`: the most that a call may cost, which is held until its answer";
        reader.found.add(Problem::new(said).at(at).help("for example cost = 100"));
    }
    let reserve = reader.node("reserve").and_then(|n| reserve(reader.found, n)).unwrap_or_default();
    if let Some(max) = kind.as_ref().map(most) {
        if cost > max {
            let at = reader.node("cost").map_or(&node.at, |n| &n.at);
            let said = format!("expected a cost of at most the limit's {max}, got {cost}: no call could ever leave");
            reader.found.add(Problem::new(said).at(at));
        }
        if reserve.urgent.saturating_add(reserve.normal) >= max {
            let at = reader.node("reserve").map_or(&node.at, |n| &n.at);
            let kept = reserve.urgent.saturating_add(reserve.normal);
            let said = format!("expected reserves below the limit's {max}, got {kept}: bulk jobs could never leave");
            reader.found.add(Problem::new(said).at(at));
        }
    }
    let found = reader.found;
    reader.finish();
    let limit =
        Limit { name: name?, kind: kind?, scope, methods, cost, reserve, not_counted, headers, learned, cost_from };
    (found.count() == before).then_some(limit)
}

/// Permits that may be out at one time at most.
fn most(kind: &LimitKind) -> u32 {
    match kind {
        LimitKind::Window { max, .. }
        | LimitKind::Concurrency { max }
        | LimitKind::Calendar { max, .. }
        | LimitKind::Paced { max, .. } => *max,
        LimitKind::Bucket { capacity, .. } => *capacity,
    }
}

fn kind(reader: &Reader<'_>, node: &Node) -> Option<LimitKind> {
    let count = values::whole(1..=COUNT_MAX);
    let jitter = || reader.get("jitter", values::time(Duration::ZERO..=Duration::from_secs(60)));
    if reader.has("concurrent") {
        return reader.get("concurrent", count).map(|max| LimitKind::Concurrency { max });
    }
    if reader.has("bucket") {
        let capacity = reader.get("bucket", &count);
        let help = "say how fast the bucket fills: refill = \"2/s\"";
        let refill = reader.need("refill", help, |n| rate(values::text(n)?));
        let jitter = jitter().unwrap_or_default();
        let (refill, per) = refill?;
        return Some(LimitKind::Bucket { capacity: capacity?, refill, per, jitter });
    }
    let what = "say how many: max = 5000 with per = \"1h\", or concurrent = 8, or bucket = 40 with refill = \"2/s\"";
    let max = reader.need("max", what, &count);
    if reader.has("calendar") {
        let periods = [("hour", CalendarPeriod::Hour), ("day", CalendarPeriod::Day), ("month", CalendarPeriod::Month)];
        let period = reader.get("calendar", values::choice(&periods));
        let zone = match reader.node("zone") {
            None => Some(jiff::tz::TimeZone::UTC),
            Some(_) => reader.get("zone", |n| {
                jiff::tz::TimeZone::get(values::text(n)?)
                    .map_err(|_| expected("a time zone like \"Europe/Berlin\" or \"UTC\"", n))
            }),
        };
        return Some(LimitKind::Calendar { max: max?, period: period?, zone: zone? });
    }
    let window = values::time(WINDOW_MIN..=WINDOW_MAX);
    let per = reader.need("per", "say over which time: per = \"1h\"", window);
    let paced = reader.get("paced", values::boolean).unwrap_or(false);
    let by_send = reader.get("anchor", values::choice(&[("answer", false), ("send", true)])).unwrap_or(false);
    let given = jitter();
    let (max, per) = (max?, per?);
    if paced {
        if max < 2 {
            reader.found.add(Problem::new("expected a paced limit of at least 2, got 1").at(&node.at));
        }
        return Some(LimitKind::Paced { max, per, jitter: given.unwrap_or_default() });
    }
    match (by_send, given) {
        (false, None) => Some(LimitKind::Window { max, per, anchor: Anchor::Answer }),
        (true, Some(jitter)) => Some(LimitKind::Window { max, per, anchor: Anchor::Send { jitter } }),
        (true, None) => {
            let said = "expected `jitter` beside anchor = \"send\": by how much delays to the provider differ";
            reader.found.add(Problem::new(said).at(&node.at).help("for example jitter = \"250ms\""));
            None
        }
        (false, Some(_)) => {
            let said = "`jitter` means nothing here: a window that counts from the answer is exact without";
            reader.found.add(Problem::new(said).at(&node.at).help("remove it, or say anchor = \"send\""));
            None
        }
    }
}

/// `"GET"`, `"!GET"`, `"POST, PUT"` or a list.
fn methods(node: &Node) -> Result<Vec<http::Method>, Unfit> {
    let what = "methods like \"POST\", \"!GET\" or [\"POST\", \"PUT\"]";
    let joined = match &node.value {
        Value::Text(text) => text.clone(),
        Value::List(items) => items.iter().map(values::text).collect::<Result<Vec<_>, _>>()?.join(","),
        _ => return Err(expected(what, node)),
    };
    let (not, names) = joined.strip_prefix('!').map_or((false, joined.as_str()), |rest| (true, rest));
    let mut named = Vec::new();
    for name in names.split(',').map(str::trim) {
        let known = METHODS.iter().find(|m| m.eq_ignore_ascii_case(name));
        named.push(*known.ok_or_else(|| expected(format_args!("{what} of {}", METHODS.join(", ")), node))?);
    }
    let meant: Vec<&str> = METHODS.into_iter().filter(|m| named.contains(m) != not).collect();
    if meant.is_empty() {
        return Err(expected("methods that leave at least one", node));
    }
    Ok(meant.into_iter().map(|m| m.parse().expect("these are methods of HTTP")).collect())
}

/// `[304]`: statuses that cost nothing.
fn statuses(node: &Node) -> Result<Vec<u16>, Unfit> {
    let items = values::list(node)?;
    if items.is_empty() || items.len() > STATUSES_MAX {
        return Err(expected(format_args!("a list of 1 to {STATUSES_MAX} statuses, as [304]"), node));
    }
    items.iter().map(values::whole(200..=599)).collect()
}

fn reserve(found: &Found, node: &Node) -> Option<Reserve> {
    let reader = Reader::of(found, node)?;
    let urgent = reader.get("urgent", values::whole(0..=COUNT_MAX)).unwrap_or(0);
    let normal = reader.get("normal", values::whole(0..=COUNT_MAX)).unwrap_or(0);
    reader.finish();
    Some(Reserve { urgent, normal })
}

//! `headers = "x-ratelimit"`, or a table of a provider's own names: how answers speak of a limit.
//!
//! Must never know: what answers say. Next: `limits.rs`, which lists it.

use super::problem::{Found, Problem};
use super::reader::{Reader, Unfit};
use super::rules;
use super::tree::{Node, Value};
use super::values::{self, expected};
use crate::model::limit_headers::{CostSource, HeaderNames, LimitHeaders, TimeUnit};

pub fn read(found: &Found, node: &Node) -> Option<LimitHeaders> {
    let Value::Table(_) = &node.value else {
        let help = "or name them: headers = { remaining = \"X-Left\", reset = \"X-Reset\", reset_unit = \"seconds\" }";
        return values::choice(&LimitHeaders::PRESETS)(node)
            .map_err(|problem| found.add(if problem.help.is_some() { problem } else { problem.help(help) }))
            .ok();
    };
    let reader = Reader::of(found, node)?;
    let units = values::choice(&TimeUnit::NAMES);
    let reset_unit = reader.get("reset_unit", &units).unwrap_or_default();
    let retry_unit = reader.get("retry_unit", &units).unwrap_or_default();
    let names = HeaderNames {
        limit: reader.get("limit", name),
        remaining: reader.get("remaining", name),
        used: reader.get("used", name),
        usage: reader.get("usage", name),
        reset: reader.get("reset", name).map(|name| (name, reset_unit)),
        retry: reader.get("retry", name).map(|name| (name, retry_unit)),
    };
    let says_left =
        names.remaining.is_some() || names.usage.is_some() || (names.used.is_some() && names.limit.is_some());
    if !says_left && names.retry.is_none() {
        let said = "expected the header that says what is left";
        let help = "name `remaining`, or `usage` as in \"39/40\", or `used` with `limit`, or only `retry`";
        found.add(Problem::new(said).at(&node.at).help(help));
    }
    reader.finish();
    Some(LimitHeaders::Named(Box::new(names)))
}

/// `cost_from = { header = "X-Cost" }`, or a JSON pointer into the body.
pub fn cost(found: &Found, node: &Node) -> Option<CostSource> {
    let reader = Reader::of(found, node)?;
    let header = reader.get("header", name).map(CostSource::Header);
    let json = reader.get("json", rules::pointer).map(CostSource::Json);
    if reader.has("header") == reader.has("json") {
        let help = "write { header = \"X-Cost\" } or { json = \"/extensions/cost/actualQueryCost\" }";
        found.add(Problem::new("expected either `header` or `json`").at(&node.at).help(help));
    }
    reader.finish();
    header.or(json)
}

fn name(node: &Node) -> Result<http::HeaderName, Unfit> {
    http::HeaderName::try_from(values::filled(node)?).map_err(|_| expected("the name of a header", node))
}

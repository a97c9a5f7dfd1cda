//! A provider's table, made into a checked [`Provider`].
//!
//! Must never know: files. Next: `operation.rs`, `limits.rs`, `rules.rs` for its parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::auth;
use super::explain;
use super::limits::{self, Placed};
use super::operation;
use super::problem::{Found, Problem, Problems, Source};
use super::reader::{Reader, Unfit};
use super::rules;
use super::tree::{self, Entry, Node, Value};
use super::values::{self, expected};
use crate::model::address;
use crate::model::auth::WEBHOOK_ID;
use crate::model::backoff::Backoff;
use crate::model::name::{OperationName, ProviderName, Tenant};
use crate::model::provider::{Auth, BreakerPolicy, Operation, Provider, Timeouts};
use crate::model::request::Site;
use crate::model::shard::SPREAD_MAX;
use crate::plan::fairness::WEIGHT_MAX;

/// Providers in one text.
const PROVIDERS_MAX: usize = 10_000;
/// Longest text of one provider, bytes.
pub const SOURCE_BYTES_MAX: usize = 256 * 1024;
/// Calls on the wire at one time when nothing else is declared.
pub const IN_FLIGHT: u32 = 64;
const IN_FLIGHT_MAX: u32 = 4_096;
/// Tenants with a weight of their own.
const TENANTS_MAX: usize = 1_000;
const RESPONSE_BYTES: usize = 1 << 20;
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// Reads a text of `[providers.NAME]` tables, and nothing else, as given to ApplyProvider. `origin` names the text in
/// messages. At least one provider comes back. Secrets are not looked at: connecting says when one is missing.
pub fn parse(source_toml: &str, origin: &str) -> Result<Vec<Provider>, Problems> {
    let found = Found::default();
    if source_toml.len() > SOURCE_BYTES_MAX {
        let got = source_toml.len();
        found.add(Problem::new(format!("{origin}: expected at most {SOURCE_BYTES_MAX} bytes, got {got}")));
        return found.or(Vec::new());
    }
    let source = Arc::new(Source { name: origin.to_owned(), text: source_toml.to_owned() });
    let table = tree::parse(&source, &found);
    let at = super::problem::At { source: source.clone(), span: 0..0 };
    let reader = Reader::new(&found, &at, &table);
    let help = "begin with [providers.NAME]";
    let node = reader.need("providers", help, Ok);
    let providers = node.map(|n| read_all(&found, n)).unwrap_or_default();
    let providers: Vec<Provider> = providers.into_iter().map(|(provider, _)| provider).collect();
    reader.finish();
    if providers.is_empty() && found.count() == 0 {
        found.add(Problem::new("expected a provider, got an empty table").at(&at).help(help));
    }
    found.or(providers)
}

/// All providers of a table, with their entries.
pub fn read_all<'a>(found: &Found, node: &'a Node) -> Vec<(Provider, &'a Entry)> {
    let Value::Table(table) = &node.value else {
        found.add(expected("tables [providers.NAME]", node));
        return Vec::new();
    };
    if table.len() > PROVIDERS_MAX {
        found.add(expected(format_args!("at most {PROVIDERS_MAX} providers"), node));
    }
    let read = |(name, entry): (&String, &'a Entry)| Some((read(found, name, entry)?, entry));
    table.iter().take(PROVIDERS_MAX).filter_map(read).collect()
}

fn read(found: &Found, name: &str, entry: &Entry) -> Option<Provider> {
    let before = found.count();
    let checked = ProviderName::new(name).map_err(|e| found.add(Problem::new(e.to_string()).at(&entry.key_at))).ok();
    let reader = Reader::of(found, &entry.node)?;
    let allow_private = reader.get("allow_private", values::boolean).unwrap_or(false);
    let help = "say where it is: base_url = \"https://api.example.com\"";
    let base_url = reader.need("base_url", help, |n| base_url(n, allow_private));
    let retry = Backoff::default();
    let retry = reader.node("retry").and_then(|n| rules::retry(found, n, retry)).unwrap_or(retry);
    let cache = reader.node("cache").and_then(|n| rules::cache(found, n)).unwrap_or_default();
    let mut placed: Vec<Placed> = reader.node("limits").map(|n| limits::read(found, n, "all")).unwrap_or_default();
    let shared: Vec<_> = placed.iter().map(|(limit, _)| limit.clone()).collect();
    let mut operations = BTreeMap::new();
    if let Some(table) = reader.node("operations").and_then(|n| Reader::of(found, n)) {
        for (name, entry) in table.entries() {
            operations.extend(operation::read(found, name, entry, retry, cache, &mut placed));
        }
    }
    if let Some(table) = reader.node("operations").and_then(|n| Reader::of(found, n)) {
        inverses_exist(found, &table.entries(), &operations);
    }
    one_meaning_per_name(found, &placed);
    let auth = reader.node("auth").and_then(|n| auth::auth(found, n, allow_private)).unwrap_or(Auth::None);
    if let (Auth::Webhook(_), Some(node)) = (&auth, reader.node("auth")) {
        ids_are_signed(found, node, &operations);
    }
    let provider = Provider {
        name: checked.clone().unwrap_or_else(|| ProviderName::new("x").expect("one letter is a name")),
        base_url: base_url.clone().unwrap_or_else(|| "http://x".parse().expect("this is a URL")),
        auth,
        accounts: reader.node("accounts").map(|n| auth::accounts(found, n, allow_private)).unwrap_or_default(),
        headers: reader.node("headers").map(|n| operation::headers(found, n, Site::Provider)).unwrap_or_default(),
        limits: shared,
        operations,
        breaker: reader.node("breaker").and_then(|n| rules::breaker(found, n)).unwrap_or_else(BreakerPolicy::default),
        throttled: reader.node("throttled").map(|n| rules::matches(found, n)).unwrap_or_default(),
        timeouts: reader.node("timeouts").and_then(|n| rules::timeouts(found, n)).unwrap_or_else(Timeouts::default),
        in_flight_max: reader.get("in_flight_max", values::whole(1..=IN_FLIGHT_MAX)).unwrap_or(IN_FLIGHT),
        spread: reader.get("spread", values::whole(1..=SPREAD_MAX)).unwrap_or(1),
        allow_private,
        response_bytes_max: reader
            .get("response_bytes_max", values::size(1_024..=RESPONSE_BYTES_MAX))
            .unwrap_or(RESPONSE_BYTES),
        propagate_trace: reader.get("propagate_trace", values::boolean).unwrap_or(false),
        tenants: reader.node("tenants").map(|n| tenants(found, n)).unwrap_or_default(),
    };
    reader.finish();
    (found.count() == before && checked.is_some() && base_url.is_some()).then_some(provider)
}

/// A signature is over an id that stays the same over all tries of a job.
fn ids_are_signed(found: &Found, node: &Node, operations: &BTreeMap<OperationName, Arc<Operation>>) {
    let has_id = |o: &Operation| o.idempotency.as_ref().is_some_and(|i| i.name == WEBHOOK_ID);
    if let Some(other) = operations.values().find(|operation| !has_id(operation)) {
        let said =
            format!("auth = {{ webhook = ... }} signs the header {WEBHOOK_ID}, which {} does not send", other.name);
        let help = format!("declare idempotency = {{ header = \"{WEBHOOK_ID}\", life = \"30d\" }} there");
        found.add(Problem::new(said).at(&node.at).help(help));
    }
}

/// What undoes an operation is declared as well.
fn inverses_exist(found: &Found, entries: &[(&str, &Entry)], operations: &BTreeMap<OperationName, Arc<Operation>>) {
    for (name, entry) in entries {
        let Some(undo) = operations.get(*name).and_then(|o| o.undo.as_ref()) else { continue };
        if !entries.iter().any(|(declared, _)| *declared == undo.operation.as_str()) {
            let Value::Table(table) = &entry.node.value else { continue };
            let at = table.get("undo").map_or(&entry.node.at, |e| &e.node.at);
            let known = entries.iter().map(|(name, _)| *name);
            found.add(super::reader::unknown("operation", undo.operation.as_str(), known).at(at));
        }
    }
}

/// The same name with other numbers is a slip, although each lane counts its own limits for itself.
fn one_meaning_per_name(found: &Found, placed: &[Placed]) {
    for (at, (limit, place)) in placed.iter().enumerate() {
        let twin = placed[..at].iter().find(|(other, _)| limits::same_count(other, limit) && other.kind != limit.kind);
        if let Some((_, first)) = twin {
            let said = format!("the limit `{}` is declared twice with different numbers", limit.name);
            found.add(Problem::new(said).at(place).also(first, "the first one").help("give one of them another name"));
        }
    }
}

/// `{ big = 3 }`: how many turns a tenant has to another's one.
fn tenants(found: &Found, node: &Node) -> BTreeMap<Tenant, u32> {
    let mut weights = BTreeMap::new();
    let Some(reader) = Reader::of(found, node) else { return weights };
    let entries = reader.entries();
    if entries.len() > TENANTS_MAX {
        found.add(Problem::new(format!("expected at most {TENANTS_MAX} tenants, got {}", entries.len())).at(&node.at));
    }
    for (name, entry) in entries.into_iter().take(TENANTS_MAX) {
        let tenant = Tenant::new(name).map_err(|e| Problem::new(e.to_string()));
        let tenant = reader.note(&entry.key_at, tenant);
        let weight = reader.note(&entry.node.at, values::whole(1..=WEIGHT_MAX)(&entry.node));
        weights.extend(tenant.zip(weight));
    }
    weights
}

/// Of a provider or of its token endpoint.
pub(super) fn base_url(node: &Node, allow_private: bool) -> Result<url::Url, Unfit> {
    let text = values::text(node)?;
    // The text is not repeated in any message: it may hold a password.
    let unfit = |said: &str, help: &str| Err(Problem::new(said).at(&node.at).help(help));
    let Ok(url) = url::Url::parse(text) else {
        return unfit("expected a URL", "as \"https://api.example.com/v2\"");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return unfit(
            &format!("expected a URL with http or https, got {}", url.scheme()),
            "as \"https://api.example.com\"",
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        let help = "use auth = { basic = { username = \"...\", password = { credential = \"...\" } } }";
        return unfit("expected a URL without user and password", help);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return unfit("expected a URL without query and fragment", "declare a query with the operation");
    }
    let Some(host) = url.host().filter(|_| url.port() != Some(0)) else {
        return unfit("expected a URL with a host and a port above 0", "as \"https://api.example.com\"");
    };
    if !allow_private && address::is_private_host(&host) {
        let said = format!("{host} is not on the public internet");
        return unfit(&said, "if that is meant, declare allow_private = true beside base_url");
    }
    Ok(url)
}

/// The text of one provider out of a file that may hold several and other settings besides: the whole file when there
/// is nothing else in it, so that comments stay; else its table, written anew. `None`: the file has no such provider,
/// or is no TOML.
pub fn source_of(file: &str, name: &str) -> Option<String> {
    let found = Found::default();
    let source = Arc::new(Source { name: name.to_owned(), text: file.to_owned() });
    let table = tree::parse(&source, &found);
    let Value::Table(providers) = &table.get("providers")?.node.value else { return None };
    let own = providers.get(name)?;
    if found.count() > 0 {
        return None;
    }
    let alone = table.len() == 1 && providers.len() == 1;
    Some(if alone { file.to_owned() } else { explain::provider_toml(name, own) })
}

//! `[webhooks.NAME]`, made into a checked [`Webhook`].
//!
//! Must never know: the values of secrets, how signatures are made. Next: `model/webhook.rs`.

use std::time::Duration;

use super::DeclaredProvider;
use super::problem::{At, Found, Problem};
use super::reader::{Reader, Unfit, unknown};
use super::rules;
use super::schedules::{labels, named, pull};
use super::tree::{self, Entry, Node};
use super::values::{self, expected};
use crate::model::collection::Collection;
use crate::model::flow::Class;
use crate::model::job::PAYLOAD_BYTES_MAX;
use crate::model::name::{CollectionName, OperationName, ProviderName, Tenant, WebhookName};
use crate::model::provider::{Match, SecretRef};
use crate::model::request::{BodyTemplate, Site, Template};
use crate::model::webhook::{JobRule, RecordRule, SECRETS_MAX, Scheme, Starts, Webhook};

/// Webhooks of one daemon.
const WEBHOOKS_MAX: usize = 1_000;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// What Standard Webhooks and Stripe recommend.
const TOLERANCE: Duration = Duration::from_secs(300);
/// A message must be remembered for as long as its time is taken, either way.
const TOLERANCE_MAX: Duration = Duration::from_secs(1_800);
const REMEMBER_MIN: Duration = Duration::from_secs(3_600);
const BODY_BYTES_MAX: usize = 4 << 20;

const SCHEMES: [(&str, Scheme); 3] =
    [("standard", Scheme::Standard), ("github", Scheme::GitHub), ("stripe", Scheme::Stripe)];

pub fn read_all(found: &Found, node: &Node) -> Vec<Webhook> {
    let Some(reader) = Reader::of(found, node) else { return Vec::new() };
    let entries = reader.entries();
    if entries.len() > WEBHOOKS_MAX {
        found.add(expected(format_args!("at most {WEBHOOKS_MAX} webhooks"), node));
    }
    entries.into_iter().take(WEBHOOKS_MAX).filter_map(|(name, entry)| read(found, name, entry)).collect()
}

/// What is declared beside must be there: a collection always, an operation where its provider is declared in a file.
pub fn check_targets(
    found: &Found,
    node: &Node,
    webhooks: &[Webhook],
    providers: &[DeclaredProvider],
    collections: &[Collection],
) {
    let add = |problem: Problem| found.add(problem.at(&node.at));
    for Webhook { name, starts, .. } in webhooks {
        match starts {
            Starts::Pull(spec) if !collections.iter().any(|c| c.name == spec.collection && c.pull.is_some()) => {
                let said =
                    format!("webhook {name} pulls {}, which no collection with a pull is named", spec.collection);
                add(Problem::new(said).help(format!("declare [collections.{}.pull]", spec.collection)));
            }
            Starts::Record(rule) if !collections.iter().any(|c| c.name == rule.collection) => {
                let said = format!("webhook {name} writes to {}, which no collection is named", rule.collection);
                add(Problem::new(said).help(format!("declare [collections.{}]", rule.collection)));
            }
            Starts::Job(rule) => {
                let declared = providers.iter().find(|declared| declared.provider.name == rule.provider);
                let operations = declared.map(|declared| &declared.provider.operations);
                if let Some(known) = operations.filter(|known| !known.contains_key(&rule.operation)) {
                    add(unknown("operation", rule.operation.as_str(), known.keys().map(OperationName::as_str)));
                }
            }
            _ => {}
        }
    }
}

fn read(found: &Found, name: &str, entry: &Entry) -> Option<Webhook> {
    let before = found.count();
    let checked = WebhookName::new(name).map_err(|e| found.add(Problem::new(e.to_string()).at(&entry.key_at))).ok();
    let reader = Reader::of(found, &entry.node)?;
    let scheme = reader.need("verify", "how senders sign, as verify = \"github\"", values::choice(&SCHEMES));
    let help = "what senders sign with: secrets = [{ credential = \"x\" }], and a second one while they change over";
    let secrets = reader.need("secrets", help, Ok).map(|n| secrets(found, n)).unwrap_or_default();
    let tolerance = reader.get("tolerance", values::time(SECOND..=TOLERANCE_MAX));
    if let (Some(Scheme::GitHub), Some(node)) = (scheme, reader.node("tolerance")) {
        let help = "remove it: a message that comes again is known by its content for as long as `remember` says";
        found.add(Problem::new("GitHub signs no time, so there is none to tolerate").at(&node.at).help(help));
    }
    let remember = reader.get("remember", values::time(REMEMBER_MIN..=values::TIME_MAX)).unwrap_or(DAY * 7);
    let body_bytes_max =
        reader.get("body_bytes_max", values::size(1_024..=BODY_BYTES_MAX)).unwrap_or(PAYLOAD_BYTES_MAX);
    let only = reader.node("only").map(|n| matches(found, n)).unwrap_or_default();
    let starts = starts(&reader, &entry.node.at);
    reader.finish();
    let (name, scheme, starts) = (checked?, scheme?, starts?);
    let tolerance = tolerance.unwrap_or(TOLERANCE);
    let made = Webhook { name, scheme, secrets, tolerance, remember, body_bytes_max, only, starts };
    (found.count() == before).then_some(made)
}

fn secrets(found: &Found, node: &Node) -> Vec<SecretRef> {
    let Some(items) = values::list(node).map_err(|problem| found.add(problem.help(rules::HOW))).ok() else {
        return Vec::new();
    };
    if items.is_empty() || items.len() > SECRETS_MAX {
        found.add(expected(format_args!("one secret, or {SECRETS_MAX} while senders change over"), node));
    }
    let secrets: Vec<SecretRef> = items.iter().filter_map(|item| rules::secret(found, item)).collect();
    if secrets.iter().any(SecretRef::is_per_account) {
        found.add(Problem::new("expected no {account}: a message has none before its secret is known").at(&node.at));
    }
    secrets
}

/// Matches of a message, which has no status.
fn matches(found: &Found, node: &Node) -> Vec<Match> {
    let matches = rules::matches(found, node);
    if matches.iter().any(|rule| rule.status.is_some()) {
        found.add(Problem::new("expected header, body or json: a message has no status").at(&node.at));
    }
    matches
}

/// Exactly one of `enqueue`, `pull` and `record`.
fn starts(reader: &Reader<'_>, at: &At) -> Option<Starts> {
    let found = reader.found;
    match (reader.node("enqueue"), reader.node("pull"), reader.node("record")) {
        (Some(node), None, None) => job(found, node).map(Box::new).map(Starts::Job),
        (None, Some(node), None) => pull(found, node).map(Starts::Pull),
        (None, None, Some(node)) => record(found, node).map(Box::new).map(Starts::Record),
        _ => {
            let help = "for example pull = \"orders\"";
            found.add(Problem::new("expected exactly one of `enqueue`, `pull` and `record`").at(at).help(help));
            None
        }
    }
}

fn text(node: &Node) -> Result<Template, Unfit> {
    Template::parse(values::text(node)?, Site::Webhook).map_err(|e| Problem::new(e.to_string()).at(&node.at))
}

fn document(node: &Node) -> Result<BodyTemplate, Unfit> {
    BodyTemplate::parse(tree::json(node)?, Site::Webhook).map_err(|e| Problem::new(e.to_string()).at(&node.at))
}

/// The message as it is.
fn whole() -> BodyTemplate {
    BodyTemplate::parse("{payload}".into(), Site::Webhook).expect("it is one variable")
}

fn job(found: &Found, node: &Node) -> Option<JobRule> {
    let reader = Reader::of(found, node)?;
    let provider = reader.need("provider", "whose operation, as provider = \"crm\"", named(ProviderName::new));
    let operation = reader.need("operation", "what to do, as operation = \"sync\"", named(OperationName::new));
    let classes = [("urgent", Class::Urgent), ("normal", Class::Normal), ("bulk", Class::Bulk)];
    let account = reader.get("account", text).unwrap_or_else(|| Template::literal(""));
    let (key, payload) = (reader.get("key", text), reader.get("payload", document));
    let tenant = reader.get("tenant", named(Tenant::new)).unwrap_or_default();
    let class = reader.get("priority", values::choice(&classes)).unwrap_or_default();
    let labels = reader.node("labels").map(|n| labels(found, n)).unwrap_or_default();
    reader.finish();
    let payload = payload.unwrap_or_else(whole);
    Some(JobRule { provider: provider?, operation: operation?, account, tenant, key, class, payload, labels })
}

fn record(found: &Found, node: &Node) -> Option<RecordRule> {
    let reader = Reader::of(found, node)?;
    let collection = reader.need("collection", "which one, as collection = \"orders\"", named(CollectionName::new));
    let id = reader.need("id", "the record's id, as id = \"{payload.data.id}\"", text);
    let data = reader.get("data", document).unwrap_or_else(whole);
    let deleted_if = reader.node("deleted_if").map(|n| matches(found, n)).unwrap_or_default();
    reader.finish();
    Some(RecordRule { collection: collection?, id: id?, data, deleted_if })
}

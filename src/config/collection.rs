//! `[collections.NAME]`, made into a checked [`Collection`].
//!
//! Must never know: how records are stored. Next: `pages.rs` for the operation that a pull asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::file;
use super::problem::{Found, Problem};
use super::reader::{Reader, Unfit};
use super::rules;
use super::tree::{self, Entry, Node, Value};
use super::values::{self, expected};
use crate::model::collection::{
    AccountRule, Aggregate, Collection, Field, Index, MEASURES_MAX, PullRule, PushRule, Schema, shape_of,
};
use crate::model::flow::Class;
use crate::model::job::Coalesce;
use crate::model::name::{Account, CollectionName, OperationName, ProviderName};

/// Collections of one daemon.
const COLLECTIONS_MAX: usize = 1_000;
const INDEXES_MAX: usize = 16;
const FIELDS_MAX: usize = 4;
const AGGREGATES_MAX: usize = 16;
const WATCH_MAX: usize = 64;
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

pub fn read_all(found: &Found, node: &Node) -> Vec<Collection> {
    let Some(reader) = Reader::of(found, node) else { return Vec::new() };
    let entries = reader.entries();
    if entries.len() > COLLECTIONS_MAX {
        found.add(expected(format_args!("at most {COLLECTIONS_MAX} collections"), node));
    }
    entries.into_iter().take(COLLECTIONS_MAX).filter_map(|(name, entry)| read(found, name, entry)).collect()
}

fn read(found: &Found, name: &str, entry: &Entry) -> Option<Collection> {
    let before = found.count();
    let checked = CollectionName::new(name).map_err(|e| found.add(Problem::new(e.to_string()).at(&entry.key_at))).ok();
    let reader = Reader::of(found, &entry.node)?;
    let schema = schema(found, &reader);
    let indexes = reader.get("indexes", |n| indexes(n)).unwrap_or_default();
    let aggregates = reader.node("aggregates").map(|n| aggregates(found, n)).unwrap_or_default();
    let pull = reader.node("pull").and_then(|n| pull(found, n));
    let push = reader.node("push").and_then(|n| push(found, n));
    let tombstones = reader.get("tombstones", values::time(Duration::ZERO..=DAY * 365)).unwrap_or(DAY * 7);
    reader.finish();
    let shape = shape_of(&format!("{indexes:?} {aggregates:?}"));
    let push = push.map(Arc::new);
    let name = checked?;
    (found.count() == before).then_some(Collection { name, schema, indexes, aggregates, pull, push, tombstones, shape })
}

/// In place, or in a file of its own. A file is read when the configuration is.
fn schema(found: &Found, reader: &Reader<'_>) -> Option<Schema> {
    let inline = reader.get("schema", tree::json);
    let from_file = reader.get("schema_file", |node| {
        let source = file::read(std::path::Path::new(values::text(node)?))?;
        serde_json::from_str(&source.text)
            .map_err(|e| Problem::new(format!("expected a JSON Schema: {e}")).at(&node.at))
    });
    let at = reader.node("schema").or(reader.node("schema_file")).map_or(reader.at, |node| &node.at);
    if inline.is_some() && from_file.is_some() {
        found.add(Problem::new("expected `schema` or `schema_file`, got both").at(at));
    }
    let compiled = Schema::compile(inline.or(from_file)?);
    compiled.map_err(|e| found.add(Problem::new(format!("expected a JSON Schema: {e}")).at(at))).ok()
}

/// `status`, or a pointer such as `/customer/id`.
fn field(node: &Node) -> Result<Field, Unfit> {
    let text = values::filled(node)?;
    if text.starts_with('/') {
        return Ok(Field { name: text.into(), pointer: rules::pointer(node)? });
    }
    let pointer = format!("/{}", text.replace('~', "~0").replace('/', "~1"));
    Ok(Field { name: text.into(), pointer })
}

fn list(node: &Node) -> Result<&[Node], Unfit> {
    match &node.value {
        Value::List(items) => Ok(items),
        _ => Err(expected("a list", node)),
    }
}

fn fields(node: &Node, max: usize) -> Result<Vec<Field>, Unfit> {
    let items = list(node)?;
    if items.len() > max {
        return Err(expected(format_args!("at most {max} fields"), node));
    }
    items.iter().map(field).collect()
}

/// `["status", ["status", "customer"]]`.
fn indexes(node: &Node) -> Result<Vec<Index>, Unfit> {
    let mut made: Vec<Index> = Vec::new();
    for item in list(node)? {
        let fields = if matches!(item.value, Value::List(_)) { fields(item, FIELDS_MAX)? } else { vec![field(item)?] };
        let name: Arc<str> = fields.iter().map(|f| &*f.name).collect::<Vec<_>>().join(",").into();
        if fields.is_empty() || made.iter().any(|index| index.name == name) || made.len() == INDEXES_MAX {
            return Err(expected(format_args!("at most {INDEXES_MAX} indexes, each of other fields"), item));
        }
        made.push(Index { name, fields });
    }
    Ok(made)
}

fn aggregates(found: &Found, node: &Node) -> BTreeMap<Arc<str>, Aggregate> {
    let Some(reader) = Reader::of(found, node) else { return BTreeMap::new() };
    let entries = reader.entries();
    if entries.len() > AGGREGATES_MAX {
        found.add(expected(format_args!("at most {AGGREGATES_MAX} aggregates"), node));
    }
    let made = entries.into_iter().take(AGGREGATES_MAX).filter_map(|(name, entry)| aggregate(found, name, &entry.node));
    made.map(|aggregate| (aggregate.name.clone(), aggregate)).collect()
}

fn aggregate(found: &Found, name: &str, node: &Node) -> Option<Aggregate> {
    let reader = Reader::of(found, node)?;
    if let Err(e) = CollectionName::new(name) {
        found.add(Problem::new(e.to_string().replace("a collection name", "the name of an aggregate")).at(&node.at));
    }
    let group_by = reader.get("group_by", |n| fields(n, FIELDS_MAX)).unwrap_or_default();
    let measures: Vec<(Arc<str>, Field)> = reader.get("sum", |n| measures(n)).unwrap_or_default();
    let place = |node: &Node| -> Result<usize, Unfit> {
        let text = values::text(node)?;
        let known = measures.iter().position(|(name, _)| **name == *text);
        known.ok_or_else(|| expected("the name of a measure in `sum`", node))
    };
    let extremes = reader.get("min_max", |n| list(n)?.iter().try_fold(0u8, |bits, n| Ok(bits | 1 << place(n)?)));
    let order = reader.get("order_by", |n| match values::text(n)? {
        "count" => Ok(0),
        _ => Ok(place(n)? as u8 + 1),
    });
    let time = reader.get("time", field);
    let bucket = reader.get("bucket", values::time(Duration::from_secs(60)..=DAY * 31));
    if bucket.is_some() && time.is_none() {
        let problem = Problem::new("expected the key `time` beside `bucket`").at(&node.at);
        found.add(problem.help("where the time of a record stands: time = \"/created_at\""));
    }
    reader.finish();
    Some(Aggregate {
        name: name.into(),
        group_by,
        measures,
        extremes: extremes.unwrap_or(0),
        order: order.unwrap_or(0),
        time: time.map(|field| (field, bucket.unwrap_or(DAY))),
    })
}

/// `["amount"]`, each a field whose name is the measure's.
fn measures(node: &Node) -> Result<Vec<(Arc<str>, Field)>, Unfit> {
    let fields = fields(node, MEASURES_MAX)?;
    Ok(fields.into_iter().map(|field| (field.name.trim_start_matches('/').into(), field)).collect())
}

fn operation(node: &Node) -> Result<(ProviderName, OperationName), Unfit> {
    let what = "an operation like \"crm/list_users\"";
    let (provider, operation) = values::text(node)?.split_once('/').ok_or_else(|| expected(what, node))?;
    let unfit = |e: crate::model::name::BadName| Problem::new(e.to_string()).at(&node.at);
    Ok((ProviderName::new(provider).map_err(unfit)?, OperationName::new(operation).map_err(unfit)?))
}

fn account(node: &Node) -> Result<Account, Unfit> {
    Account::new(values::text(node)?).map_err(|e| Problem::new(e.to_string()).at(&node.at))
}

fn pull(found: &Found, node: &Node) -> Option<PullRule> {
    let reader = Reader::of(found, node)?;
    let asked = reader.need("operation", "what lists the items: operation = \"crm/list_users\"", operation);
    let deletes = [("never", false), ("sweep", true)];
    let (provider, operation) = asked?;
    let made = PullRule {
        provider,
        operation,
        account: reader.get("account", account).unwrap_or_default(),
        id: reader.get("id", rules::pointer).unwrap_or_else(|| "/id".to_owned()),
        updated: reader.get("updated", rules::pointer),
        deleted_if: reader.get("deleted_if", rules::pointer),
        sweep: reader.get("deletes", values::choice(&deletes)).unwrap_or(false),
        full_every: reader.get("full_every", values::time(Duration::ZERO..=DAY * 365)).unwrap_or(HOUR * 24),
    };
    reader.finish();
    Some(made)
}

fn push(found: &Found, node: &Node) -> Option<PushRule> {
    let reader = Reader::of(found, node)?;
    let asked = reader.need("operation", "what sends a record: operation = \"crm/update_user\"", operation);
    let classes = [("urgent", Class::Urgent), ("normal", Class::Normal), ("bulk", Class::Bulk)];
    let account = |n: &Node| match values::text(n)? {
        text if text.starts_with('/') => rules::pointer(n).map(AccountRule::Field),
        _ => account(n).map(AccountRule::Fixed),
    };
    let delete = reader.get("delete", |n| {
        let (provider, name) = operation(n)?;
        let same = asked.as_ref().is_none_or(|(of, _)| *of == provider);
        if same { Ok(name) } else { Err(expected("an operation of the same provider", n)) }
    });
    let rest = (
        reader.get("watch", |n| fields(n, WATCH_MAX)).unwrap_or_default(),
        reader.get("key", rules::pointer),
        reader.get("account", account).unwrap_or_else(|| AccountRule::Fixed(Account::default())),
        reader.get("priority", values::choice(&classes)).unwrap_or(Class::Normal),
    );
    reader.finish();
    let (provider, operation) = asked?;
    let (watch, key, account, class) = rest;
    let delete = delete.map(|name| (name, Coalesce::Replace));
    Some(PushRule { provider, operation, coalesce: Coalesce::Replace, delete, watch, key, account, class })
}

//! Schedules: `[schedules.NAME]` made into a checked [`Spec`].
//!
//! Must never know: when they tick. Next: `model/schedule.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::DeclaredSchedule;
use super::problem::{At, Found, Problem};
use super::reader::{Reader, Unfit};
use super::tree::{self, Entry, Node, Value};
use super::values::{self, expected};
use crate::model::collection::Collection;
use crate::model::flow::Class;
use crate::model::invalidation::{KEY_BYTES_MAX, Keys, Which};
use crate::model::job::Labels;
use crate::model::name::{
    Account, BadName, CollectionName, Key, Namespace, OperationName, ProviderName, ScheduleName, Tenant,
};
use crate::model::schedule::{
    JITTER_MAX, JOBS_MAX, JobSpec, MISSED_MAX, Missed, Overlap, PullSpec, SCHEDULES_MAX, Spec, Target, Timer,
};

/// All schedules of a table.
pub fn read_all(found: &Found, node: &Node) -> Vec<DeclaredSchedule> {
    let Value::Table(table) = &node.value else {
        found.add(expected("tables [schedules.NAME]", node));
        return Vec::new();
    };
    if table.len() > SCHEDULES_MAX {
        found.add(expected(format_args!("at most {SCHEDULES_MAX} schedules"), node));
    }
    table.iter().take(SCHEDULES_MAX).filter_map(|(name, entry)| read(found, name, entry)).collect()
}

/// A pull needs a collection that is pulled.
pub fn check_pulls(found: &Found, node: &Node, schedules: &[DeclaredSchedule], collections: &[Collection]) {
    for schedule in schedules {
        let Target::Pull(pull) = &schedule.spec.target else { continue };
        if !collections.iter().any(|c| c.name == pull.collection && c.pull.is_some()) {
            let said = format!(
                "schedule {} pulls {}, which no collection with a pull is named",
                schedule.name, pull.collection
            );
            let help = format!("declare [collections.{}.pull]", pull.collection);
            found.add(Problem::new(said).at(&node.at).help(help));
        }
    }
}

fn read(found: &Found, name: &str, entry: &Entry) -> Option<DeclaredSchedule> {
    let before = found.count();
    let checked = ScheduleName::new(name).map_err(|e| found.add(Problem::new(e.to_string()).at(&entry.key_at))).ok();
    let reader = Reader::of(found, &entry.node)?;
    let cron = reader.need("cron", "say when: cron = \"*/15 * * * *\"", values::filled);
    let zone = reader.get("zone", values::filled).unwrap_or("UTC");
    let overlaps = [
        ("skip", Overlap::Skip),
        ("queue", Overlap::Queue),
        ("allow", Overlap::Allow),
        ("cancel-other", Overlap::CancelOther),
    ];
    let spec = Spec {
        cron: cron.unwrap_or("@daily").to_owned(),
        zone: zone.to_owned(),
        jitter: reader.get("jitter", values::time(Duration::ZERO..=JITTER_MAX)).unwrap_or_default(),
        overlap: reader.get("overlap", values::choice(&overlaps)).unwrap_or_default(),
        missed: reader.node("missed").and_then(|n| missed(found, n)).unwrap_or_default(),
        target: target(&reader, &entry.node.at).unwrap_or(Target::Jobs(Vec::new())),
    };
    let name = checked?;
    if let (Some(_), Err(e)) = (cron, Timer::new(&name, &spec)) {
        let at = if e.field == "cron" { reader.node("cron") } else { reader.node("zone") };
        found.add(Problem::new(e.said).at(at.map_or(&entry.key_at, |n| &n.at)));
    }
    reader.finish();
    (found.count() == before).then_some(DeclaredSchedule { name, spec, origin: entry.key_at.to_string() })
}

/// `"skip"`, `"one"` or `{ all = 24 }`.
fn missed(found: &Found, node: &Node) -> Option<Missed> {
    let Value::Table(_) = &node.value else {
        let words = [("skip", Missed::Skip), ("one", Missed::One)];
        return values::choice(&words)(node)
            .map_err(|problem| found.add(problem.help("or each of the newest so many: missed = { all = 24 }")))
            .ok();
    };
    let reader = Reader::of(found, node)?;
    let all = reader.need("all", "how many at most, as { all = 24 }", values::whole(1..=MISSED_MAX));
    reader.finish();
    all.map(Missed::All)
}

/// Exactly one of `job`, `jobs`, `pull` and `invalidate`.
fn target(reader: &Reader<'_>, at: &At) -> Option<Target> {
    let found = reader.found;
    let (one, many) = (reader.node("job"), reader.node("jobs"));
    let (pulled, invalidate) = (reader.node("pull"), reader.node("invalidate"));
    match (one, many, pulled, invalidate) {
        (Some(node), None, None, None) => Some(Target::Jobs(vec![job(found, node)?])),
        (None, Some(node), None, None) => {
            let items = reader.note(&node.at, values::list(node))?;
            if items.is_empty() || items.len() > JOBS_MAX {
                found.add(expected(format_args!("a list of 1 to {JOBS_MAX} jobs"), node));
                return None;
            }
            let jobs: Vec<JobSpec> = items.iter().filter_map(|item| job(found, item)).collect();
            if let Some(other) = jobs.iter().position(|job| job.tenant != jobs[0].tenant) {
                found.add(Problem::new("expected jobs of one tenant, since they are one run").at(&items[other].at));
            }
            Some(Target::Jobs(jobs))
        }
        (None, None, Some(node), None) => pull(found, node).map(Target::Pull),
        (None, None, None, Some(node)) => which(found, node).map(Target::Invalidate),
        _ => {
            let help = "for example job = { provider = \"crm\", operation = \"pull\" }";
            found.add(Problem::new("expected exactly one of `job`, `jobs`, `pull` and `invalidate`").at(at).help(help));
            None
        }
    }
}

pub(super) fn named<'n, T>(make: impl Fn(&'n str) -> Result<T, BadName>) -> impl Fn(&'n Node) -> Result<T, Unfit> {
    move |node| make(values::text(node)?).map_err(|e| Problem::new(e.to_string()).at(&node.at))
}

/// `"orders"`, or `{ collection = "orders", full = true }`.
pub(super) fn pull(found: &Found, node: &Node) -> Option<PullSpec> {
    if matches!(node.value, Value::Text(_)) {
        let collection = named(CollectionName::new)(node).map_err(|problem| found.add(problem)).ok()?;
        return Some(PullSpec { collection, full: false });
    }
    let reader = Reader::of(found, node)?;
    let collection = reader.need("collection", "which one, as collection = \"orders\"", named(CollectionName::new));
    let full = reader.get("full", values::boolean).unwrap_or(false);
    reader.finish();
    Some(PullSpec { collection: collection?, full })
}

fn job(found: &Found, node: &Node) -> Option<JobSpec> {
    let reader = Reader::of(found, node)?;
    let provider = reader.need("provider", "whose operation, as provider = \"crm\"", named(ProviderName::new));
    let operation = reader.need("operation", "what to do, as operation = \"pull\"", named(OperationName::new));
    let classes = [("urgent", Class::Urgent), ("normal", Class::Normal), ("bulk", Class::Bulk)];
    let payload = reader.get("payload", |n| Ok(Arc::from(tree::json(n)?.to_string())));
    let spec = JobSpec {
        provider: provider.clone().unwrap_or_else(|| ProviderName::new("x").expect("one letter is a name")),
        operation: operation.clone().unwrap_or_else(|| OperationName::new("x").expect("one letter is a name")),
        account: reader.get("account", named(Account::new)).unwrap_or_default(),
        tenant: reader.get("tenant", named(Tenant::new)).unwrap_or_default(),
        key: reader.get("key", named(Key::new)),
        class: reader.get("priority", values::choice(&classes)).unwrap_or_default(),
        payload: payload.unwrap_or_else(|| Arc::from("null")),
        labels: reader.node("labels").map(|n| labels(found, n)).unwrap_or_default(),
    };
    reader.finish();
    (provider.is_some() && operation.is_some()).then_some(spec)
}

pub(super) fn labels(found: &Found, node: &Node) -> Labels {
    let mut labels = BTreeMap::new();
    let Some(reader) = Reader::of(found, node) else { return labels };
    for (name, entry) in reader.entries() {
        let value = reader.note(&entry.node.at, values::text(&entry.node));
        labels.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }
    labels
}

/// `{ namespace = "github", prefix = "/orgs/" }`, or `key` in place of `prefix`.
fn which(found: &Found, node: &Node) -> Option<Which> {
    let reader = Reader::of(found, node)?;
    let help = "whose answers, as namespace = \"github\"";
    let namespace = reader.need("namespace", help, named(Namespace::new));
    let short = |n: &Node| {
        let text = values::text(n)?;
        let fits = text.len() <= KEY_BYTES_MAX;
        fits.then(|| text.to_owned()).ok_or_else(|| expected(format_args!("at most {KEY_BYTES_MAX} bytes"), n))
    };
    let (key, prefix) = (reader.get("key", short), reader.get("prefix", short));
    let keys = match (key, prefix) {
        (Some(key), None) => Some(Keys::Exactly(key)),
        (None, Some(prefix)) => Some(Keys::Beginning(prefix)),
        _ => {
            let said = "expected either `key` or `prefix`; prefix = \"\" is all of the namespace";
            found.add(Problem::new(said).at(&node.at));
            None
        }
    };
    reader.finish();
    Some(Which { namespace: namespace?, keys: keys? })
}

#[cfg(test)]
mod tests;

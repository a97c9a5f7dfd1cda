//! `[alerts.NAME]`, made into a checked [`Rule`]. Must never know: who looks. Next: `model/alert.rs`.

use std::time::Duration;

use super::DeclaredProvider;
use super::problem::{Found, Problem};
use super::reader::{Reader, unknown};
use super::schedules::named;
use super::tree::{Entry, Node};
use super::values::{self, expected};
use crate::model::alert::{Rule, Watch};
use crate::model::name::{AlertName, LimitName, OperationName, ProviderName};

const ALERTS_MAX: usize = 1_000;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const DEAD_MAX: u64 = 1_000_000_000;

pub fn read_all(found: &Found, node: &Node) -> Vec<Rule> {
    let Some(reader) = Reader::of(found, node) else { return Vec::new() };
    let entries = reader.entries();
    if entries.len() > ALERTS_MAX {
        found.add(expected(format_args!("at most {ALERTS_MAX} alerts"), node));
    }
    entries.into_iter().take(ALERTS_MAX).filter_map(|(name, entry)| read(found, name, entry)).collect()
}

/// What is watched must be there, where its provider is declared in a file.
pub fn check_targets(found: &Found, node: &Node, rules: &[Rule], providers: &[DeclaredProvider]) {
    for rule in rules {
        let Some(declared) = providers.iter().find(|declared| declared.provider.name == rule.provider) else {
            continue;
        };
        let provider = &declared.provider;
        match &rule.watch {
            Watch::Failures { operation: Some(name), .. } if !provider.operations.contains_key(name) => {
                let known = provider.operations.keys().map(OperationName::as_str);
                found.add(unknown("operation", name.as_str(), known).at(&node.at));
            }
            Watch::Quota { limit, .. } => {
                let lanes = provider.operations.values().flat_map(|o| o.single.iter().chain(&o.batch));
                let limits = provider.limits.iter().chain(lanes.flat_map(|lane| &lane.limits));
                let known: Vec<&str> = limits.map(|limit| limit.name.as_str()).collect();
                if !known.contains(&limit.as_str()) {
                    found.add(unknown("limit", limit.as_str(), known.iter().copied()).at(&node.at));
                }
            }
            _ => {}
        }
    }
}

fn read(found: &Found, name: &str, entry: &Entry) -> Option<Rule> {
    let before = found.count();
    let checked = AlertName::new(name).map_err(|e| found.add(Problem::new(e.to_string()).at(&entry.key_at))).ok();
    let reader = Reader::of(found, &entry.node)?;
    let provider = reader.need("provider", "whose, as provider = \"crm\"", named(ProviderName::new));
    let hold = reader.get("for", values::time(Duration::ZERO..=DAY)).unwrap_or_default();
    let repeat = reader.get("repeat", values::time(MINUTE..=values::TIME_MAX));
    let failures = reader.node("failures").and_then(|n| failures(found, n));
    let oldest = reader.get("oldest", values::time(SECOND..=values::TIME_MAX)).map(|age| Watch::Oldest { age });
    let open = reader.get("breaker_open", values::time(Duration::ZERO..=DAY));
    let quota = reader.node("quota").and_then(|n| quota(found, n));
    let given = ["failures", "oldest", "breaker_open", "quota"].iter().filter(|key| reader.has(key)).count();
    if given != 1 {
        let said = format!("expected exactly one of failures, oldest, breaker_open and quota, got {given}");
        found.add(Problem::new(said).at(&entry.node.at));
    }
    reader.finish();
    let watch = failures.or(oldest).or(open.map(|_| Watch::Breaker)).or(quota);
    let hold = hold.max(open.unwrap_or_default());
    let rule = Rule { name: checked?, provider: provider?, watch: watch?, hold, repeat };
    (found.count() == before).then_some(rule)
}

fn failures(found: &Found, node: &Node) -> Option<Watch> {
    let reader = Reader::of(found, node)?;
    let dead = reader.need("dead", "how many jobs, as dead = 10", values::whole(1..=DEAD_MAX));
    let within = reader.need("within", "within what time, as within = \"10m\"", values::time(MINUTE..=DAY));
    let operation = reader.get("operation", named(OperationName::new));
    reader.finish();
    Some(Watch::Failures { operation, dead: dead?, within: within? })
}

fn quota(found: &Found, node: &Node) -> Option<Watch> {
    let reader = Reader::of(found, node)?;
    let limit = reader.need("limit", "of which limit, by its name", named(LimitName::new));
    let left_below = reader.need("left_below", "below what share, as left_below = 0.1", values::share);
    reader.finish();
    Some(Watch::Quota { limit: limit?, left_below: left_below? })
}

//! The shared test vectors of all limiters: `tests/fixtures/limits/*.json`, run through the trait.
//!
//! A file is a list of cases. A case:
//! - `about`: a sentence. `start`: an RFC 3339 time; every `at_ms` and `..._ms` counts from there.
//! - `limits`: name to declaration: `kind` (`window`, `bucket`, `concurrency`, `calendar`, `paced`), its numbers (`max`,
//!   `per_ms`, `send_jitter_ms` for the send anchor, `capacity`, `refill`, `jitter_ms`, `period`, `zone`), and optionally
//!   `cost` (1) and `reserve` `{urgent, normal}` (0).
//! - `steps`, each at `at_ms` with one of
//!   - `acquire`: `limits`, `min` (1), `max` (1), `class` (`normal`), `request` (0); expects either `grant` (a number of
//!     calls, remembered as the name in `as`) or `wait`: `earliest_ms` (null: never), `binder`, `soft` (false);
//!   - `settle`: the name of a grant, with `count` (1), `sent` (true), `good` (as `sent`, and not blocked), `costs` (limit to
//!     permits), `blocked_until_ms`, `blocked_limit`, `said` (limit to `left` and `until_ms`);
//!   - `seed`: a list of calls: `limits`, `granted_ms`, `anchored_ms`;
//!   - `peek`: a limit, with any of `used`, `in_flight`, `free`, `next_free_ms` expected.
//!
//! Every limiter must give exactly these answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tidegate::clock::Timestamp;
use tidegate::limiter::{Acquire, Answer, Limiter, LocalLimiter, Said, Seed, Settle, Spend};
use tidegate::model::call::{LimitKey, Permit};
use tidegate::model::flow::Class;
use tidegate::model::name::LimitName;
use tidegate::model::provider::{Anchor, CalendarPeriod, Limit, LimitKind, Reserve, Scope};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    start: String,
    limits: BTreeMap<String, Declared>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    kind: String,
    #[serde(default)]
    max: u32,
    #[serde(default)]
    per_ms: u64,
    send_jitter_ms: Option<u64>,
    #[serde(default)]
    capacity: u32,
    #[serde(default)]
    refill: u32,
    #[serde(default)]
    jitter_ms: u64,
    #[serde(default)]
    period: String,
    #[serde(default)]
    zone: String,
    #[serde(default = "one")]
    cost: u32,
    #[serde(default)]
    reserve: DeclaredReserve,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredReserve {
    #[serde(default)]
    urgent: u32,
    #[serde(default)]
    normal: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at_ms: i64,
    acquire: Option<AcquireStep>,
    grant: Option<u32>,
    #[serde(rename = "as")]
    name: Option<String>,
    wait: Option<WaitStep>,
    settle: Option<String>,
    #[serde(default = "one")]
    count: u32,
    #[serde(default = "yes")]
    sent: bool,
    good: Option<bool>,
    #[serde(default)]
    costs: BTreeMap<String, u32>,
    blocked_until_ms: Option<i64>,
    blocked_limit: Option<String>,
    #[serde(default)]
    said: BTreeMap<String, SaidStep>,
    seed: Option<Vec<SeedStep>>,
    peek: Option<String>,
    used: Option<u32>,
    in_flight: Option<u32>,
    free: Option<u32>,
    next_free_ms: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SaidStep {
    left: u32,
    until_ms: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcquireStep {
    limits: Vec<String>,
    #[serde(default = "one")]
    min: u32,
    #[serde(default = "one")]
    max: u32,
    #[serde(default = "normal")]
    class: String,
    #[serde(default)]
    request: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitStep {
    earliest_ms: Option<i64>,
    binder: String,
    #[serde(default)]
    soft: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedStep {
    limits: Vec<String>,
    granted_ms: i64,
    anchored_ms: i64,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn normal() -> String {
    "normal".to_owned()
}

fn spend(name: &str, d: &Declared) -> Spend {
    let ms = Duration::from_millis;
    let kind = match d.kind.as_str() {
        "window" => {
            let anchor = d.send_jitter_ms.map_or(Anchor::Answer, |j| Anchor::Send { jitter: ms(j) });
            LimitKind::Window { max: d.max, per: ms(d.per_ms), anchor }
        }
        "bucket" => {
            let (capacity, refill) = (d.capacity, d.refill);
            LimitKind::Bucket { capacity, refill, per: ms(d.per_ms), jitter: ms(d.jitter_ms) }
        }
        "concurrency" => LimitKind::Concurrency { max: d.max },
        "calendar" => {
            let period = match d.period.as_str() {
                "hour" => CalendarPeriod::Hour,
                "day" => CalendarPeriod::Day,
                "month" => CalendarPeriod::Month,
                other => panic!("no period {other:?}"),
            };
            LimitKind::Calendar { max: d.max, period, zone: jiff::tz::TimeZone::get(&d.zone).unwrap() }
        }
        "paced" => LimitKind::Paced { max: d.max, per: ms(d.per_ms), jitter: ms(d.jitter_ms) },
        other => panic!("no kind {other:?}"),
    };
    let limit = Limit {
        name: LimitName::new(name).unwrap(),
        kind,
        scope: Scope::Provider,
        methods: Vec::new(),
        cost: d.cost,
        reserve: Reserve { urgent: d.reserve.urgent, normal: d.reserve.normal },
        not_counted: Vec::new(),
        learned: false,
        cost_from: None,
        headers: None,
    };
    Spend::new(LimitKey(Arc::from(format!("p/{name}"))), Arc::new(limit))
}

async fn run(case: &Case, limiter: &dyn Limiter) {
    let start = Timestamp(case.start.parse::<jiff::Timestamp>().unwrap().as_microsecond());
    let at = |ms: i64| Timestamp(start.0 + ms * 1_000);
    let declared: BTreeMap<&str, Spend> = case.limits.iter().map(|(n, d)| (n.as_str(), spend(n, d))).collect();
    let spends = |names: &[String]| -> Arc<[Spend]> { names.iter().map(|n| declared[n.as_str()].clone()).collect() };
    let mut grants: BTreeMap<String, Permit> = BTreeMap::new();
    for (i, step) in case.steps.iter().enumerate() {
        let (now, place) = (at(step.at_ms), format!("{:?}, step {}", case.about, i + 1));
        if let Some(asked) = &step.acquire {
            let class = Class::from_name(&asked.class).unwrap();
            let (min, max, request) = (asked.min, asked.max, asked.request);
            let request = Acquire { spends: spends(&asked.limits), min, max, class, request };
            let answer = limiter.acquire(now, &[request]).await.unwrap().remove(0);
            match answer {
                Answer::Granted { count, permit } => {
                    assert_eq!(Some(count), step.grant, "{place}");
                    grants.extend(step.name.clone().map(|name| (name, permit)));
                }
                Answer::Wait { earliest, binder, soft } => {
                    let wait = step.wait.as_ref().unwrap_or_else(|| panic!("{place}: denied until {earliest}"));
                    assert_eq!(earliest, wait.earliest_ms.map_or(Timestamp::NEVER, at), "{place}: earliest");
                    assert_eq!(binder.0.as_ref(), format!("p/{}", wait.binder), "{place}: binder");
                    assert_eq!(soft, wait.soft, "{place}: soft");
                }
            }
        } else if let Some(name) = &step.settle {
            let said = |(name, said): (&String, &SaidStep)| Said {
                key: declared[name.as_str()].key.clone(),
                left: said.left,
                until: at(said.until_ms),
            };
            let settle = Settle {
                good: step.good.unwrap_or(step.sent && step.blocked_until_ms.is_none()),
                costs: step.costs.iter().map(|(name, cost)| (declared[name.as_str()].key.clone(), *cost)).collect(),
                blocked_until: step.blocked_until_ms.map(at),
                blocked_limit: step.blocked_limit.clone(),
                said: step.said.iter().map(said).collect(),
                ..Settle::new(grants[name].clone(), step.count, step.sent)
            };
            limiter.settle(now, &[settle]).await.unwrap();
        } else if let Some(calls) = &step.seed {
            let all: Vec<Spend> = declared.values().cloned().collect();
            let entry = |c: &SeedStep| Seed {
                permit: Permit {
                    spends: spends(&c.limits).iter().map(|s| (s.key.clone(), s.limit.cost)).collect(),
                    granted_at: at(c.granted_ms),
                    epoch: 0,
                },
                anchored_at: at(c.anchored_ms),
            };
            let entries: Vec<Seed> = calls.iter().map(entry).collect();
            limiter.seed(now, &all, &entries).await.unwrap();
        } else if let Some(name) = &step.peek {
            let view = limiter.peek(now, &[declared[name.as_str()].clone()]).await.unwrap().remove(0);
            for (what, expected, got) in [
                ("used", step.used, view.used),
                ("in flight", step.in_flight, view.in_flight),
                ("free", step.free, view.free),
            ] {
                assert!(expected.is_none_or(|e| e == got), "{place}: {what} is {got}, expected {expected:?}");
            }
            if let Some(ms) = step.next_free_ms {
                assert_eq!(view.next_free_at, at(ms), "{place}: next free");
            }
        } else {
            panic!("{place} does nothing");
        }
    }
}

/// All cases of all files.
fn cases() -> Vec<Case> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/limits");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let read = |file: &std::path::PathBuf| -> Vec<Case> {
        let text = std::fs::read_to_string(file).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    };
    let cases: Vec<Case> = files.iter().filter(|f| f.extension().is_some_and(|e| e == "json")).flat_map(read).collect();
    assert!(cases.len() >= 20, "only {} cases were found", cases.len());
    cases
}

#[tokio::test]
async fn the_local_limiter_answers_every_vector() {
    for case in &cases() {
        run(case, &LocalLimiter::new(0)).await;
    }
}

#[tokio::test]
async fn the_redis_limiter_answers_every_vector() {
    let server = super::factory::Shared::start().await;
    for case in &cases() {
        run(case, &server.limiter().await).await;
    }
}

//! `ratelimit-draft` against the shapes of structured fields (RFC 9651), in the data form of httpwg/structured-field-tests:
//! `name`, `raw` (the lines of a field), `header_type`, then `expected` or `must_fail`, and `canonical` where it differs.
//!
//! Each shape stands where the two fields may have it: a list as `RateLimit` and as `RateLimit-Policy`, a dictionary as the
//! `RateLimit` of older drafts, an item as a number and as a name of either. What must be heard follows from `expected`
//! alone, and what must fail says nothing and is counted as ignored.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};
use sfv::{Dictionary, FieldType, Item, List, Parser};
use tidegate::clock::Timestamp;
use tidegate::limit::feedback::{RESET_MAX, read};
use tidegate::model::limit_headers::LimitHeaders;
use tidegate::model::provider::{Anchor, Limit, LimitKind};

use super::factory::spend;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    raw: Vec<String>,
    header_type: String,
    #[serde(default)]
    expected: Value,
    #[serde(default)]
    must_fail: bool,
    canonical: Option<Vec<String>>,
}

fn cases() -> Vec<Case> {
    let file: File = serde_json::from_str(include_str!("../../fixtures/structured-fields.json")).unwrap();
    assert!(file.source.contains("httpwg/structured-field-tests"));
    file.cases
}

/// Maximum, left, seconds to the reset, and how much was ignored.
type Heard = (Option<u32>, Option<u32>, Option<u64>, u32);
const NOTHING: Heard = (None, None, None, 0);
const ONE_IGNORED: Heard = (None, None, None, 1);

fn limit(name: &str, per: u64) -> Limit {
    let kind = LimitKind::Window { max: 100, per: Duration::from_secs(per), anchor: Anchor::Answer };
    // Names of limits are narrower than names of policies: a policy that is alone speaks of whoever asks.
    let name = if tidegate::model::name::LimitName::new(name).is_ok() { name } else { "other" };
    let made = spend(name, kind).limit;
    Limit { headers: Some(Arc::new(LimitHeaders::RatelimitDraft)), ..(*made).clone() }
}

fn heard(limit: &Limit, fields: &[(&str, &[String])]) -> Heard {
    let mut headers = HeaderMap::new();
    for (name, lines) in fields {
        for line in *lines {
            let value = HeaderValue::from_bytes(line.as_bytes()).unwrap();
            headers.append(HeaderName::try_from(*name).unwrap(), value);
        }
    }
    let heard = read(limit, &headers, Timestamp(1_763_769_600_000_000));
    (heard.max, heard.left, heard.reset_in.map(|d| d.as_secs()), heard.ignored)
}

/// A count: `Err` is one that is there and cannot be meant.
fn count(value: Option<&Value>) -> Result<Option<u64>, ()> {
    match value {
        None => Ok(None),
        Some(Value::Number(n)) => match n.as_i64() {
            Some(whole) => u64::try_from(whole).map(Some).map_err(drop),
            None => n.as_f64().filter(|n| *n >= 0.0).map(|n| Some(n.ceil() as u64)).ok_or(()),
        },
        Some(_) => Err(()),
    }
}

/// What three numbers amount to.
fn said(numbers: [Result<Option<u64>, ()>; 3]) -> Heard {
    let mut ignored = numbers.iter().filter(|n| n.is_err()).count() as u32;
    let [max, left, reset] = numbers.map(|n| n.ok().flatten());
    let believed = reset.filter(|s| *s <= RESET_MAX.as_secs());
    ignored += u32::from(reset != believed);
    let short = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    (max.map(short), left.map(short), believed, ignored)
}

/// Name and parameters of each member; `None`: one of them is no policy, so that nothing of the list is.
fn policies(expected: &Value) -> Option<Vec<(String, Map<String, Value>)>> {
    let policy = |member: &Value| {
        let name = match &member[0] {
            Value::String(name) => name.clone(),
            Value::Object(token) if token["__type"] == "token" => token["value"].as_str()?.to_owned(),
            _ => return None,
        };
        Some((name, member[1].as_object()?.clone()))
    };
    expected.as_array()?.iter().map(policy).collect()
}

fn of_requests(params: &Map<String, Value>) -> bool {
    let unit = params.get("qu").map(|unit| unit.get("value").unwrap_or(unit));
    unit.is_none_or(|unit| unit == "requests")
}

fn a_list(case: &Case, lines: &[String]) {
    let found = if case.must_fail { None } else { policies(&case.expected) };
    let Some(found) = found else {
        assert_eq!(heard(&limit("a", 60), &[("ratelimit", lines)]), ONE_IGNORED, "{}", case.name);
        // The other field holds all the same.
        let stands = ["\"a\";r=7;t=9".to_owned()];
        let both: [(&str, &[String]); 2] = [("ratelimit-policy", lines), ("ratelimit", &stands)];
        assert_eq!(heard(&limit("a", 60), &both), (None, Some(7), Some(9), 1), "{}", case.name);
        return;
    };
    for (name, _) in &found {
        let same = found.iter().filter(|(other, params)| other == name && of_requests(params));
        let least = same.min_by_key(|(_, params)| count(params.get("r")).ok().flatten().unwrap_or(u64::MAX));
        let stands = least.map_or(NOTHING, |(_, p)| said([Ok(None), count(p.get("r")), count(p.get("t"))]));
        assert_eq!(heard(&limit(name, 60), &[("ratelimit", lines)]), stands, "{}: {name}", case.name);

        // As policies, beside a field that says what is left of each.
        let (_, params) = found.iter().find(|(other, _)| other == name).unwrap();
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        let left = [format!("\"{quoted}\";r=7;t=9")];
        let both: [(&str, &[String]); 2] = [("ratelimit-policy", lines), ("ratelimit", &left)];
        let quota = match of_requests(params) {
            true => said([count(params.get("q")), Ok(Some(7)), Ok(Some(9))]),
            false => NOTHING,
        };
        let window = count(params.get("w")).ok().flatten().unwrap_or(60);
        assert_eq!(heard(&limit(name, window), &both), quota, "{}: policy {name}", case.name);
        // A policy of that name over another window is of another limit.
        if params.contains_key("w") {
            assert_eq!(heard(&limit(name, window + 1), &both), NOTHING, "{}: policy {name}", case.name);
        }
    }
    if found.is_empty() {
        assert_eq!(heard(&limit("a", 60), &[("ratelimit", lines)]), NOTHING, "{}", case.name);
    }
}

fn a_dictionary(case: &Case, lines: &[String]) {
    let expected = case.expected.as_object().filter(|of| !case.must_fail && of.contains_key("remaining"));
    let told = expected.map_or(ONE_IGNORED, |of| {
        // Older drafts had whole numbers only.
        let number = |key: &str| count(of.get(key).map(|member| &member[0]));
        said(["limit", "remaining", "reset"].map(number))
    });
    assert_eq!(heard(&limit("a", 60), &[("ratelimit", lines)]), told, "{}", case.name);
}

fn an_item(case: &Case, raw: &str) {
    let value = &case.expected[0];
    for (key, place) in [("r", 1), ("t", 2), ("q", 0)] {
        let text = [format!("\"a\";{key}={raw}")];
        let mut numbers = [Ok(None), Ok(None), Ok(None)];
        numbers[place] = count(Some(value));
        let told = match (key, case.must_fail) {
            ("q", false) => {
                numbers[1] = Ok(Some(7));
                said(numbers)
            }
            ("q", true) => (None, Some(7), None, 1),
            (_, false) => said(numbers),
            (_, true) => ONE_IGNORED,
        };
        let left = ["\"a\";r=7".to_owned()];
        let fields: [(&str, &[String]); 2] = [("ratelimit-policy", &text), ("ratelimit", &left)];
        let fields = if key == "q" { &fields[..] } else { &[("ratelimit", text.as_slice())][..] };
        assert_eq!(heard(&limit("a", 60), fields), told, "{} as {key}", case.name);
    }
    // As a name: texts and tokens are names.
    let text = [format!("{raw};r=7")];
    let is_name = value.is_string() || value["__type"] == "token";
    let told = if is_name && !case.must_fail { (None, Some(7), None, 0) } else { ONE_IGNORED };
    assert_eq!(heard(&limit("a", 60), &[("ratelimit", &text)]), told, "{} as a name", case.name);
}

#[test]
fn every_shape_of_a_structured_field_is_heard_as_it_is_meant_or_not_at_all() {
    let (mut failing, mut other) = (0, 0);
    for case in cases() {
        let forms = std::iter::once(&case.raw).chain(&case.canonical);
        for lines in forms {
            match case.header_type.as_str() {
                "list" => a_list(&case, lines),
                "dictionary" => a_dictionary(&case, lines),
                "item" => an_item(&case, &lines[0]),
                kind => panic!("{}: {kind}", case.name),
            }
        }
        failing += usize::from(case.must_fail);
        other += usize::from(case.canonical.is_some());
    }
    assert!(failing >= 40 && other >= 10, "{failing} must fail, {other} have a canonical form");
}

/// As the grammar's own parser writes what it read; `None`: it cannot be read.
fn written<T: FieldType>(text: &str) -> Option<Vec<String>> {
    let parsed: T = Parser::new(text).parse().ok()?;
    let canonical: Option<String> = parsed.serialize().into();
    Some(canonical.into_iter().collect())
}

/// The cases themselves are right: the grammar's own parser fails where they say so, and writes what is canonical.
#[test]
fn every_shape_is_what_it_is_said_to_be() {
    for case in cases() {
        let text = case.raw.join(", ");
        let made = match case.header_type.as_str() {
            "list" => written::<List>(&text),
            "dictionary" => written::<Dictionary>(&text),
            _ => written::<Item>(&text),
        };
        let canonical = case.canonical.unwrap_or(case.raw);
        assert_eq!(made, (!case.must_fail).then_some(canonical), "{}", case.name);
    }
}

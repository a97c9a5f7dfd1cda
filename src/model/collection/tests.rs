//! What documents become, and what is wrong with those that become nothing.

use serde_json::json;

use super::*;
use crate::model::record::Entry;

fn field(name: &str) -> Field {
    Field { name: name.into(), pointer: format!("/{name}") }
}

fn orders() -> Collection {
    let index =
        |names: &[&str]| Index { name: names.join(",").into(), fields: names.iter().map(|n| field(n)).collect() };
    let aggregate = Aggregate {
        name: "by_status".into(),
        group_by: vec![field("status")],
        measures: vec![("amount".into(), field("amount"))],
        extremes: 1,
        order: 1,
        time: Some((field("at"), Duration::from_secs(86_400))),
    };
    let schema = json!({ "type": "object", "required": ["status"], "properties": { "amount": { "type": "number" } } });
    Collection {
        name: CollectionName::new("orders").unwrap(),
        schema: Some(Schema::compile(schema).unwrap()),
        indexes: vec![index(&["status"]), index(&["status", "customer"])],
        aggregates: [("by_status".into(), aggregate)].into(),
        pull: None,
        push: None,
        tombstones: Duration::ZERO,
        shape: "".into(),
    }
}

fn push(watch: &[&str]) -> PushRule {
    PushRule {
        provider: ProviderName::new("crm").unwrap(),
        operation: OperationName::new("sync").unwrap(),
        coalesce: Coalesce::Replace,
        delete: None,
        watch: watch.iter().map(|n| field(n)).collect(),
        key: None,
        account: AccountRule::Field("/shop".to_owned()),
        class: Class::Normal,
    }
}

#[test]
fn a_document_is_kept_byte_for_byte_and_its_fields_become_facts() {
    let data = r#"{ "status":"open","amount":1.10,  "at":"2026-11-24T14:30:00Z"}"#;
    let checked = orders().check(data).unwrap();
    assert_eq!(&*checked.data, data);
    let indexes =
        [("status".into(), r#"["open"]"#.to_owned()), ("status,customer".into(), r#"["open",null]"#.to_owned())];
    assert_eq!(checked.facts.indexes, indexes);
    let bucket = "2026-11-24T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
    let expected = Entry {
        aggregate: "by_status".into(),
        group: r#"["open"]"#.to_owned(),
        bucket: Some(bucket),
        values: vec![Some(1_100_000)],
        extremes: 1,
        order: 1,
    };
    assert_eq!(checked.facts.entries, [expected]);
}

#[test]
fn what_is_wrong_is_named_by_pointer() {
    let pointers = |data: &str| orders().check(data).unwrap_err().into_iter().map(|w| w.pointer).collect::<Vec<_>>();
    assert_eq!(pointers(r#"{"status":"open","amount":"much"}"#), ["/amount"]);
    assert_eq!(pointers(r#"{"status":"open","at":"noon"}"#), ["/at"]);
    assert_eq!(pointers("[1]"), [""]);
    assert_eq!(pointers(r#"{"amount":1}"#), [""]);
    let long = format!(r#"{{"status":"{}"}}"#, "x".repeat(1_100));
    assert_eq!(pointers(&long)[0], "/status");
}

#[test]
fn the_order_of_keys_is_no_content_and_the_order_of_a_list_is() {
    let hash = |value: Value| hash_of(&value);
    assert_eq!(hash(json!({"a": 1, "b": {"c": 2, "d": 3}})), hash(json!({"b": {"d": 3, "c": 2}, "a": 1})));
    assert_ne!(hash(json!([1, 2])), hash(json!([2, 1])));
    assert_ne!(hash(json!({"a": "1"})), hash(json!({"a": 1})));
    assert_ne!(hash(json!([["a"], "b"])), hash(json!([["a", "b"]])));
}

#[test]
fn a_push_minds_watched_fields_only_and_names_each_change_once() {
    let rule = push(&["name"]);
    assert!(!rule.minds(r#"{"name":"a","n":1}"#, r#"{"n":2,"name":"a"}"#));
    assert!(rule.minds(r#"{"name":"a"}"#, r#"{"name":"b"}"#) && rule.minds(r#"{"name":"a"}"#, "{}"));
    let (collection, id) = (CollectionName::new("users").unwrap(), Key::new("u1").unwrap());
    let job = |change| rule.job(&collection, &id, &r#"{"shop":7}"#.into(), change, false).unwrap();
    assert_eq!((job(1).account.as_str(), job(1).key), ("7", Some(id.clone())));
    assert_eq!(job(1), job(1));
    assert_ne!(job(1).idempotency_key, job(2).idempotency_key);
    assert_eq!(rule.job(&collection, &id, &"{}".into(), 1, true), None);
}

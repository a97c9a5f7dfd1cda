//! What templates make of jobs, good and hostile.

use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::model::flow::Class;
use crate::model::id::{FlowId, Id};
use crate::model::name::Key;

fn job(key: Option<&str>, payload: &str) -> ClaimedJob {
    ClaimedJob {
        id: Id::new(Timestamp::from_secs(1_763_769_600), 7),
        flow: FlowId(1),
        class: Class::Normal,
        key: key.map(|k| Key::new(k).unwrap()),
        payload: payload.into(),
        version: 1,
        due_at: Timestamp::from_secs(1_763_769_600),
        attempts: 1,
        crashes: 0,
        throttles: 0,
        first_sent_at: None,
        traceparent: None,
    }
}

fn with<T>(jobs: &[ClaimedJob], f: impl FnOnce(&Facts<'_>) -> T) -> T {
    f(&Facts { account: &Account::new("acct 7").unwrap(), tenant: &Tenant::new("t").unwrap(), jobs })
}

fn text(source: &str, into: Into, job: ClaimedJob) -> Result<String, String> {
    let template = Template::parse(source, Site::Single).map_err(|e| e.to_string())?;
    with(&[job], |facts| template.text(facts, into)).map_err(|e| e.reason)
}

fn body(source: serde_json::Value, site: Site, jobs: &[ClaimedJob]) -> Result<String, String> {
    let template = BodyTemplate::parse(source, site).map_err(|e| e.to_string())?;
    let bytes = with(jobs, |facts| template.bytes(facts)).map_err(|e| e.reason)?;
    Ok(String::from_utf8(bytes).unwrap())
}

#[test]
fn variables_are_escaped_for_their_place() {
    let j = || job(Some("a/b?c d\u{e9}"), r#"{"n":1.50,"s":"x\"y","u":{"id":"é"},"l":[10,20]}"#);
    assert_eq!(text("/users/{key}", Into::Segment, j()).unwrap(), "/users/a%2Fb%3Fc%20d%C3%A9");
    assert_eq!(text("{account}", Into::Query, j()).unwrap(), "acct%207");
    assert_eq!(text("v={payload.n}", Into::Header, j()).unwrap(), "v=1.50");
    assert_eq!(text("{payload.u.id}{{x}}", Into::Segment, j()).unwrap(), "%C3%A9{x}");
    assert_eq!(text("{payload.l.1}", Into::Query, j()).unwrap(), "20");
    assert_eq!(text("{payload.s}", Into::JsonText, j()).unwrap(), r#"x\"y"#);
}

#[test]
fn a_header_never_takes_line_ends() {
    for hostile in ["a\\r\\nX-Evil: 1", "a\\n", "\\u0000", "\\u00e9"] {
        let refused = text("{payload.s}", Into::Header, job(None, &format!(r#"{{"s":"{hostile}"}}"#))).unwrap_err();
        assert!(refused.contains("{payload.s} stands in a header and contains"), "{refused}");
    }
}

#[test]
fn what_is_not_there_is_said_in_one_sentence() {
    let j = || job(None, r#"{"o":{},"nil":null,"e":""}"#);
    let cases = [
        ("{key}", "the request needs the job's key, and the job has none: give it a key"),
        ("{payload.x}", "the request needs payload.x, and it is not there"),
        ("{payload.o}", "expected a text, number or boolean at payload.o, got an object"),
        ("{payload.nil}", "expected a text, number or boolean at payload.nil, got null"),
        ("{payload.o.y}", "the request needs payload.o.y, and it is not there"),
        ("{payload.e}", "{payload.e} stands in the path and is empty"),
    ];
    for (source, sentence) in cases {
        assert_eq!(text(source, Into::Segment, j()).unwrap_err(), sentence, "{source}");
    }
    assert!(text("{payload.nil.z}", Into::Segment, j()).unwrap_err().starts_with("cannot read payload.nil.z"));
}

#[test]
fn unknown_or_misplaced_variables_are_refused_when_declared() {
    let refused = |source: &str, site| Template::parse(source, site).unwrap_err().to_string();
    assert!(refused("{kee}", Site::Single).starts_with("unknown variable {kee}: expected one of {key}"));
    assert_eq!(refused("{key}", Site::Batch), "{key} cannot be used on the batch lane: a batch has many; write {keys}");
    assert!(refused("{payloads}", Site::Single).contains("write {payload}"));
    assert!(refused("{key}", Site::Provider).contains("both lanes send it"));
    assert!(refused("{payload}", Site::Single).contains("only a body can carry it"));
    assert!(refused("{payload..a}", Site::Single).contains("names like"));
    assert!(refused("a{key", Site::Single).contains("expected '}' after"));
    assert!(refused("a}b", Site::Single).contains("at byte 1"));
    assert!(refused("{}", Site::Single).starts_with("unknown variable {}"));
}

#[test]
fn a_payload_enters_a_body_byte_for_byte() {
    let exact = "{ \"big\" : 12345678901234567890.10,\n\"e\":1e400, \"dup\":1, \"dup\":2}";
    let json = serde_json::json!({"user": "{payload}", "note": "for {key}, {{sic}}", "n": "{payload.big}", "f": 1.0});
    let made = body(json, Site::Single, &[job(Some("k\"1"), exact)]).unwrap();
    let expected = format!(r#"{{"user":{exact},"note":"for k\"1, {{sic}}","n":12345678901234567890.10,"f":1.0}}"#);
    assert_eq!(made, expected);
    assert_eq!(body("{payload}".into(), Site::Single, &[job(None, "[1.0]")]).unwrap(), "[1.0]");
}

#[test]
fn a_batch_body_holds_all_payloads_and_keys() {
    let jobs = [job(Some("a"), "{\"x\":1}"), job(Some("b"), "2")];
    let json = serde_json::json!({"users": "{payloads}", "ids": "{keys}", "all": "ids {keys}"});
    let made = body(json, Site::Batch, &jobs).unwrap();
    assert_eq!(made, r#"{"users":[{"x":1},2],"ids":["a","b"],"all":"ids a,b"}"#);
    let nameless = [job(Some("a"), "1"), job(None, "2")];
    let template = BodyTemplate::parse("{keys}".into(), Site::Batch).unwrap();
    assert_eq!(with(&nameless, |f| template.bytes(f)).unwrap_err().job, 1);
}

#[test]
fn a_body_of_mixed_text_is_refused_when_declared() {
    assert!(body("hello {key}".into(), Site::Single, &[]).unwrap_err().contains("exactly one variable"));
}

#[test]
fn an_idempotency_value_is_stable_over_retries_and_order_and_new_with_the_version() {
    let (a, mut b) = (job(Some("a"), "1"), job(Some("b"), "2"));
    b.id.seq = 8;
    let single = |j: &ClaimedJob| idempotency_value(Lane::Single, std::slice::from_ref(j));
    let mut retried = a.clone();
    retried.attempts = 5;
    assert_eq!(single(&a), single(&retried));
    retried.version = 2;
    assert_ne!(single(&a), single(&retried));
    let batch = |jobs: &[ClaimedJob]| idempotency_value(Lane::Batch, jobs);
    assert_eq!(batch(&[a.clone(), b.clone()]), batch(&[b.clone(), a.clone()]));
    assert_ne!(batch(&[a.clone(), b.clone()]), batch(&[retried, b]));
    assert_eq!(batch(&[a]).len(), 32);
}

#[test]
fn a_deep_payload_is_copied_and_searched_without_harm() {
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let made = body("{payload.a}".into(), Site::Single, &[job(None, &deep)]).unwrap();
    assert_eq!(made.len(), 20_001);
}

proptest! {
    #[test]
    fn any_template_is_parsed_or_refused(source in "[a-z{}./]{0,40}|.{0,40}") {
        for site in [Site::Provider, Site::Single, Site::Batch] {
            let _ = Template::parse(&source, site);
        }
    }

    #[test]
    fn any_literal_survives(source in ".{0,40}") {
        let template = Template::parse(Template::literal(&source).source(), Site::Single).unwrap();
        let made = with(&[job(None, "1")], |facts| template.text(facts, Into::Header)).unwrap();
        prop_assert_eq!(made, source);
    }

    #[test]
    fn any_key_stays_one_segment(key in "[^\\p{Cc}\\x{200e}\\x{200f}\\x{202a}-\\x{202e}\\x{2066}-\\x{2069}]{1,20}") {
        let made = text("{key}", Into::Segment, job(Some(&key), "1")).unwrap();
        prop_assert!(made.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
        let back = percent_encoding::percent_decode_str(&made).decode_utf8().unwrap();
        prop_assert_eq!(back, key);
    }

    #[test]
    fn any_texts_make_a_body_of_json(key in "[^\\p{Cc}\\x{200e}\\x{200f}\\x{202a}-\\x{202e}\\x{2066}-\\x{2069}]{1,20}", value in ".{0,20}") {
        let payload = serde_json::json!({"v": value}).to_string();
        let json = serde_json::json!({"a": "x{key}y{payload.v}", "b": "{payload}", "k-{key}": [1, "{key}"]});
        let made: serde_json::Value = serde_json::from_str(&body(json, Site::Single, &[job(Some(&key), &payload)]).unwrap()).unwrap();
        prop_assert_eq!(&made["a"], &serde_json::json!(format!("x{key}y{value}")));
        prop_assert_eq!(&made["b"]["v"], &serde_json::json!(value));
    }
}

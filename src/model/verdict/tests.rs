//! What answers mean, good and hostile.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::backoff::Backoff;
use crate::model::flow::Class;
use crate::model::id::{FlowId, Id};
use crate::model::job::Coalesce;
use crate::model::name::{Key, OperationName, ProviderName};
use crate::model::provider::*;
use crate::model::request::{BatchResult, Site, Template};

const NOW: Timestamp = Timestamp(1_763_769_600_000_000);

fn provider() -> Provider {
    Provider {
        name: ProviderName::new("crm").unwrap(),
        base_url: "https://crm.example".parse().unwrap(),
        auth: Auth::None,
        accounts: Default::default(),
        headers: Vec::new(),
        limits: Vec::new(),
        operations: BTreeMap::new(),
        breaker: BreakerPolicy::default(),
        throttled: vec![Match { status: Some((403, 403)), body: Some("secondary rate".into()), ..Match::default() }],
        timeouts: Timeouts::default(),
        in_flight_max: 64,
        spread: 1,
        allow_private: false,
        response_bytes_max: 1 << 20,
        propagate_trace: false,
        tenants: Default::default(),
    }
}

fn lane(method: &str, result: Option<BatchResult>) -> LaneSpec {
    LaneSpec {
        method: method.parse().unwrap(),
        request: RequestTemplate {
            path: Template::parse("/x", Site::Batch).unwrap(),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
        },
        limits: Vec::new(),
        size_max: 10,
        bytes_max: 1 << 20,
        result,
    }
}

fn operation(method: &str) -> Operation {
    let result = BatchResult {
        each: "$.results[*]".parse().unwrap(),
        key: "/id".into(),
        failed_if: Some("/error".into()),
        retry_if: Some(("/error".into(), Some("busy".into()))),
    };
    Operation {
        name: OperationName::new("op").unwrap(),
        single: Some(lane(method, None)),
        batch: Some(lane(method, Some(result))),
        coalesce: Coalesce::Never,
        repeat: Repeat::ByMethod,
        idempotency: None,
        retry: Backoff::default(),
        delivered_if: Vec::new(),
        failed_if: vec![Match { json: Some(("/failure".into(), None)), ..Match::default() }],
        retry_if: Vec::new(),
        keep_bytes: 100,
        external: None,
        log_bodies: None,
        undo: None,
        pages: None,
        cache: Default::default(),
    }
}

fn job(key: &str) -> ClaimedJob {
    ClaimedJob {
        id: Id::new(NOW, 1),
        flow: FlowId(1),
        class: Class::Normal,
        key: Some(Key::new(key).unwrap()),
        payload: "1".into(),
        version: 1,
        due_at: NOW,
        attempts: 1,
        crashes: 0,
        throttles: 0,
        first_sent_at: None,
        traceparent: None,
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Result<Answer, Failure> {
    let mut map = http::HeaderMap::new();
    for (name, value) in headers {
        map.append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    Ok(Answer { status, headers: map, body: body.to_owned().into(), truncated: false, received_at: NOW })
}

fn single(method: &str, outcome: &Result<Answer, Failure>) -> (Verdict, Health) {
    let j = judge(&provider(), &operation(method), Lane::Single, &[job("a")], outcome, NOW);
    assert_eq!(j.verdicts.len(), 1);
    (j.verdicts[0].clone(), j.health)
}

fn kind(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Delivered { .. } => "delivered",
        Verdict::Retry { .. } => "retry",
        Verdict::Throttled { .. } => "throttled",
        Verdict::Rejected { .. } => "rejected",
        Verdict::Unknown { .. } => "unknown",
        Verdict::Split { .. } => "split",
    }
}

#[test]
fn a_status_decides_for_a_single_job() {
    let cases: &[(u16, &str, Health)] = &[
        (200, "delivered", Health::Good),
        (204, "delivered", Health::Good),
        (207, "delivered", Health::Good),
        (301, "rejected", Health::Good),
        (304, "rejected", Health::Good),
        (307, "rejected", Health::Good),
        (400, "rejected", Health::Good),
        (401, "retry", Health::Refusing),
        (403, "rejected", Health::Good),
        (404, "rejected", Health::Good),
        (408, "retry", Health::Good),
        (413, "rejected", Health::Good),
        (422, "rejected", Health::Good),
        (425, "retry", Health::Good),
        (429, "throttled", Health::Limiting { until: None }),
        (500, "retry", Health::Failing),
        (501, "rejected", Health::Failing),
        (502, "retry", Health::Failing),
        (503, "retry", Health::Failing),
        (504, "retry", Health::Failing),
        (599, "retry", Health::Failing),
    ];
    for (status, expected, health) in cases {
        let (verdict, seen) = single("POST", &answer(*status, &[], ""));
        assert_eq!((kind(&verdict), seen), (*expected, *health), "{status}");
    }
}

#[test]
fn not_now_waits_as_long_as_it_was_told_and_only_where_it_may() {
    let wait = [("retry-after", "30")];
    let until = Some(NOW + Duration::from_secs(30));
    for status in [429, 503] {
        let (verdict, health) = single("POST", &answer(status, &wait, ""));
        assert!(matches!(verdict, Verdict::Throttled { until: u, .. } if u == until), "{status}: {verdict:?}");
        assert_eq!(health, Health::Limiting { until });
    }
    let (verdict, _) = single("POST", &answer(403, &wait, "You hit a secondary rate limit"));
    assert!(matches!(verdict, Verdict::Throttled { until: u, .. } if u == until));
    assert_eq!(kind(&single("POST", &answer(403, &wait, "no")).0), "rejected");
    assert_eq!(kind(&single("POST", &answer(200, &wait, "")).0), "delivered");
    assert_eq!(kind(&single("POST", &answer(500, &wait, "")).0), "retry");
    // Garbage on a 503 makes it a plain 503.
    let judged = judge(
        &provider(),
        &operation("POST"),
        Lane::Single,
        &[job("a")],
        &answer(503, &[("retry-after", "abc")], ""),
        NOW,
    );
    assert_eq!(kind(&judged.verdicts[0]), "retry");
    assert_eq!(judged.oddities, [Oddity::RetryAfterIgnored]);
}

#[test]
fn declared_rules_go_before_the_status() {
    assert_eq!(kind(&single("POST", &answer(200, &[], r#"{"failure":"no such list"}"#)).0), "rejected");
    assert_eq!(kind(&single("POST", &answer(200, &[], r#"{"failure":false}"#)).0), "delivered");
    let mut op = operation("DELETE");
    op.delivered_if = vec![Match { status: Some((404, 410)), ..Match::default() }];
    op.retry_if = vec![Match { status: Some((409, 409)), ..Match::default() }];
    op.failed_if.push(Match { header: Some((http::header::CONTENT_TYPE, "text/html".into())), ..Match::default() });
    let judge = |outcome| judge(&provider(), &op, Lane::Single, &[job("a")], &outcome, NOW).verdicts[0].clone();
    assert_eq!(kind(&judge(answer(404, &[], ""))), "delivered");
    assert_eq!(kind(&judge(answer(409, &[], ""))), "retry");
    let login = answer(200, &[("content-type", "Text/HTML; charset=utf-8")], "<html>log in</html>");
    assert_eq!(kind(&judge(login)), "rejected");
}

#[test]
fn a_lost_answer_is_repeated_only_where_that_is_safe() {
    let lost = |sent| Err(Failure { sent, provider_fault: true, reason: "lost".into() });
    for method in ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"] {
        assert_eq!(kind(&single(method, &lost(Sent::Maybe)).0), "retry", "{method}");
    }
    for method in ["POST", "PATCH"] {
        assert_eq!(kind(&single(method, &lost(Sent::Maybe)).0), "unknown", "{method}");
        assert_eq!(kind(&single(method, &lost(Sent::No)).0), "retry", "{method}");
    }
    let mut op = operation("POST");
    let decide = |op: &Operation, lane, job: &ClaimedJob| {
        let judged = judge(&provider(), op, lane, std::slice::from_ref(job), &lost(Sent::Maybe), NOW);
        kind(&judged.verdicts[0])
    };
    op.repeat = Repeat::Always;
    assert_eq!(decide(&op, Lane::Single, &job("a")), "retry");
    op.repeat = Repeat::ByMethod;
    op.idempotency = Some(IdempotencyHeader {
        name: http::HeaderName::from_static("idempotency-key"),
        life: Duration::from_secs(3_600),
    });
    assert_eq!(decide(&op, Lane::Single, &job("a")), "retry");
    // The next batch may be another one, and so would its key be.
    assert_eq!(decide(&op, Lane::Batch, &job("a")), "unknown");
    let mut old = job("a");
    old.first_sent_at = Some(NOW - Duration::from_secs(3_599));
    assert_eq!(decide(&op, Lane::Single, &old), "unknown", "the key would be dead when the retry comes");
    let mut put = operation("PUT");
    put.repeat = Repeat::Never;
    assert_eq!(decide(&put, Lane::Single, &job("a")), "unknown");
}

fn batch(keys: &[&str], outcome: &Result<Answer, Failure>) -> (Vec<&'static str>, Vec<Oddity>) {
    let jobs: Vec<_> = keys.iter().map(|k| job(k)).collect();
    let judged = judge(&provider(), &operation("POST"), Lane::Batch, &jobs, outcome, NOW);
    (judged.verdicts.iter().map(kind).collect(), judged.oddities)
}

#[test]
fn batch_results_are_matched_by_key_never_by_position() {
    let body = r#"{"results":[{"id":"c"},{"id":7,"error":"bad mail"},{"id":"a","error":null}]}"#;
    for status in [200, 207] {
        let (kinds, odd) = batch(&["a", "7", "c"], &answer(status, &[], body));
        assert_eq!((kinds, odd.len()), (vec!["delivered", "rejected", "delivered"], 0));
    }
}

#[test]
fn a_record_that_failed_for_the_moment_is_tried_again_by_itself() {
    let body = r#"{"results":[{"id":"a"},{"id":"b","error":"busy"},{"id":"c","error":"bad mail"}]}"#;
    assert_eq!(batch(&["a", "b", "c"], &answer(200, &[], body)).0, ["delivered", "retry", "rejected"]);
}

#[test]
fn missing_unknown_and_duplicate_results_are_told_apart() {
    let body = r#"{"results":[{"id":"a"},{"id":"a","error":"twice"},{"id":"z"},{"noid":1},5]}"#;
    let (kinds, odd) = batch(&["a", "b"], &answer(200, &[], body));
    assert_eq!(kinds, ["delivered", "unknown"]);
    assert_eq!(odd, [Oddity::MissingResults(1), Oddity::UnknownResults(3), Oddity::DuplicateResults(1)]);
}

#[test]
fn an_unreadable_batch_answer_loses_its_jobs_and_nothing_else() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    for body in ["", "<html>", "{\"results\":[{\"id\":\"a\"}", deep.as_str()] {
        let (kinds, odd) = batch(&["a", "b"], &answer(200, &[], body));
        assert_eq!((kinds, odd), (vec!["unknown", "unknown"], vec![Oddity::UnreadableResult]));
    }
    let mut cut = answer(200, &[], r#"{"results":[{"id":"a"}]}"#).unwrap();
    cut.truncated = true;
    assert_eq!(batch(&["a"], &Ok(cut)).0, ["unknown"]);
}

#[test]
fn a_batch_refused_as_a_whole_is_split_until_one_job_is_left() {
    for status in [400, 413, 422] {
        assert_eq!(batch(&["a", "b"], &answer(status, &[], "bad record")).0, ["split", "split"]);
        assert_eq!(batch(&["a"], &answer(status, &[], "bad record")).0, ["rejected"]);
    }
    assert_eq!(batch(&["a", "b"], &answer(404, &[], "")).0, ["rejected", "rejected"]);
}

#[test]
fn what_is_kept_fits_and_is_clean() {
    let (verdict, _) = single(
        "POST",
        &Ok(Answer {
            body: bytes::Bytes::from([b"\0\xff".as_slice(), &[b'x'; 500]].concat()),
            ..answer(200, &[], "").unwrap()
        }),
    );
    let Verdict::Delivered { result: Some(kept) } = verdict else { panic!("{verdict:?}") };
    assert!(kept.len() <= 100 && kept.starts_with("\u{fffd}\u{fffd}xxx"));
}

proptest! {
    #[test]
    fn any_answer_gets_one_verdict_per_job(
        status in 100u16..1000,
        name in "retry-after|location|content-type|www-authenticate",
        value in "[ -~]{0,30}",
        body in "\\PC{0,80}|\\{\"results\":\\[(\\{\"id\":\"[ab]\"(,\"error\":[0-9])?\\},?){0,4}\\]?\\}?",
        truncated: bool,
        n in 1usize..4,
    ) {
        let mut outcome = answer(status, &[(&name, &value)], &body).unwrap();
        outcome.truncated = truncated;
        let jobs: Vec<_> = ["a", "b", "c"][..n].iter().map(|k| job(k)).collect();
        for lane in Lane::ALL {
            let judged = judge(&provider(), &operation("POST"), lane, &jobs, &Ok(outcome.clone()), NOW);
            prop_assert_eq!(judged.verdicts.len(), n);
            for verdict in judged.verdicts {
                if let Verdict::Throttled { until: Some(until), .. } = verdict {
                    prop_assert!(until <= NOW + RETRY_AFTER_MAX);
                }
            }
        }
    }
}

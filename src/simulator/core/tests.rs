//! The core without sockets: limits, records, faults and header styles.

use super::*;
use crate::simulator::config::{Faults, HeaderStyle};

fn core(limits: &[&str], change: impl FnOnce(&mut SimulatorConfig)) -> Core {
    let config = limits.iter().fold(SimulatorConfig::default(), |c, l| c.limit(l).unwrap());
    let mut config = SimulatorConfig { latency: super::super::Latency::none(), ..config };
    change(&mut config);
    Core::new(config, Timestamp::ZERO).unwrap()
}

/// Sends one call and lets it leave at once; the status, or 0 when no answer comes.
fn send(core: &mut Core, ms: i64, method: &str, path: &str, body: &str) -> (u16, String) {
    let (ticket, reply) = core.handle(Timestamp::from_millis(ms), method, path, "", body.as_bytes());
    core.leave(&ticket, "");
    match reply {
        Reply::Answer { status, body, .. } => (status, String::from_utf8(body.to_vec()).unwrap()),
        Reply::Silence | Reply::Reset => (0, String::new()),
    }
}

#[test]
fn refusals_and_the_largest_window_are_counted_independently() {
    let mut c = core(&["a=rolling:2/1s"], |_| {});
    let statuses: Vec<u16> = [0, 1, 2, 1_000, 1_001].map(|ms| send(&mut c, ms, "PUT", "/u/1", "{}").0).to_vec();
    assert_eq!(statuses, [200, 200, 429, 200, 200]);
    let report = c.report(Timestamp::from_secs(2));
    let limit = report.limit("a").unwrap();
    assert_eq!((report.arrivals, report.refused, limit.refused), (5, 1, 1));
    assert_eq!(limit.max_in_any_window, Some(3));
    assert!(limit.exceeded());
}

#[test]
fn a_refused_call_uses_up_no_other_limit() {
    let mut c = core(&["tight=rolling:1/1s@POST /b", "wide=rolling:2/10s"], |_| {});
    assert_eq!(send(&mut c, 0, "POST", "/b", "{}").0, 200);
    assert_eq!(send(&mut c, 1, "POST", "/b", "{}").0, 429);
    assert_eq!(send(&mut c, 2, "PUT", "/x", "{}").0, 200, "the refused call must not have used up `wide`");
    assert_eq!(send(&mut c, 3, "PUT", "/x", "{}").0, 429);
    assert_eq!(c.report(Timestamp::ZERO).limit("wide").unwrap().arrivals, 4);
}

#[test]
fn a_request_uses_up_what_it_costs() {
    let mut c = core(&["units=rolling:10/1s;4@DELETE /items/*"], |config| config.headers = HeaderStyle::XRatelimit);
    assert_eq!(send(&mut c, 0, "DELETE", "/items/1", "").0, 200);
    let (ticket, _) = c.handle(Timestamp::ZERO, "DELETE", "/items/2", "", b"");
    let headers = c.headers(&ticket, "", Timestamp::ZERO, Timestamp::ZERO);
    assert!(headers.iter().any(|(name, value)| name == "x-ratelimit-remaining" && value == "2"), "{headers:?}");
    assert_eq!(c.report(Timestamp::ZERO).limit("units").unwrap().max_in_any_window, Some(8));
    let statuses = [("DELETE", "/items/3"), ("GET", "/items/3"), ("DELETE", "/others/3"), ("GET", "/items/4")];
    assert_eq!(statuses.map(|(method, path)| send(&mut c, 1, method, path, "").0), [429, 200, 200, 429]);
    let report = c.report(Timestamp::ZERO);
    let limit = report.limit("units").unwrap();
    assert_eq!((limit.arrivals, limit.max_in_any_window, &*limit.per_window), (6, Some(15), &[15][..]));
}

#[test]
fn accounts_are_counted_apart() {
    let mut c = core(&["a=rolling:1/1s"], |config| {
        config.account_header = Some("x-account".to_owned());
        config.limits[0].per = Per::Account;
    });
    let mut status = |account: &str| match c.handle(Timestamp::ZERO, "GET", "/", account, b"").1 {
        Reply::Answer { status, .. } => status,
        _ => 0,
    };
    assert_eq!([status("one"), status("two"), status("one")], [200, 200, 429]);
    let report = c.report(Timestamp::ZERO);
    assert_eq!((report.limits[0].max_in_any_window, report.limits[0].accounts), (Some(2), 2));
}

#[test]
fn records_fail_by_themselves_and_poison_fails_the_whole_call() {
    let mut c = core(&[], |config| {
        config.faults.record_failures = vec!["bad".to_owned()];
        config.faults.poison = vec!["poison".to_owned()];
    });
    let (status, body) = send(&mut c, 0, "POST", "/users/batch", r#"{"users":[{"id":"u1","n":3},{"id":"bad1"}]}"#);
    assert_eq!(
        (status, body.as_str()),
        (200, r#"{"results":[{"id":"u1"},{"id":"bad1","error":"refused by the simulator"}]}"#)
    );
    assert_eq!(send(&mut c, 0, "POST", "/users/batch", r#"[{"id":"u2"},{"id":"poison"}]"#).0, 400);
    assert_eq!(send(&mut c, 0, "PUT", "/users/bad2", "{}").0, 422);
    assert_eq!(send(&mut c, 0, "PUT", "/users/u1", r#"{"n":2}"#).0, 200);
    assert_eq!(c.seen("u1"), Some(Seen { version: Some(3), times: 2, is_in: true }));
    assert_eq!((c.seen("u2"), c.seen("bad1")), (None, None));
    let records = c.report(Timestamp::ZERO).records;
    assert_eq!((records.taken, records.failed, records.distinct), (2, 2, 1));
}

#[test]
fn an_outage_answers_errors_and_takes_no_effect() {
    let mut c = core(&[], |config| {
        let outage = super::super::config::Outage { from: Duration::from_secs(1), to: Duration::from_secs(2) };
        config.faults.outages = vec![outage];
    });
    let statuses = [999, 1_000, 1_999, 2_000].map(|ms| send(&mut c, ms, "PUT", "/u/1", "{}").0);
    assert_eq!(statuses, [200, 503, 503, 200]);
    assert_eq!(c.seen("1").unwrap().times, 2);
}

#[test]
fn a_withheld_answer_took_effect() {
    let mut c = core(&[], |config| config.faults.silence_share = 1.0);
    assert_eq!(send(&mut c, 0, "PUT", "/u/1", "{}").0, 0);
    assert_eq!(c.seen("1").unwrap().times, 1);
    assert_eq!(c.report(Timestamp::ZERO).faults.silences, 1);
}

#[test]
fn concurrency_counts_what_has_not_left() {
    let mut c = core(&["c=concurrency:1"], |_| {});
    let at = Timestamp::ZERO;
    let first = c.arrive(at, "GET", "/", "");
    let second = c.arrive(at, "GET", "/", "");
    assert!(matches!(second.fate, Fate::Refuse { .. }));
    c.leave(&second, "");
    assert!(matches!(c.arrive(at, "GET", "/", "").fate, Fate::Refuse { .. }), "a refused call holds no seat");
    c.leave(&first, "");
    assert_eq!(c.arrive(at, "GET", "/", "").fate, Fate::Serve);
    assert_eq!(c.report(at).limits[0].max_in_flight, 1);
}

#[test]
fn a_bucket_keeps_what_was_spent_when_answers_leave() {
    let mut c = core(&["b=bucket:1,1/1s"], |_| {});
    assert_eq!([0, 1, 1_000].map(|ms| send(&mut c, ms, "GET", "/", "").0), [200, 429, 200]);
}

fn header_lines(style: super::super::HeaderStyle) -> Vec<(String, String)> {
    let mut c = core(&["core=rolling:1/90s"], |config| config.headers = style);
    c.arrive(Timestamp::from_millis(1_000), "GET", "/", "");
    let now = Timestamp::from_millis(1_500);
    let refused = c.arrive(now, "GET", "/", "");
    // 2026-11-22 00:00:00.25 UTC
    let wall = Timestamp(1_795_305_600_250_000);
    let lines = c.headers(&refused, "", now, wall);
    lines.into_iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect()
}

#[test]
fn every_header_style_names_the_time_to_come_back_rounded_up() {
    use super::super::HeaderStyle::*;
    let line = |n: &str, v: &str| (n.to_owned(), v.to_owned());
    assert_eq!(header_lines(RetryAfter), [line("retry-after", "90")]);
    assert_eq!(header_lines(RetryAfterDate), [line("retry-after", "Sun, 22 Nov 2026 00:01:30 GMT")]);
    let expected =
        [line("x-ratelimit-limit", "1"), line("x-ratelimit-remaining", "0"), line("x-ratelimit-reset", "1795305690")];
    assert_eq!(header_lines(XRatelimit), expected);
    let expected = [line("ratelimit-policy", r#""core";q=1;w=90"#), line("ratelimit", r#""core";r=0;t=90"#)];
    assert_eq!(header_lines(RatelimitDraft), expected);
    assert_eq!(header_lines(RatelimitLegacy), [line("retry-after", "90")], "its numbers are absent on a refusal");
    assert_eq!(header_lines(Shopify), [line("x-shopify-shop-api-call-limit", "1/1"), line("retry-after", "90.0")]);
    let expected = [
        line("x-hubspot-ratelimit-max", "1"),
        line("x-hubspot-ratelimit-remaining", "0"),
        line("x-hubspot-ratelimit-interval-milliseconds", "90000"),
    ];
    assert_eq!(header_lines(Hubspot), expected);
    assert!(header_lines(None).is_empty());
}

/// What an answer says that is not a refusal, or one by `minute`.
fn spoken_of(style: super::super::HeaderStyle, calls: usize) -> Vec<String> {
    let mut c = core(&["minute=rolling:2/60s", "day=fixed:9/1d"], |config| {
        config.headers = style;
        config.headers_of = vec!["day".into()];
    });
    let at = Timestamp::from_secs(86_000);
    let mut last = c.arrive(at, "GET", "/", "");
    for _ in 1..calls {
        last = c.arrive(at, "GET", "/", "");
    }
    let lines = c.headers(&last, "", at, at);
    lines.into_iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect()
}

#[test]
fn numbers_are_about_the_limit_that_the_api_speaks_of_whichever_is_tighter() {
    use super::super::HeaderStyle::*;
    let day = ["x-ratelimit-limit: 9", "x-ratelimit-remaining: 8", "x-ratelimit-reset: 86400"];
    assert_eq!(spoken_of(XRatelimit, 1), day);
    let refused = ["x-ratelimit-limit: 9", "x-ratelimit-remaining: 7", "x-ratelimit-reset: 86400", "retry-after: 60"];
    assert_eq!(spoken_of(XRatelimit, 3), refused, "the minute refused, the day is what is told of");
    let day = ["ratelimit-limit: 9", "ratelimit-remaining: 8", "ratelimit-reset: 400"];
    assert_eq!(spoken_of(RatelimitLegacy, 1), day);
    assert_eq!(spoken_of(Shopify, 2), ["x-shopify-shop-api-call-limit: 2/9"]);
    let both = [
        "x-hubspot-ratelimit-max: 2",
        "x-hubspot-ratelimit-remaining: 1",
        "x-hubspot-ratelimit-interval-milliseconds: 60000",
        "x-hubspot-ratelimit-daily: 9",
        "x-hubspot-ratelimit-daily-remaining: 8",
    ];
    assert_eq!(spoken_of(Hubspot, 1), both);
}

#[test]
fn the_same_seed_misbehaves_the_same_way() {
    let run = |seed| {
        let mut c = core(&[], |config| {
            config.seed = seed;
            config.latency = super::super::Latency::default();
            config.faults =
                Faults { error_share: 0.3, silence_share: 0.1, record_failure_share: 0.2, ..Faults::default() };
        });
        (0..200).map(|ms| send(&mut c, ms, "PUT", "/u/1", "{}")).collect::<Vec<_>>()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_set_takes_each_record_out_once_and_says_what_was_so_already() {
    let mut c = core(&[], |config| config.records.set = true);
    let both = r#"{"tracks":[{"id":"a"},{"id":"b"}]}"#;
    let mut unchanged = |method: &str, path: &str, body: &str| {
        let ticket = c.arrive(Timestamp::ZERO, method, path, "");
        let carried = Reader::new(&c.config.records).read(path, body.as_bytes());
        let judged = c.judge(&ticket, &carried);
        assert_eq!((judged.status, judged.failed.as_slice()), (200, [].as_slice()), "{method} {path}");
        judged.unchanged
    };
    assert_eq!(unchanged("DELETE", "/tracks/a", ""), [] as [bool; 0]);
    assert_eq!(unchanged("DELETE", "/tracks", both), [true, false]);
    assert_eq!(unchanged("DELETE", "/tracks", both), [true, true]);
    assert_eq!(unchanged("PUT", "/tracks/b", ""), [] as [bool; 0]);
    assert_eq!(unchanged("PUT", "/tracks/b", ""), [true]);
    let report = c.report(Timestamp::ZERO).records;
    assert_eq!((report.taken, report.unchanged, report.distinct), (3, 4, 2));
    assert_eq!(c.seen("b").map(|seen| (seen.times, seen.is_in)), Some((2, true)));
    assert_eq!(c.seen("a").map(|seen| (seen.times, seen.is_in)), Some((1, false)));
}

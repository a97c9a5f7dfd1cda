//! Tests of `limit/feedback.rs`: every preset, every unit, every absurd value.

use proptest::prelude::*;

use super::*;
use crate::model::name::LimitName;
use crate::model::provider::{Anchor, Reserve, Scope};

const RECEIVED: Timestamp = Timestamp(1_763_769_600_000_000); // 2025-11-22T00:00:00Z

fn limit(name: &str, per: u64, headers: LimitHeaders) -> Limit {
    Limit {
        name: LimitName::new(name).unwrap(),
        kind: LimitKind::Window { max: 100, per: Duration::from_secs(per), anchor: Anchor::Answer },
        scope: Scope::Provider,
        methods: Vec::new(),
        cost: 1,
        reserve: Reserve::default(),
        not_counted: Vec::new(),
        learned: false,
        cost_from: None,
        headers: Some(std::sync::Arc::new(headers)),
    }
}

fn lines(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    map
}

fn heard(limit: &Limit, said: &[(&str, &str)]) -> Heard {
    read(limit, &lines(said), RECEIVED)
}

/// Maximum, left, seconds to the reset; and how much was ignored.
fn short(h: Heard) -> (Option<u32>, Option<u32>, Option<u64>, u32) {
    (h.max, h.left, h.reset_in.map(|d| d.as_secs()), h.ignored)
}

#[test]
fn github_style_headers_are_read_with_every_way_to_write_a_reset() {
    let core = limit("core", 3_600, LimitHeaders::XRatelimit);
    for (reset, seconds) in [
        ("1763769660", 60),
        ("1763769660000", 60),
        ("60", 60),
        ("59.2", 59),
        ("6m0s", 360),
        ("20ms", 0),
        ("1h2m3.5s", 3_723),
        ("2025-11-22T00:01:00Z", 60),
        ("Sat, 22 Nov 2025 00:01:00 GMT", 60),
    ] {
        let said = [("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", reset)];
        assert_eq!(short(heard(&core, &said)), (Some(5_000), Some(7), Some(seconds), 0), "{reset}");
        let said = [("x-rate-limit-limit", "5000"), ("x-rate-limit-remaining", "7"), ("x-rate-limit-reset", reset)];
        assert_eq!(short(heard(&core, &said)), (Some(5_000), Some(7), Some(seconds), 0), "{reset}");
    }
    assert_eq!(short(heard(&core, &[])), (None, None, None, 0));
}

#[test]
fn a_reset_is_measured_against_the_answers_own_clock_where_clocks_differ() {
    let core = limit("core", 3_600, LimitHeaders::XRatelimit);
    let said = |date| [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1763773230"), ("date", date)];
    assert_eq!(short(heard(&core, &said("Sat, 22 Nov 2025 01:00:00 GMT"))).2, Some(30));
    assert_eq!(short(heard(&core, &said("Sat, 22 Nov 2025 00:00:01 GMT"))).2, Some(3_630), "clocks agree");
}

#[test]
fn values_that_cannot_be_meant_are_ignored_and_counted() {
    let core = limit("core", 60, LimitHeaders::XRatelimit);
    for left in ["-1", "", "many", "1e3", "0x10", "+3", "99999999999999999999", "5000000000", "1.", ".5"] {
        let said = [("x-ratelimit-remaining", left), ("x-ratelimit-reset", "30")];
        assert_eq!(short(heard(&core, &said)), (None, None, Some(30), 1), "{left:?}");
    }
    for reset in [
        "-5",
        "",
        "soon",
        "253402300799",
        "253402300799000",
        "99999999999999999999999",
        "1000000001",
        "86401",
        "9999-12-31T23:59:59Z",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "5 apples",
        "m5s",
        "99999999999h",
    ] {
        let said = [("x-ratelimit-remaining", "3"), ("x-ratelimit-reset", reset)];
        assert_eq!(short(heard(&core, &said)), (None, Some(3), None, 1), "{reset:?}");
    }
    // Just over is over, and no mistake.
    let said = [("x-ratelimit-remaining", "3"), ("x-ratelimit-reset", "1763769590")];
    assert_eq!(short(heard(&core, &said)), (None, Some(3), Some(0), 0));
}

#[test]
fn the_three_fields_of_older_drafts_are_read() {
    let steady = limit("steady", 60, LimitHeaders::RatelimitLegacy);
    let said = [("ratelimit-limit", "150, 150;w=60"), ("ratelimit-remaining", "12"), ("ratelimit-reset", "17")];
    assert_eq!(short(heard(&steady, &said)), (Some(150), Some(12), Some(17), 0));
}

#[test]
fn a_policy_is_matched_by_name_and_window() {
    let policy = ("ratelimit-policy", r#""writes";q=80;w=60, "hour";q=500;w=3600"#);
    let stand = ("ratelimit", r#""writes";r=50;t=30, "hour";r=400;t=3000"#);
    let of = |name: &str, per: u64| short(heard(&limit(name, per, LimitHeaders::RatelimitDraft), &[policy, stand]));
    assert_eq!(of("writes", 60), (Some(80), Some(50), Some(30), 0));
    assert_eq!(of("other", 3_600), (Some(500), Some(400), Some(3_000), 0), "by its window");
    assert_eq!(of("writes", 86_400), (None, None, None, 0), "of that name, over another window");
    assert_eq!(of("other", 5), (None, None, None, 0), "neither");
}

#[test]
fn lines_of_a_structured_field_are_one_list_and_one_policy_speaks_for_all() {
    let core = limit("core", 60, LimitHeaders::RatelimitDraft);
    let said = [("ratelimit", r#""a";r=1;t=2"#), ("ratelimit", r#""core";r=9;t=20"#)];
    assert_eq!(short(heard(&core, &said)), (None, Some(9), Some(20), 0));
    assert_eq!(short(heard(&core, &[("ratelimit", r#""default";r=4;t=7"#)])), (None, Some(4), Some(7), 0));
    assert_eq!(short(heard(&core, &[("ratelimit", "default;r=4;t=7")])), (None, Some(4), Some(7), 0), "a token");
    assert_eq!(
        short(heard(&core, &[("ratelimit", "limit=10, remaining=4, reset=7")])),
        (Some(10), Some(4), Some(7), 0)
    );
    let bytes = [("ratelimit-policy", r#""core";q=9;qu="content-bytes""#), ("ratelimit", r#""core";r=4;t=7"#)];
    assert_eq!(short(heard(&core, &bytes)), (None, None, None, 0), "bytes are not calls");
}

/// What breaks the grammar otherwise: `tests/it/limits/structured.rs`.
#[test]
fn a_structured_field_that_is_too_long_is_ignored_and_counted() {
    let core = limit("core", 60, LimitHeaders::RatelimitDraft);
    let long = |bytes: usize| format!(r#""core";r=1;p="{}""#, "x".repeat(bytes));
    assert_eq!(short(heard(&core, &[("ratelimit", &long(20_000))])), (None, None, None, 1));
    assert_eq!(short(heard(&core, &[("ratelimit", &long(10_000))])), (None, Some(1), None, 0));
}

#[test]
fn names_and_units_of_a_providers_own_are_read() {
    let name = |n: &str| Some(HeaderName::try_from(n).unwrap());
    let named = |unit| {
        let reset = name("resets").map(|n| (n, unit));
        let names = HeaderNames { limit: name("most"), remaining: name("left"), reset, ..HeaderNames::default() };
        limit("core", 3_600, LimitHeaders::Named(Box::new(names)))
    };
    for (unit, reset, seconds) in [
        (TimeUnit::Seconds, "90.5", 90),
        (TimeUnit::Milliseconds, "90000", 90),
        (TimeUnit::EpochSeconds, "1763769690", 90),
        (TimeUnit::EpochMilliseconds, "1763769690000", 90),
        (TimeUnit::Iso, "2025-11-22T01:01:30+01:00", 90),
        (TimeUnit::HttpDate, "Sat, 22 Nov 2025 00:01:30 GMT", 90),
        (TimeUnit::Text, "1m30s", 90),
    ] {
        let said = [("most", "10"), ("left", "3"), ("resets", reset)];
        assert_eq!(short(heard(&named(unit), &said)), (Some(10), Some(3), Some(seconds), 0), "{unit:?}");
    }
    // A declared unit is not guessed at.
    assert_eq!(short(heard(&named(TimeUnit::EpochSeconds), &[("resets", "90")])), (None, None, None, 1));
    assert_eq!(short(heard(&named(TimeUnit::Text), &[("resets", "90")])), (None, None, None, 1));
    let usage = HeaderNames { usage: name("api-usage"), ..HeaderNames::default() };
    let usage = limit("core", 60, LimitHeaders::Named(Box::new(usage)));
    assert_eq!(short(heard(&usage, &[("api-usage", "39/40")])), (Some(40), Some(1), None, 0));
    assert_eq!(short(heard(&usage, &[("api-usage", "api-usage=18/5000")])), (Some(5_000), Some(4_982), None, 0));
    assert_eq!(short(heard(&usage, &[("api-usage", "full")])), (None, None, None, 1));
}

#[test]
fn a_number_without_a_reset_holds_to_the_end_of_a_calendar_period_and_no_longer() {
    let names = HeaderNames { remaining: Some(HeaderName::from_static("left")), ..HeaderNames::default() };
    let mut daily = limit("daily", 60, LimitHeaders::Named(Box::new(names)));
    let zone = jiff::tz::TimeZone::get("America/New_York").unwrap();
    daily.kind = LimitKind::Calendar { max: 100, period: CalendarPeriod::Day, zone };
    // It is seven in the evening there: five hours to midnight, and a second for the clocks.
    let said = heard(&daily, &[("left", "0")]);
    assert_eq!((said.left, said.holds_for(&daily)), (Some(0), Duration::from_secs(5 * 3_600 + 1)));
    assert_eq!(heard(&daily, &[]), Heard::default(), "of what is not said nothing follows");
}

proptest! {
    #[test]
    fn any_bytes_are_a_bounded_statement_or_none(
        left in prop::collection::vec(any::<u8>(), 0..40),
        reset in prop::collection::vec(any::<u8>(), 0..40),
        field in "[ -~]{0,60}",
        us in any::<i64>(),
    ) {
        let mut map = HeaderMap::new();
        for (name, bytes) in [("x-ratelimit-remaining", &left), ("x-ratelimit-reset", &reset), ("date", &reset)] {
            if let Ok(value) = http::HeaderValue::from_bytes(bytes) {
                map.insert(name, value);
            }
        }
        map.insert("ratelimit", field.parse().unwrap());
        for headers in [LimitHeaders::XRatelimit, LimitHeaders::RatelimitDraft] {
            let heard = read(&limit("core", 60, headers), &map, Timestamp(us));
            prop_assert!(heard.reset_in.is_none_or(|d| d <= RESET_MAX));
            prop_assert!(heard.ignored <= 3);
        }
    }

    #[test]
    fn a_list_of_policies_reads_back_as_it_was_written(
        list in prop::collection::vec(("[a-z]{1,8}", 0u32..1_000_000, 1u32..80_000, 1u32..1_000_000), 1..6),
        at in 0usize..6,
    ) {
        let mut list = list;
        list.sort();
        list.dedup_by(|a, b| a.0 == b.0);
        let at = at % list.len();
        let stand = list.iter().map(|(n, r, t, _)| format!("{n:?};r={r};t={t}")).collect::<Vec<_>>().join(", ");
        let (name, r, t, _) = &list[at];
        let heard = heard(&limit(name, 77, LimitHeaders::RatelimitDraft), &[("ratelimit", &stand)]);
        prop_assert_eq!((heard.left, heard.reset_in), (Some(*r), Some(Duration::from_secs(u64::from(*t)))));
    }
}

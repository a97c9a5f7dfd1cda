//! The filter language under attack: grammar, positions, round trip, any text.

use proptest::prelude::*;

use super::*;

fn is(field: Field, comparison: Comparison, value: Value) -> Filter {
    Filter::Is(field, comparison, value)
}

fn text(s: &str) -> Value {
    Value::Text(s.to_owned())
}

#[test]
fn the_example_of_the_manual_is_read() {
    let source =
        r#"state = DEAD AND provider = "github" AND labels.team = "x" AND create_time > "2026-11-01T00:00:00Z""#;
    let expected = Filter::All(vec![
        is(Field::State, Comparison::Equal, Value::State(State::Dead)),
        is(Field::Provider, Comparison::Equal, text("github")),
        is(Field::Label("team".into()), Comparison::Equal, text("x")),
        is(Field::CreateTime, Comparison::Greater, Value::Time(Timestamp::from_secs(1_793_491_200))),
    ]);
    assert_eq!(parse(source).unwrap(), expected);
}

#[test]
fn and_binds_tighter_than_or_and_parentheses_tighter_still() {
    let flat = to_text(&parse("key = a OR key = b AND NOT key = c").unwrap());
    assert_eq!(flat, r#"key = "a" OR (key = "b" AND NOT (key = "c"))"#);
    let grouped = to_text(&parse("(key = a OR key = b) AND attempts >= 3").unwrap());
    assert_eq!(grouped, r#"(key = "a" OR key = "b") AND attempts >= 3"#);
}

#[test]
fn an_empty_filter_lets_everything_through() {
    assert_eq!(parse("  ").unwrap(), Filter::everything());
}

#[test]
fn errors_say_where_and_what() {
    let cases = [
        ("state = GONE", 8, "expected WAITING, CALLING"),
        ("stat = DEAD", 0, "did you mean state?"),
        ("colour = red", 0, "fields are state, provider"),
        ("state == DEAD", 7, "got ="),
        ("state = DEAD OR", 15, "got the end"),
        ("(state = DEAD", 13, "expected ')'"),
        ("state = DEAD provider = x", 13, "expected AND, OR or the end"),
        ("key = \"abc", 6, "closing quote"),
        ("key = \"a\\n\"", 8, "after a backslash"),
        ("attempts > many", 11, "expected a number for attempts"),
        ("create_time > yesterday", 14, "expected a time like"),
        ("state > DEAD", 8, "expected = or !="),
        ("labels. = x", 0, "name of a label"),
        ("run_id = 7", 9, "id of a run"),
        ("key = a ; drop table jobs", 8, "did not expect ';'"),
    ];
    for (source, at, what) in cases {
        let bad = parse(source).unwrap_err();
        assert_eq!(bad.at, at, "{source}: {bad}");
        assert!(bad.what.contains(what), "{source}: {bad}");
    }
}

#[test]
fn depth_length_and_count_are_bounded() {
    let deep = "(".repeat(100) + "key = a" + &")".repeat(100);
    assert!(parse(&deep).unwrap_err().what.contains("32 levels"));
    let nots = "NOT ".repeat(1_000) + "key = a";
    assert!(parse(&nots).unwrap_err().what.contains("32 levels"));
    let many = vec!["key = a"; 65].join(" OR ");
    assert!(parse(&many).unwrap_err().what.contains("64 comparisons"));
    assert!(parse(&format!("key = {}", "a".repeat(5_000))).unwrap_err().what.contains("4096 bytes"));
}

fn any_comparison() -> impl Strategy<Value = Comparison> {
    use Comparison::*;
    prop::sample::select(vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual])
}

fn any_leaf() -> impl Strategy<Value = Filter> {
    let equality = || prop::sample::select(vec![Comparison::Equal, Comparison::NotEqual]);
    let texts = prop::sample::select(vec![
        Field::Provider,
        Field::Operation,
        Field::Account,
        Field::Tenant,
        Field::Key,
        Field::Label("team".into()),
        Field::Label("a \"b\" \\c".into()),
    ]);
    let numbers = prop::sample::select(vec![Field::Attempts, Field::LastStatus]);
    let times = prop::sample::select(vec![Field::CreateTime, Field::DueTime]);
    prop_oneof![
        (texts, any_comparison(), ".{0,20}").prop_map(|(f, c, s)| is(f, c, Value::Text(s))),
        (numbers, any_comparison(), any::<i64>()).prop_map(|(f, c, n)| is(f, c, Value::Number(n))),
        (times, any_comparison(), 0i64..4_000_000_000_000_000).prop_map(|(f, c, t)| is(
            f,
            c,
            Value::Time(Timestamp(t))
        )),
        (equality(), prop::sample::select(State::ALL.to_vec())).prop_map(|(c, s)| is(Field::State, c, Value::State(s))),
        (equality(), prop::sample::select(Class::ALL.to_vec())).prop_map(|(c, s)| is(Field::Class, c, Value::Class(s))),
        (equality(), 0i64..1_000_000).prop_map(|(c, n)| is(
            Field::Run,
            c,
            Value::Run(Id::new(Timestamp::from_secs(7), n))
        )),
    ]
}

fn any_filter() -> impl Strategy<Value = Filter> {
    any_leaf().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::All),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::Any),
            inner.prop_map(|f| Filter::Not(Box::new(f))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(filter in any_filter()) {
        let written = to_text(&filter);
        prop_assume!(written.len() <= FILTER_BYTES_MAX);
        prop_assert_eq!(parse(&written).unwrap(), filter, "{}", written);
    }

    #[test]
    fn any_text_is_a_filter_or_a_clear_refusal(s in r#"[ -~é\n]{0,60}"#) {
        if let Err(bad) = parse(&s) {
            prop_assert!(bad.at <= s.len() && s.is_char_boundary(bad.at));
        }
    }

    #[test]
    fn any_row_of_words_is_a_filter_or_a_clear_refusal(
        words in prop::collection::vec(
            prop::sample::select(vec!["AND", "OR", "NOT", "(", ")", "state", "=", "!=", "DEAD", "labels.a", "\"x", "key"]),
            0..12,
        ),
    ) {
        let _ = parse(&words.join(" "));
    }
}

#[test]
fn calls_have_fields_of_their_own() {
    let source = r#"lane = BATCH AND (ending = NOT_SENT OR status >= 500) AND NOT (latency_ms < 20)"#;
    let read = parse_calls(source).unwrap();
    assert_eq!(to_text(&read), source);
    assert_eq!(parse_calls(&to_text(&read)).unwrap(), read);
    let wrong = |source: &str, what: &str| {
        let said = parse_calls(source).unwrap_err().what;
        assert!(said.contains(what), "{source}: {said}");
    };
    wrong("labels.team = x", "expected a field");
    wrong("state = DEAD", "no field \"state\"");
    wrong("colour = red", "latency_ms, begin_time, end_time");
    wrong("ending < LOST", "expected = or !=");
    wrong("lane = FAST", "SINGLE or BATCH");
    // And jobs have none of theirs.
    assert!(parse("latency_ms > 5").is_err() && parse("ending = LOST").is_err());
}

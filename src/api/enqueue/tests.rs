//! What a job may look like, and what is said when it does not.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

#[test]
fn a_delay_is_neither_negative_nor_longer_than_a_year() {
    assert_eq!(due_at(Start::In(-1), NOW).unwrap_err().0, "delay");
    assert_eq!(due_at(Start::In(367 * 86_400_000_000), NOW).unwrap_err().0, "delay");
    assert_eq!(due_at(Start::At(NOW + DELAY_MAX + Duration::from_secs(1)), NOW).unwrap_err().0, "due_time");
    assert_eq!(due_at(Start::In(i64::MAX), NOW).unwrap_err().0, "delay");
    assert_eq!(due_at(Start::In(5_000_000), NOW), Ok(Some(NOW + Duration::from_secs(5))));
    assert_eq!(due_at(Start::At(Timestamp(1)), NOW), Ok(None));
}

#[test]
fn a_payload_is_json_below_the_cap_and_not_too_deep() {
    assert!(check_payload("payload", r#"{"a":[1,2,"}"]}"#, 100).is_ok());
    assert!(check_payload("payload", "", 100).is_ok());
    assert_eq!(check_payload("payload", "{a:1}", 100).unwrap_err().reason, "PAYLOAD_NOT_JSON");
    assert_eq!(check_payload("payload", "1 2", 100).unwrap_err().reason, "PAYLOAD_NOT_JSON");
    let over = check_payload("payload", r#""12345""#, 6).unwrap_err();
    assert_eq!((over.code, over.reason), (Code::ResourceExhausted, "ABOVE_CAP"));
    assert!(over.message.contains("server.payload_bytes_max") && over.message.contains("at most 6 bytes"));
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    assert_eq!(check_payload("payload", &deep, 1 << 20).unwrap_err().reason, "PAYLOAD_TOO_DEEP");
    let braces_in_text = format!("\"{}\"", "[\\\"{".repeat(500));
    assert!(check_payload("payload", &braces_in_text, 1 << 20).is_ok());
}

#[test]
fn labels_are_few_and_short() {
    let many: Labels = (0..33).map(|i| (i.to_string(), String::new())).collect();
    assert!(check_labels(&many).unwrap_err().contains("at most 32 labels, got 33"));
    let long = Labels::from([("a".to_owned(), "v".repeat(257))]);
    assert!(check_labels(&long).unwrap_err().contains("label \"a\""));
    assert!(check_labels(&Labels::from([(String::new(), "v".into())])).is_err());
    assert!(check_labels(&Labels::from([("a".into(), "x\r\ny".into())])).is_err());
    assert!(check_labels(&Labels::from([("team".into(), "billing".into())])).is_ok());
}

#[test]
fn a_traceparent_has_the_form_of_the_standard() {
    assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    for bad in [
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
    ] {
        assert!(!is_traceparent(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn depth_is_what_serde_counts(levels in 0usize..90, text in "[\\[\\]{}\"\\\\a]{0,12}") {
        let json = format!("{}{}{}", "[".repeat(levels), serde_json::to_string(&text).unwrap(), "]".repeat(levels));
        prop_assert_eq!(depth(&json), levels);
    }

    #[test]
    fn any_traceparent_is_judged_without_a_panic(s in ".{0,60}") {
        let _ = is_traceparent(&s);
    }
}

//! Signatures as the senders publish them, and everything that is no signature.

use std::time::Duration;

use super::*;
use crate::model::auth::SecretRef;
use crate::model::name::{CollectionName, WebhookName};
use crate::model::schedule::PullSpec;
use crate::model::webhook::Starts;

const NOW: i64 = 1_649_367_553;
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
/// As the library of Standard Webhooks signs it.
const SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

fn webhook(scheme: Scheme) -> Webhook {
    Webhook {
        name: WebhookName::new("in").unwrap(),
        scheme,
        secrets: vec![SecretRef::Env("X".into())],
        tolerance: Duration::from_secs(300),
        remember: Duration::from_secs(3_600),
        body_bytes_max: 1_024,
        only: Vec::new(),
        starts: Starts::Pull(PullSpec { collection: CollectionName::new("c").unwrap(), full: false }),
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

fn of_standard(id: &str, time: &str, signature: &str) -> HeaderMap {
    headers(&[("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signature)])
}

fn check(scheme: Scheme, keys: &[SigningKey], headers: &HeaderMap, body: &[u8], now: i64) -> Result<Signed, Refused> {
    verify(&webhook(scheme), keys, headers, body, Timestamp::from_secs(now))
}

#[test]
fn the_published_signature_holds_and_nothing_near_it_does() {
    let keys = [SigningKey::standard(SECRET).unwrap()];
    let check = |headers: &HeaderMap, body: &[u8], now| check(Scheme::Standard, &keys, headers, body, now);
    let time = NOW.to_string();
    let good = of_standard(ID, &time, SIGNATURE);
    assert_eq!(check(&good, BODY, NOW), Ok(Signed { id: ID.to_owned() }));
    // One bit of the body, another id, another time, another version, no header at all.
    let mut bent = BODY.to_vec();
    bent[3] ^= 1;
    assert_eq!(check(&good, &bent, NOW), Err(Refused::Signature));
    let bad = [
        of_standard("msg_other", &time, SIGNATURE),
        of_standard(ID, &(NOW + 1).to_string(), SIGNATURE),
        of_standard(ID, &time, &SIGNATURE.replace("v1,", "v1a,")),
        of_standard(ID, &time, &SIGNATURE.replace("v1,", "v1,A")),
        of_standard(ID, &time, "v1,"),
        of_standard(ID, &time, ""),
        headers(&[("webhook-id", ID), ("webhook-timestamp", &time)]),
        HeaderMap::new(),
    ];
    for headers in &bad {
        assert_eq!(check(headers, BODY, NOW), Err(Refused::Signature), "{headers:?}");
    }
    // One of several is enough, and they are bounded.
    let listed = format!("v1,aaaa v2,bbbb {SIGNATURE}");
    assert!(check(&of_standard(ID, &time, &listed), BODY, NOW).is_ok());
    let late = format!("{}{SIGNATURE}", "v1,aaaa ".repeat(SIGNATURES_MAX));
    assert_eq!(check(&of_standard(ID, &time, &late), BODY, NOW), Err(Refused::Signature));
}

#[test]
fn a_time_is_taken_up_to_the_tolerance_in_both_directions() {
    let keys = [SigningKey::standard(SECRET).unwrap()];
    let good = of_standard(ID, &NOW.to_string(), SIGNATURE);
    for (seconds, fits) in [(300, true), (-300, true), (301, false), (-301, false), (86_400, false)] {
        let expected = if fits { Ok(Signed { id: ID.to_owned() }) } else { Err(Refused::Time) };
        assert_eq!(check(Scheme::Standard, &keys, &good, BODY, NOW + seconds), expected, "{seconds}");
    }
    // What is no time is refused although it was signed.
    for odd in ["NaN", "-1", "99999999999999999999", "", "1e9"] {
        let made = keys[0].sign(&[ID.as_bytes(), b".", odd.as_bytes(), b".", BODY]);
        let signature = format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(made));
        let said = check(Scheme::Standard, &keys, &of_standard(ID, odd, &signature), BODY, NOW);
        assert_eq!(said, Err(Refused::Time), "{odd}");
    }
}

#[test]
fn an_id_cannot_be_moved_into_the_time() {
    // Signed for the id "a" at the time "1.2": the same bytes as "a.1" at "2".
    let keys = [SigningKey::standard(SECRET).unwrap()];
    let made = keys[0].sign(&[b"a.1649367553.1649367553.", BODY]);
    let signature = format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(made));
    let said = check(Scheme::Standard, &keys, &of_standard("a.1649367553", "1649367553", &signature), BODY, NOW);
    assert_eq!(said, Err(Refused::Signature));
}

#[test]
fn github_signs_the_body_and_its_content_stands_for_it() {
    // From GitHub's documentation.
    let keys = [SigningKey::plain("another"), SigningKey::plain("It's a Secret to Everybody")];
    let hex = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let of = |delivery: &str| headers(&[("x-hub-signature-256", hex), ("x-github-delivery", delivery)]);
    let first = check(Scheme::GitHub, &keys, &of("a"), b"Hello, World!", NOW).unwrap();
    let again = check(Scheme::GitHub, &keys, &of("b"), b"Hello, World!", NOW + 999_999).unwrap();
    assert_eq!(first, again, "another delivery id makes no other message");
    assert_eq!(check(Scheme::GitHub, &keys[..1], &of("a"), b"Hello, World!", NOW), Err(Refused::Signature));
    assert_eq!(check(Scheme::GitHub, &keys, &of("a"), b"Hello, World", NOW), Err(Refused::Signature));
    for odd in ["sha256=", "sha256=zz", "757107ea", "sha256=7571\u{7f}"] {
        let Ok(value) = http::HeaderValue::from_str(odd) else { continue };
        let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-hub-signature-256"), value)]);
        assert_eq!(check(Scheme::GitHub, &keys, &headers, b"Hello, World!", NOW), Err(Refused::Signature), "{odd}");
    }
}

#[test]
fn stripe_signs_time_and_body_and_a_second_try_is_the_same_event() {
    let keys = [SigningKey::plain("whsec_stripe")];
    let body = br#"{"id":"evt_1","type":"invoice.paid"}"#;
    let of = |time: i64| {
        let hex: String =
            keys[0].sign(&[time.to_string().as_bytes(), b".", body]).iter().map(|b| format!("{b:02x}")).collect();
        headers(&[("stripe-signature", &format!("t={time},v1=00ff,v1={hex},v0=aa"))])
    };
    assert_eq!(check(Scheme::Stripe, &keys, &of(NOW), body, NOW), Ok(Signed { id: "evt_1".to_owned() }));
    assert_eq!(check(Scheme::Stripe, &keys, &of(NOW + 60), body, NOW + 60), Ok(Signed { id: "evt_1".to_owned() }));
    assert_eq!(check(Scheme::Stripe, &keys, &of(NOW), body, NOW + 301), Err(Refused::Time));
    assert_eq!(check(Scheme::Stripe, &keys, &HeaderMap::new(), body, NOW), Err(Refused::Signature));
}

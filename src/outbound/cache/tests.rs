//! What is kept, how long, for whom, and how it is asked for again.

use bytes::Bytes;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const TTL: CacheRule = CacheRule::Ttl { ttl: Duration::from_secs(300), stale: Duration::from_secs(60) };

fn at(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

fn asked(rule: CacheRule, path: &str, account: &str) -> Option<Asked> {
    asked_with(rule, path, account, HeaderMap::new())
}

fn asked_with(rule: CacheRule, path: &str, account: &str, headers: HeaderMap) -> Option<Asked> {
    let base: url::Url = "https://api.example.com/v2".parse().unwrap();
    let url = format!("https://api.example.com/v2{path}").parse().unwrap();
    let request = Request { method: Method::GET, url, headers, body: Bytes::new() };
    Asked::new(rule, Namespace::new("api").unwrap(), account, &request, &base)
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> Answer {
    let headers = headers.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect();
    Answer { status, headers, body: Bytes::from_static(body.as_bytes()), truncated: false, received_at: NOW }
}

/// Keeps an answer and says what is found for the same request after some time.
fn after(rule: CacheRule, seconds: u64, headers: &[(&'static str, &str)]) -> &'static str {
    let (cache, asked) = (Cache::default(), asked(rule, "/x", "").unwrap());
    cache.fetched(&asked, answer(200, headers, "one"), None, cache.mark(), NOW);
    match cache.look(&asked, at(seconds)) {
        Found::Fresh(_) => "fresh",
        Found::Stale(..) => "stale",
        Found::Old(..) => "old",
        Found::Nothing => "nothing",
    }
}

#[test]
fn the_rule_and_the_headers_decide_how_long_an_answer_is_good() {
    let age = ("cache-control", "private, max-age=60");
    let etag = ("etag", "\"a\"");
    let swr = ("cache-control", "max-age=60, stale-while-revalidate=30");
    type Case<'a> = (CacheRule, u64, &'a [(&'static str, &'a str)], &'a str);
    let cases: &[Case<'_>] = &[
        (CacheRule::Etag, 59, &[age, etag], "fresh"),
        (CacheRule::Etag, 60, &[age, etag], "old"),
        (CacheRule::Etag, 0, &[etag], "old"),
        (CacheRule::Etag, 0, &[], "nothing"),
        (CacheRule::Etag, 60, &[age], "nothing"),
        (CacheRule::Etag, 59, &[("cache-control", "no-store, max-age=60"), etag], "nothing"),
        (CacheRule::Etag, 0, &[("cache-control", "no-cache"), etag], "old"),
        (CacheRule::Etag, 0, &[("last-modified", "Mon, 03 Jan 2022 00:00:00 GMT")], "old"),
        // A tenth of its age is guessed where the rules may.
        (CacheRule::Rules, 86_400, &[("last-modified", "Mon, 03 Jan 2022 00:00:00 GMT")], "fresh"),
        (CacheRule::Rules, 70, &[swr, etag], "stale"),
        (CacheRule::Rules, 91, &[swr, etag], "old"),
        (CacheRule::Etag, 70, &[swr, etag], "old"),
        (
            CacheRule::Rules,
            70,
            &[("cache-control", "max-age=60, must-revalidate, stale-while-revalidate=30")],
            "nothing",
        ),
        // Declared times go before what the provider says.
        (TTL, 299, &[("cache-control", "no-store")], "fresh"),
        (TTL, 301, &[], "stale"),
        (TTL, 361, &[etag], "old"),
        (TTL, 361, &[], "nothing"),
    ];
    for (rule, seconds, headers, expected) in cases {
        assert_eq!(after(*rule, *seconds, headers), *expected, "{rule:?} {seconds} {headers:?}");
    }
}

#[test]
fn a_304_makes_the_old_answer_good_again_with_its_new_headers() {
    let (cache, asked) = (Cache::default(), asked(CacheRule::Etag, "/x", "").unwrap());
    let first = answer(200, &[("etag", "\"a\""), ("cache-control", "max-age=60"), ("x-n", "1")], "one");
    cache.fetched(&asked, first, None, cache.mark(), NOW);
    let Found::Old(kept, headers) = cache.look(&asked, at(100)) else { panic!("expected an old one") };
    assert_eq!(headers["if-none-match"], "\"a\"");
    let not_modified = answer(304, &[("etag", "\"a\""), ("cache-control", "max-age=60"), ("x-n", "2")], "");
    let fetched = cache.fetched(&asked, not_modified, Some(kept), cache.mark(), at(100));
    let Fetched::Revalidated(again) = fetched else { panic!("expected the old one, got {fetched:?}") };
    assert_eq!(
        (again.answer.status, &*again.answer.body, &again.answer.headers["x-n"]),
        (200, &b"one"[..], &"2".parse::<http::HeaderValue>().unwrap())
    );
    assert!(matches!(cache.look(&asked, at(159)), Found::Fresh(_)));
    // One about another version is of no use.
    let Found::Old(kept, _) = cache.look(&asked, at(200)) else { panic!("expected an old one") };
    let other = answer(304, &[("etag", "\"b\"")], "");
    assert!(matches!(cache.fetched(&asked, other, Some(kept), cache.mark(), at(200)), Fetched::Unfit));
    assert!(matches!(cache.look(&asked, at(200)), Found::Nothing));
}

#[test]
fn accounts_and_requests_that_differ_share_nothing() {
    let cache = Cache::default();
    let keep = |asked: &Asked| drop(cache.fetched(asked, answer(200, &[], "mine"), None, cache.mark(), NOW));
    keep(&asked(TTL, "/x", "ada").unwrap());
    let found = |asked: Option<Asked>| matches!(cache.look(&asked.unwrap(), NOW), Found::Fresh(_));
    assert!(found(asked(TTL, "/x", "ada")));
    assert!(!found(asked(TTL, "/x", "bob")) && !found(asked(TTL, "/x?p=2", "ada")));
    let english: HeaderMap = [(http::header::ACCEPT_LANGUAGE, "en".parse().unwrap())].into_iter().collect();
    assert!(!found(asked_with(TTL, "/x", "ada", english)));
    assert!(asked(CacheRule::Off, "/x", "ada").is_none());
}

#[test]
fn cut_answers_and_errors_are_not_kept() {
    let (cache, asked) = (Cache::default(), asked(TTL, "/x", "").unwrap());
    cache.fetched(&asked, Answer { truncated: true, ..answer(200, &[], "o") }, None, cache.mark(), NOW);
    cache.fetched(&asked, answer(500, &[], "o"), None, cache.mark(), NOW);
    assert!(matches!(cache.look(&asked, NOW), Found::Nothing));
    assert_eq!(asked.key(), "/x");
}

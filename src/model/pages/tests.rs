//! Pages asked for and read, and the links and bodies that lead nowhere.

use super::*;
use crate::clock::Timestamp;
use crate::model::verdict::Answer;

fn answer(body: &str, headers: &[(&'static str, &'static str)]) -> Answer {
    let headers = headers.iter().map(|(n, v)| (http::HeaderName::from_static(n), http::HeaderValue::from_static(v)));
    let body = bytes::Bytes::copy_from_slice(body.as_bytes());
    Answer { status: 200, headers: headers.collect(), body, truncated: false, received_at: Timestamp(0) }
}

fn pages(next: Next) -> Pages {
    Pages { items: "/data".to_owned(), next, size: Some((Some("n".to_owned()), 2)), since: None, etag: true }
}

fn first() -> Page {
    Page::first(&CollectionName::new("users").unwrap(), 7, Some("m1".to_owned()), Some("\"e\"".to_owned()))
}

fn url() -> url::Url {
    "https://api.example/v1/users?n=2".parse().unwrap()
}

fn next_of(
    next: Next,
    page: &Page,
    body: &str,
    headers: &[(&'static str, &'static str)],
) -> Result<Option<Position>, String> {
    read(&pages(next), page, &url(), &answer(body, headers)).map(|items| items.next)
}

const TWO: &str = r#"{"data":[{"id": 1.0},{"id":2}],"next":"c2"}"#;

#[test]
fn items_come_byte_for_byte() {
    let answer = answer(TWO, &[("etag", "\"e2\"")]);
    let read = read(&pages(Next::None), &first(), &url(), &answer).unwrap();
    assert_eq!(
        (read.items, read.next, read.etag.as_deref()),
        (vec![r#"{"id": 1.0}"#, r#"{"id":2}"#], None, Some("\"e2\""))
    );
}

#[test]
fn each_way_finds_its_next_page_and_its_end() {
    let link = [("link", "</v1/users?page=2>; rel=\"next\", </v1/users?page=9>; rel=last")];
    let to = Position::Url("https://api.example/v1/users?page=2".to_owned());
    assert_eq!(next_of(Next::Link, &first(), TWO, &link), Ok(Some(to)));
    assert_eq!(next_of(Next::Link, &first(), TWO, &[]), Ok(None));
    let hard = [
        ("link", "</v1/u?a=1,2;b>; title=\"x; rel=next, <y>\"; rel=\"prev\"; rel=next"),
        ("link", "</v1/u?p=3,4>;REL=\"last NEXT\""),
    ];
    let to = Position::Url("https://api.example/v1/u?p=3,4".to_owned());
    assert_eq!(next_of(Next::Link, &first(), TWO, &hard), Ok(Some(to)));
    for broken in ["/v1/u; rel=next", "</v1/u", "</v1/u>; rel=\"next"] {
        let broken = [("link", broken)];
        assert!(next_of(Next::Link, &first(), TWO, &broken).unwrap_err().contains("RFC 8288"), "{broken:?}");
    }
    let cursor = || Next::Cursor { from: "/next".to_owned(), param: "c".to_owned() };
    assert_eq!(next_of(cursor(), &first(), TWO, &[]), Ok(Some(Position::Cursor("c2".to_owned()))));
    assert_eq!(next_of(cursor(), &first(), r#"{"data":[],"next":null}"#, &[]), Ok(None));
    let number = || Next::Number { param: "page".to_owned(), first: 1 };
    assert_eq!(next_of(number(), &first(), TWO, &[]), Ok(Some(Position::Number(2))));
    assert_eq!(next_of(number(), &first().next(Position::Number(4)), TWO, &[]), Ok(Some(Position::Number(5))));
    assert_eq!(next_of(number(), &first(), r#"{"data":[1]}"#, &[]), Ok(None));
    let offset = || Next::Offset { param: "skip".to_owned() };
    assert_eq!(next_of(offset(), &first().next(Position::Offset(4)), TWO, &[]), Ok(Some(Position::Offset(6))));
}

#[test]
fn a_page_that_leads_elsewhere_or_nowhere_is_refused() {
    let refused = |next, page: &Page, body: &str, headers: &[_]| next_of(next, page, body, headers).unwrap_err();
    let away = refused(Next::Link, &first(), TWO, &[("link", "<https://evil.example/u>; rel=next")]);
    assert!(away.contains("https://evil.example") && away.contains("never followed"), "{away}");
    let user = refused(Next::Link, &first(), TWO, &[("link", "<https://me@api.example/u>; rel=next")]);
    assert!(user.contains("never followed"), "{user}");
    let port = refused(Next::Link, &first(), TWO, &[("link", "<https://api.example:444/u>; rel=next")]);
    assert!(port.contains("444"), "{port}");
    assert!(refused(Next::Link, &first(), TWO, &[("link", "</v1/users?n=2>; rel=next")]).contains("this one"));
    let cursor = Next::Cursor { from: "/next".to_owned(), param: "c".to_owned() };
    let page = first().next(Position::Cursor("c2".to_owned()));
    assert!(refused(cursor, &page, TWO, &[]).contains("cursor again"));
    assert!(refused(Next::None, &first(), r#"{"rows":[]}"#, &[]).contains("nothing there"));
    assert!(refused(Next::None, &first(), "<html>", &[]).contains("expected JSON"));
    let mut cut = answer(TWO, &[]);
    cut.truncated = true;
    assert!(read(&pages(Next::None), &first(), &url(), &cut).unwrap_err().contains("response_bytes_max"));
}

#[test]
fn a_request_is_made_one_for_its_page() {
    let request = || Request {
        method: http::Method::GET,
        url: "https://api.example/v1/users?x=1".parse().unwrap(),
        headers: http::HeaderMap::new(),
        body: bytes::Bytes::new(),
    };
    let mut pages = pages(Next::Cursor { from: "/next".to_owned(), param: "after".to_owned() });
    pages.since = Some("updated_since".to_owned());
    let mut made = request();
    pages.prepare(&first(), &mut made).unwrap();
    assert_eq!(made.url.query(), Some("x=1&n=2&updated_since=m1"));
    assert_eq!(made.headers["if-none-match"], "\"e\"");
    let mut made = request();
    pages.prepare(&first().next(Position::Cursor("a b".to_owned())), &mut made).unwrap();
    assert_eq!((made.url.query(), made.headers.len()), (Some("x=1&n=2&updated_since=m1&after=a+b"), 0));
    let away = first().next(Position::Url("https://evil.example/".to_owned()));
    assert!(pages.prepare(&away, &mut request()).unwrap_err().contains("never followed"));
}

#[test]
fn a_page_is_its_payload_and_no_other_payload_is_one() {
    let page = first().next(Position::Offset(5));
    assert_eq!(Page::of(&page.payload()), Some(page));
    for other in ["null", r#"{"id":1}"#, r#"{"tidegate_page":{}}"#] {
        assert_eq!(Page::of(other), None);
    }
}

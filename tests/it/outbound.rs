//! The outbound stack against real sockets: hostile answers, the guard, credentials, deadlines.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::clock::{Clock, Timestamp};
use tidegate::model::provider::Provider;
use tidegate::model::verdict::{Answer, Failure, Sent};
use tidegate::outbound::{Connect, Lookup, RealConnect, Request, Transport};

use crate::hostile::{Act, Hostile, answer};

/// Bytes of an answer that are kept.
const CAP: usize = 4_096;

fn provider(base: &str, more: &str) -> Arc<Provider> {
    let text = format!(
        "[providers.p]\nbase_url = \"{base}\"\nresponse_bytes_max = {CAP}\n{more}\n\
         [providers.p.operations.op]\nrequest = \"POST /\"\n"
    );
    Arc::new(tidegate::config::provider::parse(&text, "test").unwrap_or_else(|p| panic!("{p}")).remove(0))
}

const QUICK: &str =
    "allow_private = true\ntimeouts = { connect = \"5s\", first_byte = \"300ms\", idle = \"300ms\", total = \"5s\" }";

fn connect(server: &Hostile, more: &str) -> Arc<dyn Transport> {
    let provider = provider(&format!("http://{}/base", server.address), more);
    RealConnect::new(Clock::system()).connect(&provider).unwrap()
}

fn post(url: &str) -> Request {
    Request {
        method: http::Method::POST,
        url: url.parse().unwrap(),
        headers: http::HeaderMap::new(),
        body: "{\"a\":1}".into(),
    }
}

/// One POST through the whole stack to a server that does `act`.
async fn meet(act: Act) -> (Result<Answer, Failure>, Hostile) {
    let server = Hostile::start(vec![act]).await;
    let transport = connect(&server, QUICK);
    let outcome = transport.send(post(&format!("http://{}/base/x", server.address))).await;
    (outcome, server)
}

/// The answer was lost after the request may have arrived, and the request was sent once.
async fn lost(act: Act) -> String {
    let shown = format!("{act:?}").chars().take(80).collect::<String>();
    let (outcome, server) = meet(act).await;
    let failure = outcome.expect_err(&shown);
    assert_eq!((failure.sent, failure.provider_fault), (Sent::Maybe, true), "{shown}: {failure:?}");
    assert_eq!(server.requests().len(), 1, "{shown}: sent more than once");
    failure.reason.to_string()
}

#[tokio::test]
async fn silence_and_breaks_before_the_status_lose_the_answer() {
    assert!(lost(Act::Silence).await.contains("the status line"));
    lost(Act::Reset).await;
    lost(Act::Close).await;
    lost(Act::SayAndClose(b"HTTP/1.1 20".to_vec())).await;
}

#[tokio::test]
async fn garbage_in_place_of_an_answer_loses_it() {
    lost(Act::SayAndClose(b"\x16\x03\x01 hello".to_vec())).await;
    lost(Act::SayAndClose(b"HTTP/1.1 abc OK\r\n\r\n".to_vec())).await;
    lost(Act::SayAndClose(b"HTTP/9.9 200 OK\r\n\r\n".to_vec())).await;
    lost(Act::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde".to_vec())).await;
    lost(Act::Say(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabcde".to_vec())).await;
    lost(Act::Say(b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n".to_vec())).await;
}

#[tokio::test]
async fn endless_heads_are_cut_off() {
    let line = b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(1_000);
    lost(Act::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), line)).await;
    let ten_megabytes = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'a'; 10 << 20], b"\r\n\r\n".to_vec()].concat();
    lost(Act::SayAndClose(ten_megabytes)).await;
    lost(Act::Endless(Vec::new(), b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec())).await;
    lost(Act::Drip(Vec::new(), b"HTTP/1.1 200 OK\r\n".repeat(1_000), Duration::from_millis(20))).await;
}

/// A status came, so the answer counts, cut or not.
async fn answered(act: Act) -> Answer {
    let shown = format!("{act:?}").chars().take(80).collect::<String>();
    let (outcome, server) = meet(act).await;
    assert_eq!(server.requests().len(), 1, "{shown}: sent more than once");
    let answer = outcome.unwrap_or_else(|f| panic!("{shown}: {f:?}"));
    assert!(answer.body.len() <= CAP, "{shown}");
    answer
}

#[tokio::test]
async fn a_body_that_is_cut_leaves_the_status() {
    let head = |length: &str| format!("HTTP/1.1 201 Created\r\n{length}\r\n\r\n").into_bytes();
    let long = [head("Content-Length: 100"), b"abc".to_vec()].concat();
    let cases = [
        (Act::SayAndClose(long), 3),
        (Act::Endless(head("Transfer-Encoding: chunked"), b"4\r\nabcd\r\n".repeat(100)), CAP),
        (Act::Endless(head("Content-Length: 999999999"), vec![b'x'; 1_000]), CAP),
        (Act::SayAndClose([head("Transfer-Encoding: chunked"), b"4\r\nabcd\r\nzzz\r\n".to_vec()].concat()), 4),
        (Act::SayAndClose([head("Transfer-Encoding: chunked"), b"4\r\nabcd\r\n".to_vec()].concat()), 4),
    ];
    for (act, bytes) in cases {
        let answer = answered(act).await;
        assert_eq!((answer.status, answer.body.len(), answer.truncated), (201, bytes, true));
    }
    // A body that stops coming: cut by the idle clock.
    let (outcome, _server) = meet(Act::Drip(head("Content-Length: 9"), Vec::new(), Duration::from_secs(1))).await;
    let answer = outcome.unwrap();
    assert_eq!((answer.status, answer.truncated), (201, true));
}

#[tokio::test]
async fn a_body_that_drips_is_cut_by_the_clock_over_all() {
    let drip = Act::Drip(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 10_000], Duration::from_millis(10));
    let server = Hostile::start(vec![drip]).await;
    let quick = "allow_private = true\ntimeouts = { first_byte = \"5s\", idle = \"5s\", total = \"300ms\" }";
    let transport = connect(&server, quick);
    let answer = transport.send(post(&format!("http://{}/", server.address))).await.unwrap();
    assert!(answer.truncated && answer.status == 200 && answer.body.len() < 1_000);
}

#[tokio::test]
async fn bytes_after_the_end_never_become_the_next_answer() {
    let short =
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 Evil\r\nContent-Length: 4\r\n\r\nevil".to_vec();
    let server = Hostile::start(vec![Act::Say(short), Act::ok("second")]).await;
    let transport = connect(&server, QUICK);
    let url = format!("http://{}/", server.address);
    let first = transport.send(post(&url)).await.unwrap();
    assert_eq!((first.status, &first.body[..], first.truncated), (200, &b"ok"[..], false));
    let second = transport.send(post(&url)).await.unwrap();
    assert_eq!((second.status, &second.body[..]), (200, &b"second"[..]));
    assert_eq!(server.connections(), 2, "a connection with bytes left over was used again");
}

async fn packed(encoding: &str, body: Vec<u8>) -> Answer {
    answered(Act::Say(answer("200 OK", &format!("Content-Encoding: {encoding}\r\n"), &body))).await
}

async fn gzip(plain: &[u8]) -> Vec<u8> {
    use tokio::io::AsyncReadExt;
    let mut packed = Vec::new();
    async_compression::tokio::bufread::GzipEncoder::new(plain).read_to_end(&mut packed).await.unwrap();
    packed
}

#[tokio::test]
async fn packed_bodies_are_unpacked_within_bounds() {
    let good = packed("gzip", gzip(b"{\"ok\":true}").await).await;
    assert_eq!((&good.body[..], good.truncated), (&b"{\"ok\":true}"[..], false));
    let bomb = packed("gzip", gzip(&vec![b' '; 3 << 20]).await).await;
    assert_eq!((bomb.status, bomb.body.len(), bomb.truncated), (200, CAP, true));
    let mut corrupt = gzip(&b"0123456789abcdef".repeat(20)).await;
    let middle = corrupt.len() / 2;
    corrupt[middle] ^= 0xff;
    let corrupt = packed("gzip", corrupt).await;
    assert_eq!((corrupt.status, corrupt.truncated), (200, true));
    for (encoding, body) in
        [("gzip", b"plain".to_vec()), ("gzip, gzip", gzip(&gzip(b"x").await).await), ("lzma", b"x".to_vec())]
    {
        let answer = packed(encoding, body).await;
        assert_eq!((answer.status, answer.truncated), (200, true), "{encoding}");
    }
    let empty = packed("gzip", Vec::new()).await;
    assert!(!empty.truncated);
    assert_eq!(packed("identity", b"x".to_vec()).await.body, "x");
}

#[tokio::test]
async fn redirects_are_answers_and_never_followed() {
    let elsewhere = Hostile::start(vec![Act::ok("secret")]).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        for target in [format!("http://{}/", elsewhere.address), "/other".into(), "file:///etc/passwd".into()] {
            let answer = answered(Act::Say(answer(status, &format!("Location: {target}\r\n"), b""))).await;
            assert_eq!(answer.status.to_string(), status[..3]);
        }
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_kept_connection_that_dies_under_a_request_is_not_tried_again() {
    // The second request is read and then met with the end of the connection, as by a server that restarts.
    let server = Hostile::start(vec![Act::ok("first"), Act::Close, Act::ok("third")]).await;
    let transport = connect(&server, QUICK);
    let url = format!("http://{}/", server.address);
    transport.send(post(&url)).await.unwrap();
    let failure = transport.send(post(&url)).await.unwrap_err();
    assert_eq!(failure.sent, Sent::Maybe);
    assert_eq!((server.requests().len(), server.connections()), (2, 1));
    // A 503 or 408 is an answer like others.
    let server = Hostile::start(vec![Act::Say(answer("408 Request Timeout", "Connection: close\r\n", b""))]).await;
    let transport = connect(&server, QUICK);
    assert_eq!(transport.send(post(&format!("http://{}/", server.address))).await.unwrap().status, 408);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_good_connection_is_used_again() {
    let server = Hostile::start(vec![Act::ok("fine")]).await;
    let transport = connect(&server, QUICK);
    for _ in 0..10 {
        assert_eq!(transport.send(post(&format!("http://{}/", server.address))).await.unwrap().body, "fine");
    }
    assert_eq!((server.requests().len(), server.connections()), (10, 1));
}

#[tokio::test]
async fn what_fails_before_the_connection_is_there_was_certainly_not_sent() {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plain = Hostile::start(vec![Act::ok("not TLS")]).await;
    for base in [format!("http://{free}"), format!("https://{}", plain.address)] {
        let transport = RealConnect::new(Clock::system()).connect(&provider(&base, QUICK)).unwrap();
        let failure = transport.send(post(&base)).await.unwrap_err();
        assert_eq!((failure.sent, failure.provider_fault), (Sent::No, true), "{base}: {failure:?}");
        assert!(failure.reason.contains("cannot connect"), "{failure:?}");
    }
}

/// A resolver that gives what it is told.
#[derive(Debug)]
enum Names {
    Are(Vec<&'static str>),
    Never,
}

#[async_trait]
impl Lookup for Names {
    async fn lookup(&self, _name: &str) -> std::io::Result<Vec<SocketAddr>> {
        match self {
            Names::Are(list) => Ok(list.iter().map(|a| SocketAddr::new(a.parse().unwrap(), 0)).collect()),
            Names::Never => std::future::pending().await,
        }
    }
}

async fn through(names: Names, base: &str, more: &str) -> Result<Answer, Failure> {
    let connect = RealConnect::with_lookup(Clock::system(), Arc::new(names));
    connect.connect(&provider(base, more)).unwrap().send(post(base)).await
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_without_a_connection() {
    let server = Hostile::start(vec![Act::ok("inside")]).await;
    let base = format!("http://api.example.com:{}/", server.address.port());
    for inside in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1"]
    {
        for list in [vec![inside], vec!["1.1.1.1", inside], vec![inside, "1.1.1.1"]] {
            let failure = through(Names::Are(list), &base, "").await.unwrap_err();
            assert_eq!((failure.sent, failure.provider_fault), (Sent::No, false), "{failure:?}");
            assert!(failure.reason.contains("is not public; declare allow_private"), "{failure:?}");
        }
    }
    assert_eq!(server.connections(), 0);
    // The same name, allowed: proves that the lookup is what decides.
    let answer = through(Names::Are(vec!["127.0.0.1"]), &base, "allow_private = true").await.unwrap();
    assert_eq!(answer.body, "inside");
}

#[tokio::test]
async fn a_request_to_another_origin_is_refused_without_a_connection() {
    let server = Hostile::start(vec![Act::ok("x")]).await;
    let transport = connect(&server, QUICK);
    for url in ["http://127.0.0.2/", "https://evil.example/", &format!("http://u:p@{}/", server.address)] {
        let failure = transport.send(post(url)).await.unwrap_err();
        assert_eq!((failure.sent, failure.provider_fault), (Sent::No, false));
        assert!(failure.reason.contains("another origin"), "{failure:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_slow_connect_is_no_slow_answer() {
    // The first-byte clock must not run while the resolver is at work, or this would count as sent.
    let slow = "timeouts = { connect = \"400ms\", first_byte = \"20ms\", idle = \"20ms\", total = \"5s\" }";
    let failure = through(Names::Never, "http://api.example.com/", slow).await.unwrap_err();
    assert_eq!((failure.sent, failure.provider_fault), (Sent::No, true), "{failure:?}");
    let short = "timeouts = { connect = \"5s\", first_byte = \"20ms\", idle = \"20ms\", total = \"100ms\" }";
    let failure = through(Names::Never, "http://api.example.com/", short).await.unwrap_err();
    assert_eq!(failure.sent, Sent::No);
    assert!(failure.reason.contains("while connecting"), "{failure:?}");
}

#[tokio::test]
async fn a_secret_is_sent_reread_when_its_file_changes_and_never_printed() {
    let server = Hostile::start(vec![Act::ok("")]).await;
    let url = format!("http://{}/", server.address);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"canary-one\n").unwrap();
    let auth = format!("auth = {{ bearer = {{ file = {:?} }} }}", file.path());
    let clock = Clock::manual(Timestamp::from_secs(1_763_769_600));
    let provider = provider(&format!("http://{}", server.address), &format!("{QUICK}\n{auth}"));
    let transport = RealConnect::new(clock.clone()).connect(&provider).unwrap();
    transport.send(post(&url)).await.unwrap();
    std::fs::write(file.path(), "canary-number-two").unwrap();
    clock.advance(Duration::from_secs(2));
    transport.send(post(&url)).await.unwrap();
    std::fs::write(file.path(), "").unwrap();
    clock.advance(Duration::from_secs(2));
    transport.send(post(&url)).await.unwrap();
    let sent: Vec<bool> =
        server.requests().iter().map(|r| r.contains("authorization: bearer canary-one\r\n")).collect();
    assert_eq!(sent, [true, false, false]);
    assert!(server.requests()[1].contains("bearer canary-number-two\r\n"));
    assert!(server.requests()[2].contains("bearer canary-number-two\r\n"), "an unreadable secret leaves the old one");
    assert!(!format!("{transport:?}{provider:?}").contains("canary"));
}

#[test]
fn a_missing_secret_is_named_when_connecting() {
    let refused = |auth: &str| {
        let provider = provider("https://api.example.com", &format!("auth = {{ bearer = {auth} }}"));
        RealConnect::new(Clock::system()).connect(&provider).unwrap_err().to_string()
    };
    assert!(refused("{ file = \"/none/such\" }").contains("secret file /none/such: No such file"));
    assert!(refused("{ env = \"TIDEGATE_TEST_NOT_SET\" }").contains("variable TIDEGATE_TEST_NOT_SET: it is not set"));
    assert!(refused("{ file = \"/\" }").contains("expected a file"));
    let mut bad = tempfile::NamedTempFile::new().unwrap();
    bad.write_all(b"canary\r\nX-Evil: 1").unwrap();
    let said = refused(&format!("{{ file = {:?} }}", bad.path()));
    assert!(said.contains("expected visible ASCII") && !said.contains("canary"), "{said}");
}

#[test]
fn an_address_inside_is_refused_when_connecting() {
    // The config refuses it too; a provider may also come from a store of another version.
    let mut inside = (*provider("http://127.0.0.1:1", "allow_private = true")).clone();
    inside.allow_private = false;
    let refused = RealConnect::new(Clock::system()).connect(&Arc::new(inside)).unwrap_err();
    assert!(refused.to_string().contains("127.0.0.1 is not public"), "{refused}");
}

#[tokio::test]
async fn many_calls_at_once_are_each_sent_once() {
    let server = Hostile::start(vec![Act::ok("ok")]).await;
    let transport = connect(&server, QUICK);
    let url = format!("http://{}/", server.address);
    let good = AtomicUsize::new(0);
    let calls = (0..200).map(|_| async {
        if transport.send(post(&url)).await.is_ok_and(|a| a.body == "ok") {
            good.fetch_add(1, Ordering::Relaxed);
        }
    });
    futures_util::future::join_all(calls).await;
    assert_eq!((good.load(Ordering::Relaxed), server.requests().len()), (200, 200));
}

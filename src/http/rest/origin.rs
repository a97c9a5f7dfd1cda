//! Keeps pages of other sites out: a browser on this machine must not drive the daemon on their behalf.
//!
//! The listener is on loopback, so a request names a loopback host (a foreign name that leads here is DNS rebinding), and
//! its origin, where a browser tells one, is the same. Must never know: paths.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Problem, told};

pub(super) async fn check(request: Request, next: Next) -> Response {
    match refused(request.headers()) {
        Some(said) => told(Problem::new(403, "FOREIGN_ORIGIN", &said)).into_response(),
        None => next.run(request).await,
    }
}

fn refused(headers: &HeaderMap) -> Option<String> {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST).unwrap_or_default();
    if !is_loopback(host) {
        return Some(format!("expected a Host of this machine, as 127.0.0.1 or localhost, got {host:?}"));
    }
    if let Some(origin) = text(header::ORIGIN) {
        let at = origin.strip_prefix("http://").or(origin.strip_prefix("https://")).unwrap_or_default();
        if !at.eq_ignore_ascii_case(host) {
            return Some(format!("expected no Origin or one of {host}, got {origin:?}"));
        }
    }
    match headers.get("sec-fetch-site").and_then(|value| value.to_str().ok()) {
        Some(site @ ("cross-site" | "same-site")) => Some(format!("expected a request of its own, got one {site}")),
        _ => None,
    }
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_of_this_machine_pass() {
        let refused = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(n, v)| (n.parse::<header::HeaderName>().unwrap(), v.parse().unwrap()));
            refused(&pairs.collect::<HeaderMap>()).is_some()
        };
        assert!(!refused(&[("host", "127.0.0.1:7071")]));
        assert!(!refused(&[("host", "localhost:7071"), ("origin", "http://localhost:7071")]));
        assert!(!refused(&[("host", "[::1]:7071"), ("sec-fetch-site", "same-origin")]));
        assert!(refused(&[]));
        assert!(refused(&[("host", "evil.example:7071")]));
        assert!(refused(&[("host", "127.0.0.1.evil.example")]));
        assert!(refused(&[("host", "localhost:7071"), ("origin", "http://localhost:8080")]));
        assert!(refused(&[("host", "localhost:7071"), ("origin", "null")]));
        assert!(refused(&[("host", "localhost:7071"), ("sec-fetch-site", "cross-site")]));
    }
}

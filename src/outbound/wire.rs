//! HTTP itself: one client per provider, with a pool, TLS by rustls, and everything off that could send twice.
//!
//! One thing in the client looks like a retry and is none: a request that still waits for its turn when the pooled
//! connection turns out to be closed is moved to another one. It has not been written, so the provider sees it once
//! (`tests/it/hostile_http.rs` counts). Must never know: credentials, deadlines but the one for connecting.

use std::error::Error as _;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::TryFutureExt;
use futures_util::future::MapErr;
use tower::Service;

use super::Request;
use super::deadline::ConnectingLayer;
use super::guard::{GuardedResolver, Lookup, Refused};
use super::install_crypto;
use crate::model::provider::Provider;
use crate::model::verdict::{Failure, Sent};

/// How long an unused connection is kept. Servers close theirs after 5 s and more, and a request that meets a closing
/// connection is lost: for a POST that means `unknown` and a person's time, so we close first.
const IDLE_CONNECTION_KEPT: Duration = Duration::from_secs(4);
/// Largest header list taken over HTTP/2, bytes. HTTP/1 is bounded by hyper: about 400 KiB, 100 headers.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// How often a silent connection is probed, so that a dead peer is noticed.
const PROBE_EVERY: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(super) struct Wire(reqwest::Client);

impl Wire {
    pub fn new(provider: &Provider, lookup: Arc<dyn Lookup>) -> Result<Wire, String> {
        install_crypto();
        let resolver = GuardedResolver { lookup, allow_private: provider.allow_private };
        let mut client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .dns_resolver(resolver)
            .connector_layer(ConnectingLayer)
            .connect_timeout(provider.timeouts.connect)
            .pool_idle_timeout(IDLE_CONNECTION_KEPT)
            .pool_max_idle_per_host(provider.in_flight_max as usize)
            .tcp_nodelay(true)
            .tcp_keepalive(PROBE_EVERY)
            .http2_keep_alive_interval(PROBE_EVERY)
            .http2_max_header_list_size(HEADER_BYTES_MAX);
        if provider.base_url.scheme() == "http" {
            // Never used; saves reading the machine's root certificates, and needing them.
            let none = rustls::ClientConfig::builder()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            client = client.tls_backend_preconfigured(none);
        }
        client.build().map(Wire).map_err(|e| format!("the HTTP client cannot be built: {}", chain(&e)))
    }
}

impl Service<Request> for Wire {
    type Response = reqwest::Response;
    type Error = Failure;
    type Future = MapErr<<reqwest::Client as Service<reqwest::Request>>::Future, fn(reqwest::Error) -> Failure>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let mut sent = reqwest::Request::new(request.method, request.url);
        *sent.headers_mut() = request.headers;
        if !request.body.is_empty() {
            *sent.body_mut() = Some(request.body.into());
        }
        self.0.call(sent).map_err(failure as fn(reqwest::Error) -> Failure)
    }
}

fn failure(e: reqwest::Error) -> Failure {
    let refused = refusal(&e);
    let connecting = e.is_connect() || e.is_builder() || refused.is_some();
    let what = match (&refused, connecting) {
        (Some(said), _) => format!("refused: {said}"),
        (None, true) => format!("cannot connect: {}", chain(&e)),
        (None, false) => format!("the answer was lost: {}", chain(&e)),
    };
    Failure {
        sent: if connecting { Sent::No } else { Sent::Maybe },
        provider_fault: refused.is_none() && !e.is_builder(),
        reason: what.into(),
    }
}

/// Our own guard's refusal, if that is what it was.
fn refusal(e: &reqwest::Error) -> Option<String> {
    let mut at = e.source();
    while let Some(source) = at {
        if let Some(refused) = source.downcast_ref::<Refused>() {
            return Some(refused.to_string());
        }
        at = source.source();
    }
    None
}

/// The causes from the outside in, without the URL (a query may hold what is nobody's business) and without saying
/// anything twice.
fn chain(e: &reqwest::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut at = e.source();
    while let Some(source) = at {
        let text = source.to_string();
        if !said.iter().any(|s| s.contains(&text)) {
            said.push(text);
        }
        at = source.source();
    }
    if said.is_empty() { "unknown cause".to_owned() } else { said.join(": ") }
}

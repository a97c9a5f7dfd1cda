//! The guard against being used to reach what stands behind us (SSRF).
//!
//! Three checks, all of them unless the provider declares `allow_private`: an address as host is checked when the
//! provider is connected, a name when it is resolved, and the connection goes to the very addresses that were checked,
//! so a second answer of the resolver cannot slip in. One private address among many refuses them all. Besides, a
//! request must go to the declared origin, whatever its template made of it. Must never know: credentials.

use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_util::future::Either;
use tower::{Layer, Service};

use super::Request;
use crate::model::address;
use crate::model::provider::Provider;
use crate::model::verdict::{Failure, Sent};

/// Asks for the addresses of a name.
#[async_trait]
pub trait Lookup: Send + Sync + std::fmt::Debug {
    /// Ports are ignored.
    async fn lookup(&self, name: &str) -> std::io::Result<Vec<SocketAddr>>;
}

/// The system's resolver.
#[derive(Debug)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, name: &str) -> std::io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.collect())
    }
}

/// Our own refusal, found again in the chain of an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(String);

/// Resolves names for the client and hands on only addresses that may be used.
#[derive(Debug)]
pub(super) struct GuardedResolver {
    pub lookup: Arc<dyn Lookup>,
    pub allow_private: bool,
}

impl reqwest::dns::Resolve for GuardedResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let (lookup, allow_private) = (self.lookup.clone(), self.allow_private);
        Box::pin(async move {
            let addresses = lookup.lookup(name.as_str()).await?;
            if let Some(private) = addresses.iter().find(|a| !allow_private && !address::is_public(a.ip())) {
                let (name, ip) = (name.as_str(), private.ip());
                let said = format!("{name} resolves to {ip}, which is not public; declare allow_private to use it");
                return Err(Refused(said).into());
            }
            Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct GuardLayer(Arc<url::Url>);

impl GuardLayer {
    pub fn new(provider: &Provider) -> Result<GuardLayer, String> {
        let host = provider.base_url.host().ok_or_else(|| "expected a base_url with a host".to_owned())?;
        if !provider.allow_private && address::is_private_host(&host) {
            return Err(format!("{host} is not public; declare allow_private to use it"));
        }
        Ok(GuardLayer(Arc::new(provider.base_url.clone())))
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;
    fn layer(&self, inner: S) -> Guard<S> {
        Guard { base: self.0.clone(), inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Guard<S> {
    base: Arc<url::Url>,
    inner: S,
}

impl<S: Service<Request, Error = Failure>> Service<Request> for Guard<S> {
    type Response = S::Response;
    type Error = Failure;
    type Future = Either<S::Future, Ready<Result<S::Response, Failure>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (base, url) = (&self.base, &request.url);
        let same = base.scheme() == url.scheme()
            && base.host_str() == url.host_str()
            && base.port_or_known_default() == url.port_or_known_default()
            && url.username().is_empty()
            && url.password().is_none();
        if same {
            return Either::Left(self.inner.call(request));
        }
        let reason =
            format!("expected a request to {}, got one to another origin", base.origin().ascii_serialization());
        Either::Right(ready(Err(Failure { sent: Sent::No, provider_fault: false, reason: reason.into() })))
    }
}

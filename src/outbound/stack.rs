//! The layers between a request and the wire, in order, and the client under them.
//!
//! Must never know: what a request is for. Next: each layer's file, from the outside in.

use std::sync::{Arc, Once};

use async_trait::async_trait;
use tower::{ServiceBuilder, ServiceExt};

use super::auth::{Auth, AuthLayer};
use super::bounded::{Bounded, BoundedLayer};
use super::deadline::{Deadline, DeadlineLayer};
use super::guard::{Guard, GuardLayer, Lookup, SystemLookup};
use super::wire::Wire;
use super::{Connect, ConnectError, Request, Transport};
use crate::clock::Clock;
use crate::model::provider::Provider;
use crate::model::verdict::{Answer, Failure};

/// Connects to providers over the network.
#[derive(Clone, Debug)]
pub struct RealConnect {
    clock: Clock,
    lookup: Arc<dyn Lookup>,
}

impl RealConnect {
    pub fn new(clock: Clock) -> Self {
        RealConnect { clock, lookup: Arc::new(SystemLookup) }
    }

    /// With another resolver than the system's.
    pub fn with_lookup(clock: Clock, lookup: Arc<dyn Lookup>) -> Self {
        RealConnect { clock, lookup }
    }
}

impl Connect for RealConnect {
    fn connect(&self, provider: &Arc<Provider>) -> Result<Arc<dyn Transport>, ConnectError> {
        let refuse = |reason: String| ConnectError { provider: provider.name.to_string(), reason };
        let stack = ServiceBuilder::new()
            // Outermost, so that a missing secret costs neither a connection nor a deadline; everything inside may
            // see the credential but has no reason to print a request.
            .layer(AuthLayer::new(&provider.auth, &self.clock).map_err(refuse)?)
            // Before any timer starts: a request for another host than the declared one is our own mistake, not the
            // provider's, and is refused without a byte. Addresses are checked further in, where they are resolved.
            .layer(GuardLayer::new(provider).map_err(refuse)?)
            // Reads the body within the bounds, before and after decompression; outside of the deadlines so that it
            // can hand back what came when one of them cuts the body off.
            .layer(BoundedLayer::new(provider.response_bytes_max, &self.clock))
            // One clock per phase: connect, first byte, idle, total. Innermost, because it must see the difference
            // between "still connecting" (not sent) and "sent, no answer" (anything may have happened).
            .layer(DeadlineLayer::new(provider.timeouts))
            // HTTP itself: a pool, TLS, no redirects, no retries, no proxies.
            .service(Wire::new(provider, self.lookup.clone()).map_err(refuse)?);
        Ok(Arc::new(Real { stack }))
    }
}

#[derive(Debug)]
struct Real {
    stack: Auth<Guard<Bounded<Deadline<Wire>>>>,
}

#[async_trait]
impl Transport for Real {
    async fn send(&self, request: Request) -> Result<Answer, Failure> {
        // A tower service is called by `&mut`; a clone is a handful of reference counts.
        self.stack.clone().oneshot(request).await
    }
}

/// Chooses the one crypto provider of the binary. Two in one process panic at the first handshake, so this is called
/// before anything that may speak TLS; calling it again does nothing.
pub fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that one is installed already; that one then serves all.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

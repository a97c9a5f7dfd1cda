//! The layers between a request and the wire, in order, and the client under them.
//!
//! Must never know: what a request is for. Next: each layer's file, from the outside in.

use std::sync::{Arc, Once};

use async_trait::async_trait;
use tower::{ServiceBuilder, ServiceExt};

use super::bounded::{Bounded, BoundedLayer};
use super::credential::{Credential, NoCredential, Trouble};
use super::credentials::Credentials;
use super::deadline::{Deadline, DeadlineLayer};
use super::guard::{Guard, GuardLayer, Lookup, SystemLookup};
use super::token::{Tokens, Vaulted};
use super::wire::Wire;
use super::{Connect, ConnectError, Request, Transport};
use crate::clock::Clock;
use crate::model::name::Account;
use crate::model::provider::Provider;
use crate::model::verdict::{Answer, Failure, Sent};

/// Connects to providers over the network.
#[derive(Clone, Debug)]
pub struct RealConnect {
    clock: Clock,
    lookup: Arc<dyn Lookup>,
    vault: Option<Vaulted>,
    /// Outlives declarations: a reload must not cost tokens.
    slots: super::token::Slots,
}

impl RealConnect {
    pub fn new(clock: Clock) -> Self {
        RealConnect::with_lookup(clock, Arc::new(SystemLookup))
    }

    /// With another resolver than the system's.
    pub fn with_lookup(clock: Clock, lookup: Arc<dyn Lookup>) -> Self {
        RealConnect { clock, lookup, vault: None, slots: Default::default() }
    }

    /// Tokens are kept there, sealed, and shared with who else keeps them there.
    pub fn keeping_tokens(self, vault: Vaulted) -> Self {
        RealConnect { vault: Some(vault), ..self }
    }
}

impl Connect for RealConnect {
    fn connect(&self, provider: &Arc<Provider>) -> Result<Arc<dyn Transport>, ConnectError> {
        let refuse = |reason: String| ConnectError { provider: provider.name.to_string(), reason };
        let tokens = Tokens {
            provider: provider.clone(),
            clock: self.clock.clone(),
            lookup: self.lookup.clone(),
            vault: self.vault.clone(),
            slots: self.slots.clone(),
            endpoints: Default::default(),
        };
        // First of all, so that a missing secret costs no connection.
        let credentials = Credentials::new(provider, &self.clock, tokens).map_err(refuse)?;
        let stack = stack(provider, &self.clock, &self.lookup).map_err(refuse)?;
        Ok(Arc::new(Real { credentials, stack }))
    }
}

pub(super) type Stack = Guard<Bounded<Deadline<Wire>>>;

pub(super) fn stack(provider: &Provider, clock: &Clock, lookup: &Arc<dyn Lookup>) -> Result<Stack, String> {
    let stack = ServiceBuilder::new()
        // Before any timer starts: a request for another host than the declared one is our own mistake, not the
        // provider's, and is refused without a byte. Addresses are checked further in, where they are resolved.
        .layer(GuardLayer::new(provider)?)
        // Reads the body within the bounds, before and after decompression; outside of the deadlines so that it
        // can hand back what came when one of them cuts the body off.
        .layer(BoundedLayer::new(provider.response_bytes_max, clock))
        // One clock per phase: connect, first byte, idle, total. Innermost, because it must see the difference
        // between "still connecting" (not sent) and "sent, no answer" (anything may have happened).
        .layer(DeadlineLayer::new(provider.timeouts))
        // HTTP itself: a pool, TLS, no redirects, no retries, no proxies.
        .service(Wire::new(provider, lookup.clone())?);
    Ok(stack)
}

#[derive(Debug)]
struct Real {
    credentials: Credentials,
    stack: Stack,
}

#[async_trait]
impl Transport for Real {
    async fn credential(&self, account: &Account) -> Result<Credential, NoCredential> {
        self.credentials.of(account).await
    }

    async fn send(&self, request: Request) -> Result<Answer, Failure> {
        match self.credential(&Account::default()).await {
            Ok(credential) => self.send_as(request, &credential).await,
            Err(NoCredential { reason, .. }) => Err(Failure { sent: Sent::No, provider_fault: false, reason }),
        }
    }

    async fn send_as(&self, mut request: Request, credential: &Credential) -> Result<Answer, Failure> {
        credential.sign(&mut request);
        // A tower service is called by `&mut`; a clone is a handful of reference counts.
        self.stack.clone().oneshot(request).await
    }

    fn trouble(&self, account: &Account) -> Option<Trouble> {
        self.credentials.trouble(account)
    }

    fn before_probe(&self, account: &Account) {
        self.credentials.before_probe(account);
    }

    fn reset(&self) {
        self.credentials.reset();
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

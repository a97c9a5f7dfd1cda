//! The way from a rendered request to a provider and back: one tower stack per provider.
//!
//! Layers from the outside in are listed in `outbound/stack.rs`, one comment each; `outbound/credentials.rs` finds the
//! credential of an account, which is put on inside of all that could tell of a request. Nothing here sends twice: no
//! redirects, no retries, no proxies. The breaker (`outbound/breaker.rs`) is not a layer but a state machine of the
//! gate's: while it is open no permit may be spent, and by the time a request gets here its permit is gone. Must never
//! know: jobs, stores, limits. Next: `engine/caller`, its only caller.

use std::sync::Arc;

use async_trait::async_trait;

use crate::model::name::Account;
use crate::model::provider::Provider;
use crate::model::verdict::{Answer, Failure};

pub use crate::model::request::Request;

mod bounded;
pub mod breaker;
pub mod cache;
mod credential;
mod credentials;
mod deadline;
mod guard;
mod kept;
mod mark;
mod oauth;
mod seal;
mod secret;
mod signature;
mod stack;
mod token;
mod vault;
mod wire;

pub use credential::{Credential, NoCredential, Trouble};
pub use guard::{Lookup, SystemLookup};
pub use mark::Shown;
pub use seal::SealKey;
pub use secret::{Watched, resolve as read_secret};
pub use signature::SigningKey;
pub use stack::{RealConnect, install_crypto};
pub use token::Vaulted;
pub use vault::{Kept, Leased, Vault};

/// Sends one request to a provider, once.
#[async_trait]
pub trait Transport: Send + Sync + std::fmt::Debug {
    /// Who the account is to the provider. May wait for a token, as long as the provider's timeouts allow.
    async fn credential(&self, _account: &Account) -> Result<Credential, NoCredential> {
        Ok(Credential::default())
    }

    /// With the credential that the provider itself declares. Ends within the provider's total timeout. Dropping the
    /// future aborts the call.
    async fn send(&self, request: Request) -> Result<Answer, Failure>;

    /// The same with a credential of [`Transport::credential`].
    async fn send_as(&self, request: Request, _credential: &Credential) -> Result<Answer, Failure> {
        self.send(request).await
    }

    /// Why the account's credential cannot be had, if that is so: its calls need not begin.
    fn trouble(&self, _account: &Account) -> Option<Trouble> {
        None
    }

    /// A probe is about to ask for the account's credential: a token that was refused as soon as it was fetched is not
    /// tried again.
    fn before_probe(&self, _account: &Account) {}

    /// Somebody mended a credential: what could not be had is tried anew.
    fn reset(&self) {}
}

/// Builds the transport of a provider: the real stack, or a simulated provider in the deterministic simulation.
pub trait Connect: Send + Sync + std::fmt::Debug {
    fn connect(&self, provider: &Arc<Provider>) -> Result<Arc<dyn Transport>, ConnectError>;
}

/// Why a provider cannot be called at all, as a secret that is missing. Never carries a secret's value.
#[derive(Debug, thiserror::Error)]
#[error("provider {provider} cannot be called: {reason}")]
pub struct ConnectError {
    pub provider: String,
    pub reason: String,
}

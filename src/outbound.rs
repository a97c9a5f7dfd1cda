//! The way from a rendered request to a provider and back: one tower stack per provider.
//!
//! Layers from the outside in are listed in `outbound/stack.rs`, one comment each. Nothing here sends twice: no
//! redirects, no retries, no proxies. The breaker (`outbound/breaker.rs`) is not a layer but a state machine of the
//! gate's: while it is open no permit may be spent, and by the time a request gets here its permit is gone. Must never
//! know: jobs, stores, limits. Next: `engine/caller`, its only caller.

use std::sync::Arc;

use async_trait::async_trait;

use crate::model::provider::Provider;
use crate::model::verdict::{Answer, Failure};

pub use crate::model::request::Request;

mod auth;
mod bounded;
pub mod breaker;
pub mod cache;
mod deadline;
mod guard;
mod secret;
mod stack;
mod wire;

pub use guard::{Lookup, SystemLookup};
pub use secret::resolve as read_secret;
pub use stack::{RealConnect, install_crypto};

/// Sends one request to a provider, once.
#[async_trait]
pub trait Transport: Send + Sync + std::fmt::Debug {
    /// Ends within the provider's total timeout. Dropping the future aborts the call.
    async fn send(&self, request: Request) -> Result<Answer, Failure>;
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

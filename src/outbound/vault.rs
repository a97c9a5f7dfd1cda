//! Where tokens outlive a process and are shared with other daemons: a narrow contract that the composition root fills.
//!
//! Only sealed bytes go through it. A lease makes sure that of many daemons one refreshes, because a refresh token may be
//! good for one use. Must never know: what is inside. Next: `seal`, and `app/vault` for the other side.

use std::time::Duration;

use async_trait::async_trait;

use crate::model::name::{Account, ProviderName};

/// A sealed token and its version, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub version: i64,
    pub sealed: Vec<u8>,
}

/// The answer to a wish to refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leased {
    /// Nobody else may until it is saved, released, or the lease has ended. What is there now.
    Ours(Option<Kept>),
    /// Somebody else is at it.
    Taken,
}

/// Errors are sentences; nothing was done then, or it is not known.
#[async_trait]
pub trait Vault: Send + Sync + std::fmt::Debug {
    async fn lease(&self, provider: &ProviderName, owner: &Account, lease: Duration) -> Result<Leased, String>;

    /// Replaces version `expect` (0: none) and ends the lease. False: it was no longer that version.
    async fn save(&self, provider: &ProviderName, owner: &Account, expect: i64, kept: Kept) -> Result<bool, String>;

    /// Ends the lease, if it is ours.
    async fn release(&self, provider: &ProviderName, owner: &Account) -> Result<(), String>;
}

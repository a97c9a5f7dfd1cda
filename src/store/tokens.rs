//! Keeping tokens that an endpoint gave out: sealed bytes with a version, and who may replace them.
//!
//! A refresh token may be good for one use, so a holder takes a lease before it refreshes, and others read what it saved.
//! Saves compare the version, so a holder that slept through its lease replaces nothing that is newer. Leases end by the
//! database's clock where daemons share one, else by the `now` that comes in. Must never know: what is sealed, by which
//! key. Next: `store/postgres/tokens.rs`.

use std::time::Duration;

use async_trait::async_trait;

use super::Error;
use crate::clock::Timestamp;
use crate::model::name::{Account, ProviderName};

/// Whose token: the account's, or with "" the provider's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenKey {
    pub provider: ProviderName,
    pub account: Account,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    /// From 1; grows with each save.
    pub version: i64,
    pub sealed: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenLease {
    /// The holder may replace what is there.
    Ours(Option<StoredToken>),
    /// Another holder may.
    Taken,
}

#[async_trait]
pub trait Tokens: Send + Sync + std::fmt::Debug {
    /// Takes the lease, or prolongs it for its holder. `now` is steady.
    async fn lease_token(
        &self,
        key: &TokenKey,
        holder: &str,
        now: Timestamp,
        lease: Duration,
    ) -> Result<TokenLease, Error>;

    /// Replaces version `expect` (0: none) and ends the holder's lease. False: another version is there, and stays.
    async fn save_token(&self, key: &TokenKey, holder: &str, expect: i64, token: &StoredToken) -> Result<bool, Error>;

    /// Ends the lease, if it is the holder's.
    async fn release_token(&self, key: &TokenKey, holder: &str) -> Result<(), Error>;
}

/// A row as a store answers a lease with.
pub(super) fn leased(version: i64, sealed: &[u8]) -> TokenLease {
    TokenLease::Ours((version > 0).then(|| StoredToken { version, sealed: sealed.to_vec() }))
}

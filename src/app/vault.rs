//! Tokens kept in the store: the other side of `outbound/vault`, which knows no store.
//!
//! Must never know: what is sealed. Next: `store/tokens`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::StartError;
use crate::clock::Clock;
use crate::config::Config;
use crate::model::name::{Account, ProviderName};
use crate::outbound::{Kept, Leased, SealKey, Vault, Vaulted, read_secret};
use crate::store::tokens::{StoredToken, TokenKey, TokenLease, Tokens};

/// The store of one daemon among others or alone.
#[derive(Debug)]
pub(super) struct StoreVault {
    pub tokens: Arc<dyn Tokens>,
    /// As whom it takes leases. A daemon alone keeps its name over restarts, so it waits for no lease of its former self.
    pub holder: String,
    pub clock: Clock,
}

/// With the key of `[secrets]`; `None` without one: then tokens are in memory only.
pub(super) fn open(config: &Config, vault: StoreVault) -> Result<Option<Vaulted>, StartError> {
    let Some(reference) = &config.secrets.key else { return Ok(None) };
    let text = read_secret(reference).map_err(StartError::Shared)?;
    let key = SealKey::read(&text).map_err(|e| StartError::Shared(format!("the key of [secrets]: {e}")))?;
    Ok(Some(Vaulted { vault: Arc::new(vault), key: Arc::new(key) }))
}

fn key(provider: &ProviderName, owner: &Account) -> TokenKey {
    TokenKey { provider: provider.clone(), account: owner.clone() }
}

fn said(e: impl std::fmt::Display) -> String {
    e.to_string()
}

#[async_trait]
impl Vault for StoreVault {
    async fn lease(&self, provider: &ProviderName, owner: &Account, lease: Duration) -> Result<Leased, String> {
        let now = self.clock.steady();
        match self.tokens.lease_token(&key(provider, owner), &self.holder, now, lease).await.map_err(said)? {
            TokenLease::Ours(row) => {
                Ok(Leased::Ours(row.map(|StoredToken { version, sealed }| Kept { version, sealed })))
            }
            TokenLease::Taken => Ok(Leased::Taken),
        }
    }

    async fn save(&self, provider: &ProviderName, owner: &Account, expect: i64, kept: Kept) -> Result<bool, String> {
        let Kept { version, sealed } = kept;
        let token = StoredToken { version, sealed };
        self.tokens.save_token(&key(provider, owner), &self.holder, expect, &token).await.map_err(said)
    }

    async fn release(&self, provider: &ProviderName, owner: &Account) -> Result<(), String> {
        self.tokens.release_token(&key(provider, owner), &self.holder).await.map_err(said)
    }
}

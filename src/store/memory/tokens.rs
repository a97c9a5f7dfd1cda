//! Tokens in memory: what `store/tokens.rs` promises, in one map.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use crate::clock::Timestamp;
use crate::store::Error;
use crate::store::tokens::{StoredToken, TokenKey, TokenLease, Tokens, leased};

#[derive(Debug, Default)]
pub(super) struct TokenRow {
    version: i64,
    sealed: Vec<u8>,
    holder: Option<(String, Timestamp)>,
}

#[async_trait]
impl Tokens for MemoryStore {
    async fn lease_token(
        &self,
        key: &TokenKey,
        holder: &str,
        now: Timestamp,
        lease: Duration,
    ) -> Result<TokenLease, Error> {
        let mut world = self.world()?;
        let row = world.tokens.entry(key.clone()).or_default();
        if row.holder.as_ref().is_some_and(|(other, until)| other != holder && *until > now) {
            return Ok(TokenLease::Taken);
        }
        row.holder = Some((holder.to_owned(), now + lease));
        Ok(leased(row.version, &row.sealed))
    }

    async fn save_token(&self, key: &TokenKey, holder: &str, expect: i64, token: &StoredToken) -> Result<bool, Error> {
        let mut world = self.world()?;
        let Some(row) = world.tokens.get_mut(key).filter(|row| row.version == expect) else { return Ok(false) };
        (row.version, row.sealed) = (token.version, token.sealed.clone());
        row.holder.take_if(|(who, _)| who == holder);
        Ok(true)
    }

    async fn release_token(&self, key: &TokenKey, holder: &str) -> Result<(), Error> {
        if let Some(row) = self.world()?.tokens.get_mut(key) {
            row.holder.take_if(|(who, _)| who == holder);
        }
        Ok(())
    }
}

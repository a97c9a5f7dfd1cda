//! Tokens in PostgreSQL: each method one statement, leases by the database's clock.

use std::time::Duration;

use async_trait::async_trait;

use super::row::Columns;
use super::{PgStore, error, sql};
use crate::clock::Timestamp;
use crate::store::Error;
use crate::store::tokens::{StoredToken, TokenKey, TokenLease, Tokens, leased};

#[async_trait]
impl Tokens for PgStore {
    async fn lease_token(
        &self,
        key: &TokenKey,
        holder: &str,
        _now: Timestamp,
        lease: Duration,
    ) -> Result<TokenLease, Error> {
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX / 4);
        let ask = sqlx::query(sql::LEASE_TOKEN).bind(key.provider.as_str()).bind(key.account.as_str()).bind(holder);
        let rows = self.lender()?.ask(ask.bind(lease)).await.map_err(error::of)?;
        let Some(row) = rows.first() else { return Ok(TokenLease::Taken) };
        let mut columns = Columns::of(row);
        Ok(leased(columns.int()?, columns.bytes()?))
    }

    async fn save_token(&self, key: &TokenKey, holder: &str, expect: i64, token: &StoredToken) -> Result<bool, Error> {
        let save = sqlx::query(sql::SAVE_TOKEN).bind(key.provider.as_str()).bind(key.account.as_str()).bind(holder);
        let save = save.bind(expect).bind(token.version).bind(token.sealed.as_slice());
        Ok(!self.lender()?.ask(save).await.map_err(error::of)?.is_empty())
    }

    async fn release_token(&self, key: &TokenKey, holder: &str) -> Result<(), Error> {
        let end = sqlx::query(sql::RELEASE_TOKEN).bind(key.provider.as_str()).bind(key.account.as_str()).bind(holder);
        self.lender()?.ask(end).await.map(drop).map_err(error::of)
    }
}

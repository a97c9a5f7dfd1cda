//! Tokens in SQLite: each method one statement of the writer's, durable when it returns.

use std::time::Duration;

use async_trait::async_trait;

use super::row::Columns;
use super::{SqliteStore, closed, error, sql};
use crate::clock::Timestamp;
use crate::store::Error;
use crate::store::tokens::{StoredToken, TokenKey, TokenLease, Tokens, leased};

#[async_trait]
impl Tokens for SqliteStore {
    async fn lease_token(
        &self,
        key: &TokenKey,
        holder: &str,
        now: Timestamp,
        lease: Duration,
    ) -> Result<TokenLease, Error> {
        let mut writer = self.writer.lock().await;
        let writer = writer.as_mut().ok_or_else(closed)?;
        writer.settle().await?;
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX / 4);
        let ask = sqlx::query(sql::LEASE_TOKEN).bind(key.provider.as_str()).bind(key.account.as_str()).bind(holder);
        // All rows are fetched, so that the statement has ended and is durable.
        let rows = ask.bind(lease).bind(now.0).fetch_all(&mut writer.conn).await.map_err(error::of)?;
        let Some(row) = rows.first() else { return Ok(TokenLease::Taken) };
        let mut columns = Columns::of(row);
        Ok(leased(columns.int()?, columns.bytes()?))
    }

    async fn save_token(&self, key: &TokenKey, holder: &str, expect: i64, token: &StoredToken) -> Result<bool, Error> {
        let mut writer = self.writer.lock().await;
        let writer = writer.as_mut().ok_or_else(closed)?;
        writer.settle().await?;
        let save = sqlx::query(sql::SAVE_TOKEN).bind(key.provider.as_str()).bind(key.account.as_str()).bind(holder);
        let save = save.bind(expect).bind(token.version).bind(token.sealed.as_slice());
        Ok(save.execute(&mut writer.conn).await.map_err(error::of)?.rows_affected() > 0)
    }

    async fn release_token(&self, key: &TokenKey, holder: &str) -> Result<(), Error> {
        let mut writer = self.writer.lock().await;
        let writer = writer.as_mut().ok_or_else(closed)?;
        writer.settle().await?;
        let end = sqlx::query(sql::RELEASE_TOKEN).bind(key.provider.as_str()).bind(key.account.as_str()).bind(holder);
        end.execute(&mut writer.conn).await.map(drop).map_err(error::of)
    }
}

//! Reading records: each read is one range of an index. Next: `records`, which writes them.

use async_trait::async_trait;

use super::{SqliteStore, row, sql};
use crate::model::name::{CollectionName, Key};
use crate::model::record::{ALL_TIME, CollectionInfo, Group, Record};
use crate::store::{Error, RecordPage, Records, page};

#[async_trait]
impl Records for SqliteStore {
    async fn collection(&self, name: &CollectionName) -> Result<Option<CollectionInfo>, Error> {
        let name = serde_json::to_string(&[name]).expect("a text is JSON");
        self.row(sqlx::query(sql::COLLECTIONS_BY_NAME).bind(name), row::collection).await
    }

    async fn collections(&self) -> Result<Vec<CollectionInfo>, Error> {
        self.rows(sqlx::query(sql::COLLECTIONS), row::collection).await
    }

    async fn record(&self, collection: &CollectionName, id: &Key) -> Result<Option<Record>, Error> {
        let key = serde_json::to_string(&[[collection.as_str(), id.as_str()]]).expect("texts are JSON");
        self.row(sqlx::query(sql::RECORD_ROWS).bind(key), row::record).await
    }

    async fn list_records(
        &self,
        collection: &CollectionName,
        index: Option<(&str, &str)>,
        after: &str,
        limit: usize,
    ) -> Result<RecordPage, Error> {
        let limit = page(limit);
        let text = if index.is_some() { sql::LIST_RECORDS_BY_INDEX } else { sql::LIST_RECORDS };
        let query = sqlx::query(text).bind(collection.as_str()).bind(after).bind(limit as i64 + 1);
        let query = match index {
            Some((name, value)) => query.bind(name).bind(value),
            None => query,
        };
        let records = self.rows(query, row::record).await?;
        Ok(RecordPage::of(records, limit))
    }

    async fn record_changes(
        &self,
        collection: &CollectionName,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Record>, Error> {
        let query = sqlx::query(sql::RECORD_CHANGES).bind(collection.as_str()).bind(after);
        self.rows(query.bind(page(limit) as i64), row::record).await
    }

    async fn top_groups(
        &self,
        collection: &CollectionName,
        aggregate: &str,
        limit: usize,
    ) -> Result<Vec<Group>, Error> {
        let query = sqlx::query(sql::TOP_GROUPS).bind(collection.as_str()).bind(aggregate);
        self.rows(query.bind(ALL_TIME).bind(limit as i64), row::group).await
    }

    async fn groups_between(
        &self,
        collection: &CollectionName,
        aggregate: &str,
        from: i64,
        to: i64,
        limit: usize,
    ) -> Result<Vec<Group>, Error> {
        let query = sqlx::query(sql::GROUPS_BETWEEN).bind(collection.as_str()).bind(aggregate);
        self.rows(query.bind(from).bind(to).bind(limit as i64), row::group).await
    }
}

//! Reading records, and how a list is bound here. Next: `store/reads`, which has the reads for both databases; `records`,
//! which writes.

use async_trait::async_trait;

use super::read::Query;
use super::{SqliteStore, row, sql};
use crate::model::name::{CollectionName, Key};
use crate::model::record::{ALL_TIME, CollectionInfo, Group, Record};
use crate::store::{Error, RecordPage, Records, page};

crate::store::reads::record_reads!(SqliteStore);

/// A JSON array of one name.
fn by_name<'q>(query: Query<'q>, name: &CollectionName) -> Query<'q> {
    query.bind(serde_json::to_string(&[name]).expect("a text is JSON"))
}

/// A JSON array of one collection and id.
fn by_key<'q>(query: Query<'q>, collection: &CollectionName, id: &Key) -> Query<'q> {
    query.bind(serde_json::to_string(&[[collection.as_str(), id.as_str()]]).expect("texts are JSON"))
}

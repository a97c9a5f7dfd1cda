//! Reading records, and how a list is bound here. Next: `store/reads`, which has the reads for both databases; `records`,
//! which writes.

use async_trait::async_trait;

use super::arrays::Query;
use super::{PgStore, row, sql};
use crate::model::name::{CollectionName, Key};
use crate::model::record::{ALL_TIME, CollectionInfo, Group, Record};
use crate::store::{Error, RecordPage, Records, page};

crate::store::reads::record_reads!(PgStore);

/// An array of one name.
fn by_name<'q>(query: Query<'q>, name: &'q CollectionName) -> Query<'q> {
    query.bind(vec![name.as_str()])
}

/// An array of one collection, and one of an id of it.
fn by_key<'q>(query: Query<'q>, collection: &'q CollectionName, id: &'q Key) -> Query<'q> {
    query.bind(vec![collection.as_str()]).bind(vec![id.as_str()])
}

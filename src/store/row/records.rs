//! Rows of records, collections and groups. Must never know: SQL. Next: `store/records/rules`.

use std::sync::Arc;

use super::{Cells, Columns, Read, strange};
use crate::model::name::{CollectionName, Key};
use crate::model::record::{CollectionInfo, Facts, Group, Record, Sums};
use crate::store::records::rules::Row;
use crate::store::records::shelf::{GroupKey, MeasureKey, SavedGroup};

impl Row {
    pub(in crate::store) fn facts_text(&self) -> String {
        let none = Facts::default();
        let held = if self.record.deleted { &none } else { &*self.facts };
        serde_json::to_string(held).expect("texts and numbers are JSON")
    }
}

impl SavedGroup {
    pub(in crate::store) fn sums_text(&self) -> String {
        serde_json::to_string(&self.sums).expect("texts and numbers are JSON")
    }
}

/// The pull of a collection as stored.
pub(in crate::store) fn pull_text(set: &CollectionInfo) -> Option<String> {
    set.pull.as_ref().map(|pull| serde_json::to_string(pull).expect("texts and numbers are JSON"))
}

impl<R: Cells> Columns<'_, R> {
    fn json<T: serde::de::DeserializeOwned>(&mut self, what: &str) -> Read<T> {
        let text = self.str()?;
        serde_json::from_str(text).map_err(|e| strange(what, format_args!("{text:?} ({e})")))
    }

    fn collection_name(&mut self) -> Read<CollectionName> {
        self.name("the name of a collection", CollectionName::new)
    }

    pub(in crate::store) fn sums(&mut self) -> Read<Sums> {
        self.json("sums")
    }

    pub(in crate::store) fn group_key(&mut self) -> Read<GroupKey> {
        let (collection, aggregate) = (self.collection_name()?, self.text()?);
        Ok(GroupKey { collection, aggregate, bucket: self.int()?, group: self.str()?.to_owned() })
    }

    fn record(&mut self) -> Read<Record> {
        Ok(Record {
            collection: self.collection_name()?,
            id: self.name("the id of a record", Key::new)?,
            data: self.text()?,
            hash: self.text()?,
            version: self.int()?,
            change: self.int()?,
            deleted: self.int()? != 0,
            created_at: self.time()?,
            updated_at: self.time()?,
        })
    }
}

pub(in crate::store) fn record<R: Cells>(row: &R) -> Read<Record> {
    Columns::of(row).record()
}

pub(in crate::store) fn record_row<R: Cells>(row: &R) -> Read<Row> {
    let mut columns = Columns::of(row);
    let record = columns.record()?;
    let facts: Arc<Facts> = Arc::new(columns.json("what indexes hold of a record")?);
    Ok(Row { record, facts, seen: columns.int()? })
}

pub(in crate::store) fn collection<R: Cells>(row: &R) -> Read<CollectionInfo> {
    let mut columns = Columns::of(row);
    let name = columns.collection_name()?;
    let (live, last_change, forgotten, shape) = (columns.int()?, columns.int()?, columns.int()?, columns.text()?);
    let pull = match columns.opt_str()? {
        Some(text) => Some(serde_json::from_str(text).map_err(|e| strange("a pull", format_args!("{text:?} ({e})")))?),
        None => None,
    };
    Ok(CollectionInfo { name, live, last_change, forgotten, shape, pull })
}

pub(in crate::store) fn forgotten<R: Cells>(row: &R) -> Read<(Key, i64)> {
    let mut columns = Columns::of(row);
    Ok((columns.name("the id of a record", Key::new)?, columns.int()?))
}

pub(in crate::store) fn group<R: Cells>(row: &R) -> Read<Group> {
    let mut columns = Columns::of(row);
    Ok(Group { group: columns.str()?.to_owned(), sums: columns.sums()? })
}

/// `None`: the measure has no number left.
pub(in crate::store) fn extremes<R: Cells>(row: &R) -> Read<Option<(MeasureKey, i64, i64)>> {
    let mut columns = Columns::of(row);
    let key = (columns.group_key()?, columns.small()?);
    let ends = columns.opt_int()?.zip(columns.opt_int()?);
    Ok(ends.map(|(min, max)| (key, min, max)))
}

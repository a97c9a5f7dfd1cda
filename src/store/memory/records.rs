//! Records in ordered maps: the simplest shelf. Next: `store/records/rules`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use async_trait::async_trait;
use futures_util::FutureExt;

use super::{MemoryStore, Work};
use crate::clock::Timestamp;
use crate::model::job::NewJob;
use crate::model::name::{CollectionName, Key};
use crate::model::record::{ALL_TIME, CollectionInfo, Group, Record, Sums};
use crate::store::records::rules::{Row, RowKey, Sheet};
use crate::store::records::shelf::{GroupKey, IndexRow, MeasureKey, Point, SavedGroup, Saves, Shelf, apply};
use crate::store::{Error, PageEnd, RecordOp, RecordPage, Records, page};

#[derive(Debug, Default)]
pub(super) struct Book {
    sets: BTreeMap<CollectionName, CollectionInfo>,
    rows: BTreeMap<RowKey, Row>,
    index: BTreeSet<IndexRow>,
    groups: BTreeMap<GroupKey, (Sums, f64)>,
    points: BTreeSet<Point>,
}

impl Work<'_> {
    /// The records of a commit. What they enqueue is added to `enqueues`.
    pub(super) fn records(
        &mut self,
        pages: Vec<PageEnd>,
        ops: Vec<RecordOp>,
        enqueues: &mut Vec<NewJob>,
    ) -> Option<Sheet> {
        if pages.is_empty() && ops.is_empty() {
            return None;
        }
        let book = &mut self.world.records;
        let sets = book.sets.values().cloned().collect();
        let applied = apply(book, self.now, sets, pages, ops).now_or_never().expect("maps never wait");
        let sheet = match applied {
            Ok(sheet) => sheet,
            Err(never) => match never {},
        };
        enqueues.extend(sheet.take_jobs());
        Some(sheet)
    }

    pub(super) fn save_collections(&mut self, sheet: &Sheet) {
        let sets = sheet.sets().into_iter().map(|set| (set.name.clone(), set.clone()));
        self.world.records.sets.extend(sets);
        sheet.told().into_iter().for_each(|what| self.packer.note(what));
    }
}

#[async_trait]
impl Shelf for Book {
    type Failure = Infallible;

    async fn sets(&mut self, names: &BTreeSet<CollectionName>) -> Result<Vec<CollectionInfo>, Infallible> {
        Ok(names.iter().filter_map(|name| self.sets.get(name)).cloned().collect())
    }

    async fn rows(&mut self, keys: &BTreeSet<RowKey>) -> Result<Vec<Row>, Infallible> {
        Ok(keys.iter().filter_map(|key| self.rows.get(key)).cloned().collect())
    }

    async fn unseen(
        &mut self,
        name: &CollectionName,
        pull: i64,
        upto: i64,
        limit: u32,
    ) -> Result<Vec<Row>, Infallible> {
        let sweepable = |row: &&Row| !row.record.deleted && row.seen < pull && row.record.change <= upto;
        let mut found: Vec<&Row> = self.of(name).filter(sweepable).collect();
        found.sort_by_key(|row| row.seen);
        Ok(found.into_iter().take(limit as usize).cloned().collect())
    }

    async fn forget(
        &mut self,
        name: &CollectionName,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(Key, i64)>, Infallible> {
        let old = self.of(name).filter(|row| row.record.deleted && row.record.updated_at < before);
        let mut old: Vec<(Timestamp, Key, i64)> =
            old.map(|row| (row.record.updated_at, row.record.id.clone(), row.record.change)).collect();
        old.sort();
        old.truncate(limit as usize);
        let gone = old.into_iter().map(|(_, id, change)| {
            self.rows.remove(&(name.clone(), id.clone()));
            (id, change)
        });
        Ok(gone.collect())
    }

    async fn groups(&mut self, keys: &BTreeSet<GroupKey>) -> Result<Vec<(GroupKey, Sums)>, Infallible> {
        let found = keys.iter().filter_map(|key| Some((key.clone(), self.groups.get(key)?.0.clone())));
        Ok(found.collect())
    }

    async fn extremes(&mut self, keys: &BTreeSet<MeasureKey>) -> Result<Vec<(MeasureKey, i64, i64)>, Infallible> {
        let ends = |key: &MeasureKey| {
            let mut values = self.points.iter().filter(|point| point.at == *key).map(|point| point.value);
            let first = values.next()?;
            Some((key.clone(), first, values.next_back().unwrap_or(first)))
        };
        Ok(keys.iter().filter_map(ends).collect())
    }

    async fn save(&mut self, saves: Saves) -> Result<(), Infallible> {
        let keyed = |row: Row| ((row.record.collection.clone(), row.record.id.clone()), row);
        self.rows.extend(saves.rows.into_iter().map(keyed));
        self.index.retain(|row| !saves.index_gone.contains(row));
        self.index.extend(saves.index_new);
        self.points.retain(|point| !saves.points_gone.contains(point));
        self.points.extend(saves.points_new);
        Ok(())
    }

    async fn save_groups(&mut self, groups: Vec<SavedGroup>) -> Result<(), Infallible> {
        for SavedGroup { key, sums, rank } in groups {
            match sums.count {
                0 => drop(self.groups.remove(&key)),
                _ => drop(self.groups.insert(key, (sums, rank))),
            }
        }
        Ok(())
    }

    async fn save_sets(&mut self, sets: &[&CollectionInfo]) -> Result<(), Infallible> {
        self.sets.extend(sets.iter().map(|set| (set.name.clone(), (*set).clone())));
        Ok(())
    }
}

impl Book {
    fn of(&self, name: &CollectionName) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |((of, _), _)| of == name).map(|(_, row)| row)
    }

    fn groups_of(&self, name: &CollectionName, aggregate: &str) -> Vec<(i64, f64, Group)> {
        let of = self.groups.iter().filter(|(key, _)| key.collection == *name && &*key.aggregate == aggregate);
        let group = |(key, (sums, rank)): (&GroupKey, &(Sums, f64))| {
            (key.bucket, *rank, Group { group: key.group.clone(), sums: sums.clone() })
        };
        of.map(group).collect()
    }
}

#[async_trait]
impl Records for MemoryStore {
    async fn collection(&self, name: &CollectionName) -> Result<Option<CollectionInfo>, Error> {
        Ok(self.world()?.records.sets.get(name).cloned())
    }

    async fn collections(&self) -> Result<Vec<CollectionInfo>, Error> {
        Ok(self.world()?.records.sets.values().cloned().collect())
    }

    async fn record(&self, collection: &CollectionName, id: &Key) -> Result<Option<Record>, Error> {
        let key = (collection.clone(), id.clone());
        Ok(self.world()?.records.rows.get(&key).map(|row| row.record.clone()))
    }

    async fn list_records(
        &self,
        collection: &CollectionName,
        index: Option<(&str, &str)>,
        after: &str,
        limit: usize,
    ) -> Result<RecordPage, Error> {
        let world = self.world()?;
        let book = &world.records;
        let holds = |id: &Key| {
            index.is_none_or(|(name, value)| {
                book.index.contains(&(collection.clone(), name.into(), value.to_owned(), id.clone()))
            })
        };
        let live = book.of(collection).map(|row| &row.record).filter(|r| !r.deleted && r.id.as_str() > after);
        let mut records: Vec<Record> = live.filter(|r| holds(&r.id)).take(page(limit) + 1).cloned().collect();
        let more = records.len() > page(limit);
        records.truncate(page(limit));
        Ok(RecordPage { records, more })
    }

    async fn record_changes(
        &self,
        collection: &CollectionName,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Record>, Error> {
        let world = self.world()?;
        let mut found: Vec<Record> = world.records.of(collection).map(|row| row.record.clone()).collect();
        found.retain(|record| record.change > after);
        found.sort_by_key(|record| record.change);
        found.truncate(page(limit));
        Ok(found)
    }

    async fn top_groups(
        &self,
        collection: &CollectionName,
        aggregate: &str,
        limit: usize,
    ) -> Result<Vec<Group>, Error> {
        let mut found = self.world()?.records.groups_of(collection, aggregate);
        found.retain(|(bucket, ..)| *bucket == ALL_TIME);
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.2.group.cmp(&a.2.group)));
        Ok(found.into_iter().take(limit).map(|(.., group)| group).collect())
    }

    async fn groups_between(
        &self,
        collection: &CollectionName,
        aggregate: &str,
        from: i64,
        to: i64,
        limit: usize,
    ) -> Result<Vec<Group>, Error> {
        let mut found = self.world()?.records.groups_of(collection, aggregate);
        found.retain(|(bucket, ..)| (from..to).contains(bucket));
        Ok(found.into_iter().take(limit).map(|(.., group)| group).collect())
    }
}

//! Records: the shelf of one commit. Next: `store/records/rules`, which decides; `read_records`, which reads.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::Value;

use super::bulk::Cells;
use super::row::{self, Columns};
use super::sql;
use super::work::Work;
use crate::clock::Timestamp;
use crate::model::name::{CollectionName, Key};
use crate::model::record::{CollectionInfo, Sums};
use crate::store::records::rules::{Row, RowKey, Sheet};
use crate::store::records::shelf::{GroupKey, IndexRow, MeasureKey, Point, SavedGroup, Saves, Shelf, apply, names};
use crate::store::{Error, PageEnd, RecordOp};

impl Work<'_> {
    /// The records of a commit, but for the collections themselves, which name jobs that are still to be enqueued.
    pub(super) async fn records(&mut self, pages: Vec<PageEnd>, ops: Vec<RecordOp>) -> Result<Option<Sheet>, Error> {
        if pages.is_empty() && ops.is_empty() {
            return Ok(None);
        }
        let sets = self.sets(&names(&pages, &ops)).await?;
        let now = self.now;
        apply(self, now, sets, pages, ops).await.map(Some)
    }

    pub(super) async fn save_collections(&mut self, sheet: &Sheet) -> Result<(), Error> {
        self.save_sets(&sheet.sets()).await?;
        sheet.told().into_iter().for_each(|what| self.packer.note(what));
        Ok(())
    }
}

/// Tuples for `json_each`.
fn tuples<T>(items: impl IntoIterator<Item = T>, tuple: impl Fn(T) -> Vec<Value>) -> String {
    Value::Array(items.into_iter().map(|item| Value::Array(tuple(item))).collect()).to_string()
}

fn group_tuple(key: &GroupKey) -> Vec<Value> {
    vec![key.collection.as_str().into(), (&*key.aggregate).into(), key.bucket.into(), key.group.as_str().into()]
}

fn fill_group(cells: &mut Cells<'_>, key: &GroupKey) {
    cells.str(key.collection.as_str());
    cells.str(&key.aggregate);
    cells.int(key.bucket);
    cells.str(&key.group);
}

#[async_trait]
impl Shelf for Work<'_> {
    type Failure = Error;

    async fn sets(&mut self, names: &BTreeSet<CollectionName>) -> Result<Vec<CollectionInfo>, Error> {
        let names = serde_json::to_string(names).expect("texts are JSON");
        let rows = self.trip.read(sql::COLLECTIONS_BY_NAME, &[names.into()]).await?;
        rows.iter().map(row::collection).collect()
    }

    async fn rows(&mut self, keys: &BTreeSet<RowKey>) -> Result<Vec<Row>, Error> {
        let keys = tuples(keys, |(name, id)| vec![name.as_str().into(), id.as_str().into()]);
        let rows = self.trip.read(sql::RECORD_ROWS, &[keys.into()]).await?;
        rows.iter().map(row::record_row).collect()
    }

    async fn unseen(&mut self, name: &CollectionName, pull: i64, upto: i64, limit: u32) -> Result<Vec<Row>, Error> {
        let values = [name.as_str().into(), pull.into(), upto.into(), i64::from(limit).into()];
        let rows = self.trip.read(sql::UNSEEN_RECORDS, &values).await?;
        rows.iter().map(row::record_row).collect()
    }

    async fn forget(&mut self, name: &CollectionName, before: Timestamp, limit: u32) -> Result<Vec<(Key, i64)>, Error> {
        let values = [name.as_str().into(), before.0.into(), i64::from(limit).into()];
        let rows = self.trip.read(sql::FORGET_RECORDS, &values).await?;
        rows.iter().map(row::forgotten).collect()
    }

    async fn groups(&mut self, keys: &BTreeSet<GroupKey>) -> Result<Vec<(GroupKey, Sums)>, Error> {
        let rows = self.trip.read(sql::RECORD_GROUPS, &[tuples(keys, group_tuple).into()]).await?;
        let read = |row| {
            let mut columns = Columns::of(row);
            Ok((columns.group_key()?, columns.sums()?))
        };
        rows.iter().map(read).collect()
    }

    async fn extremes(&mut self, keys: &BTreeSet<MeasureKey>) -> Result<Vec<(MeasureKey, i64, i64)>, Error> {
        let keys = tuples(keys, |(group, at)| [group_tuple(group), vec![(*at).into()]].concat());
        let rows = self.trip.read(sql::RECORD_EXTREMES, &[keys.into()]).await?;
        Ok(rows.iter().map(row::extremes).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    async fn save(&mut self, saves: Saves) -> Result<(), Error> {
        let bulk = sql::bulk();
        let save = bulk.save_records.write(&mut self.trip, &saves.rows, |cells, row| {
            let record = &row.record;
            cells.str(record.collection.as_str());
            cells.str(record.id.as_str());
            cells.text(&record.data);
            cells.text(&record.hash);
            cells.int(record.version);
            cells.int(record.change);
            cells.int(i64::from(record.deleted));
            cells.int(record.created_at.0);
            cells.int(record.updated_at.0);
            cells.str(&row.facts_text());
            cells.int(row.seen);
        });
        save.await?;
        if !saves.index_gone.is_empty() {
            let gone = tuples(&saves.index_gone, |(name, index, value, id)| {
                vec![name.as_str().into(), (&**index).into(), value.as_str().into(), id.as_str().into()]
            });
            self.trip.write(sql::REMOVE_RECORD_INDEX, &[gone.into()]);
        }
        let add = bulk.add_record_index.write(&mut self.trip, &saves.index_new, |cells, row: &IndexRow| {
            cells.str(row.0.as_str());
            cells.str(&row.1);
            cells.str(&row.2);
            cells.str(row.3.as_str());
        });
        add.await?;
        if !saves.points_gone.is_empty() {
            let gone = tuples(&saves.points_gone, |point| {
                let rest = vec![point.at.1.into(), point.value.into(), point.id.as_str().into()];
                [group_tuple(&point.at.0), rest].concat()
            });
            self.trip.write(sql::REMOVE_RECORD_POINTS, &[gone.into()]);
        }
        let add = bulk.add_record_points.write(&mut self.trip, &saves.points_new, |cells, point: &Point| {
            fill_group(cells, &point.at.0);
            cells.int(i64::from(point.at.1));
            cells.int(point.value);
            cells.str(point.id.as_str());
        });
        add.await
    }

    async fn save_groups(&mut self, groups: Vec<SavedGroup>) -> Result<(), Error> {
        let (kept, gone): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.sums.count != 0);
        if !gone.is_empty() {
            let gone = tuples(&gone, |group| group_tuple(&group.key));
            self.trip.write(sql::REMOVE_RECORD_GROUPS, &[gone.into()]);
        }
        let save = sql::bulk().save_record_groups.write(&mut self.trip, &kept, |cells, group| {
            fill_group(cells, &group.key);
            cells.str(&group.sums_text());
            cells.real(group.rank);
        });
        save.await
    }

    async fn save_sets(&mut self, sets: &[&CollectionInfo]) -> Result<(), Error> {
        let save = sql::bulk().save_collections.write(&mut self.trip, sets, |cells, set| {
            cells.str(set.name.as_str());
            cells.int(set.live);
            cells.int(set.last_change);
            cells.int(set.forgotten);
            cells.text(&set.shape);
            cells.opt_str(row::pull_text(set).as_deref());
        });
        save.await
    }
}

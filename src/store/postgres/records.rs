//! Records: the shelf of one commit. Next: `store/records/rules`, which decides; `read_records`, which reads.

use std::borrow::Cow;
use std::collections::BTreeSet;

use async_trait::async_trait;

use super::arrays::{Query, opt_text, text};
use super::error::Trouble;
use super::row::{self, Columns};
use super::sql;
use super::work::{Step, Work};
use crate::clock::Timestamp;
use crate::model::name::{CollectionName, Key};
use crate::model::record::{CollectionInfo, Sums};
use crate::store::records::rules::{Row, RowKey, Sheet};
use crate::store::records::shelf::{GroupKey, MeasureKey, Point, SavedGroup, Saves, Shelf, apply};
use crate::store::{PageEnd, RecordOp};

impl Work<'_> {
    /// The records of a commit, but for the collections themselves, which name jobs that are still to be enqueued. Their
    /// rows were locked before anything else, so that a commit never waits for one while it holds jobs.
    pub(super) async fn records(
        &mut self,
        sets: Vec<CollectionInfo>,
        pages: Vec<PageEnd>,
        ops: Vec<RecordOp>,
    ) -> Step<Option<Sheet>> {
        if pages.is_empty() && ops.is_empty() {
            return Ok(None);
        }
        let now = self.now;
        apply(self, now, sets, pages, ops).await.map(Some)
    }

    pub(super) async fn save_collections(&mut self, sheet: &Sheet) -> Step<()> {
        self.save_sets(&sheet.sets()).await?;
        sheet.told().into_iter().for_each(|what| self.packer.note(what));
        Ok(())
    }

    async fn run(&mut self, query: Query<'_>) -> Step<()> {
        query.execute(&mut *self.conn).await?;
        Ok(())
    }
}

fn texts<T>(items: &[T], get: impl Fn(&T) -> &str) -> Vec<String> {
    items.iter().map(|item| text(get(item)).into_owned()).collect()
}

fn ints<T>(items: &[T], get: impl Fn(&T) -> i64) -> Vec<i64> {
    items.iter().map(get).collect()
}

/// Collection, aggregate, bucket and group, as all queries about groups take them.
fn bind_groups<'q, T>(query: Query<'q>, items: &[T], key: impl Fn(&T) -> &GroupKey) -> Query<'q> {
    let owned = |get: fn(&GroupKey) -> &str| -> Vec<String> {
        items.iter().map(|item| text(get(key(item))).into_owned()).collect()
    };
    query
        .bind(owned(|k| k.collection.as_str()))
        .bind(owned(|k| &k.aggregate))
        .bind(ints(items, |item| key(item).bucket))
        .bind(owned(|k| &k.group))
}

fn bind_points<'q>(query: Query<'q>, points: &[Point]) -> Query<'q> {
    bind_groups(query, points, |point| &point.at.0)
        .bind(ints(points, |point| i64::from(point.at.1)))
        .bind(ints(points, |point| point.value))
        .bind(points.iter().map(|point| point.id.as_str().to_owned()).collect::<Vec<_>>())
}

#[async_trait]
impl Shelf for Work<'_> {
    type Failure = Trouble;

    async fn sets(&mut self, names: &BTreeSet<CollectionName>) -> Result<Vec<CollectionInfo>, Trouble> {
        let names: Vec<&str> = names.iter().map(CollectionName::as_str).collect();
        self.run(sqlx::query(sql::MAKE_COLLECTIONS).bind(&names)).await?;
        let rows = sqlx::query(sql::LOCK_COLLECTIONS).bind(&names).fetch_all(&mut *self.conn).await?;
        Ok(rows.iter().map(row::collection).collect::<Result<_, _>>()?)
    }

    async fn rows(&mut self, keys: &BTreeSet<RowKey>) -> Result<Vec<Row>, Trouble> {
        let (names, ids): (Vec<&str>, Vec<&str>) = keys.iter().map(|(name, id)| (name.as_str(), id.as_str())).unzip();
        let rows = sqlx::query(sql::RECORD_ROWS).bind(names).bind(ids).fetch_all(&mut *self.conn).await?;
        Ok(rows.iter().map(row::record_row).collect::<Result<_, _>>()?)
    }

    async fn unseen(&mut self, name: &CollectionName, pull: i64, upto: i64, limit: u32) -> Result<Vec<Row>, Trouble> {
        let query = sqlx::query(sql::UNSEEN_RECORDS).bind(name.as_str()).bind(pull).bind(upto).bind(i64::from(limit));
        let rows = query.fetch_all(&mut *self.conn).await?;
        Ok(rows.iter().map(row::record_row).collect::<Result<_, _>>()?)
    }

    async fn forget(
        &mut self,
        name: &CollectionName,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(Key, i64)>, Trouble> {
        let query = sqlx::query(sql::FORGET_RECORDS).bind(name.as_str()).bind(before.0).bind(i64::from(limit));
        let rows = query.fetch_all(&mut *self.conn).await?;
        Ok(rows.iter().map(row::forgotten).collect::<Result<_, _>>()?)
    }

    async fn groups(&mut self, keys: &BTreeSet<GroupKey>) -> Result<Vec<(GroupKey, Sums)>, Trouble> {
        let keys: Vec<&GroupKey> = keys.iter().collect();
        let rows = bind_groups(sqlx::query(sql::RECORD_GROUPS), &keys, |key| key).fetch_all(&mut *self.conn).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut columns = Columns::of(row);
            found.push((columns.group_key()?, columns.sums()?));
        }
        Ok(found)
    }

    async fn extremes(&mut self, keys: &BTreeSet<MeasureKey>) -> Result<Vec<(MeasureKey, i64, i64)>, Trouble> {
        let keys: Vec<&MeasureKey> = keys.iter().collect();
        let query = bind_groups(sqlx::query(sql::RECORD_EXTREMES), &keys, |key| &key.0);
        let rows = query.bind(ints(&keys, |key| i64::from(key.1))).fetch_all(&mut *self.conn).await?;
        Ok(rows.iter().map(row::extremes).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    async fn save(&mut self, saves: Saves) -> Result<(), Trouble> {
        let rows = &saves.rows;
        let save = sqlx::query(sql::SAVE_RECORDS)
            .bind(texts(rows, |row| row.record.collection.as_str()))
            .bind(texts(rows, |row| row.record.id.as_str()))
            .bind(texts(rows, |row| &row.record.data))
            .bind(texts(rows, |row| &row.record.hash))
            .bind(ints(rows, |row| row.record.version))
            .bind(ints(rows, |row| row.record.change))
            .bind(ints(rows, |row| i64::from(row.record.deleted)))
            .bind(ints(rows, |row| row.record.created_at.0))
            .bind(ints(rows, |row| row.record.updated_at.0))
            .bind(rows.iter().map(Row::facts_text).collect::<Vec<_>>())
            .bind(ints(rows, |row| row.seen));
        self.run(save).await?;
        for (query, rows) in [(sql::REMOVE_RECORD_INDEX, &saves.index_gone), (sql::ADD_RECORD_INDEX, &saves.index_new)]
        {
            if !rows.is_empty() {
                let query = sqlx::query(query)
                    .bind(texts(rows, |row| row.0.as_str()))
                    .bind(texts(rows, |row| &row.1))
                    .bind(texts(rows, |row| &row.2))
                    .bind(texts(rows, |row| row.3.as_str()));
                self.run(query).await?;
            }
        }
        for (query, points) in
            [(sql::REMOVE_RECORD_POINTS, &saves.points_gone), (sql::ADD_RECORD_POINTS, &saves.points_new)]
        {
            if !points.is_empty() {
                self.run(bind_points(sqlx::query(query), points)).await?;
            }
        }
        Ok(())
    }

    async fn save_groups(&mut self, groups: Vec<SavedGroup>) -> Result<(), Trouble> {
        let (kept, gone): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.sums.count != 0);
        if !gone.is_empty() {
            self.run(bind_groups(sqlx::query(sql::REMOVE_RECORD_GROUPS), &gone, |group| &group.key)).await?;
        }
        if kept.is_empty() {
            return Ok(());
        }
        let save = bind_groups(sqlx::query(sql::SAVE_RECORD_GROUPS), &kept, |group| &group.key)
            .bind(kept.iter().map(SavedGroup::sums_text).collect::<Vec<_>>())
            .bind(kept.iter().map(|group| group.rank).collect::<Vec<f64>>());
        self.run(save).await
    }

    async fn save_sets(&mut self, sets: &[&CollectionInfo]) -> Result<(), Trouble> {
        let pulls: Vec<Option<String>> = sets.iter().map(|set| row::pull_text(set)).collect();
        let pulls: Vec<Option<Cow<'_, str>>> = pulls.iter().map(|pull| opt_text(pull.as_deref())).collect();
        let save = sqlx::query(sql::SAVE_COLLECTIONS)
            .bind(texts(sets, |set| set.name.as_str()))
            .bind(ints(sets, |set| set.live))
            .bind(ints(sets, |set| set.last_change))
            .bind(ints(sets, |set| set.forgotten))
            .bind(texts(sets, |set| &set.shape))
            .bind(pulls);
        self.run(save).await
    }
}

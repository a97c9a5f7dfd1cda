//! What a store must be able to do for records, and the order in which it is done: lock the collections, load, let the
//! rules decide, write the differences back.
//!
//! Sums are kept, never counted; a smallest or largest that left is looked up in an ordered index. Must never know: SQL. Next: `memory/records` as the simplest shelf.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;

use super::rules::{Moved, Row, RowKey, Sheet};
use super::{PageEnd, RecordOp};
use crate::clock::Timestamp;
use crate::model::name::{CollectionName, Key};
use crate::model::record::{ALL_TIME, CollectionInfo, Entry, Facts, Measured, Sums};

/// A group of an aggregate in a bucket of time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct GroupKey {
    pub collection: CollectionName,
    pub aggregate: Arc<str>,
    pub bucket: i64,
    pub group: String,
}

/// A measure of a group.
pub(in crate::store) type MeasureKey = (GroupKey, u8);

/// One number of one record in the ordered index of a measure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Point {
    pub at: MeasureKey,
    pub value: i64,
    pub id: Key,
}

/// Collection, index, value, id.
pub(in crate::store) type IndexRow = (CollectionName, Arc<str>, String, Key);

/// Differences to write.
#[derive(Debug, Default)]
pub(in crate::store) struct Saves {
    pub rows: Vec<Row>,
    pub index_gone: Vec<IndexRow>,
    pub index_new: Vec<IndexRow>,
    pub points_gone: Vec<Point>,
    pub points_new: Vec<Point>,
}

/// A group as it is saved; a count of 0 takes it away.
#[derive(Debug)]
pub(in crate::store) struct SavedGroup {
    pub key: GroupKey,
    pub sums: Sums,
    /// What the order of groups goes by.
    pub rank: f64,
}

#[async_trait]
pub(in crate::store) trait Shelf: Send {
    type Failure: Send;

    /// Those that exist. Other commits that touch them wait until this one ends.
    async fn sets(&mut self, names: &BTreeSet<CollectionName>) -> Result<Vec<CollectionInfo>, Self::Failure>;
    async fn rows(&mut self, keys: &BTreeSet<RowKey>) -> Result<Vec<Row>, Self::Failure>;
    /// Live records that this pull did not see and that have not changed since change `upto`.
    async fn unseen(
        &mut self,
        name: &CollectionName,
        pull: i64,
        upto: i64,
        limit: u32,
    ) -> Result<Vec<Row>, Self::Failure>;
    /// Takes away records that were deleted before `before`: id and last change of each.
    async fn forget(
        &mut self,
        name: &CollectionName,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(Key, i64)>, Self::Failure>;
    async fn groups(&mut self, keys: &BTreeSet<GroupKey>) -> Result<Vec<(GroupKey, Sums)>, Self::Failure>;
    /// Smallest and largest of those that have any.
    async fn extremes(&mut self, keys: &BTreeSet<MeasureKey>) -> Result<Vec<(MeasureKey, i64, i64)>, Self::Failure>;
    async fn save(&mut self, saves: Saves) -> Result<(), Self::Failure>;
    async fn save_groups(&mut self, groups: Vec<SavedGroup>) -> Result<(), Self::Failure>;
    async fn save_sets(&mut self, sets: &[&CollectionInfo]) -> Result<(), Self::Failure>;
}

/// The collections that a batch touches.
pub(in crate::store) fn names(pages: &[PageEnd], ops: &[RecordOp]) -> BTreeSet<CollectionName> {
    let of_op = |op: &RecordOp| match op {
        RecordOp::Write(write) => write.collection.clone(),
        RecordOp::StartPull(start) => start.collection.clone(),
        RecordOp::Push { collection, .. }
        | RecordOp::Sweep { collection, .. }
        | RecordOp::Forget { collection, .. }
        | RecordOp::Reshape { collection, .. } => collection.clone(),
    };
    pages.iter().map(|page| page.collection.clone()).chain(ops.iter().map(of_op)).collect()
}

/// Does everything but enqueue the jobs that come of it, and save the collections, which name some of these.
/// `pages` are those whose call ended so that it counts.
pub(in crate::store) async fn apply<S: Shelf>(
    shelf: &mut S,
    now: Timestamp,
    sets: Vec<CollectionInfo>,
    pages: Vec<PageEnd>,
    ops: Vec<RecordOp>,
) -> Result<Sheet, S::Failure> {
    let mut sheet = Sheet::new(now, sets);
    let mut loaded = BTreeSet::new();
    let needs = pages.iter().flat_map(needs_of_page).chain(ops.iter().flat_map(needs_of));
    let needs: BTreeSet<RowKey> = needs.collect();
    if !needs.is_empty() {
        sheet.load(shelf.rows(&needs).await?);
        loaded.extend(needs);
    }
    for page in pages {
        sheet.end_page(page);
    }
    for op in ops {
        let mut found = Vec::new();
        // These look for rows, so they must see what came before them written, and what comes after loads anew.
        let looks = matches!(op, RecordOp::Sweep { .. } | RecordOp::Forget { .. });
        if looks {
            flush(shelf, &mut sheet).await?;
            loaded.clear();
        }
        match &op {
            RecordOp::Sweep { collection, pull, limit, .. } => {
                let upto = sheet.swept_upto(collection, *pull);
                let rows = shelf.unseen(collection, *pull, upto, *limit).await?;
                found = rows.iter().map(|row| row.record.id.clone()).collect();
                sheet.load(rows);
            }
            RecordOp::Forget { collection, before, limit } => {
                let gone = shelf.forget(collection, *before, *limit).await?;
                sheet.forgotten(collection, gone.iter().map(|(_, change)| *change).max().unwrap_or(0));
                found = gone.into_iter().map(|(id, _)| id).collect();
            }
            _ => {
                let missing: BTreeSet<RowKey> = needs_of(&op).into_iter().filter(|key| !loaded.contains(key)).collect();
                if !missing.is_empty() {
                    sheet.load(shelf.rows(&missing).await?);
                    loaded.extend(missing);
                }
            }
        }
        sheet.act(op, found);
        if looks {
            flush(shelf, &mut sheet).await?;
        }
    }
    flush(shelf, &mut sheet).await?;
    Ok(sheet)
}

fn needs_of_page(page: &PageEnd) -> Vec<RowKey> {
    match &page.what {
        super::PageWhat::Stored { writes, .. } => writes.iter().map(|w| (w.collection.clone(), w.id.clone())).collect(),
        super::PageWhat::Failed { .. } => Vec::new(),
    }
}

fn needs_of(op: &RecordOp) -> Vec<RowKey> {
    match op {
        RecordOp::Write(write) => vec![(write.collection.clone(), write.id.clone())],
        RecordOp::Push { collection, id, .. } => vec![(collection.clone(), id.clone())],
        RecordOp::Reshape { collection, items, .. } => {
            items.iter().map(|(id, ..)| (collection.clone(), id.clone())).collect()
        }
        RecordOp::StartPull(_) | RecordOp::Sweep { .. } | RecordOp::Forget { .. } => Vec::new(),
    }
}

async fn flush<S: Shelf>(shelf: &mut S, sheet: &mut Sheet) -> Result<(), S::Failure> {
    let moved = sheet.take_moved();
    if moved.is_empty() {
        return Ok(());
    }
    let (saves, deltas) = differences(moved);
    shelf.save(saves).await?;
    if deltas.is_empty() {
        return Ok(());
    }
    let keys: BTreeSet<GroupKey> = deltas.keys().cloned().collect();
    let mut known: BTreeMap<GroupKey, Sums> = shelf.groups(&keys).await?.into_iter().collect();
    let mut groups = Vec::with_capacity(deltas.len());
    let mut lost = BTreeSet::new();
    for (key, delta) in deltas {
        let mut sums = known.remove(&key).unwrap_or_default();
        delta.apply(&mut sums, &key, &mut lost);
        groups.push((key, sums, delta.order));
    }
    if !lost.is_empty() {
        let found = shelf.extremes(&lost).await?;
        let mut found: BTreeMap<MeasureKey, (i64, i64)> = found.into_iter().map(|(key, a, b)| (key, (a, b))).collect();
        for (key, sums, _) in &mut groups {
            for (at, measured) in (0u8..).zip(&mut sums.measures) {
                let at = (key.clone(), at);
                if lost.contains(&at) {
                    let ends = found.remove(&at);
                    (measured.min, measured.max) = (ends.map(|e| e.0), ends.map(|e| e.1));
                }
            }
        }
    }
    let saved = groups.into_iter().map(|(key, sums, order)| SavedGroup { rank: rank(&sums, order), key, sums });
    shelf.save_groups(saved.collect()).await
}

fn rank(sums: &Sums, order: u8) -> f64 {
    match order.checked_sub(1).and_then(|at| sums.measures.get(usize::from(at))) {
        Some(measured) => measured.sum as f64,
        None => sums.count as f64,
    }
}

/// What a commit adds to and takes from one group.
#[derive(Debug, Default)]
struct Delta {
    count: i64,
    order: u8,
    /// Count and sum by measure, and the numbers that came and went where a smallest and a largest are kept.
    measures: Vec<(i64, i128, Vec<i64>, Vec<i64>)>,
}

impl Delta {
    fn add(&mut self, entry: &Entry, sign: i64) {
        self.count += sign;
        self.order = entry.order;
        if self.measures.len() < entry.values.len() {
            self.measures.resize_with(entry.values.len(), Default::default);
        }
        for (at, value) in entry.values.iter().enumerate() {
            let Some(value) = value else { continue };
            let (count, sum, came, went) = &mut self.measures[at];
            *count += sign;
            *sum += i128::from(sign) * i128::from(*value);
            if entry.extremes & (1 << at) != 0 {
                if sign > 0 { came.push(*value) } else { went.push(*value) }
            }
        }
    }

    fn apply(&self, sums: &mut Sums, key: &GroupKey, lost: &mut BTreeSet<MeasureKey>) {
        sums.count += self.count;
        if sums.measures.len() < self.measures.len() {
            sums.measures.resize(self.measures.len(), Measured::default());
        }
        for (at, (count, sum, came, went)) in self.measures.iter().enumerate() {
            let measured = &mut sums.measures[at];
            measured.count += count;
            measured.sum += sum;
            let is_end = |value: &i64| Some(*value) == measured.min || Some(*value) == measured.max;
            if went.iter().any(is_end) {
                lost.insert((key.clone(), at as u8));
            }
            for value in came {
                measured.min = Some(measured.min.map_or(*value, |min| min.min(*value)));
                measured.max = Some(measured.max.map_or(*value, |max| max.max(*value)));
            }
            // What came and went within this commit may have been an end in between.
            if came.iter().any(|value| went.contains(value)) {
                lost.insert((key.clone(), at as u8));
            }
        }
    }
}

fn differences(moved: Vec<Moved>) -> (Saves, BTreeMap<GroupKey, Delta>) {
    let mut saves = Saves::default();
    let mut deltas: BTreeMap<GroupKey, Delta> = BTreeMap::new();
    for Moved { row, held } in moved {
        let none = Arc::<Facts>::default();
        let now = if row.record.deleted { &none } else { &row.facts };
        let (collection, id) = (&row.record.collection, &row.record.id);
        let index_row =
            |(index, value): &(Arc<str>, String)| (collection.clone(), index.clone(), value.clone(), id.clone());
        saves.index_gone.extend(held.indexes.iter().filter(|i| !now.indexes.contains(i)).map(index_row));
        saves.index_new.extend(now.indexes.iter().filter(|i| !held.indexes.contains(i)).map(index_row));
        for (entries, others, sign) in [(&held.entries, &now.entries, -1), (&now.entries, &held.entries, 1)] {
            for entry in entries.iter().filter(|entry| !others.contains(entry)) {
                for bucket in [Some(ALL_TIME), entry.bucket].into_iter().flatten() {
                    let (aggregate, group) = (entry.aggregate.clone(), entry.group.clone());
                    let key = GroupKey { collection: collection.clone(), aggregate, bucket, group };
                    let points = if sign < 0 { &mut saves.points_gone } else { &mut saves.points_new };
                    points.extend(points_of(entry, &key, id));
                    deltas.entry(key).or_default().add(entry, sign);
                }
            }
        }
        saves.rows.push(row);
    }
    (saves, deltas)
}

fn points_of<'a>(entry: &'a Entry, key: &'a GroupKey, id: &'a Key) -> impl Iterator<Item = Point> + 'a {
    let kept = (0u8..).zip(&entry.values).filter(|(at, _)| entry.extremes & (1 << at) != 0);
    kept.filter_map(|(at, value)| Some(Point { at: (key.clone(), at), value: (*value)?, id: id.clone() }))
}

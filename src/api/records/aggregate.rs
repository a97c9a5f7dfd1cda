//! Sums over a collection: the groups of a declared aggregate, over all time or over a window of whole buckets.
//!
//! All time is one range of an ordered index; a window adds its buckets up, and is refused when there are too many of
//! them to be quick. Must never know: proto types, SQL. Next: `store/records`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::Api;
use super::super::error::{Code, Error, Result};
use crate::clock::Timestamp;
use crate::model::collection::Aggregate;
use crate::model::record::{Group, Measured, Sums};
use crate::store::PAGE_MAX;

/// Groups of an answer when nothing is said.
const TOP_DEFAULT: usize = 100;
/// Groups times buckets that one window may read: what is answered is answered in 10 ms, and a group in a bucket costs up
/// to 3 us (SQLite's driver hands it over row by row, then its sums are read from JSON). 10,000 would take 30 ms.
pub const CELLS_MAX: usize = 3_000;

#[derive(Clone, Debug, Default)]
pub struct AggregateSpec {
    pub collection: String,
    pub aggregate: String,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    pub window: Option<Duration>,
    pub top: i32,
}

#[derive(Clone, Debug)]
pub struct Aggregated {
    pub aggregate: Aggregate,
    /// Largest first.
    pub groups: Vec<Group>,
    /// Begin of the first bucket; `None`: all time.
    pub start: Option<Timestamp>,
}

impl Api {
    pub async fn aggregate_records(&self, spec: AggregateSpec) -> Result<Aggregated> {
        let collection = self.declared(&spec.collection)?;
        let aggregate = collection.aggregate(&spec.aggregate).cloned().ok_or_else(|| {
            let known: Vec<&str> = collection.aggregates.keys().map(|name| &**name).collect();
            let said = format!(
                "collection {} has no aggregate {:?}; declared are [{}]",
                collection.name,
                spec.aggregate,
                known.join(", ")
            );
            Error::field("aggregate", "NO_SUCH_AGGREGATE", said)
        })?;
        let top = match usize::try_from(spec.top) {
            Ok(0) => TOP_DEFAULT,
            Ok(n) => n.min(PAGE_MAX),
            Err(_) => {
                return Err(Error::field("top", "BAD_TOP", format_args!("expected 0 to {PAGE_MAX}, got {}", spec.top)));
            }
        };
        self.need_built(&collection).await?;
        let store = self.engine().store();
        let Some((from, to)) = self.span(&spec, &aggregate)? else {
            let groups = store.top_groups(&collection.name, &aggregate.name, top).await?;
            return Ok(Aggregated { aggregate, groups, start: None });
        };
        let cells = store.groups_between(&collection.name, &aggregate.name, from, to, CELLS_MAX + 1).await?;
        if cells.len() > CELLS_MAX {
            return Err(too_wide(&cells, &aggregate));
        }
        let mut groups = added_up(cells);
        groups.sort_by(|a, b| {
            rank(&b.sums, aggregate.order).cmp(&rank(&a.sums, aggregate.order)).then(a.group.cmp(&b.group))
        });
        groups.truncate(top);
        Ok(Aggregated { aggregate, groups, start: Some(Timestamp(from)) })
    }

    /// From (inclusive) to (exclusive), at the bounds of buckets; `None`: all time.
    fn span(&self, spec: &AggregateSpec, aggregate: &Aggregate) -> Result<Option<(i64, i64)>> {
        if spec.start.is_none() && spec.end.is_none() && spec.window.is_none() {
            return Ok(None);
        }
        let Some((_, bucket)) = &aggregate.time else {
            let said = format!("aggregate {} has no time; declare time and bucket for it", aggregate.name);
            return Err(Error::field("window", "NO_TIME", said));
        };
        if spec.start.is_some() && spec.window.is_some() {
            return Err(Error::field("window", "TWO_STARTS", "expected start_time or window, got both"));
        }
        let bucket = bucket.as_micros() as i64;
        let end = spec.end.unwrap_or_else(|| self.clock().now());
        let start = match spec.window {
            Some(window) => end - window,
            None => spec.start.unwrap_or(Timestamp(i64::MIN / 2)),
        };
        if start > end {
            return Err(Error::field("start_time", "BAD_SPAN", "expected a start before the end"));
        }
        let begin = |at: Timestamp| at.0.div_euclid(bucket) * bucket;
        Ok(Some((begin(start), begin(end) + bucket)))
    }
}

/// Says what would be answered. `cells` are the first of those that the window has.
fn too_wide(cells: &[Group], aggregate: &Aggregate) -> Error {
    let groups = cells.iter().map(|cell| &cell.group).collect::<BTreeSet<_>>().len();
    let fit = CELLS_MAX / groups.max(1);
    let bucket = aggregate.time.as_ref().map_or(Duration::ZERO, |(_, bucket)| *bucket);
    let way_out = if fit == 0 {
        "ask for all time, which is kept summed up, or declare the aggregate with fewer groups".to_owned()
    } else {
        format!(
            "with {groups} groups or more it may have {fit} buckets of {} s: ask for a shorter one, or declare longer buckets",
            bucket.as_secs()
        )
    };
    let said = format!("expected a window of at most {CELLS_MAX} groups times buckets; {way_out}");
    Error::new(Code::FailedPrecondition, "WINDOW_TOO_WIDE", said)
        .with("cells_max", CELLS_MAX.to_string())
        .with("buckets_max", fit.to_string())
}

fn rank(sums: &Sums, order: u8) -> i128 {
    match order.checked_sub(1) {
        Some(at) => sums.measures.get(usize::from(at)).map_or(0, |measured| measured.sum),
        None => i128::from(sums.count),
    }
}

/// The buckets of each group as one.
fn added_up(cells: Vec<Group>) -> Vec<Group> {
    let mut groups: BTreeMap<Arc<str>, Sums> = BTreeMap::new();
    for cell in cells {
        let sums = groups.entry(cell.group.into()).or_default();
        sums.count += cell.sums.count;
        if sums.measures.len() < cell.sums.measures.len() {
            sums.measures.resize(cell.sums.measures.len(), Measured::default());
        }
        for (all, one) in sums.measures.iter_mut().zip(cell.sums.measures) {
            all.count += one.count;
            all.sum += one.sum;
            all.min = [all.min, one.min].into_iter().flatten().min();
            all.max = [all.max, one.max].into_iter().flatten().max();
        }
    }
    groups.into_iter().map(|(group, sums)| Group { group: group.to_string(), sums }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::collection::Field;

    #[test]
    fn a_window_that_is_too_wide_is_told_what_would_fit() {
        let day = Duration::from_secs(86_400);
        let aggregate = Aggregate {
            name: "by_shop".into(),
            group_by: Vec::new(),
            measures: Vec::new(),
            extremes: 0,
            order: 0,
            time: Some((Field { name: "at".into(), pointer: "/at".into() }, day)),
        };
        let cells = |groups: usize| -> Vec<Group> {
            let cell = |n: usize| Group { group: format!("s{}", n % groups), sums: Sums::default() };
            (0..=CELLS_MAX).map(cell).collect()
        };
        let said = too_wide(&cells(48), &aggregate).message;
        assert!(said.contains("with 48 groups or more it may have 62 buckets of 86400 s"), "{said}");
        let said = too_wide(&cells(CELLS_MAX + 1), &aggregate).message;
        assert!(said.contains("ask for all time") && !said.contains("buckets of"), "{said}");
    }
}

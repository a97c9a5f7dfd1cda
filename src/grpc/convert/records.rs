//! Records and collections as proto.
//!
//! Must never know: policy. Next: `api/records`.

use super::{count, time};
use crate::api::records::aggregate::Aggregated;
use crate::api::records::watch::RecordItem;
use crate::api::records::{CollectionView, PutSpec, Written};
use crate::api::{Error, Result};
use crate::grpc::pb;
use crate::grpc::status::item_error;
use crate::model::collection::{Aggregate, show_number};
use crate::model::record::{Group, Pull, PullState, Record};

pub fn record(record: Record) -> pb::Record {
    pb::Record {
        collection: record.collection.to_string(),
        id: record.id.to_string(),
        data: record.data.to_string(),
        version: record.version,
        change: record.change,
        content_hash: record.hash.to_string(),
        deleted: record.deleted,
        create_time: time(record.created_at),
        update_time: time(record.updated_at),
    }
}

pub fn put_spec(spec: pb::RecordSpec) -> PutSpec {
    PutSpec { id: spec.id, data: spec.data, expect: spec.expected_version }
}

pub fn put_results(all: Vec<Result<Written>>) -> pb::PutRecordsResponse {
    let result = |(at, result): (usize, Result<Written, Error>)| match result {
        Ok(written) => pb::PutResult {
            version: written.record.version,
            changed: written.changed,
            push_job_id: written.push.map(|id| id.to_string()).unwrap_or_default(),
            error: None,
        },
        Err(error) => {
            let error = Some(item_error(error.under(&format!("records[{at}]"))));
            pb::PutResult { version: 0, changed: false, push_job_id: String::new(), error }
        }
    };
    let results: Vec<pb::PutResult> = all.into_iter().enumerate().map(result).collect();
    let changed_count = count(results.iter().filter(|result| result.changed).count());
    pb::PutRecordsResponse { results, changed_count }
}

pub fn aggregated(aggregated: Aggregated) -> pb::AggregateRecordsResponse {
    let Aggregated { aggregate, groups, start } = aggregated;
    let order_by = match aggregate.order.checked_sub(1) {
        Some(at) => aggregate.measures.get(usize::from(at)).map(|(name, _)| name.to_string()).unwrap_or_default(),
        None => "count".to_owned(),
    };
    pb::AggregateRecordsResponse {
        groups: groups.into_iter().map(|of| group(of, &aggregate)).collect(),
        group_by: aggregate.group_by.iter().map(|field| field.name.to_string()).collect(),
        order_by,
        start_time: start.and_then(time),
    }
}

fn group(group: Group, aggregate: &Aggregate) -> pb::AggregateGroup {
    let end = |n: Option<i64>| n.map(|n| show_number(i128::from(n))).unwrap_or_default();
    let measures = aggregate.measures.iter().enumerate().map(|(at, (name, _))| {
        let measured = group.sums.measures.get(at).copied().unwrap_or_default();
        pb::Measure {
            name: name.to_string(),
            count: measured.count,
            sum: show_number(measured.sum),
            min: end(measured.min),
            max: end(measured.max),
        }
    });
    let measures = measures.collect();
    pb::AggregateGroup { count: group.sums.count, group: group.group, measures }
}

pub fn pull_state(state: PullState) -> pb::PullState {
    match state {
        PullState::Running => pb::PullState::Running,
        PullState::Sweeping => pb::PullState::Sweeping,
        PullState::Done => pb::PullState::Done,
        PullState::Failed => pb::PullState::Failed,
    }
}

pub fn pull(pull: Pull) -> pb::Pull {
    pb::Pull {
        id: pull.id,
        state: pull_state(pull.state) as i32,
        full: pull.full,
        job_id: pull.job_id().map(|id| id.to_string()).unwrap_or_default(),
        page_count: i64::from(pull.pages),
        item_count: count(pull.items),
        changed_count: count(pull.changed),
        deleted_count: count(pull.deleted),
        rejected_count: count(pull.rejected),
        error: pull.error.unwrap_or_default(),
        actor: pull.actor,
        start_time: time(pull.started_at),
        update_time: time(pull.updated_at),
        finish_time: pull.finished_at.and_then(time),
    }
}

pub fn collection(view: CollectionView) -> pb::Collection {
    let CollectionView { declared, known, building } = view;
    let (live, last_change, newest) = known.map(|k| (k.live, k.last_change, k.pull)).unwrap_or_default();
    pb::Collection {
        name: declared.name.to_string(),
        record_count: live,
        last_change,
        indexes: declared.indexes.iter().map(|index| index.name.to_string()).collect(),
        aggregates: declared.aggregates.keys().map(ToString::to_string).collect(),
        building,
        pull_operation: declared.pull.as_ref().map(|p| format!("{}/{}", p.provider, p.operation)).unwrap_or_default(),
        push_operation: declared.push.as_ref().map(|p| format!("{}/{}", p.provider, p.operation)).unwrap_or_default(),
        pull: newest.map(pull),
    }
}

pub fn item(item: RecordItem) -> pb::WatchRecordsResponse {
    use pb::watch_records_response::Item as I;
    match item {
        RecordItem::Record { resume_token, record: of } => {
            pb::WatchRecordsResponse { resume_token, item: Some(I::Record(record(*of))) }
        }
        RecordItem::Bookmark { resume_token, change } => {
            pb::WatchRecordsResponse { resume_token, item: Some(I::Bookmark(pb::RecordsBookmark { change })) }
        }
    }
}

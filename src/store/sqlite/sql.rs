//! Every query of this store: one a file, its purpose and index in its first lines.

use std::sync::LazyLock;

use super::bulk::Bulk;

pub(super) const AHEAD: &str = include_str!("ahead.sql");
pub(super) const ALERTS: &str = include_str!("alerts.sql");
pub(super) const BEGIN_JOBS: &str = include_str!("begin_jobs.sql");
pub(super) const BLOCKER: &str = include_str!("blocker.sql");
pub(super) const BUMP_EPOCH: &str = include_str!("bump_epoch.sql");
pub(super) const BUSY_FLOWS: &str = include_str!("busy_flows.sql");
pub(super) const CALLS: &str = include_str!("calls.sql");
pub(super) const CALL_FLOOR: &str = include_str!("call_floor.sql");
pub(super) const CLAIM: &str = include_str!("claim.sql");
pub(super) const CLAIMED: &str = include_str!("claimed.sql");
pub(super) const CLEAR_ALERT: &str = include_str!("clear_alert.sql");
pub(super) const COLLECTIONS: &str = include_str!("collections.sql");
pub(super) const COLLECTIONS_BY_NAME: &str = include_str!("collections_by_name.sql");
pub(super) const CORES: &str = include_str!("cores.sql");
pub(super) const CORES_WITH_KEY: &str = include_str!("cores_with_key.sql");
pub(super) const DELETE_IDEMPOTENCY: &str = include_str!("delete_idempotency.sql");
pub(super) const DELETE_JOBS: &str = include_str!("delete_jobs.sql");
pub(super) const DELETE_PROVIDER: &str = include_str!("delete_provider.sql");
pub(super) const DELETE_SCHEDULE: &str = include_str!("delete_schedule.sql");
pub(super) const DELIVER_JOBS: &str = include_str!("deliver_jobs.sql");
pub(super) const DUE: &str = include_str!("due.sql");
pub(super) const END_CALLS: &str = include_str!("end_calls.sql");
pub(super) const EVENTS: &str = include_str!("events.sql");
pub(super) const EVENT_BOUNDS: &str = include_str!("event_bounds.sql");
pub(super) const FLOWS_BY_ID: &str = include_str!("flows_by_id.sql");
pub(super) const FLOWS_BY_KEY: &str = include_str!("flows_by_key.sql");
pub(super) const FLOW_APART: &str = include_str!("flow_apart.sql");
pub(super) const FLOW_READY: &str = include_str!("flow_ready.sql");
pub(super) const FORGET_RECORDS: &str = include_str!("forget_records.sql");
pub(super) const GROUPS_BETWEEN: &str = include_str!("groups_between.sql");
pub(super) const IDEMPOTENCY: &str = include_str!("idempotency.sql");
pub(super) const INSERT_CALLS: &str = include_str!("insert_calls.sql");
pub(super) const INSERT_EVENTS: &str = include_str!("insert_events.sql");
pub(super) const JOBS: &str = include_str!("jobs.sql");
pub(super) const JOURNAL: &str = include_str!("journal.sql");
pub(super) const KEY_IN_USE: &str = include_str!("key_in_use.sql");
pub(super) const LAST_NUMBERS: &str = include_str!("last_numbers.sql");
pub(super) const LEASE_TOKEN: &str = include_str!("lease_token.sql");
pub(super) const LIST_CALLS: &str = include_str!("list_calls.sql");
pub(super) const LIST_FLOOR: &str = include_str!("list_floor.sql");
pub(super) const LIST_JOBS: &str = include_str!("list_jobs.sql");
pub(super) const LIST_RECORDS: &str = include_str!("list_records.sql");
pub(super) const LIST_RECORDS_BY_INDEX: &str = include_str!("list_records_by_index.sql");
pub(super) const LIST_RUNS: &str = include_str!("list_runs.sql");
pub(super) const META: &str = include_str!("meta.sql");
pub(super) const NEXT_DUE: &str = include_str!("next_due.sql");
pub(super) const OLDEST_READY: &str = include_str!("oldest_ready.sql");
pub(super) const OLD_DEAD: &str = include_str!("old_dead.sql");
pub(super) const OLD_DONE: &str = include_str!("old_done.sql");
pub(super) const OPEN_CALLS: &str = include_str!("open_calls.sql");
pub(super) const OPEN_CALL_JOBS: &str = include_str!("open_call_jobs.sql");
pub(super) const PAYLOADS: &str = include_str!("payloads.sql");
pub(super) const PLACE_OF: &str = include_str!("place_of.sql");
pub(super) const PROVIDER: &str = include_str!("provider.sql");
pub(super) const PROVIDERS: &str = include_str!("providers.sql");
pub(super) const PRUNE_CALLS: &str = include_str!("prune_calls.sql");
pub(super) const PRUNE_DELIVERIES: &str = include_str!("prune_deliveries.sql");
pub(super) const PRUNE_EVENTS: &str = include_str!("prune_events.sql");
pub(super) const PRUNE_FLOWS: &str = include_str!("prune_flows.sql");
pub(super) const PRUNE_RUNS: &str = include_str!("prune_runs.sql");
pub(super) const RAISE_ALERT: &str = include_str!("raise_alert.sql");
pub(super) const RECORD_CHANGES: &str = include_str!("record_changes.sql");
pub(super) const RECORD_EXTREMES: &str = include_str!("record_extremes.sql");
pub(super) const RECORD_GROUPS: &str = include_str!("record_groups.sql");
pub(super) const RECORD_ROWS: &str = include_str!("record_rows.sql");
pub(super) const RELEASE_TOKEN: &str = include_str!("release_token.sql");
pub(super) const RELEASED: &str = include_str!("released.sql");
pub(super) const REMOVE_RECORD_GROUPS: &str = include_str!("remove_record_groups.sql");
pub(super) const REMOVE_RECORD_INDEX: &str = include_str!("remove_record_index.sql");
pub(super) const REMOVE_RECORD_POINTS: &str = include_str!("remove_record_points.sql");
pub(super) const REPEAT_ALERT: &str = include_str!("repeat_alert.sql");
pub(super) const RESPEND_CALL: &str = include_str!("respend_call.sql");
pub(super) const RUN_FLOWS: &str = include_str!("run_flows.sql");
pub(super) const FILL_RUN: &str = include_str!("fill_run.sql");
pub(super) const JOBS_UPTO: &str = include_str!("jobs_upto.sql");
pub(super) const RUN_DELIVERED: &str = include_str!("run_delivered.sql");
pub(super) const RUN_UNDOING: &str = include_str!("run_undoing.sql");
pub(super) const RUNS_BY_SEQ: &str = include_str!("runs_by_seq.sql");
pub(super) const SAVE_DELIVERY: &str = include_str!("save_delivery.sql");
pub(super) const SAVE_META: &str = include_str!("save_meta.sql");
pub(super) const SAVE_PROVIDER: &str = include_str!("save_provider.sql");
pub(super) const SAVE_SCHEDULE: &str = include_str!("save_schedule.sql");
pub(super) const SAVE_STEADY: &str = include_str!("save_steady.sql");
pub(super) const SAVE_TOKEN: &str = include_str!("save_token.sql");
pub(super) const SCHEDULE: &str = include_str!("schedule.sql");
pub(super) const SCHEDULES: &str = include_str!("schedules.sql");
pub(super) const TAILS: &str = include_str!("tails.sql");
pub(super) const TALLIES: &str = include_str!("tallies.sql");
pub(super) const TOP_GROUPS: &str = include_str!("top_groups.sql");
pub(super) const TURN_BOUNDS: &str = include_str!("turn_bounds.sql");
pub(super) const UNSEEN_RECORDS: &str = include_str!("unseen_records.sql");
pub(super) const UPDATE_PAYLOAD: &str = include_str!("update_payload.sql");

/// Queries whose tuple is repeated for as many rows as there are.
#[derive(Debug)]
pub(super) struct Bulks {
    pub insert_jobs: Bulk,
    pub update_jobs: Bulk,
    pub update_texts: Bulk,
    pub insert_idempotency: Bulk,
    pub save_flows: Bulk,
    pub save_tallies: Bulk,
    pub save_runs: Bulk,
    pub save_records: Bulk,
    pub add_record_index: Bulk,
    pub add_record_points: Bulk,
    pub save_record_groups: Bulk,
    pub save_collections: Bulk,
}

pub(super) fn bulk() -> &'static Bulks {
    static BULKS: LazyLock<Bulks> = LazyLock::new(|| Bulks {
        insert_jobs: Bulk::new(include_str!("insert_jobs.sql")),
        update_jobs: Bulk::new(include_str!("update_jobs.sql")),
        update_texts: Bulk::new(include_str!("update_texts.sql")),
        insert_idempotency: Bulk::new(include_str!("insert_idempotency.sql")),
        save_flows: Bulk::new(include_str!("save_flows.sql")),
        save_tallies: Bulk::new(include_str!("save_tallies.sql")),
        save_runs: Bulk::new(include_str!("save_runs.sql")),
        save_records: Bulk::new(include_str!("save_records.sql")),
        add_record_index: Bulk::new(include_str!("add_record_index.sql")),
        add_record_points: Bulk::new(include_str!("add_record_points.sql")),
        save_record_groups: Bulk::new(include_str!("save_record_groups.sql")),
        save_collections: Bulk::new(include_str!("save_collections.sql")),
    });
    &BULKS
}

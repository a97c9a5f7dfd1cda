//! Runs as proto.
//!
//! Must never know: policy. Next: `api/runs`.

use super::{count, counts, run_state, time};
use crate::api::runs::{RunSpec, RunView};
use crate::api::undo::Undone;
use crate::api::watch::run::RunItem;
use crate::grpc::pb;

pub fn run_spec(request: pb::CreateRunRequest) -> RunSpec {
    let pb::CreateRunRequest { display_name, tenant, labels, request_id } = request;
    RunSpec { display_name, tenant, labels, request_id }
}

pub fn run(view: RunView) -> pb::Run {
    let RunView { run, forecast_at, undo_of, progress } = view;
    pb::Run {
        id: run.id.to_string(),
        display_name: run.display_name,
        tenant: run.tenant.to_string(),
        labels: run.labels,
        state: run_state(run.state) as i32,
        counts: Some(counts(&run.counts)),
        job_count: count(run.counts.accepted()),
        create_time: time(run.id.created_at),
        update_time: time(run.updated_at),
        finish_time: run.finished_at.and_then(time),
        forecast_finish_time: forecast_at.and_then(time),
        undo_of_run_id: undo_of.map(|id| id.to_string()).unwrap_or_default(),
        progress: progress.map(super::workers::run_progress),
    }
}

pub fn undone(undone: Undone) -> pb::UndoRunResponse {
    let Undone { run: view, jobs, forgotten, complete } = undone;
    pb::UndoRunResponse { run: view.map(run), job_count: count(jobs), forgotten_count: count(forgotten), complete }
}

pub fn run_item(item: RunItem) -> pb::WatchRunResponse {
    use pb::watch_run_response::Item as I;
    match item {
        RunItem::Run { resume_token, run: view } => {
            pb::WatchRunResponse { resume_token, item: Some(I::Run(run(*view))) }
        }
        RunItem::Bookmark { resume_token, sequence } => {
            pb::WatchRunResponse { resume_token, item: Some(I::Bookmark(pb::Bookmark { sequence })) }
        }
    }
}

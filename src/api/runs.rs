//! Runs: make, seal, pause, resume, call off, list, with progress and forecast.
//!
//! Must never know: proto types. Next: `api/watch/run`; jobs are added through `api/enqueue`.

use super::enqueue::check_labels;
use super::error::{Error, Result, parse_id};
use super::jobs::Page;
use super::{Api, page, repeat};
use crate::clock::Timestamp;
use crate::model::id::RunId;
use crate::model::job::Labels;
use crate::model::name::Tenant;
use crate::model::run::{NewRun, Run, RunWish};
use crate::model::worker::RunProgress;
use crate::store::{Change, Changed};

/// Longest display name, bytes.
pub const DISPLAY_NAME_BYTES_MAX: usize = 256;

/// A run as it is shown.
#[derive(Clone, Debug)]
pub struct RunView {
    pub run: Run,
    /// When the jobs it has now are through; `None` when it cannot be said, and in lists.
    pub forecast_at: Option<Timestamp>,
    /// The run that this one undoes; not looked up in lists.
    pub undo_of: Option<RunId>,
    /// How far those of its jobs are that workers have here; not looked up in lists.
    pub progress: Option<RunProgress>,
}

impl RunView {
    fn plain(run: Run) -> Self {
        RunView { run, forecast_at: None, undo_of: None, progress: None }
    }
}

/// What a client says about a new run.
#[derive(Clone, Debug, Default)]
pub struct RunSpec {
    pub display_name: String,
    pub tenant: String,
    pub labels: Labels,
    /// Empty: none.
    pub request_id: String,
}

impl Api {
    pub async fn create_run(&self, spec: RunSpec) -> Result<RunView> {
        let RunSpec { display_name, tenant, labels, request_id } = spec;
        if display_name.len() > DISPLAY_NAME_BYTES_MAX || display_name.chars().any(char::is_control) {
            let said = format!("expected at most {DISPLAY_NAME_BYTES_MAX} bytes without control characters");
            return Err(Error::field("display_name", "BAD_DISPLAY_NAME", said));
        }
        let tenant = Tenant::new(&tenant).map_err(|e| Error::field("tenant", "BAD_NAME", e))?;
        check_labels(&labels).map_err(|said| Error::field("labels", "BAD_LABELS", said))?;
        repeat::check(&request_id)?;
        let content = page::fingerprint("run", &format!("{:?}", (&display_name, &tenant, &labels)));
        let now = self.clock().now();
        if let Some(first) = self.0.repeats.find::<RunId>(&request_id, "CreateRun", content, now)? {
            return self.run(first).await;
        }
        let run = NewRun { display_name, tenant, labels, undo_of: None };
        let run = self.changed_run(Change::CreateRun { run }).await?;
        self.0.repeats.keep(&request_id, "CreateRun", content, now, run.id);
        Ok(RunView::plain(run))
    }

    pub async fn wish_run(&self, id: &str, wish: RunWish) -> Result<RunView> {
        let run = parse_id("run_id", id)?;
        let run = self.changed_run(Change::WishRun { run, wish }).await?;
        self.run_view(run).await
    }

    pub async fn get_run(&self, id: &str) -> Result<RunView> {
        self.run(parse_id("run_id", id)?).await
    }

    pub async fn list_runs(&self, page_size: i32, page_token: &str) -> Result<Page<RunView>> {
        let list = page::fingerprint("runs", "");
        let size = page::size(page_size)?;
        let runs = self.engine().store().list_runs(page::position(list, page_token)?, size).await?;
        // A full page may be the last one; the next is empty then.
        let next = runs.last().filter(|_| runs.len() == size).map(|run| page::token(list, run.id.seq));
        let items = runs.into_iter().map(RunView::plain).collect();
        Ok(Page { items, next_page_token: next.unwrap_or_default() })
    }

    /// The tenant of a run, for the jobs that are added to it.
    pub async fn run_tenant(&self, id: &str) -> Result<(RunId, Tenant)> {
        let id = parse_id("run_id", id)?;
        let run = self.engine().store().run(id).await?.ok_or_else(|| Error::not_found("run", id))?;
        Ok((run.id, run.tenant))
    }

    pub(super) async fn run(&self, id: RunId) -> Result<RunView> {
        let run = self.engine().store().run(id).await?.ok_or_else(|| Error::not_found("run", id))?;
        self.run_view(run).await
    }

    async fn run_view(&self, run: Run) -> Result<RunView> {
        let open = !run.state.is_final() && !run.state.holds_jobs();
        let forecast_at = if open { self.engine().run_forecast(run.id).await? } else { None };
        let undo_of = match run.undo_of {
            Some(seq) => self.0.names.run(&**self.engine().store(), seq).await?,
            None => None,
        };
        let progress = if run.state.is_final() { None } else { self.engine().run_progress(run.id).await? };
        Ok(RunView { run, forecast_at, undo_of, progress })
    }

    pub(super) async fn changed_run(&self, change: Change) -> Result<Run> {
        match self.engine().change(change).await? {
            Changed::Run(run) => Ok(run),
            other => Err(Error::internal(format!("the store answered a change of a run with {other:?}"))),
        }
    }
}

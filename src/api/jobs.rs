//! Reading, waiting for, editing and explaining jobs.
//!
//! Must never know: proto types. Next: `api/bulk` for changing many, `api/enqueue` for handing in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;

use super::enqueue::{check_due, check_payload, parse_ids};
use super::error::{Error, Result, parse_id};
use super::{Api, filter, page};
use crate::clock::Timestamp;
use crate::engine::status::{Explanation, WaitingOn};
use crate::model::call::Call;
use crate::model::event::{Event, What};
use crate::model::flow::{Class, Place};
use crate::model::id::{FlowId, JobId, RunId};
use crate::model::job::Job;
use crate::model::state::State;
use crate::model::worker::Progress;
use crate::store::{Change, Changed};

/// Ids of one WaitJobs.
pub const WAIT_JOBS_MAX: usize = 1_000;
pub const WAIT_DEFAULT: Duration = Duration::from_secs(30);
pub const WAIT_MAX: Duration = Duration::from_secs(600);
/// Flows of a page whose gates are asked why their jobs wait.
const FLOWS_ASKED_MAX: usize = 8;

/// A job as it is shown.
#[derive(Clone, Debug)]
pub struct JobView {
    pub job: Job,
    pub run: Option<RunId>,
    /// `None` for final jobs.
    pub waits: Option<Waits>,
    pub next_attempt_at: Option<Timestamp>,
    /// How far its worker is.
    pub progress: Option<Progress>,
}

/// Why a job waits. Lists do not look up which job it stands behind.
#[derive(Clone, Debug, PartialEq)]
pub enum Waits {
    On(WaitingOn),
    Behind,
}

#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Empty at the end.
    pub next_page_token: String,
}

#[derive(Clone, Debug)]
pub struct Waited {
    pub jobs: Vec<JobView>,
    pub done: bool,
    pub missing: Vec<JobId>,
}

/// An edit of a waiting job; `None` leaves the part as it is.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    pub payload: Option<String>,
    pub class: Option<Class>,
    pub due_at: Option<Timestamp>,
}

impl Api {
    pub async fn get_job(&self, id: &str) -> Result<(JobView, Vec<Call>)> {
        let id = parse_id("job_id", id)?;
        let job = self.job(id).await?;
        let calls = self.engine().store().calls(&job.calls).await?;
        Ok((self.view(job).await?, calls))
    }

    pub async fn list_jobs(&self, filter: &str, page_size: i32, page_token: &str) -> Result<Page<JobView>> {
        let filter = filter::parse(filter)?;
        let list = page::fingerprint("jobs", &filter::to_text(&filter));
        let before = page::position(list, page_token)?;
        let found = self.engine().store().list_jobs(&filter, before, page::size(page_size)?).await?;
        let next_page_token = found.next.map(|at| page::token(list, at)).unwrap_or_default();
        Ok(Page { items: self.views(found.jobs).await?, next_page_token })
    }

    pub async fn explain_job(&self, id: &str) -> Result<(State, Explanation)> {
        let id = parse_id("job_id", id)?;
        let job = self.job(id).await?;
        let said = self.engine().explain(id).await?.ok_or_else(|| Error::not_found("job", id))?;
        Ok((job.state, said))
    }

    pub async fn edit_job(&self, id: &str, edit: Edit) -> Result<JobView> {
        let job = parse_id("job_id", id)?;
        if edit.payload.is_none() && edit.class.is_none() && edit.due_at.is_none() {
            return Err(Error::field("payload", "NOTHING_TO_EDIT", "expected a payload, a class or a due time"));
        }
        if let Some(payload) = &edit.payload {
            check_payload("payload", payload, self.0.options.payload_bytes_max)?;
            if payload.is_empty() {
                return Err(Error::field("payload", "PAYLOAD_NOT_JSON", "expected a JSON document, got an empty text"));
            }
        }
        if let Some(at) = edit.due_at {
            check_due(at, self.clock().now())?;
        }
        let Edit { payload, class, due_at } = edit;
        let change = Change::EditJob { job, payload: payload.map(Arc::from), class, due_at };
        match self.engine().change(change).await? {
            Changed::Jobs(results) => {
                for refused in results {
                    refused?;
                }
                self.view(self.job(job).await?).await
            }
            _ => self.view(self.job(job).await?).await,
        }
    }

    /// Waits until every job is in `state`, or settled, or the time is up.
    pub async fn wait_jobs(&self, ids: &[String], state: Option<State>, timeout: Option<Duration>) -> Result<Waited> {
        if ids.is_empty() {
            return Err(Error::field("job_ids", "NO_IDS", format_args!("expected 1 to {WAIT_JOBS_MAX} ids, got none")));
        }
        let ids = parse_ids("job_ids", ids, WAIT_JOBS_MAX)?;
        let timeout = timeout.unwrap_or(WAIT_DEFAULT);
        if timeout > WAIT_MAX {
            let said = format!("expected at most {} seconds, got {}", WAIT_MAX.as_secs(), timeout.as_secs());
            return Err(Error::field("timeout", "BAD_TIMEOUT", said));
        }
        let until = self.clock().steady() + timeout;
        // Subscribed before the first look, so that no change is missed between them.
        let mut live = self.engine().events();
        let mut open: HashSet<i64> = ids.iter().map(|id| id.seq).collect();
        loop {
            self.drop_settled(&mut open, state).await?;
            if open.is_empty() || self.clock().steady() >= until {
                break;
            }
            tokio::select! {
                () = self.clock().sleep_until(until) => {}
                () = self.engine().draining() => return Err(Error::draining()),
                touched = touched(&mut live, &open) => if !touched { return Err(Error::draining()) },
            }
        }
        self.waited(&ids, open.is_empty()).await
    }

    async fn drop_settled(&self, open: &mut HashSet<i64>, state: Option<State>) -> Result<()> {
        let asked: Vec<i64> = open.iter().copied().collect();
        let jobs = self.engine().store().jobs(&asked).await?;
        let waiting = jobs.iter().filter(|job| Some(job.state) != state && !settled(job.state));
        *open = waiting.map(|job| job.id.seq).collect();
        Ok(())
    }

    async fn waited(&self, ids: &[JobId], done: bool) -> Result<Waited> {
        let seqs: Vec<i64> = ids.iter().map(|id| id.seq).collect();
        let jobs = self.engine().store().jobs(&seqs).await?;
        let found: HashMap<JobId, Job> = jobs.into_iter().map(|job| (job.id, job)).collect();
        let missing = ids.iter().copied().filter(|id| !found.contains_key(id)).collect();
        let jobs = ids.iter().filter_map(|id| found.get(id).cloned()).collect();
        Ok(Waited { jobs: self.views(jobs).await?, done, missing })
    }

    pub(super) async fn job(&self, id: JobId) -> Result<Job> {
        self.engine().store().job(id).await?.ok_or_else(|| Error::not_found("job", id))
    }

    /// One job, with the full reason for its waiting.
    pub(super) async fn view(&self, job: Job) -> Result<JobView> {
        let run = self.0.names.run(self.engine().store().as_ref(), job.flow_key.run).await?;
        if job.state.is_final() {
            return Ok(JobView { job, run, waits: None, next_attempt_at: None, progress: None });
        }
        let said = self.engine().explain(job.id).await?;
        let (waits, next_attempt_at) = said.map(|e| (Waits::On(e.waiting_on), e.next_attempt_at)).unzip();
        let progress = self.progress(&job);
        Ok(JobView { job, run, waits, next_attempt_at: next_attempt_at.flatten(), progress })
    }

    /// How far it is, if a worker has it here.
    pub(super) fn progress(&self, job: &Job) -> Option<Progress> {
        (job.state == State::Calling).then(|| self.engine().desk().progress(job.id.seq)).flatten()
    }

    /// Many jobs. Of each flow only the first ready job is explained; the others wait for the same thing.
    pub(super) async fn views(&self, jobs: Vec<Job>) -> Result<Vec<JobView>> {
        let mut asked: HashMap<FlowId, WaitingOn> = HashMap::new();
        let mut views = Vec::with_capacity(jobs.len());
        for job in jobs {
            let place = (job.state == State::Waiting).then_some(job.place);
            let view = match place {
                Some(Place::Ready) if !asked.contains_key(&job.flow) && asked.len() < FLOWS_ASKED_MAX => {
                    let flow = job.flow;
                    let view = self.view(job).await?;
                    if let Some(Waits::On(reason)) = &view.waits {
                        asked.insert(flow, reason.clone());
                    }
                    view
                }
                _ => {
                    let run = self.0.names.run(self.engine().store().as_ref(), job.flow_key.run).await?;
                    let waits = waits(&job, asked.get(&job.flow));
                    let later = waits.as_ref().is_some_and(|w| matches!(w, Waits::On(WaitingOn::NotDue { .. })));
                    let progress = self.progress(&job);
                    JobView { next_attempt_at: later.then_some(job.due_at), job, run, waits, progress }
                }
            };
            views.push(view);
        }
        Ok(views)
    }
}

/// Nothing happens by itself any more.
fn settled(state: State) -> bool {
    state.is_final() || state == State::Unknown
}

/// Why a job waits, as far as it shows by itself and by its flow.
fn waits(job: &Job, flow: Option<&WaitingOn>) -> Option<Waits> {
    match (job.state, job.place) {
        (State::Delivered | State::Dead | State::Cancelled, _) => None,
        (State::Calling, _) => Some(Waits::On(WaitingOn::Nothing)),
        (State::Unknown, _) => Some(Waits::On(WaitingOn::Decision)),
        (State::Waiting, Place::Behind) => Some(Waits::Behind),
        (State::Waiting, Place::Later) => Some(Waits::On(WaitingOn::NotDue { due_at: job.due_at })),
        (State::Waiting, _) => Some(Waits::On(flow.cloned().unwrap_or(WaitingOn::Turn))),
    }
}

/// Returns when an event touches one of the jobs, or when some may have been missed. `false`: no more will come.
async fn touched(live: &mut tokio::sync::broadcast::Receiver<Arc<Vec<Event>>>, open: &HashSet<i64>) -> bool {
    loop {
        match live.recv().await {
            Ok(group) if group.iter().any(|event| touches(event, open)) => return true,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

fn touches(event: &Event, open: &HashSet<i64>) -> bool {
    match &event.what {
        What::Changed { jobs, .. } => jobs.iter().any(|job| open.contains(job)),
        _ => false,
    }
}

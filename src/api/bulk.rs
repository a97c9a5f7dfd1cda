//! Changing many jobs at once: call off, bring back, decide. By id or by filter, bounded, with a dry run.
//!
//! Selected first, changed then, in transactions of bounded size: others' work goes on between them. Must never know:
//! proto types. Next: [`crate::store::Change`], which says what each change does.

use super::enqueue::parse_ids;
use super::error::{Error, Result};
use super::{Api, filter, page, repeat};
use crate::model::filter::{Comparison, Field, Filter, Value};
use crate::model::id::JobId;
use crate::model::state::State;
use crate::store::{Change, Changed, Decision as StoreDecision, PAGE_MAX};

/// Jobs that one bulk action touches.
pub const BULK_MAX: usize = 10_000;
/// Jobs of one transaction.
const CHUNK: usize = 1_000;
/// Refusals that are told one by one when a filter chose the jobs.
const REFUSALS_MAX: usize = 1_000;

/// Which jobs, and how.
#[derive(Clone, Debug, Default)]
pub struct Which {
    pub ids: Vec<String>,
    pub filter: String,
    pub validate_only: bool,
    /// Empty: none.
    pub request_id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Cancel,
    /// Dead jobs come back, waiting ones that are not due become due. `fresh`: run again as new.
    Retry {
        fresh: bool,
    },
    Resolve(Decision),
}

/// What is to be done with a job whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It happened.
    Delivered,
    /// Send again.
    Again,
    /// Give up.
    Dead,
}

/// What was done, or would be.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub matched: u64,
    pub changed: u64,
    /// One per id of the request; for a filter the refusals.
    pub changes: Vec<JobChange>,
    pub more: bool,
}

#[derive(Clone, Debug)]
pub struct JobChange {
    pub id: JobId,
    pub now: Result<(State, bool)>,
}

impl Action {
    /// The states in which a job can be touched.
    fn states(self) -> &'static [State] {
        match self {
            Action::Cancel => &[State::Waiting, State::Calling, State::Unknown],
            Action::Retry { .. } => &[State::Dead, State::Waiting],
            Action::Resolve(_) => &[State::Unknown],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Action::Cancel => "CancelJobs",
            Action::Retry { .. } => "RetryJobs",
            Action::Resolve(_) => "ResolveJobs",
        }
    }

    fn change(self, state: State, jobs: Vec<JobId>) -> Change {
        match self {
            Action::Cancel => Change::CancelJobs { jobs },
            Action::Retry { .. } if state == State::Waiting => Change::ExpediteJobs { jobs },
            Action::Retry { fresh } => Change::ReviveJobs { jobs, fresh },
            Action::Resolve(Decision::Delivered) => Change::ResolveJobs { jobs, decision: StoreDecision::Delivered },
            Action::Resolve(Decision::Again) => Change::ResolveJobs { jobs, decision: StoreDecision::Again },
            Action::Resolve(Decision::Dead) => Change::ResolveJobs { jobs, decision: StoreDecision::Dead },
        }
    }
}

impl Api {
    pub async fn bulk(&self, action: Action, which: Which) -> Result<Done> {
        let content = page::fingerprint(
            &format!("{action:?}"),
            &format!("{:?}", (&which.ids, &which.filter, which.validate_only)),
        );
        let now = self.clock().now();
        repeat::check(&which.request_id)?;
        if let Some(first) = self.0.repeats.find::<Done>(&which.request_id, action.name(), content, now)? {
            return Ok(first);
        }
        let done = match (which.ids.is_empty(), which.filter.is_empty()) {
            (false, true) => self.bulk_by_id(action, &which).await?,
            (true, false) => self.bulk_by_filter(action, &which).await?,
            _ => {
                let said = "expected either ids or a filter; `NOT state = DELIVERED` and the like names all the others";
                return Err(Error::field("job_ids", "IDS_OR_FILTER", said));
            }
        };
        self.0.repeats.keep(&which.request_id, action.name(), content, now, done.clone());
        Ok(done)
    }

    async fn bulk_by_id(&self, action: Action, which: &Which) -> Result<Done> {
        let ids = parse_ids("job_ids", &which.ids, BULK_MAX)?;
        let retry = matches!(action, Action::Retry { .. });
        let mut done = Done::default();
        for chunk in ids.chunks(CHUNK) {
            let seqs: Vec<i64> = chunk.iter().map(|id| id.seq).collect();
            let jobs = self.engine().store().jobs(&seqs).await?;
            let states: std::collections::HashMap<JobId, State> = jobs.iter().map(|job| (job.id, job.state)).collect();
            let state = |id: &JobId| states.get(id).copied();
            done.matched += chunk.iter().filter(|id| state(id).is_some()).count() as u64;
            if which.validate_only {
                let fits = chunk.iter().filter(|id| state(id).is_some_and(|s| action.states().contains(&s)));
                done.changed += fits.count() as u64;
                continue;
            }
            // Waiting jobs are retried by another change than dead ones. All others go with the dead, so that the
            // store says what is wrong with them.
            let (waiting, others): (Vec<JobId>, Vec<JobId>) =
                chunk.iter().partition(|id| retry && state(id) == Some(State::Waiting));
            let mut changes = self.change_jobs(action, State::Waiting, waiting).await?;
            changes.extend(self.change_jobs(action, State::Dead, others).await?);
            let place: std::collections::HashMap<JobId, usize> =
                chunk.iter().enumerate().map(|(at, id)| (*id, at)).collect();
            changes.sort_by_key(|change| place.get(&change.id).copied());
            done.changed += changes.iter().filter(|c| c.now.is_ok()).count() as u64;
            done.changes.extend(changes);
        }
        Ok(done)
    }

    async fn bulk_by_filter(&self, action: Action, which: &Which) -> Result<Done> {
        let asked = filter::parse(&which.filter)?;
        let is = |state: &State| Filter::Is(Field::State, Comparison::Equal, Value::State(*state));
        let mut done = Done::default();
        for state in action.states() {
            let (ids, more) =
                self.select(&Filter::All(vec![is(state), asked.clone()]), BULK_MAX - done.matched as usize).await?;
            done.more |= more;
            done.matched += ids.len() as u64;
            if which.validate_only {
                done.changed += ids.len() as u64;
                continue;
            }
            for chunk in ids.chunks(CHUNK) {
                let changes = self.change_jobs(action, *state, chunk.to_vec()).await?;
                done.changed += changes.iter().filter(|c| c.now.is_ok()).count() as u64;
                let room = REFUSALS_MAX - done.changes.len();
                done.changes.extend(changes.into_iter().filter(|c| c.now.is_err()).take(room));
            }
        }
        Ok(done)
    }

    /// Ids of jobs that pass, at most `max`; and whether there are more.
    async fn select(&self, filter: &Filter, max: usize) -> Result<(Vec<JobId>, bool)> {
        let (mut ids, mut before) = (Vec::new(), None);
        while ids.len() < max {
            let page = self.engine().store().list_jobs(filter, before, PAGE_MAX.min(max - ids.len())).await?;
            ids.extend(page.jobs.iter().map(|job| job.id));
            match page.next {
                Some(next) => before = Some(next),
                None => return Ok((ids, false)),
            }
        }
        // Full, or no room at all: one more look tells whether anything is left.
        let rest = self.engine().store().list_jobs(filter, before, 1).await?;
        Ok((ids, !rest.jobs.is_empty() || rest.next.is_some()))
    }

    async fn change_jobs(&self, action: Action, state: State, jobs: Vec<JobId>) -> Result<Vec<JobChange>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let ids = jobs.clone();
        match self.engine().change(action.change(state, jobs)).await? {
            Changed::Jobs(results) => Ok(ids
                .into_iter()
                .zip(results)
                .map(|(id, now)| JobChange { id, now: now.map(|n| (n.state, n.cancel_requested)).map_err(Error::from) })
                .collect()),
            other => Err(Error::internal(format!("the store answered a change of jobs with {other:?}"))),
        }
    }
}

//! How far jobs are, as their workers say: the last word of each, in the order in which they were said.
//!
//! A log that holds one note per job in a worker's hands: a newer note takes the place of the older one at the end. So a
//! reader that comes by seldom gets the last word of each job and nothing twice, and no reader makes it grow. Kept in
//! memory only. Must never know: who reads. Next: `../desk`; `api/watch`, the reader.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use super::{Desk, Noted, WorkerId};
use crate::model::id::{CallId, FlowId, Id, JobId};
use crate::model::worker::{Progress, RunProgress};

/// Jobs that are looked at for the progress of one run.
const RUN_JOBS_MAX: usize = 10_000;
/// Jobs of a run that are told one by one.
const LATEST_MAX: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Notes {
    by_number: BTreeMap<u64, CallId>,
    by_flow: BTreeSet<(FlowId, CallId)>,
    /// The number of the newest note, from 1.
    newest: watch::Sender<u64>,
}

impl Notes {
    pub(super) fn forget(&mut self, number: u64, flow: FlowId, call: CallId) {
        self.by_number.remove(&number);
        self.by_flow.remove(&(flow, call));
    }
}

/// A note without what it says: that is asked for when it is told, and may be newer then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    pub number: u64,
    pub job: JobId,
    pub flow: FlowId,
}

impl Desk {
    /// How far a job is. False: the worker does not hold it.
    pub fn note(&self, worker: WorkerId, token: Id, progress: Progress) -> bool {
        let call = CallId(token.seq);
        let mut held = self.lock();
        let state = &mut *held;
        let lease = state.leases.get_mut(&call);
        let Some(lease) = lease.filter(|l| l.token == token && l.worker == Some(worker)) else { return false };
        let number = *state.notes.newest.borrow() + 1;
        if let Some(before) = lease.progress.replace(Noted { number, progress }) {
            state.notes.by_number.remove(&before.number);
        }
        state.notes.by_number.insert(number, call);
        state.notes.by_flow.insert((lease.flow, call));
        state.notes.newest.send_replace(number);
        true
    }

    /// Of a job by its number.
    pub fn progress(&self, job: i64) -> Option<Progress> {
        let state = self.lock();
        let call = state.jobs.get(&job)?;
        state.leases.get(call)?.progress.as_ref().map(|noted| noted.progress.clone())
    }

    /// The number of the newest note, as it grows.
    pub fn newest_note(&self) -> watch::Receiver<u64> {
        self.lock().notes.newest.subscribe()
    }

    /// At most `max` notes after number `after`, the oldest first.
    pub fn notes(&self, after: u64, max: usize) -> Vec<Note> {
        let state = self.lock();
        let of = |(number, call): (&u64, &CallId)| {
            let lease = state.leases.get(call)?;
            Some(Note { number: *number, job: lease.job, flow: lease.flow })
        };
        state.notes.by_number.range(after + 1..).filter_map(of).take(max).collect()
    }

    /// Of the jobs of these flows that are in workers' hands. `None`: nothing was said of any.
    pub fn progress_of(&self, flows: &[FlowId]) -> Option<RunProgress> {
        let state = self.lock();
        let of_flow = |flow: &FlowId| state.notes.by_flow.range((*flow, CallId(i64::MIN))..=(*flow, CallId(i64::MAX)));
        let calls = flows.iter().flat_map(of_flow).take(RUN_JOBS_MAX);
        let mut noted: Vec<_> = calls.filter_map(|(_, call)| state.leases.get(call)).collect();
        noted.sort_unstable_by_key(|lease| std::cmp::Reverse(lease.progress.as_ref().map_or(0, |noted| noted.number)));
        let said = || noted.iter().filter_map(|lease| Some((lease.job, &lease.progress.as_ref()?.progress)));
        (!noted.is_empty()).then(|| RunProgress {
            jobs: noted.len() as u64,
            fractions: said().map(|(_, progress)| progress.fraction).sum(),
            latest: said().take(LATEST_MAX).map(|(job, progress)| (job, progress.clone())).collect(),
        })
    }
}

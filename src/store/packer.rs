//! Packs what happens within one commit into events: one per flow and kind, not one per job.
//!
//! Jobs join the event of their section (one call, one change, all enqueues) while flow and kind are the same. Where
//! jobs of one event differ, the event carries the first error and the earliest due time. Must never know: how a
//! store keeps events. Next: `memory`.

use std::collections::HashMap;

use super::notices::Ends;
use super::rules::{Core, Stand};
use super::{AlertChange, FinishCall};
use crate::clock::Timestamp;
use crate::model::event::What;
use crate::model::id::{CallId, FlowId};
use crate::model::state::Event;

#[derive(Debug, Default)]
pub(super) struct Packer {
    whats: Vec<What>,
    /// Event of the present section by flow and kind; `None` is "enqueued".
    open: HashMap<(FlowId, Option<Event>), usize>,
    duplicates: Option<usize>,
    /// What came to an end, for those who want to be told.
    pub ends: Ends,
}

impl Packer {
    pub(super) fn telling(ends: Ends) -> Packer {
        Packer { ends, ..Packer::default() }
    }

    /// Later jobs join no event from before.
    pub(super) fn section(&mut self) {
        self.open.clear();
        self.duplicates = None;
    }

    pub(super) fn note(&mut self, what: What) {
        if let What::Run { run, state, .. } = &what
            && state.is_final()
        {
            self.ends.run(*run);
        }
        self.whats.push(what);
    }

    pub(super) fn alert(&mut self, change: &AlertChange) {
        let AlertChange { step, alert, .. } = change;
        let detail = format!("{}: {}", alert.name, alert.detail);
        self.note(What::provider(&alert.provider, &format!("alert-{}", step.name()), detail, "alerts"));
        self.ends.alert(change);
    }

    pub(super) fn enqueued(&mut self, flow: FlowId, job: i64) {
        let at = self.open.entry((flow, None)).or_insert(self.whats.len());
        if *at == self.whats.len() {
            self.whats.push(What::Enqueued { flow, jobs: Vec::new() });
        }
        if let What::Enqueued { jobs, .. } = &mut self.whats[*at] {
            jobs.push(job);
        }
    }

    /// `core` as it stands after the change. `call`: what a begin or an end belongs to, with its status.
    pub(super) fn changed(&mut self, core: &Core, change: Event, call: Option<(CallId, Option<u16>)>) {
        self.ends.job(core);
        let again = core.stand == Stand::Later && matches!(change, Event::Retry | Event::Throttle);
        let due = again.then_some(core.due_at);
        let with_error = matches!(change, Event::Retry | Event::Throttle | Event::Die | Event::Lose | Event::Cancel);
        let at = *self.open.entry((core.flow, Some(change))).or_insert(self.whats.len());
        if at == self.whats.len() {
            self.whats.push(What::Changed {
                flow: core.flow,
                jobs: Vec::new(),
                change,
                to: core.state(),
                call: call.map(|c| c.0),
                status: call.and_then(|c| c.1),
                error: core.last_error.as_ref().filter(|_| with_error).map(|e| e.to_string()),
                due_at: None,
            });
        }
        if let What::Changed { jobs, due_at, .. } = &mut self.whats[at] {
            jobs.push(core.id.seq);
            *due_at = earliest(*due_at, due);
        }
    }

    pub(super) fn duplicate(&mut self, call: &FinishCall, job: i64) {
        let at = *self.duplicates.get_or_insert(self.whats.len());
        if at == self.whats.len() {
            self.whats.push(What::DuplicateObserved { call: call.call, jobs: Vec::new() });
        }
        if let What::DuplicateObserved { jobs, .. } = &mut self.whats[at] {
            jobs.push(job);
        }
    }

    pub(super) fn finish(self) -> Vec<What> {
        self.whats
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        _ => a.or(b),
    }
}

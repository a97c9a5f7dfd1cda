//! The reading half. All by scanning or by the same indexes that a commit keeps: a reference, not a race. Next:
//! `sqlite`.

use super::World;
use crate::clock::Timestamp;
use crate::model::call::{Call, Ending};
use crate::model::event::Event;
use crate::model::filter::Filter;
use crate::model::flow::{Class, Flow};
use crate::model::id::{CallId, FlowId, RunId};
use crate::model::job::{ClaimedJob, Job};
use crate::model::state::State;
use crate::store::rules::{self, Stand};
use crate::store::{CallPage, Delivered, JobPage, JournalEntry, LIST_SCAN_MAX, Tally, page};

impl World {
    pub(super) fn job(&self, seq: i64) -> Option<Job> {
        let row = self.jobs.get(&seq)?;
        let core = row.core.clone();
        Some(Job {
            id: core.id,
            flow: core.flow,
            flow_key: self.flows[&core.flow].0.clone(),
            key: row.key.clone(),
            class: core.class,
            state: core.state(),
            place: core.stand.place(),
            turn: core.turn,
            payload: row.payload.clone(),
            version: core.version,
            attempts: core.attempts,
            crashes: core.crashes,
            throttles: core.throttles,
            due_at: core.due_at,
            updated_at: core.updated_at,
            finished_at: core.finished_at,
            cancel_requested: core.cancel_requested,
            labels: row.labels.clone(),
            traceparent: row.traceparent.clone(),
            calls: row.calls.clone(),
            last_status: core.last_status,
            last_error: core.last_error,
            result: core.result,
        })
    }

    pub(super) fn list_jobs(&self, filter: &Filter, before: Option<i64>, limit: usize) -> JobPage {
        let limit = page(limit);
        let mut found = JobPage { jobs: Vec::new(), next: None };
        for (looked, (&seq, _)) in self.jobs.range(..before.unwrap_or(i64::MAX)).rev().enumerate() {
            let job = self.job(seq).expect("the key was just read");
            if filter.passes(&job) {
                found.jobs.push(job);
            }
            if found.jobs.len() == limit || looked + 1 == LIST_SCAN_MAX {
                found.next = Some(seq);
                return found;
            }
        }
        found
    }

    pub(super) fn blocker(&self, job: &Job) -> Option<Job> {
        let core = &self.jobs.get(&job.id.seq)?.core;
        if core.stand != Stand::Behind {
            return None;
        }
        let (_, first) = *self.chains.get(&core.key_hash?)?.first()?;
        self.job(first).filter(|first| first.id != job.id)
    }

    pub(super) fn ahead(&self, job: &Job) -> u64 {
        let from = (job.flow, Class::Urgent, i64::MIN, i64::MIN);
        let to = (job.flow, job.class, job.turn, i64::MIN);
        self.ready.range(from..to).count() as u64
    }

    /// Judged by the first of each class.
    pub(super) fn oldest_ready(&self, flow: FlowId) -> Option<Timestamp> {
        let first =
            |class| self.ready.range((flow, class, i64::MIN, i64::MIN)..=(flow, class, i64::MAX, i64::MAX)).next();
        Class::ALL.into_iter().filter_map(first).map(|&(_, _, _, seq)| self.jobs[&seq].core.id.created_at).min()
    }

    pub(super) fn list_calls(&self, filter: &Filter, before: Option<CallId>, limit: usize, bodies: bool) -> CallPage {
        let limit = page(limit);
        let mut found = CallPage { calls: Vec::new(), next: None };
        let below = self.calls.range(..before.unwrap_or(CallId(i64::MAX))).rev();
        for (looked, (&id, call)) in below.enumerate() {
            if filter.passes_call(call) {
                let mut call = call.clone();
                if let (false, Some(seen)) = (bodies, &mut call.seen) {
                    seen.bodies = None;
                }
                found.calls.push(call);
            }
            if found.calls.len() == limit || looked + 1 == LIST_SCAN_MAX {
                found.next = Some(id);
                return found;
            }
        }
        found
    }

    pub(super) fn open_calls(&self, after: CallId, limit: usize) -> Vec<Call> {
        let open = self.calls.range(CallId(after.0 + 1)..).filter(|(_, c)| c.ending == Ending::Open);
        open.take(page(limit)).map(|(_, call)| call.clone()).collect()
    }

    pub(super) fn claimed(&self, call: CallId) -> Vec<ClaimedJob> {
        let jobs = self.calls.get(&call).map_or(&[][..], |call| &call.jobs);
        let rows = jobs.iter().filter_map(|seq| self.jobs.get(seq));
        let rows = rows.filter(|row| row.core.stand == Stand::Calling && row.core.call == Some(call));
        rows.map(as_claimed).collect()
    }

    pub(super) fn journal(&self, since: Timestamp, after: CallId, limit: usize) -> Vec<JournalEntry> {
        let entries = self.calls.range(CallId(after.0 + 1)..).map(|(_, call)| call);
        let spent = entries.filter(|call| !call.permit.spends.is_empty());
        let needed = spent.filter(|call| call.settled_at.is_none_or(|at| at >= since));
        needed
            .take(page(limit))
            .map(|call| JournalEntry {
                call: call.id,
                permit: call.permit.clone(),
                settled_at: call.settled_at,
                sent: rules::was_sent(call.ending),
                outside_until: (call.outside > 0).then_some(call.lease_until),
            })
            .collect()
    }

    pub(super) fn busy_flows(&self, after: FlowId, limit: usize) -> Vec<Flow> {
        let busy = self.flows.range(FlowId(after.0 + 1)..).filter(|(_, (_, counts))| rules::hot(counts) > 0);
        busy.take(page(limit)).filter_map(|(id, _)| self.flow(*id)).collect()
    }

    pub(super) fn run_flows(&self, run: RunId, limit: usize) -> Vec<Flow> {
        let of_run = |(key, counts): &&(_, _)| rules::hot(counts) > 0 && belongs(key, run);
        let flows = self.flows.iter().filter(|(_, flow)| of_run(flow));
        flows.take(page(limit)).filter_map(|(id, _)| self.flow(*id)).collect()
    }

    pub(super) fn run_delivered(&self, run: RunId, below: Option<(i64, i64)>, limit: usize) -> Vec<Delivered> {
        let below = below.unwrap_or((i64::MAX, i64::MAX));
        let of_run = |job: &Job| job.flow_key.run == run.seq && job.state == State::Delivered;
        let jobs = self.jobs.keys().filter_map(|seq| self.job(*seq)).filter(of_run);
        let mut found: Vec<Delivered> = jobs
            .map(|job| Delivered {
                turn: job.turn,
                seq: job.id.seq,
                provider: job.flow_key.provider,
                operation: job.flow_key.operation,
            })
            .filter(|job| (job.turn, job.seq) < below)
            .collect();
        found.sort_unstable_by_key(|job| std::cmp::Reverse((job.turn, job.seq)));
        found.truncate(page(limit));
        found
    }

    pub(super) fn tallies(&self) -> Vec<Tally> {
        let all = self.tallies.iter();
        all.map(|((provider, operation), counts)| Tally {
            provider: provider.clone(),
            operation: operation.clone(),
            counts: counts.clone(),
        })
        .collect()
    }

    pub(super) fn events_after(&self, after: i64, limit: usize) -> Vec<Event> {
        let from = self.events.partition_point(|group| group.last() <= after);
        let events = self.events.range(from..).flat_map(|group| group.events());
        events.filter(|event| event.seq > after).take(page(limit)).collect()
    }
}

fn belongs(key: &crate::model::flow::FlowKey, run: RunId) -> bool {
    key.run == run.seq
}

pub(super) fn as_claimed(row: &super::Row) -> ClaimedJob {
    ClaimedJob {
        id: row.core.id,
        flow: row.core.flow,
        class: row.core.class,
        key: row.key.clone(),
        payload: row.payload.clone(),
        version: row.core.version,
        due_at: row.core.due_at,
        attempts: row.core.attempts,
        crashes: row.core.crashes,
        throttles: row.core.throttles,
        first_sent_at: row.core.first_sent_at,
        traceparent: row.traceparent.clone(),
    }
}

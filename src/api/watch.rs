//! Watching jobs: changes as they are committed, at least once, resumable by token.
//!
//! A reader that falls behind gets the changes of a chunk coalesced per job, with a count of what was left out. Jobs
//! are read in small groups only when they are about to be sent, so a watcher holds few of them at a time. What workers
//! say of their progress is no event of the log: the last word of each job is told between two chunks. Must never know:
//! proto types. Next: `api/feed`, where the events come from; `watch/progress`; `watch/token`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::error::{Error, Result};
use super::feed::Feed;
use super::{Api, filter, page};
use crate::clock::Timestamp;
use crate::model::event::{Event, What};
use crate::model::filter::Filter;
use crate::model::id::{CallId, FlowId, RunId};
use crate::model::job::Job;
use crate::model::state::{self, State};
use crate::model::worker::Progress;

pub mod progress;
pub mod run;
pub(super) mod token;

/// A bookmark comes at least this often.
pub const BOOKMARK_EVERY: Duration = Duration::from_secs(10);
/// Jobs of a snapshot.
pub const SNAPSHOT_MAX: usize = 1_000;
/// A chunk with more changes than this means that the reader is behind: its changes are coalesced per job.
pub const COALESCE_ABOVE: usize = 1_000;
/// Jobs read, and so held in memory with their payloads, at a time.
const JOBS_READ: usize = 64;
/// Pages that a snapshot looks at.
const SNAPSHOT_PAGES: usize = 50;

/// What a watcher of jobs asks for.
#[derive(Clone, Debug, Default)]
pub struct WatchJobs {
    pub filter: String,
    /// Empty: from now on.
    pub resume_token: String,
    pub snapshot: bool,
}

/// What a watcher of jobs is told.
#[derive(Clone, Debug)]
pub enum Item {
    Snapshot(Box<Watched>),
    Change { resume_token: String, change: Box<Change> },
    Bookmark { resume_token: String, sequence: i64 },
}

/// A job without its payload and result, with the id of its run.
#[derive(Clone, Debug)]
pub struct Watched {
    pub job: Job,
    pub run: Option<RunId>,
    /// As its worker says, if one has it here.
    pub progress: Option<Progress>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Enqueued,
    Changed(state::Event),
    DuplicateObserved,
    /// Its worker said how far it is. Not in the log.
    Progress,
}

/// One change of one job.
#[derive(Clone, Debug)]
pub struct Change {
    /// 0: it is not in the log.
    pub sequence: i64,
    pub at: Timestamp,
    pub kind: Kind,
    pub to: State,
    pub call: Option<CallId>,
    pub status: Option<u16>,
    pub error: Option<Arc<str>>,
    pub due_at: Option<Timestamp>,
    /// As it is now: it may be further on than `to`.
    pub watched: Watched,
    /// Changes of the job that were left out before this one.
    pub dropped: u64,
}

/// A change whose job has not been read yet.
#[derive(Clone, Debug, Default)]
struct Raw {
    sequence: i64,
    /// Everything up to this event has been told once this change has been.
    told: i64,
    at: Timestamp,
    job: i64,
    kind: Kind,
    to: Option<State>,
    call: Option<CallId>,
    status: Option<u16>,
    error: Option<Arc<str>>,
    due_at: Option<Timestamp>,
    dropped: u64,
}

/// A watch under way.
#[derive(Debug)]
pub struct JobWatch {
    api: Api,
    filter: Filter,
    stamp: token::Stamp,
    feed: Feed,
    snapshot: Option<Snapshot>,
    notes: progress::Notes,
    raws: VecDeque<Raw>,
    ready: VecDeque<Item>,
    bookmark_at: Timestamp,
}

#[derive(Debug)]
struct Snapshot {
    before: Option<i64>,
    left: usize,
    pages: usize,
}

impl Api {
    pub async fn watch_jobs(&self, ask: WatchJobs) -> Result<JobWatch> {
        let filter = filter::parse(&ask.filter)?;
        if ask.snapshot && !ask.resume_token.is_empty() {
            let said = "expected either a resume token or a snapshot, got both";
            return Err(Error::field("snapshot", "SNAPSHOT_WITH_TOKEN", said));
        }
        let list = page::fingerprint("watch-jobs", &filter::to_text(&filter));
        let stamp = token::Stamp { list, epoch: self.engine().store().info().await?.epoch };
        let after = stamp.read(&ask.resume_token)?;
        let feed = Feed::start(self, after).await.map_err(|e| stamp.with_earliest(e))?;
        let snapshot = ask.snapshot.then_some(Snapshot { before: None, left: SNAPSHOT_MAX, pages: SNAPSHOT_PAGES });
        let bookmark_at = self.clock().steady() + BOOKMARK_EVERY;
        // Whoever comes back has missed what was said meanwhile; a snapshot tells it with its jobs.
        let notes = progress::Notes::follow(self, after.is_none());
        let (raws, ready) = (VecDeque::new(), VecDeque::new());
        Ok(JobWatch { api: self.clone(), filter, stamp, feed, snapshot, notes, raws, ready, bookmark_at })
    }
}

impl JobWatch {
    /// What to tell next. Waits for it, at most until a bookmark is due.
    pub async fn next(&mut self) -> Result<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.bookmark_at = self.api.clock().steady() + BOOKMARK_EVERY;
                return Ok(item);
            }
            if self.snapshot.is_some() {
                self.read_snapshot().await?;
            } else if !self.raws.is_empty() {
                self.read_jobs().await?;
            } else if self.notes.are_due(self.api.clock().steady()) {
                self.read_notes().await?;
            } else {
                let (until, wake) = (self.notes.wait_until(self.bookmark_at), self.notes.wake());
                let events = self.feed.next_or(until, wake).await.map_err(|e| self.stamp.with_earliest(e))?;
                if events.is_empty() && self.api.clock().steady() >= self.bookmark_at {
                    self.ready.push_back(self.bookmark());
                }
                self.unpack(&events).await?;
            }
        }
    }

    fn bookmark(&self) -> Item {
        let sequence = self.feed.after();
        Item::Bookmark { resume_token: self.stamp.token(sequence), sequence }
    }

    /// One page of the snapshot; a bookmark after the last one.
    async fn read_snapshot(&mut self) -> Result<()> {
        let Some(mut plan) = self.snapshot.take() else { return Ok(()) };
        let limit = plan.left.min(JOBS_READ);
        let page = self.api.engine().store().list_jobs(&self.filter, plan.before, limit).await?;
        plan.left = plan.left.saturating_sub(page.jobs.len());
        plan.pages -= 1;
        plan.before = page.next;
        for job in page.jobs {
            let watched = self.watched(job).await?;
            self.ready.push_back(Item::Snapshot(Box::new(watched)));
        }
        if plan.before.is_some() && plan.left > 0 && plan.pages > 0 {
            self.snapshot = Some(plan);
        } else {
            self.ready.push_back(self.bookmark());
        }
        Ok(())
    }

    /// Events become changes of single jobs, without those of flows that cannot pass.
    async fn unpack(&mut self, events: &[Event]) -> Result<()> {
        let mut raws = Vec::new();
        for event in events {
            let (flow, jobs) = match &event.what {
                What::Enqueued { flow, jobs } | What::Changed { flow, jobs, .. } => (Some(*flow), jobs),
                What::DuplicateObserved { jobs, .. } => (None, jobs),
                What::Run { .. }
                | What::Provider { .. }
                | What::Records { .. }
                | What::Pull { .. }
                | What::Schedule { .. }
                | What::Invalidated { .. }
                | What::Daemon { .. } => continue,
            };
            if self.may_pass(flow).await? {
                let like = raw_of(event);
                raws.extend(jobs.iter().map(|&job| Raw { job, ..like.clone() }));
            }
        }
        if raws.len() > COALESCE_ABOVE {
            raws = coalesced(raws);
        }
        let last = self.feed.after();
        for at in 0..raws.len() {
            // Within an event the token points before it: whoever resumes there gets the event again, as a whole.
            raws[at].told = raws.get(at + 1).map_or(last, |next| next.sequence - 1);
        }
        self.raws = raws.into();
        Ok(())
    }

    async fn may_pass(&self, flow: Option<FlowId>) -> Result<bool> {
        let Some(flow) = flow else { return Ok(true) };
        let known = self.api.0.names.flow(self.api.engine().store().as_ref(), flow).await?;
        Ok(known.is_none_or(|key| self.filter.may_pass_flow(&key)))
    }

    /// Reads the jobs of the next few changes and drops those that do not pass.
    async fn read_jobs(&mut self) -> Result<()> {
        let raws: Vec<Raw> = self.raws.drain(..self.raws.len().min(JOBS_READ)).collect();
        let mut seqs: Vec<i64> = raws.iter().map(|raw| raw.job).collect();
        seqs.sort_unstable();
        seqs.dedup();
        let jobs = self.api.engine().store().jobs(&seqs).await?;
        let jobs: HashMap<i64, Job> = jobs.into_iter().map(|job| (job.id.seq, job)).collect();
        for raw in raws {
            // Gone by retention: nobody can ask about it any more.
            let Some(job) = jobs.get(&raw.job) else { continue };
            let to = raw.to.unwrap_or(job.state);
            // Judged by the state that the change led to, or a short stay in a state would go unseen.
            let passes = if to == job.state {
                self.filter.passes(job)
            } else {
                self.filter.passes(&Job { state: to, ..job.clone() })
            };
            if passes {
                let watched = self.watched(job.clone()).await?;
                self.ready.push_back(self.item(raw, to, watched));
            }
        }
        Ok(())
    }

    /// How far the next few jobs are that workers have spoken of.
    async fn read_notes(&mut self) -> Result<()> {
        let mut seqs = Vec::new();
        for note in self.notes.take(&self.api, JOBS_READ) {
            if self.may_pass(Some(note.flow)).await? {
                seqs.push(note.job.seq);
            }
        }
        for job in self.api.engine().store().jobs(&seqs).await? {
            if job.state != State::Calling || !self.filter.passes(&job) {
                continue;
            }
            let watched = self.watched(job).await?;
            // None: its lease ended meanwhile, and that is an event of its own.
            let Some(at) = watched.progress.as_ref().map(|progress| progress.said_at) else { continue };
            let told = self.feed.after();
            let raw = Raw { at, kind: Kind::Progress, told, ..Raw::default() };
            self.ready.push_back(self.item(raw, State::Calling, watched));
        }
        Ok(())
    }

    fn item(&self, raw: Raw, to: State, watched: Watched) -> Item {
        let Raw { sequence, told, at, kind, call, status, error, due_at, dropped, .. } = raw;
        let change = Change { sequence, at, kind, to, call, status, error, due_at, watched, dropped };
        Item::Change { resume_token: self.stamp.token(told), change: Box::new(change) }
    }

    async fn watched(&self, mut job: Job) -> Result<Watched> {
        job.payload = Arc::from("");
        job.result = None;
        let run = self.api.0.names.run(self.api.engine().store().as_ref(), job.flow_key.run).await?;
        let progress = self.api.progress(&job);
        Ok(Watched { job, run, progress })
    }
}

/// What all changes of an event have in common.
fn raw_of(event: &Event) -> Raw {
    let mut raw =
        Raw { sequence: event.seq, told: event.seq, at: event.at, to: Some(State::Waiting), ..Raw::default() };
    match &event.what {
        What::Changed { change, to, call, status, error, due_at, .. } => {
            raw.kind = Kind::Changed(*change);
            (raw.to, raw.call, raw.status, raw.due_at) = (Some(*to), *call, *status, *due_at);
            raw.error = error.as_deref().map(Arc::from);
        }
        What::DuplicateObserved { call, .. } => {
            (raw.kind, raw.to, raw.call) = (Kind::DuplicateObserved, None, Some(*call));
        }
        _ => {}
    }
    raw
}

/// The last change of each job, in order, with a count of those before it.
fn coalesced(raws: Vec<Raw>) -> Vec<Raw> {
    let mut last: HashMap<i64, (usize, u64)> = HashMap::with_capacity(raws.len());
    for (at, raw) in raws.iter().enumerate() {
        let seen = last.entry(raw.job).or_insert((at, 0));
        *seen = (at, seen.1 + 1);
    }
    let kept = raws.into_iter().enumerate().filter_map(|(at, raw)| {
        let (place, changes) = last[&raw.job];
        (place == at).then(|| Raw { dropped: changes - 1, ..raw })
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::state::Event as JobChange;

    fn raw(sequence: i64, job: i64) -> Raw {
        let what = What::Changed {
            flow: FlowId(1),
            jobs: vec![job],
            change: JobChange::Begin,
            to: State::Calling,
            call: None,
            status: None,
            error: None,
            due_at: None,
        };
        Raw { job, ..raw_of(&Event { seq: sequence, at: Timestamp(0), what }) }
    }

    #[test]
    fn coalescing_keeps_the_last_change_of_each_job_and_counts_the_others() {
        let kept = coalesced(vec![raw(1, 7), raw(2, 8), raw(3, 7), raw(4, 9), raw(5, 7)]);
        let seen: Vec<_> = kept.iter().map(|r| (r.sequence, r.job, r.dropped)).collect();
        assert_eq!(seen, [(2, 8, 0), (4, 9, 0), (5, 7, 2)]);
    }
}

//! What every store must decide alike about records, pulls, indexes and aggregates, as pure functions on a [`Sheet`]:
//! loaded rows go in, changed rows and the differences of indexes and sums come out.
//!
//! Must never know: SQL, maps, async, clocks. Next: `shelf`, which loads and saves around it; `sheet/` has its parts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Answer, PageEnd, PageWhat, RecordDone, RecordOp, RecordWrite, StartPull, Written};
use crate::clock::Timestamp;
use crate::model::event::What;
use crate::model::job::NewJob;
use crate::model::name::{CollectionName, Key};
use crate::model::pages::{Page, later_mark};
use crate::model::record::{CollectionInfo, Facts, Pull, PullState, Record};
use crate::store::{Enqueued, Refusal};

/// A record with what is kept beside it.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store) struct Row {
    pub record: Record,
    /// What indexes and aggregates hold of it now; of a deleted record nothing.
    pub facts: Arc<Facts>,
    /// The last full pull that saw it.
    pub seen: i64,
}

pub(in crate::store) type RowKey = (CollectionName, Key);

/// Whom the job of a sheet belongs to.
#[derive(Clone, Debug)]
enum JobOf {
    /// Position among the answers.
    Answer(usize),
    Pull(CollectionName),
    /// A record of a page or a sweep: nobody asks for its number.
    Nobody,
}

/// The records of one commit.
#[derive(Debug, Default)]
pub(in crate::store) struct Sheet {
    now: Timestamp,
    sets: BTreeMap<CollectionName, CollectionInfo>,
    /// As loaded, or as changed since.
    rows: BTreeMap<RowKey, Row>,
    /// What the store's indexes and aggregates hold of the changed rows.
    held: BTreeMap<RowKey, Arc<Facts>>,
    jobs: Vec<(JobOf, NewJob)>,
    /// First change of this commit by collection.
    first_changes: BTreeMap<CollectionName, i64>,
    pulls: BTreeSet<CollectionName>,
    pub answers: Vec<Answer>,
}

/// A changed row, and what indexes and aggregates held of it.
#[derive(Debug)]
pub(in crate::store) struct Moved {
    pub row: Row,
    pub held: Arc<Facts>,
}

impl Sheet {
    pub fn new(now: Timestamp, sets: Vec<CollectionInfo>) -> Sheet {
        Sheet { now, sets: sets.into_iter().map(|s| (s.name.clone(), s)).collect(), ..Sheet::default() }
    }

    pub fn load(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows.into_iter().map(|row| ((row.record.collection.clone(), row.record.id.clone()), row)));
    }

    /// The rows that changed since the last time. What was loaded is forgotten.
    pub fn take_moved(&mut self) -> Vec<Moved> {
        let mut rows = std::mem::take(&mut self.rows);
        let held = std::mem::take(&mut self.held);
        held.into_iter().filter_map(|(key, held)| Some(Moved { row: rows.remove(&key)?, held })).collect()
    }

    /// The jobs to be enqueued by the same commit, in order.
    pub fn take_jobs(&self) -> Vec<NewJob> {
        self.jobs.iter().map(|(_, job)| job.clone()).collect()
    }

    /// What became of the jobs. Who asked for a push is told its refusal (another declaration pushed this version). A write
    /// stands by now, so its answer cannot be one: the log says what was not enqueued.
    pub fn enqueued(&mut self, results: Vec<Result<Enqueued, Refusal>>) {
        for ((of, job), result) in std::mem::take(&mut self.jobs).into_iter().zip(results) {
            if let (JobOf::Answer(at), Err(refusal)) = (&of, &result)
                && let Some(answer @ Ok(RecordDone::Pushed(_))) = self.answers.get_mut(*at)
            {
                *answer = Err(refusal.clone());
                continue;
            }
            let refused = |refusal: &Refusal| {
                let (provider, operation) = (&job.provider, &job.operation);
                tracing::error!(%provider, %operation, "a record was written, and its job refused: {refusal}");
            };
            let id = result.inspect_err(refused).ok().map(|enqueued| enqueued.id);
            match of {
                JobOf::Nobody => {}
                JobOf::Pull(name) => {
                    if let Some(pull) = self.sets.get_mut(&name).and_then(|set| set.pull.as_mut()) {
                        pull.job = id.map(|id| (id.created_at, id.seq));
                    }
                }
                JobOf::Answer(at) => match self.answers.get_mut(at) {
                    Some(Ok(RecordDone::Written(written))) => written.push = id,
                    Some(Ok(RecordDone::Pushed(job))) => *job = id,
                    _ => {}
                },
            }
        }
        for answer in &mut self.answers {
            if let Ok(RecordDone::Pulling { pull, .. }) = answer {
                // Within one commit the pull cannot have got further than its first page.
                let now = self.sets.values().find_map(|set| set.pull.as_ref().filter(|p| same_pull(p, pull)));
                pull.job = now.map_or(pull.job, |now| now.job);
            }
        }
    }

    /// Collections as they stand now, for saving.
    pub fn sets(&self) -> Vec<&CollectionInfo> {
        self.sets.values().collect()
    }

    /// What is told in the event log.
    pub fn told(&self) -> Vec<What> {
        let changes = self.first_changes.iter().map(|(name, first)| What::Records {
            collection: name.to_string(),
            first: *first,
            last: self.sets[name].last_change,
        });
        let pulls = self.pulls.iter().filter_map(|name| {
            let pull = self.sets[name].pull.as_ref()?;
            Some(What::Pull {
                collection: name.to_string(),
                pull: pull.id,
                state: pull.state,
                detail: pull.error.clone(),
            })
        });
        changes.chain(pulls).collect()
    }

    fn set(&mut self, name: &CollectionName, shape: &Arc<str>) -> &mut CollectionInfo {
        let set = self.sets.entry(name.clone()).or_insert_with(|| CollectionInfo {
            name: name.clone(),
            live: 0,
            last_change: 0,
            forgotten: 0,
            shape: "".into(),
            pull: None,
        });
        if set.shape.is_empty() {
            set.shape = shape.clone();
        }
        set
    }

    /// Does one thing that was asked for. `swept`: what a sweep found.
    pub fn act(&mut self, op: RecordOp, swept: Vec<Key>) {
        let at = self.answers.len();
        let answer = match op {
            RecordOp::Write(write) => self.write(&write, None, JobOf::Answer(at)).map(RecordDone::Written),
            RecordOp::Push { collection, id, rule } => {
                let key = (collection, id);
                match self.rows.get(&key).filter(|row| !row.record.deleted) {
                    None => Err(Refusal::NoRecord { collection: key.0, id: key.1 }),
                    Some(Row { record, .. }) => {
                        let job = rule.job(&record.collection, &record.id, &record.data, record.change, false);
                        self.jobs.extend(job.map(|job| (JobOf::Answer(at), job)));
                        Ok(RecordDone::Pushed(None))
                    }
                }
            }
            RecordOp::StartPull(start) => Ok(self.start_pull(*start)),
            RecordOp::Sweep { collection, pull, push, limit } => {
                Ok(RecordDone::Count(self.sweep(&collection, pull, push, swept, limit)))
            }
            // The shelf has taken them away.
            RecordOp::Forget { .. } => Ok(RecordDone::Count(swept.len() as u64)),
            RecordOp::Reshape { collection, items, done } => {
                Ok(RecordDone::Count(self.reshape(&collection, items, done)))
            }
        };
        self.answers.push(answer);
    }

    /// A sweep of this pull looks at no record that changed after this.
    pub fn swept_upto(&self, name: &CollectionName, pull: i64) -> i64 {
        let found = self.sets.get(name).and_then(|set| set.pull.as_ref()).filter(|known| known.id == pull);
        found.map_or(0, |pull| pull.began_after)
    }

    /// Records up to change `upto` were forgotten.
    pub fn forgotten(&mut self, name: &CollectionName, upto: i64) {
        if let Some(set) = self.sets.get_mut(name) {
            set.forgotten = set.forgotten.max(upto);
        }
    }

    fn write(&mut self, write: &RecordWrite, seen: Option<i64>, of: JobOf) -> Result<Written, Refusal> {
        let RecordWrite { collection, id, document, expect, push, shape } = write;
        let key = (collection.clone(), id.clone());
        let now = self.now;
        let old = self.rows.get(&key).cloned();
        let live = old.as_ref().filter(|row| !row.record.deleted);
        let current = live.map_or(0, |row| row.record.version);
        if let Some(expected) = expect.filter(|expected| *expected != current) {
            return Err(Refusal::StaleRecord { collection: key.0, id: key.1, current, expected });
        }
        let (data, hash, facts) = match (live, document) {
            (None, None) => return Err(Refusal::NoRecord { collection: key.0, id: key.1 }),
            (Some(row), Some(checked)) if row.record.hash == checked.hash => {
                let mut row = row.clone();
                let seen = seen.unwrap_or(row.seen);
                if row.facts != checked.facts || row.seen != seen {
                    self.hold(&key);
                    row = Row { facts: checked.facts.clone(), seen, ..row };
                    self.rows.insert(key, row.clone());
                }
                return Ok(Written { record: row.record, changed: false, push: None });
            }
            (_, Some(checked)) => (checked.data.clone(), checked.hash.clone(), checked.facts.clone()),
            (Some(row), None) => (row.record.data.clone(), row.record.hash.clone(), Arc::default()),
        };
        let (was_live, deleted) = (live.is_some(), document.is_none());
        let set = self.set(collection, shape);
        set.last_change += 1;
        set.live += i64::from(!deleted) - i64::from(was_live);
        let change = set.last_change;
        self.first_changes.entry(collection.clone()).or_insert(change);
        let record = Record {
            collection: collection.clone(),
            id: id.clone(),
            data,
            hash,
            version: old.as_ref().map_or(0, |row| row.record.version) + 1,
            change,
            deleted,
            created_at: old.as_ref().map_or(now, |row| row.record.created_at),
            updated_at: now,
        };
        if let Some(rule) = push {
            let minds = deleted || live.is_none_or(|row| rule.minds(&row.record.data, &record.data));
            let job = minds.then(|| rule.job(collection, id, &record.data, record.change, deleted)).flatten();
            self.jobs.extend(job.map(|job| (of, job)));
        }
        self.hold(&key);
        let seen = seen.unwrap_or_else(|| old.map_or(0, |row| row.seen));
        self.rows.insert(key, Row { record: record.clone(), facts, seen });
        Ok(Written { record, changed: true, push: None })
    }

    /// Notes what the store holds of a row, before its first change.
    fn hold(&mut self, key: &RowKey) {
        if !self.held.contains_key(key) {
            let facts = self.rows.get(key).map(|row| row.facts.clone()).unwrap_or_default();
            self.held.insert(key.clone(), facts);
        }
    }

    fn start_pull(&mut self, start: StartPull) -> RecordDone {
        let now = self.now;
        let set = self.set(&start.collection, &start.shape);
        let last = set.pull.take();
        let goes_on = |pull: &Pull| !pull.state.is_over() && start.replace != Some(pull.id);
        if let Some(running) = last.clone().filter(goes_on) {
            set.pull = last;
            return RecordDone::Pulling { pull: running, started: false };
        }
        let id = last.as_ref().map_or(0, |pull| pull.id) + 1;
        let since = last.as_ref().and_then(|pull| pull.since.clone());
        let full_at = last.as_ref().and_then(|pull| pull.full_at);
        let stale = start.sweep && full_at.is_none_or(|at| at < start.full_before);
        let full = start.full || !start.marks || since.is_none() || stale;
        let since_etag = last.and_then(|pull| pull.since_etag);
        let asks = (!full).then(|| since.clone()).flatten();
        let page = Page::first(&start.collection, id, asks, since_etag.clone().filter(|_| !start.full));
        let pull = Pull {
            id,
            state: PullState::Running,
            full,
            sweeps: full && start.sweep,
            job: None,
            pages: 0,
            items: 0,
            changed: 0,
            deleted: 0,
            rejected: 0,
            started_at: now,
            began_after: set.last_change,
            updated_at: now,
            finished_at: None,
            error: None,
            actor: start.actor,
            seen: None,
            etag: None,
            since,
            since_etag,
            full_at,
        };
        set.pull = Some(pull.clone());
        let job = NewJob { payload: page.payload().into(), ..start.job };
        self.jobs.push((JobOf::Pull(start.collection.clone()), job));
        self.pulls.insert(start.collection);
        RecordDone::Pulling { pull, started: true }
    }

    /// The end of a page's call. One that is not the page the pull waits for is passed over.
    pub fn end_page(&mut self, end: PageEnd) {
        let PageEnd { page, collection, what, .. } = end;
        let waits = |pull: &&Pull| {
            let open = matches!(pull.state, PullState::Running | PullState::Failed);
            open && pull.id == page.pull && pull.pages == page.page
        };
        let Some(mut pull) = self.sets.get(&collection).and_then(|s| s.pull.as_ref()).filter(waits).cloned() else {
            return;
        };
        pull.updated_at = self.now;
        match what {
            PageWhat::Failed { reason } => {
                (pull.state, pull.error, pull.finished_at) = (PullState::Failed, Some(reason), Some(self.now));
            }
            PageWhat::Stored { writes, rejected, first_rejected, seen, etag, not_modified, next } => {
                pull.state = PullState::Running;
                (pull.error, pull.finished_at) = (pull.error.filter(|_| pull.rejected > 0), None);
                let mark = pull.sweeps.then_some(pull.id);
                pull.items += writes.len() as u64 + u64::from(rejected);
                for write in &writes {
                    match self.write(write, mark, JobOf::Nobody) {
                        Ok(done) if done.changed && done.record.deleted => pull.deleted += 1,
                        Ok(done) => pull.changed += u64::from(done.changed),
                        // It is gone already.
                        Err(_) => {}
                    }
                }
                pull.rejected += u64::from(rejected);
                pull.error = pull.error.or(first_rejected);
                pull.seen = later_mark(pull.seen, seen);
                pull.etag = pull.etag.or(etag);
                pull.pages += 1;
                match next {
                    Some(job) => self.jobs.push((JobOf::Pull(collection.clone()), *job)),
                    None if not_modified => self.finish_pull(&mut pull),
                    None => {
                        pull.since = later_mark(pull.since.take().filter(|_| !pull.full), pull.seen.clone());
                        pull.since_etag = pull.etag.clone();
                        if pull.full {
                            pull.full_at = Some(pull.started_at);
                        }
                        match pull.sweeps {
                            true => pull.state = PullState::Sweeping,
                            false => self.finish_pull(&mut pull),
                        }
                    }
                }
            }
        }
        if pull.state != PullState::Running {
            self.pulls.insert(collection.clone());
        }
        self.sets.get_mut(&collection).expect("it was just found").pull = Some(pull);
    }

    fn finish_pull(&self, pull: &mut Pull) {
        pull.state = PullState::Done;
        pull.finished_at = Some(self.now);
        pull.updated_at = self.now;
    }

    fn sweep(
        &mut self,
        name: &CollectionName,
        id: i64,
        push: Option<Arc<crate::model::collection::PushRule>>,
        swept: Vec<Key>,
        limit: u32,
    ) -> u64 {
        let open = |pull: &&Pull| pull.id == id && pull.state == PullState::Sweeping;
        let Some(set) = self.sets.get(name) else { return 0 };
        let Some(mut pull) = set.pull.as_ref().filter(open).cloned() else { return 0 };
        let (shape, count) = (set.shape.clone(), swept.len());
        for id in swept {
            let write = RecordWrite {
                collection: name.clone(),
                id,
                document: None,
                expect: None,
                push: push.clone(),
                shape: shape.clone(),
            };
            pull.deleted += u64::from(self.write(&write, None, JobOf::Nobody).is_ok());
        }
        if count < limit as usize {
            self.finish_pull(&mut pull);
            self.pulls.insert(name.clone());
        }
        self.sets.get_mut(name).expect("it was just found").pull = Some(pull);
        count as u64
    }

    fn reshape(&mut self, name: &CollectionName, items: Vec<(Key, i64, Arc<Facts>)>, done: Option<Arc<str>>) -> u64 {
        let mut moved = 0;
        for (id, version, facts) in items {
            let key = (name.clone(), id);
            let same = |row: &&Row| row.record.version == version && !row.record.deleted && row.facts != facts;
            let Some(row) = self.rows.get(&key).filter(same).cloned() else { continue };
            self.hold(&key);
            self.rows.insert(key, Row { facts, ..row });
            moved += 1;
        }
        if let Some(shape) = done {
            self.set(name, &shape).shape = shape.clone();
        }
        moved
    }
}

fn same_pull(a: &Pull, b: &Pull) -> bool {
    a.id == b.id && a.started_at == b.started_at
}

/// Of the pages in a batch, those whose call ended so that the end counts.
pub(in crate::store) fn counting(
    pages: Vec<PageEnd>,
    finishes: &[crate::store::FinishCall],
    done: &[crate::store::Finished],
) -> Vec<PageEnd> {
    let counts = |page: &PageEnd| {
        let mut ends = finishes.iter().zip(done).filter(|(finish, _)| finish.call == page.call);
        ends.any(|(finish, done)| {
            let wanted = |next: crate::store::Next| match page.what {
                PageWhat::Stored { .. } => next == crate::store::Next::Delivered,
                PageWhat::Failed { .. } => next == crate::store::Next::Dead,
            };
            let stands = |job: i64| !done.stale.contains(&job) || done.adopted.contains(&job);
            finish.outcomes.iter().any(|outcome| wanted(outcome.next) && stands(outcome.job))
        })
    };
    pages.into_iter().filter(counts).collect()
}

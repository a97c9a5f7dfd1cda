//! A store that refuses to journal calls for a while, as one that is locked or out of space would. Next: `stand.rs`.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use tidegate::clock::Timestamp;
use tidegate::model::call::Call;
use tidegate::model::event::Event;
use tidegate::model::filter::Filter;
use tidegate::model::flow::Flow;
use tidegate::model::id::{CallId, FlowId, JobId, RunId};
use tidegate::model::job::{ClaimedJob, Job};
use tidegate::model::name::ScheduleName;
use tidegate::model::name::{CollectionName, Key};
use tidegate::model::record::{CollectionInfo, Group, Record};
use tidegate::model::run::Run;
use tidegate::model::schedule::Schedule;
use tidegate::store::memory::MemoryStore;
use tidegate::store::{
    AppliedProvider, Batch, CallPage, Committed, Delivered, Error, JobPage, JournalEntry, RecordPage, Records, Store,
    StoreInfo, Tally, Whose,
};

#[derive(Debug)]
pub struct Shaky {
    pub inner: MemoryStore,
    /// Commits with calls to journal that are still refused.
    pub refusals: AtomicU32,
}

#[async_trait]
impl Records for Shaky {
    async fn collection(&self, name: &CollectionName) -> Result<Option<CollectionInfo>, Error> {
        self.inner.collection(name).await
    }
    async fn collections(&self) -> Result<Vec<CollectionInfo>, Error> {
        self.inner.collections().await
    }
    async fn record(&self, collection: &CollectionName, id: &Key) -> Result<Option<Record>, Error> {
        self.inner.record(collection, id).await
    }
    async fn list_records(
        &self,
        collection: &CollectionName,
        index: Option<(&str, &str)>,
        after: &str,
        limit: usize,
    ) -> Result<RecordPage, Error> {
        self.inner.list_records(collection, index, after, limit).await
    }
    async fn record_changes(&self, of: &CollectionName, after: i64, limit: usize) -> Result<Vec<Record>, Error> {
        self.inner.record_changes(of, after, limit).await
    }
    async fn top_groups(&self, of: &CollectionName, aggregate: &str, limit: usize) -> Result<Vec<Group>, Error> {
        self.inner.top_groups(of, aggregate, limit).await
    }
    async fn groups_between(
        &self,
        of: &CollectionName,
        aggregate: &str,
        from: i64,
        to: i64,
        limit: usize,
    ) -> Result<Vec<Group>, Error> {
        self.inner.groups_between(of, aggregate, from, to, limit).await
    }
}

#[async_trait]
impl Store for Shaky {
    async fn commit(&self, batch: Batch) -> Result<Committed, Error> {
        let left = |n: u32| n.checked_sub(1);
        if !batch.begins.is_empty() && self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
            return Err(Error::Unavailable { reason: "the disk is full".to_owned() });
        }
        self.inner.commit(batch).await
    }
    async fn info(&self) -> Result<StoreInfo, Error> {
        self.inner.info().await
    }
    async fn remember_steady(&self, boot: &str, offset_us: i64) -> Result<(), Error> {
        self.inner.remember_steady(boot, offset_us).await
    }
    async fn bump_epoch(&self, expect: i64, limiter_run: &str) -> Result<i64, Error> {
        self.inner.bump_epoch(expect, limiter_run).await
    }
    async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        self.inner.job(id).await
    }
    async fn jobs(&self, seqs: &[i64]) -> Result<Vec<Job>, Error> {
        self.inner.jobs(seqs).await
    }
    async fn list_jobs(&self, filter: &Filter, before: Option<i64>, limit: usize) -> Result<JobPage, Error> {
        self.inner.list_jobs(filter, before, limit).await
    }
    async fn blocker(&self, job: &Job) -> Result<Option<Job>, Error> {
        self.inner.blocker(job).await
    }
    async fn ahead(&self, job: &Job) -> Result<u64, Error> {
        self.inner.ahead(job).await
    }
    async fn oldest_ready(&self, flow: FlowId) -> Result<Option<Timestamp>, Error> {
        self.inner.oldest_ready(flow).await
    }
    async fn call(&self, id: CallId) -> Result<Option<Call>, Error> {
        self.inner.call(id).await
    }
    async fn calls(&self, ids: &[CallId]) -> Result<Vec<Call>, Error> {
        self.inner.calls(ids).await
    }
    async fn list_calls(
        &self,
        filter: &Filter,
        before: Option<CallId>,
        limit: usize,
        bodies: bool,
    ) -> Result<CallPage, Error> {
        self.inner.list_calls(filter, before, limit, bodies).await
    }
    async fn open_calls(&self, whose: Whose, after: CallId, limit: usize) -> Result<Vec<Call>, Error> {
        self.inner.open_calls(whose, after, limit).await
    }
    async fn claimed(&self, call: CallId) -> Result<Vec<ClaimedJob>, Error> {
        self.inner.claimed(call).await
    }
    async fn journal(&self, since: Timestamp, after: CallId, limit: usize) -> Result<Vec<JournalEntry>, Error> {
        self.inner.journal(since, after, limit).await
    }
    async fn flows(&self, after: FlowId, limit: usize) -> Result<Vec<Flow>, Error> {
        self.inner.flows(after, limit).await
    }
    async fn flow(&self, id: FlowId) -> Result<Option<Flow>, Error> {
        self.inner.flow(id).await
    }
    async fn tallies(&self) -> Result<Vec<Tally>, Error> {
        self.inner.tallies().await
    }
    async fn next_due(&self) -> Result<Timestamp, Error> {
        self.inner.next_due().await
    }
    async fn run(&self, id: RunId) -> Result<Option<Run>, Error> {
        self.inner.run(id).await
    }
    async fn list_runs(&self, before: Option<i64>, limit: usize) -> Result<Vec<Run>, Error> {
        self.inner.list_runs(before, limit).await
    }
    async fn run_flows(&self, run: RunId, limit: usize) -> Result<Vec<Flow>, Error> {
        self.inner.run_flows(run, limit).await
    }
    async fn run_delivered(
        &self,
        run: RunId,
        below: Option<(i64, i64)>,
        limit: usize,
    ) -> Result<Vec<Delivered>, Error> {
        self.inner.run_delivered(run, below, limit).await
    }
    async fn schedules(&self) -> Result<Vec<Schedule>, Error> {
        self.inner.schedules().await
    }
    async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>, Error> {
        self.inner.schedule(name).await
    }
    async fn providers(&self) -> Result<Vec<AppliedProvider>, Error> {
        self.inner.providers().await
    }
    async fn alerts(&self) -> Result<Vec<tidegate::model::alert::Raised>, Error> {
        self.inner.alerts().await
    }

    async fn events(&self, after: i64, limit: usize) -> Result<Vec<Event>, Error> {
        self.inner.events(after, limit).await
    }
    async fn event_bounds(&self) -> Result<(i64, i64), Error> {
        self.inner.event_bounds().await
    }
    async fn backup(&self, path: &Path) -> Result<(), Error> {
        self.inner.backup(path).await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}

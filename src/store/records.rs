//! Records in a store: what a batch asks for, what it answers, and how they are read.
//!
//! `records/rules.rs` decides, once for all stores; `records/shelf.rs` is what a store must be able to do for it. A
//! write's push is enqueued by the same transaction, a page's records come with the end of its call. Must never know:
//! SQL, HTTP. Next: `records/rules`.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Error, Refusal};
use crate::clock::Timestamp;
use crate::model::collection::{Checked, PushRule};
use crate::model::id::{CallId, JobId};
use crate::model::job::NewJob;
use crate::model::name::{CollectionName, Key};
use crate::model::pages::Page;
use crate::model::record::{CollectionInfo, Facts, Group, Pull, Record};

pub(super) mod rules;
pub(super) mod shelf;

/// One thing to do to a collection. Done in their order.
#[derive(Clone, Debug)]
pub enum RecordOp {
    Write(RecordWrite),
    /// Enqueues the push of a record as it stands, unless that version has one that is still kept.
    Push {
        collection: CollectionName,
        id: Key,
        rule: Arc<PushRule>,
    },
    StartPull(Box<StartPull>),
    /// Deletes up to `limit` records that a full pull did not see and that nobody wrote since it began. When none is left
    /// the pull is done.
    Sweep {
        collection: CollectionName,
        pull: i64,
        push: Option<Arc<PushRule>>,
        limit: u32,
    },
    /// Forgets up to `limit` records that were deleted before `before`.
    Forget {
        collection: CollectionName,
        before: Timestamp,
        limit: u32,
    },
    /// Puts records into the indexes and aggregates of a new declaration. Those that have moved on are passed over.
    Reshape {
        collection: CollectionName,
        /// Id, version, facts.
        items: Vec<(Key, i64, Arc<Facts>)>,
        /// All records are in: this is the collection's shape from now on.
        done: Option<Arc<str>>,
    },
}

#[derive(Clone, Debug)]
pub struct RecordWrite {
    pub collection: CollectionName,
    pub id: Key,
    /// `None`: delete it.
    pub document: Option<Checked>,
    /// The version that it must have now; 0: there must be none.
    pub expect: Option<i64>,
    pub push: Option<Arc<PushRule>>,
    /// The collection's shape if this is its first record.
    pub shape: Arc<str>,
}

#[derive(Clone, Debug)]
pub struct StartPull {
    pub collection: CollectionName,
    pub shape: Arc<str>,
    pub actor: String,
    /// Ask for everything whatever the last pull was.
    pub full: bool,
    pub sweep: bool,
    /// Without a mark every pull is full.
    pub marks: bool,
    /// With marks: full when the last full pull began before this.
    pub full_before: Timestamp,
    /// The job of the first page, without its payload.
    pub job: NewJob,
    /// A pull that cannot go on, as when its job was cancelled, and so does not count as running.
    pub replace: Option<i64>,
}

/// What came of the page that a call fetched: part of the transaction that ends the call, and done only if that end
/// is the one that counts.
#[derive(Clone, Debug)]
pub struct PageEnd {
    pub call: CallId,
    pub page: Page,
    pub collection: CollectionName,
    pub what: PageWhat,
}

impl PageEnd {
    /// Were all pages of the pull fetched with this one?
    pub fn is_last(&self) -> bool {
        matches!(self.what, PageWhat::Stored { next: None, .. })
    }
}

#[derive(Clone, Debug)]
pub enum PageWhat {
    Stored {
        writes: Vec<RecordWrite>,
        /// Items that could not be taken, and why the first of them.
        rejected: u32,
        first_rejected: Option<String>,
        /// Largest mark in the page.
        seen: Option<String>,
        etag: Option<String>,
        not_modified: bool,
        /// `None`: it was the last page.
        next: Option<Box<NewJob>>,
    },
    /// The job of the page died.
    Failed { reason: String },
}

#[derive(Clone, Debug, PartialEq)]
pub enum RecordDone {
    Written(Written),
    Pulling {
        pull: Pull,
        /// False: one was running already.
        started: bool,
    },
    /// The job that pushes the record; always there once the batch is committed.
    Pushed(Option<JobId>),
    /// How many records a bounded chore changed; fewer than its limit means that nothing is left to do.
    Count(u64),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub record: Record,
    /// False: it was so already, and nothing was written.
    pub changed: bool,
    pub push: Option<JobId>,
}

/// A page of records; go on after the last one's id while `more`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordPage {
    pub records: Vec<Record>,
    pub more: bool,
}

impl RecordPage {
    /// Of what was read with a limit of one more.
    pub(super) fn of(mut records: Vec<Record>, limit: usize) -> RecordPage {
        let more = records.len() > limit;
        records.truncate(limit);
        RecordPage { records, more }
    }
}

/// Reading. Every read is indexed and bounded.
#[async_trait]
pub trait Records: Send + Sync {
    async fn collection(&self, name: &CollectionName) -> Result<Option<CollectionInfo>, Error>;
    async fn collections(&self) -> Result<Vec<CollectionInfo>, Error>;
    /// Also a deleted one.
    async fn record(&self, collection: &CollectionName, id: &Key) -> Result<Option<Record>, Error>;
    /// Live records by id, above `after`; with `index`, those whose value in it is this.
    async fn list_records(
        &self,
        collection: &CollectionName,
        index: Option<(&str, &str)>,
        after: &str,
        limit: usize,
    ) -> Result<RecordPage, Error>;
    /// Records by their last change, above `after`, deleted ones too.
    async fn record_changes(&self, collection: &CollectionName, after: i64, limit: usize)
    -> Result<Vec<Record>, Error>;
    /// Groups in the aggregate's order, largest first, over all time.
    async fn top_groups(&self, collection: &CollectionName, aggregate: &str, limit: usize)
    -> Result<Vec<Group>, Error>;
    /// Groups of the buckets between, one entry per group and bucket, by bucket. At most `limit`.
    async fn groups_between(
        &self,
        collection: &CollectionName,
        aggregate: &str,
        from: i64,
        to: i64,
        limit: usize,
    ) -> Result<Vec<Group>, Error>;
}

/// Refused for a reason that the client should see.
pub(super) type Answer = Result<RecordDone, Refusal>;

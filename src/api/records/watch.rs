//! Watching a collection: changes in their order, at least once, resumable by token.
//!
//! Read from the index of last changes, so a reader that is behind gets the last state of each record, and nothing is
//! held for it in memory beyond one page. Commits of any daemon wake it. Must never know: proto types. Next:
//! `store/records`.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::super::error::{Code, Error, Result};
use super::super::watch::BOOKMARK_EVERY;
use super::super::watch::token::Stamp;
use super::super::{Api, page};
use crate::clock::Timestamp;
use crate::model::event::{Event, What};
use crate::model::name::CollectionName;
use crate::model::record::Record;

/// Records read, and so held in memory, at a time.
const RECORDS_READ: usize = 64;

/// What a watcher is told.
#[derive(Clone, Debug)]
pub enum RecordItem {
    Record { resume_token: String, record: Box<Record> },
    Bookmark { resume_token: String, change: i64 },
}

#[derive(Debug)]
pub struct RecordWatch {
    api: Api,
    name: CollectionName,
    stamp: Stamp,
    after: i64,
    ready: VecDeque<Record>,
    live: broadcast::Receiver<Arc<Vec<Event>>>,
    bookmark_at: Timestamp,
}

impl Api {
    /// From the token on; without one from now on, or with `snapshot` from the beginning.
    pub async fn watch_records(&self, collection: &str, resume_token: &str, snapshot: bool) -> Result<RecordWatch> {
        let name = self.declared(collection)?.name.clone();
        // Subscribed first, so that nothing falls between the last change read and the live ones.
        let live = self.engine().events();
        let list = page::fingerprint("watch-records", name.as_str());
        let stamp = Stamp { list, epoch: self.engine().store().info().await?.epoch };
        let known = self.engine().store().collection(&name).await?;
        let last = known.map_or(0, |known| known.last_change);
        let after = match stamp.read(resume_token)? {
            Some(after) => after,
            None if snapshot => 0,
            None => last,
        };
        let bookmark_at = self.clock().steady() + BOOKMARK_EVERY;
        let watch = RecordWatch { api: self.clone(), name, stamp, after, ready: VecDeque::new(), live, bookmark_at };
        if !resume_token.is_empty() {
            watch.check(after).await?;
        }
        Ok(watch)
    }
}

impl RecordWatch {
    /// Deleted records behind the token may have been forgotten: then it cannot be gone on from.
    async fn check(&self, after: i64) -> Result<()> {
        let forgotten = self.api.engine().store().collection(&self.name).await?.map_or(0, |known| known.forgotten);
        if after >= forgotten {
            return Ok(());
        }
        let said = format!("deleted records up to change {forgotten} are forgotten; begin again with a snapshot");
        let error = Error::new(Code::OutOfRange, "RESUME_TOKEN_EXPIRED", said);
        Err(error.with("earliest_resume_token", self.stamp.token(forgotten)))
    }

    /// What to tell next. Waits for it, at most until a bookmark is due.
    pub async fn next(&mut self) -> Result<RecordItem> {
        let engine = self.api.engine().clone();
        loop {
            if let Some(record) = self.ready.pop_front() {
                self.after = record.change;
                self.bookmark_at = engine.clock().steady() + BOOKMARK_EVERY;
                let resume_token = self.stamp.token(self.after);
                return Ok(RecordItem::Record { resume_token, record: Box::new(record) });
            }
            if engine.is_draining() {
                return Err(Error::draining());
            }
            self.ready = engine.store().record_changes(&self.name, self.after, RECORDS_READ).await?.into();
            if !self.ready.is_empty() {
                continue;
            }
            if engine.clock().steady() >= self.bookmark_at {
                self.bookmark_at = engine.clock().steady() + BOOKMARK_EVERY;
                return Ok(RecordItem::Bookmark { resume_token: self.stamp.token(self.after), change: self.after });
            }
            self.wait().await?;
        }
    }

    /// Until the collection changes, or a bookmark is due.
    async fn wait(&mut self) -> Result<()> {
        let engine = self.api.engine().clone();
        loop {
            let group = tokio::select! {
                biased;
                () = engine.draining() => return Err(Error::draining()),
                group = self.live.recv() => group,
                () = engine.clock().sleep_until(self.bookmark_at) => return Ok(()),
            };
            match group {
                Ok(events) if events.iter().any(|event| self.concerns(event)) => return Ok(()),
                Ok(_) => {}
                // Something was missed: look.
                Err(RecvError::Lagged(_)) => return Ok(()),
                Err(RecvError::Closed) => return Err(Error::draining()),
            }
        }
    }

    fn concerns(&self, event: &Event) -> bool {
        matches!(&event.what, What::Records { collection, .. } if *collection == self.name.as_str())
    }
}

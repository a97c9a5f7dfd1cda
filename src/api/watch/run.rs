//! Watching a run: the run as it is now, whenever it changed, until it has ended.
//!
//! Must never know: proto types. Next: `api/feed`.

use std::time::Duration;

use super::progress::Notes;
use super::{BOOKMARK_EVERY, token};
use crate::api::error::{Error, Result, parse_id};
use crate::api::feed::Feed;
use crate::api::runs::RunView;
use crate::api::{Api, page};
use crate::clock::Timestamp;
use crate::model::event::{Event, What};
use crate::model::id::{FlowId, RunId};

/// Notes of workers that are looked at in one go.
const NOTES_READ: usize = 1_000;
/// A run is told at most this often.
pub const RUN_EVERY: Duration = Duration::from_millis(250);

#[derive(Clone, Debug)]
pub enum RunItem {
    Run { resume_token: String, run: Box<RunView> },
    Bookmark { resume_token: String, sequence: i64 },
}

/// A watch under way.
#[derive(Debug)]
pub struct RunWatch {
    api: Api,
    run: RunId,
    stamp: token::Stamp,
    feed: Feed,
    notes: Notes,
    changed: bool,
    ended: bool,
    /// Steady time before which the run is not told again.
    next_at: Timestamp,
    bookmark_at: Timestamp,
}

impl Api {
    pub async fn watch_run(&self, run: &str, resume_token: &str) -> Result<RunWatch> {
        let run = parse_id("run_id", run)?;
        let list = page::fingerprint("watch-run", &run.to_string());
        let stamp = token::Stamp { list, epoch: self.engine().store().info().await?.epoch };
        let after = stamp.read(resume_token)?;
        let feed = Feed::start(self, after).await.map_err(|e| stamp.with_earliest(e))?;
        let now = self.run(run).await?;
        // A run that has ended is told at once: nothing more would come.
        let changed = after.is_none() || now.run.state.is_final();
        let at = self.clock().steady();
        let (next_at, bookmark_at) = (at, at + BOOKMARK_EVERY);
        let notes = Notes::follow(self, false);
        Ok(RunWatch { api: self.clone(), run, stamp, feed, notes, changed, ended: false, next_at, bookmark_at })
    }
}

impl RunWatch {
    /// What to tell next; `None` after the end of the run.
    pub async fn next(&mut self) -> Result<Option<RunItem>> {
        if self.ended {
            return Ok(None);
        }
        loop {
            let now = self.api.clock().steady();
            if self.changed && now >= self.next_at {
                return self.tell(now).await.map(Some);
            }
            if now >= self.bookmark_at {
                self.bookmark_at = now + BOOKMARK_EVERY;
                let sequence = self.feed.after();
                return Ok(Some(RunItem::Bookmark { resume_token: self.stamp.token(sequence), sequence }));
            }
            if !self.changed && self.notes.are_due(now) {
                self.changed = self.look_at_notes().await?;
                continue;
            }
            let until = if self.changed { self.next_at } else { self.notes.wait_until(self.bookmark_at) };
            let wake = self.notes.wake();
            let events = self.feed.next_or(until, wake).await.map_err(|e| self.stamp.with_earliest(e))?;
            for event in &events {
                self.changed = self.changed || self.concerns(event).await?;
            }
        }
    }

    async fn tell(&mut self, now: Timestamp) -> Result<RunItem> {
        // The position first: what changes while the run is read is told again, not lost.
        let resume_token = self.stamp.token(self.feed.after());
        self.notes.skip();
        let run = self.api.run(self.run).await?;
        self.changed = false;
        self.ended = run.run.state.is_final();
        (self.next_at, self.bookmark_at) = (now + RUN_EVERY, now + BOOKMARK_EVERY);
        Ok(RunItem::Run { resume_token, run: Box::new(run) })
    }

    async fn concerns(&self, event: &Event) -> Result<bool, Error> {
        match &event.what {
            What::Run { run, .. } => Ok(*run == self.run.seq),
            What::Enqueued { flow, .. } | What::Changed { flow, .. } => self.has(*flow).await,
            _ => Ok(false),
        }
    }

    /// Did a worker say how far a job of the run is?
    async fn look_at_notes(&mut self) -> Result<bool> {
        for note in self.notes.take(&self.api, NOTES_READ) {
            if self.has(note.flow).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn has(&self, flow: FlowId) -> Result<bool> {
        let known = self.api.0.names.flow(self.api.engine().store().as_ref(), flow).await?;
        Ok(known.is_some_and(|key| key.run == self.run.seq))
    }
}

//! The event log as one watcher reads it: live while it keeps up, from the store when it lags or comes back.
//!
//! Nothing is buffered per watcher beyond one chunk: a slow reader simply reads the log later, so it can neither grow
//! memory nor hold up the writer. Must never know: what a watcher makes of the events. Next: `api/watch`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::Api;
use super::error::{Code, Error, Result};
use crate::clock::Timestamp;
use crate::engine::Handle;
use crate::model::event::{Event, What};

/// Events of one read from the store.
const EVENTS_READ: usize = 500;
/// Job changes after which a chunk is closed; one event may go beyond it by its own length.
pub(super) const CHANGES_MAX: usize = 4_096;

/// Where every live feed stands, for measuring how far behind they are.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<Vec<Weak<AtomicI64>>>);

impl Readers {
    /// A place for a new feed. Those of feeds that are gone are given up here.
    fn enter(&self, after: i64) -> Arc<AtomicI64> {
        let place = Arc::new(AtomicI64::new(after));
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|place| place.strong_count() > 0);
        places.push(Arc::downgrade(&place));
        place
    }

    /// How many there are, and how many events before `last` the slowest has not handed out.
    pub(super) fn lag(&self, last: i64) -> (usize, u64) {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = places.iter().filter_map(|place| Some(place.upgrade()?.load(Ordering::Relaxed)));
        let (readers, slowest) = at.fold((0, last), |(n, slowest), at| (n + 1, slowest.min(at)));
        (readers, u64::try_from(last - slowest).unwrap_or(0))
    }
}

#[derive(Debug)]
pub(super) struct Feed {
    engine: Handle,
    live: broadcast::Receiver<Arc<Vec<Event>>>,
    after: i64,
    /// `after` as of the last chunk that was handed out.
    place: Arc<AtomicI64>,
    /// The log has events that `live` did not bring.
    behind: bool,
}

impl Feed {
    /// Reads on after event `after`, or from now on.
    pub(super) async fn start(api: &Api, after: Option<i64>) -> Result<Self> {
        let engine = api.engine();
        // Subscribed first, so that nothing falls between the end of the log and the live events.
        let live = engine.events();
        let (first, last) = engine.store().event_bounds().await?;
        let after = after.unwrap_or(last);
        if after + 1 < first || after > last {
            return Err(gone(first));
        }
        let place = api.0.readers.enter(after);
        Ok(Feed { engine: engine.clone(), live, after, place, behind: after < last })
    }

    /// The last event handed out.
    pub(super) fn after(&self) -> i64 {
        self.after
    }

    /// What happened next; empty when the steady line reached `until` first. Ends with UNAVAILABLE at shutdown.
    pub(super) async fn next(&mut self, until: Timestamp) -> Result<Vec<Event>> {
        self.next_or(until, std::future::pending()).await
    }

    /// As `next`; empty also when `wake` came first. It interrupts nothing but the wait, so no event is lost by it.
    pub(super) async fn next_or(&mut self, until: Timestamp, wake: impl Future<Output = ()>) -> Result<Vec<Event>> {
        let mut wake = std::pin::pin!(wake);
        let engine = self.engine.clone();
        // Who asks again is done with what it got before.
        self.place.store(self.after, Ordering::Relaxed);
        loop {
            if engine.is_draining() {
                return Err(Error::draining());
            }
            if self.behind {
                let events = self.read().await?;
                if !events.is_empty() {
                    return Ok(events);
                }
            }
            let group = tokio::select! {
                biased;
                () = engine.draining() => return Err(Error::draining()),
                group = self.live.recv() => group,
                () = engine.clock().sleep_until(until) => return Ok(Vec::new()),
                () = &mut wake => return Ok(Vec::new()),
            };
            match group {
                Ok(group) => {
                    let mut chunk = Vec::new();
                    self.take(&group, &mut chunk);
                    self.gather(&mut chunk);
                    if !chunk.is_empty() {
                        return Ok(chunk);
                    }
                }
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return Err(Error::draining()),
            }
        }
    }

    /// Adds what else has come already.
    fn gather(&mut self, chunk: &mut Vec<Event>) {
        let mut changes: usize = chunk.iter().map(weight).sum();
        while changes < CHANGES_MAX && !self.behind {
            let had = chunk.len();
            match self.live.try_recv() {
                Ok(group) => self.take(&group, chunk),
                Err(TryRecvError::Lagged(_)) => self.behind = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
            changes += chunk[had..].iter().map(weight).sum::<usize>();
        }
    }

    /// Takes the part of a live group that is new. A gap before it means that the log must be read.
    fn take(&mut self, group: &[Event], chunk: &mut Vec<Event>) {
        let new = &group[group.partition_point(|e| e.seq <= self.after)..];
        let (Some(first), Some(last)) = (new.first(), new.last()) else { return };
        if first.seq > self.after + 1 {
            self.behind = true;
            return;
        }
        self.after = last.seq;
        chunk.extend_from_slice(new);
    }

    /// Reads on from the log.
    async fn read(&mut self) -> Result<Vec<Event>> {
        let store = self.engine.store();
        let mut events = store.events(self.after, EVENTS_READ).await?;
        self.behind = events.len() == EVENTS_READ;
        let (first, _) = store.event_bounds().await?;
        if self.after + 1 < first {
            // Retention overtook the reader.
            return Err(gone(first));
        }
        let mut changes = 0;
        let fits = events.iter().take_while(|e| {
            let begins = changes < CHANGES_MAX;
            changes += weight(e);
            begins
        });
        let fits = fits.count();
        if fits < events.len() {
            self.behind = true;
            events.truncate(fits);
        }
        if let Some(last) = events.last() {
            self.after = last.seq;
        }
        Ok(events)
    }
}

fn weight(event: &Event) -> usize {
    match &event.what {
        What::Enqueued { jobs, .. } | What::Changed { jobs, .. } | What::DuplicateObserved { jobs, .. } => jobs.len(),
        _ => 1,
    }
}

/// The log does not reach back that far; `first` is the oldest event that it holds. The watch adds a token to it.
fn gone(first: i64) -> Error {
    let said = format!("the event log begins at {first}; take a snapshot and go on from there");
    Error::new(Code::OutOfRange, "RESUME_TOKEN_EXPIRED", said).with("earliest_sequence", first.to_string())
}

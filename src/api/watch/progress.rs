//! How far workers are, as a watch follows it: the last word of each job, seldom enough to be read by people.
//!
//! Nothing is kept per watch but a number: the desk holds one note per job, so whoever reads slowly gets fewer of them.
//! Must never know: what is made of them. Next: `engine/desk/notes`.

use std::time::Duration;

use tokio::sync::watch;

use crate::api::Api;
use crate::clock::Timestamp;
use crate::engine::desk::notes::Note;

/// Notes are looked at this often at most.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Notes {
    newest: watch::Receiver<u64>,
    /// Number of the last note that was looked at.
    seen: u64,
    /// Steady time before which no more are looked at.
    next_at: Timestamp,
}

impl Notes {
    /// From now on, or from whatever is known of jobs in workers' hands.
    pub(super) fn follow(api: &Api, from_now_on: bool) -> Notes {
        let newest = api.engine().desk().newest_note();
        let seen = if from_now_on { *newest.borrow() } else { 0 };
        Notes { newest, seen, next_at: api.clock().steady() }
    }

    pub(super) fn are_due(&self, now: Timestamp) -> bool {
        *self.newest.borrow() > self.seen && now >= self.next_at
    }

    /// When to look again, at the latest `until`; what comes before `wake` is not known yet.
    pub(super) fn wait_until(&self, until: Timestamp) -> Timestamp {
        if *self.newest.borrow() > self.seen { self.next_at.min(until) } else { until }
    }

    /// The first note after those that were seen. Never, while some are known: they have their time.
    pub(super) fn wake(&self) -> impl Future<Output = ()> + use<> {
        let (mut newest, seen) = (self.newest.clone(), self.seen);
        async move {
            if *newest.borrow() > seen || newest.wait_for(|number| *number > seen).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// At most `max`, the oldest first.
    pub(super) fn take(&mut self, api: &Api, max: usize) -> Vec<Note> {
        let newest = *self.newest.borrow();
        let notes = api.engine().desk().notes(self.seen, max);
        // The newest one may be of a lease that has ended: then there is nothing to find up to it.
        self.seen = notes.last().filter(|_| notes.len() == max).map_or(newest.max(self.seen), |note| note.number);
        self.next_at = api.clock().steady() + PROGRESS_EVERY;
        notes
    }

    /// Everything that was noted so far is known from elsewhere.
    pub(super) fn skip(&mut self) {
        self.seen = *self.newest.borrow();
    }
}

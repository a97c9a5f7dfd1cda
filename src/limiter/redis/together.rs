//! Settles that go together: what arrives while others are on their way shares the next frame.
//!
//! A call settles its own permits, and alone they would cost a way to the server and the run of a script each. So whoever
//! comes waits until those before him are back, then takes along all that wait; who finds his own gone by then is done. A
//! settle still returns only when the server has heard it (or it is owed, `desk.rs`), so the block of a 429 is there before
//! its call is reported as ended. Must never know: the wire. Next: `send.rs`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use super::{FRAME_MAX, RedisLimiter, lock};
use crate::clock::Timestamp;
use crate::limiter::{Error, Settle};

/// Settles on their way to the desk of each provider; as many queues as providers were ever called.
#[derive(Debug, Default)]
pub(super) struct Queues(Mutex<HashMap<Arc<str>, Arc<Queue>>>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Held by whoever has a frame under way.
    turn: tokio::sync::Mutex<()>,
}

/// Bounded by the calls in flight: each waits for its own.
#[derive(Debug, Default)]
struct Waiting {
    settles: VecDeque<Settle>,
    /// Settles that ever came, and that ever went.
    came: u64,
    gone: u64,
}

impl Queues {
    fn of(&self, provider: &str) -> Arc<Queue> {
        let mut queues = lock(&self.0);
        if let Some(queue) = queues.get(provider) {
            return queue.clone();
        }
        queues.entry(Arc::from(provider)).or_default().clone()
    }
}

impl Queue {
    /// Puts settles at the end; tells how many must have gone for these to be gone.
    fn push(&self, settles: &[Settle]) -> u64 {
        let mut waiting = lock(&self.waiting);
        waiting.settles.extend(settles.iter().cloned());
        waiting.came += settles.len() as u64;
        waiting.came
    }

    /// The next frame, while the settle with this number waits.
    fn take(&self, last: u64) -> Option<Vec<Settle>> {
        let mut waiting = lock(&self.waiting);
        if waiting.gone >= last {
            return None;
        }
        let most = waiting.settles.len().min(FRAME_MAX);
        waiting.gone += most as u64;
        Some(waiting.settles.drain(..most).collect())
    }
}

/// Whoever gives up waiting leaves his settles to be owed, with those before them: nobody may come after him.
struct Leaving<'a> {
    limiter: &'a RedisLimiter,
    provider: &'a str,
    queue: &'a Queue,
    last: u64,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        while let Some(settles) = self.queue.take(self.last) {
            let owed = self.limiter.owed(self.provider, settles);
            lock(&self.limiter.desk).owe(owed);
        }
    }
}

impl RedisLimiter {
    /// Settles of one provider.
    pub(super) async fn tell_together(&self, now: Timestamp, provider: &str, settles: &[Settle]) -> Result<(), Error> {
        if settles.iter().all(|s| s.permit.spends.is_empty()) {
            return Ok(());
        }
        let queue = self.queues.of(provider);
        let last = queue.push(settles);
        let leaving = Leaving { limiter: self, provider, queue: &queue, last };
        let _turn = queue.turn.lock().await;
        let mut told = Ok(());
        while let Some(frame) = queue.take(leaving.last) {
            told = told.and(self.tell(now, self.owed(provider, frame)).await);
        }
        told
    }
}
